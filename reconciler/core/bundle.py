"""Plain manifests as one service: a manifest of kind Manifests that is checked, and the bundle it means.

What renders comes as a function with the files (`Fleet.render`); only trouble that passes is raised, all else is a
problem with its place.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.core import (
    bundle_health,
    bundle_kustomize,
    bundle_objects,
    bundle_policy,
    bundle_sources,
    kubernetes_identity,
    quantity,
    rules_native,
)
from reconciler.core.bundle_inventory import TIME_TO_LIVE, removes_itself
from reconciler.core.bundle_objects import Found
from reconciler.core.bundle_rendering import Rendering, Tool
from reconciler.core.bundle_sources import KUSTOMIZATIONS, UnfitError
from reconciler.core.delivery import Rollout
from reconciler.core.errors import Reason, Rejected, Stalled
from reconciler.core.fields import Table, given
from reconciler.core.files import Files
from reconciler.core.kubernetes_identity import Identity
from reconciler.core.model import Bundle, DriftPolicy, ImageRef, Problem, ServiceSpec
from reconciler.core.overlay import Manifest, NoFileError, ordered, resolve
from reconciler.core.policy import Allow
from reconciler.core.schema import Checker
from reconciler.core.words import shown

MAX_OBJECTS = 5_000
MAX_BYTES = 16 * 2**20
NAMED = 5
"""How many objects or images are named in a message."""

_ROLLOUT: Table = {"progressDeadline": ("progress_deadline", quantity.duration)}


def build(
    manifest: Manifest,
    name: str,
    *,
    checker: Checker,
    files: Files,
    used: dict[str, str],
    drift: DriftPolicy,
    allow: Allow,
) -> ServiceSpec | tuple[Problem, ...]:
    """The bundle `name` as a service, or every problem. `used` gets all files and directories that it depends on.

    Raises Stalled and Retryable when it cannot be rendered now, for a reason that its files have nothing to do with.
    """
    problems = manifest.problems(manifest.findings(checker))
    if problems:
        return ordered(problems)
    value: Mapping[str, Any] = manifest.value
    if value["metadata"]["name"] != name:
        message = f"metadata.name is {shown(value['metadata']['name'])}, but the file is named {shown(name)}"
        problems.append(manifest.problem(("metadata", "name"), f"{message}; make them equal"))
    problems.extend(rules_native.misnamed(manifest, name))
    if not allow.native:
        message = "manifests go to a Kubernetes cluster, and this environment runs on Docker; move the file"
        problems.append(manifest.problem(("kind",), f"{message} (`reconciler validate`: name it with --kubernetes)"))
    if problems:
        return ordered(problems)
    reader = _Reader(manifest, name, value["spec"], files, used, allow)
    try:
        found = reader.objects()
    except NoFileError as error:
        return (manifest.problem(reader.place, str(error), reason=error.reason),)
    except UnfitError as error:
        said = [manifest.problem(reader.place, error.message)] if error.message else []
        return ordered([*said, *error.problems])
    wrong = ordered(reader.judged(found))
    return wrong or _service(name, value["spec"], reader.source, found, drift)


def _service(name: str, spec: Mapping[str, Any], source: str, found: list[_Placed], drift: DriftPolicy) -> ServiceSpec:
    inorder = sorted(found, key=lambda each: kubernetes_identity.rank(*each.object.identity[:2]))
    ignored = bundle_health.ignored(spec)

    def data(found: Found) -> bytes:
        unawaited = any(each.covers(found.identity) for each in ignored)
        return bundle_health.marked(found.data) if unawaited else found.data

    bundle = Bundle(source, tuple(data(each.object) for each in inorder), prune=spec.get("prune", True))
    return ServiceSpec(
        name=name,
        image=ImageRef(f"manifests/{name}", f"sha256:{bundle.digest}"),
        rollout=Rollout(**given(spec, _ROLLOUT)),
        depends_on=tuple(spec.get("dependsOn", ())),
        drift=DriftPolicy(spec.get("drift", drift)),
        suspend=spec.get("suspend", False),
        bundle=bundle,
    )


@dataclass(frozen=True, slots=True)
class _Placed:
    """An object, and how a problem with it is told."""

    object: Found
    problem: Callable[[str, Reason], Problem]


@dataclass
class _Reader:
    """Finds the objects of one bundle. `place` is the field of the manifest that the work in hand is about, `source`
    says for people where the objects stand."""

    manifest: Manifest
    name: str
    spec: Mapping[str, Any]
    files: Files
    used: dict[str, str]
    allow: Allow
    place: tuple[str | int, ...] = ("spec", "path")
    source: str = ""

    def objects(self) -> list[_Placed]:
        """All objects. Raises NoFileError and UnfitError, Stalled and Retryable."""
        if "helm" in self.spec:
            return self._chart(self.spec["helm"])
        path = self._path("path")
        self.source = path
        self._note(f"{path}/")
        listing = self.files.below(path)
        if not listing:
            self._note(path)
            return self._plain({path: self.used[path]})
        own = any(f"{path}/{name}" in listing for name in KUSTOMIZATIONS)
        if self.spec.get("kustomize", own):
            return self._kustomization(path)
        return self._plain(bundle_sources.plain(path, listing, kustomizations="kustomize" in self.spec))

    def judged(self, found: list[_Placed]) -> Iterator[Problem]:
        """What is wrong with the objects together, and what the operator does not allow them."""
        seen = set[Identity]()
        for each in found:
            identity = each.object.identity
            own = kubernetes_identity.is_cluster_scoped(*identity[:2])
            whole = identity._replace(namespace="" if own else identity.namespace or self.allow.namespace)
            if whole in seen:
                message = f"{identity.shown} is declared twice; remove one of the two"
                yield each.problem(message, Reason.MANIFEST_INVALID)
            seen.add(whole)
            for denial in bundle_policy.denials(each.object, self.allow):
                yield each.problem(denial, Reason.POLICY_DENIED)
        for index, ignored in enumerate(bundle_health.ignored(self.spec)):
            if not any(ignored.covers(each.object.identity) for each in found):
                message = f"there is no {shown(str(ignored), quote=False)} in {self.source}; correct or remove this"
                yield self.manifest.problem(("spec", "health", "ignore", index), message)
        size = sum(len(each.object.data) for each in found)
        if not found:
            message = (
                f"there is no object in {self.source}; a bundle is never emptied this way: to remove all of it, remove "
                "this manifest"
            )
            yield self.manifest.problem(self.place, message)
        elif len(found) > MAX_OBJECTS or size > MAX_BYTES:
            message = f"these are {len(found)} objects of {size} bytes; {MAX_OBJECTS} and {MAX_BYTES} are allowed"
            yield self.manifest.problem(self.place, f"{message}: split it")

    def _note(self, path: str) -> None:
        self.used[path] = self.files.blob(path)

    def _path(self, *field: str | int) -> str:
        """The path in the repository that a field means. Raises NoFileError."""
        self.place = ("spec", *field)
        written: Any = self.spec
        for key in field:
            written = written[key]
        return resolve(self.manifest.layer(self.place).file, written)

    def _plain(self, blobs: Mapping[str, str]) -> list[_Placed]:
        found: list[_Placed] = []
        problems: list[Problem] = []
        for path, blob in blobs.items():
            parsed = self.files.objects(path, blob)
            problems.extend(Problem(path, flaw.line, flaw.column, flaw.message) for flaw in parsed.flaws)
            found.extend(_Placed(each, _in_file(path, each)) for each in parsed.found)
        if problems:
            raise UnfitError(problems=tuple(problems))
        return found

    def _kustomization(self, path: str) -> list[_Placed]:
        gathered = bundle_kustomize.gather(self.files, path, self._note)
        return self._rendered(Rendering(Tool.KUSTOMIZE, tuple(gathered.items()), path))

    def _chart(self, helm: Mapping[str, Any]) -> list[_Placed]:
        path = self._path("helm", "chart")
        self.source = path
        gathered = bundle_sources.chart(self.files, path, self._note)
        given_values = []
        for index, _ in enumerate(helm.get("values", ())):
            file = self._path("helm", "values", index)
            self._note(file)
            given_values.append(self.files.content(file))
        self.place = ("spec", "helm", "chart")
        if "set" in helm:
            given_values.append(json.dumps(helm["set"], sort_keys=True).encode())
        files = {f"chart/{file[len(path) + 1 :]}": content for file, content in gathered.items()}
        values = {f"values/{index}.yaml": content for index, content in enumerate(given_values)}
        rendering = Rendering(
            Tool.HELM,
            tuple(sorted({**files, **values}.items())),
            "chart",
            release=helm.get("release", self.name),
            namespace=helm.get("namespace", self.allow.namespace) or "default",
            values=tuple(values),
            kube_version=helm.get("kubeVersion", ""),
            api_versions=tuple(helm.get("apiVersions", ())),
        )
        found = self._rendered(rendering)
        hooks = [each for each in found if each.object.hook]
        if hooks and not helm.get("skipHooks", False):
            named = _some([each.object.identity.shown for each in hooks])
            raise UnfitError(
                f"the chart has hooks, which are not run here: {named}; with skipHooks: true the rest of it is applied "
                "without them"
            )
        return [each for each in found if not each.object.hook]

    def _rendered(self, rendering: Rendering) -> list[_Placed]:
        if self.files.fleet.render is None:
            what = f"{rendering.tool} is needed to render {self.source}, and nothing here can run it"
            raise Stalled(Reason.SETTINGS_INVALID, what)
        try:
            data = self.files.fleet.render(rendering)
        except Rejected as error:
            raise UnfitError(str(error)) from error
        parsed = bundle_objects.parse(data)
        if parsed.flaws:
            shown_flaws = [f"line {flaw.line}: {flaw.message}" for flaw in parsed.flaws]
            raise UnfitError(f"in what {rendering.tool} makes of {self.source}, {_some(shown_flaws)}")
        return [_Placed(each, self._in_manifest) for each in parsed.found]

    def _in_manifest(self, message: str, reason: Reason) -> Problem:
        return self.manifest.problem(self.place, message, reason=reason)


def _in_file(path: str, found: Found) -> Callable[[str, Reason], Problem]:
    return lambda message, reason: Problem(path, found.line, found.column, message, reason)


def identities(bundle: Bundle, namespace: str = "") -> tuple[Identity, ...]:
    """The objects of a bundle, in their order; those that say no namespace lie in `namespace`."""
    found = []
    for data in bundle.objects:
        each = kubernetes_identity.identity(json.loads(data))
        scoped = not kubernetes_identity.is_cluster_scoped(*each[:2])
        found.append(each._replace(namespace=namespace) if scoped and not each.namespace else each)
    return tuple(found)


def remarks(bundle: Bundle) -> Iterator[str]:
    """What is allowed but not as it should be, for people."""
    objects = [json.loads(data) for data in bundle.objects]
    images = {image for each in objects for image in bundle_objects.images(each) if "@sha256:" not in image}
    if images:
        number = "1 image is" if len(images) == 1 else f"{len(images)} images are"
        yield (
            f"{number} not pinned by digest ({_some(sorted(images))}): what a tag names can change without a commit, "
            "and a return to an older version need not bring the older image back"
        )
    for each in objects:
        about = kubernetes_identity.identity(each)
        if removes_itself(about, each):
            yield (
                f"{about.shown} is applied without {TIME_TO_LIVE}: it stays until Git no "
                "longer declares it, for if the cluster removed it, it would be made anew and run again"
            )


def _some(words: list[str]) -> str:
    more = f" and {len(words) - NAMED} more" if len(words) > NAMED else ""
    return f"{', '.join(shown(word, quote=False) for word in words[:NAMED])}{more}"

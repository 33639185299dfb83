"""One service: a manifest that is checked, and the ServiceSpec it means. Content of files comes through a function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from reconciler.core import image, quantity, rules_delivery, rules_native, service_delivery
from reconciler.core.delivery import Scaling
from reconciler.core.errors import Reason
from reconciler.core.fields import Table, given
from reconciler.core.model import (
    Drain,
    DriftPolicy,
    ExecCheck,
    File,
    Health,
    HttpCheck,
    ImageRef,
    Port,
    Problem,
    Resources,
    SecretTarget,
    SecretUse,
    Security,
    ServiceSpec,
    TcpCheck,
    Tmpfs,
)
from reconciler.core.overlay import Manifest, NoFileError, ordered, resolve
from reconciler.core.policy import Allow, denials
from reconciler.core.rules import RULES, View, port
from reconciler.core.schema import Checker
from reconciler.core.service_delivery import port_number
from reconciler.core.words import shown

MAX_FILE = 2**20
MAX_FILES = 8 * 2**20

Content = Callable[[str], bytes]


def build(
    manifest: Manifest, name: str, *, checker: Checker, content: Content, drift: DriftPolicy, allow: Allow
) -> ServiceSpec | tuple[Problem, ...]:
    """The service `name`, or every problem. `content(path)` raises NoFileError; `drift` is the default."""
    findings = manifest.findings(checker)
    problems = manifest.problems(findings)
    value = manifest.value if isinstance(manifest.value, dict) else {}
    spec = value["spec"] if isinstance(value.get("spec"), dict) else {}
    wrong = {str(finding.path[1]) for finding in findings if finding.path[:1] == ("spec",) and len(finding.path) > 1}
    if "image" not in spec:
        wrong.add("image")
    problems.extend(_named(manifest, value, name))
    if allow.native:
        problems.extend(rules_native.misnamed(manifest, name))
    view = View(manifest, spec)
    engine = rules_native.RULES if allow.native else rules_delivery.PROXY_RULES
    for reads, rule in (*RULES, *rules_delivery.RULES, *engine):
        if not reads & wrong:
            problems.extend(rule(view))
    files, missing = ((), []) if "files" in wrong else _files(view, content)
    problems.extend(missing)
    if problems:
        return ordered(problems)
    built = _spec(name, spec, files, drift, native=allow.native)
    denied = [
        manifest.problem(("spec", *denial.field), denial.message, reason=Reason.POLICY_DENIED)
        for denial in denials(built, allow)
    ]
    return ordered(denied) if denied else built


def _named(manifest: Manifest, value: Mapping[str, Any], name: str) -> Iterator[Problem]:
    metadata = value.get("metadata")
    given = metadata.get("name") if isinstance(metadata, dict) else None
    if isinstance(given, str) and given != name:
        message = f"metadata.name is {shown(given)}, but the file is named {shown(name)}; make them equal"
        yield manifest.problem(("metadata", "name"), message)


def _files(view: View, content: Content) -> tuple[tuple[File, ...], Sequence[Problem]]:
    """The files with their content, and what is wrong with getting it."""
    found: list[File] = []
    problems: list[Problem] = []
    total = 0
    for index, item in enumerate(view.items("files")):
        try:
            if "source" in item:
                origin = view.manifest.layer(("spec", "files", index, "source")).file
                data = content(resolve(origin, item["source"]))
            else:
                data = item["content"].encode()
            total += len(data)
            if len(data) > MAX_FILE or total > MAX_FILES:
                raise NoFileError("files hold at most 1 MiB each and 8 MiB together; put large ones into the image")
        except NoFileError as error:
            path = ("spec", "files", index, "source")
            problems.append(view.manifest.problem(path, str(error), reason=error.reason))
            continue
        found.append(File(path=item["path"], content=data, mode=int(item.get("mode", "0444"), 8)))
    return tuple(found), problems


_RESOURCES: Table = {
    "memory": ("memory", quantity.size),
    "cpus": ("nano_cpus", quantity.nano_cpus),
    "pids": ("pids", int),
}
_SECURITY: Table = {
    "user": ("user", str),
    "writableRoot": ("writable_root", bool),
    "writablePaths": ("writable_paths", tuple),
    "capabilities": ("capabilities", tuple),
    "privileged": ("privileged", bool),
    "hostNetwork": ("host_network", bool),
}
_HEALTH: Table = {
    "interval": ("interval", quantity.duration),
    "timeout": ("timeout", quantity.duration),
    "healthyAfter": ("healthy_after", int),
    "unhealthyAfter": ("unhealthy_after", int),
    "startup": ("startup", quantity.duration),
}
_DRAIN: Table = {
    "deadline": ("deadline", quantity.duration),
    "grace": ("grace", quantity.duration),
    "tail": ("tail", quantity.duration),
}


def _spec(
    name: str, spec: Mapping[str, Any], files: tuple[File, ...], drift: DriftPolicy, *, native: bool
) -> ServiceSpec:
    reference = image.parse(spec["image"])
    assert isinstance(reference, ImageRef)
    ports = tuple(port(item) for item in spec.get("ports", ()))
    by_name = {each.name: each for each in ports}
    scaling = service_delivery.scaling(spec["scaling"]) if "scaling" in spec else None
    return ServiceSpec(
        name=name,
        image=reference,
        replicas=_replicas(spec, scaling),
        command=tuple(spec.get("command", ())),
        args=tuple(spec.get("args", ())),
        env=dict(spec.get("env", {})),
        files=files,
        secrets=tuple(_secret(item) for item in spec.get("secrets", ())),
        ports=ports,
        resources=Resources(**given(spec.get("resources", {}), _RESOURCES)),
        tmpfs=tuple(Tmpfs(item["path"], quantity.size(item["size"])) for item in spec.get("tmpfs", ())),
        security=Security(**given(spec.get("security", {}), _SECURITY)),
        health=_health(spec.get("health", {}), by_name),
        labels=dict(spec.get("labels", {})),
        drain=Drain(**given(spec.get("drain", {}), _DRAIN)),
        rollout=service_delivery.rollout(spec.get("rollout", {}), native=native),
        depends_on=tuple(spec.get("dependsOn", ())),
        drift=DriftPolicy(spec.get("drift", drift)),
        suspend=spec.get("suspend", False),
        lifetime=quantity.duration(spec["lifetime"]) if "lifetime" in spec else None,
        volumes=tuple(service_delivery.volume(item) for item in spec.get("volumes", ())),
        route=service_delivery.route(spec["traffic"], by_name) if "traffic" in spec else None,
        warm_up=service_delivery.warm_up(spec["warmUp"]) if "warmUp" in spec else None,
        scaling=scaling,
    )


def _replicas(spec: Mapping[str, Any], scaling: Scaling | None) -> int:
    """How many instances run until demand says otherwise: with scaling its minimum, but one at least."""
    written: int = spec.get("replicas", 1)
    return written if scaling is None else max(scaling.minimum, 1)


def _secret(item: Mapping[str, Any]) -> SecretUse:
    kind = SecretTarget.ENV if "env" in item else SecretTarget.FILE
    return SecretUse(secret=item["secret"], kind=kind, target=item[kind.value])


def _health(section: Mapping[str, Any], ports: Mapping[str, Port]) -> Health:
    check: HttpCheck | TcpCheck | ExecCheck | None = None
    if "http" in section:
        check = HttpCheck(port_number(section["http"]["port"], ports), section["http"].get("path", "/"))
    elif "tcp" in section:
        check = TcpCheck(port_number(section["tcp"]["port"], ports))
    elif "exec" in section:
        check = ExecCheck(tuple(section["exec"]["command"]))
    return Health(check=check, **given(section, _HEALTH))

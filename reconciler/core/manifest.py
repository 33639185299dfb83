"""The files of a revision -> DesiredState, or every problem with its file, line and column.

Pure: files come through `Fleet.read`, schemas as values. What was parsed is kept in a cache of the caller's by blob
id, so that a revision costs only what it changed. One bad service never stops the others.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.core import bundle, environment_file
from reconciler.core.document import Document, unreadable
from reconciler.core.errors import Reason, ReconcilerError
from reconciler.core.files import Cache, Files, Fleet
from reconciler.core.model import DesiredState, DriftPolicy, Problem, Revision, ServiceSpec
from reconciler.core.neighbours import Neighbour, disagreements
from reconciler.core.overlay import Manifest, NoFileError, ordered, single, stack
from reconciler.core.policy import Allow
from reconciler.core.schema import Checker, Schema
from reconciler.core.service import build
from reconciler.core.words import nearest, shown

__all__ = ["Cache", "Fleet", "Refusal", "parse", "parse_service"]

ENVIRONMENT_FILE = "environment.yaml"
MAX_SERVICES = 5_000
KINDS = {"Service": "service", "Manifests": "manifests"}
"""What the files of an environment may declare, with the short names of the schemas."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The environment as a whole is unacceptable: why, and every problem found in any of its files."""

    reason: Reason
    problems: tuple[Problem, ...]


def parse(
    environment: str,
    revision: Revision,
    fleet: Fleet,
    *,
    schemas: Mapping[str, Schema],
    allow: Allow,
    cache: Cache,
) -> DesiredState | Refusal:
    """The desired state of `environment` as the files in `fleet.directory` declare it.

    `schemas` are those of `schemas/` by their short names. Services that are not usable stand in `problems` instead
    of `services`; when both are empty there is no service at all, and nothing may be removed because of that.
    """
    names, misnamed = _listed(fleet)
    where = posixpath.join(fleet.directory, ENVIRONMENT_FILE)
    if where not in fleet.blobs:
        message = f"there is no {ENVIRONMENT_FILE} in this directory; add one with kind Environment"
        missing = Problem(where, 1, 1, message, Reason.ENVIRONMENT_MISSING)
        return Refusal(Reason.ENVIRONMENT_MISSING, (missing, *misnamed))
    if len(names) > MAX_SERVICES:
        message = f"there are {len(names)} services here, more than {MAX_SERVICES}; split the environment"
        return Refusal(Reason.MANIFEST_INVALID, (Problem(where, 1, 1, message),))
    files = Files(fleet, cache)
    spec, wrong = _environment(environment, where, files, Checker(schemas["environment"]))
    reader = _ServiceReader(files, _checkers(schemas), _drift(spec), allow)
    services, problems = _agreed({name: reader.service(name) for name in sorted(names)}, misnamed, allow.namespace)
    if wrong:
        return Refusal(Reason.MANIFEST_INVALID, (*wrong, *(each for found in problems.values() for each in found)))
    return DesiredState(
        environment=environment,
        revision=revision,
        services=services,
        problems=problems,
        **environment_file.values(spec),
    )


def parse_service(
    environment: str, service: str, fleet: Fleet, *, schemas: Mapping[str, Schema], allow: Allow, cache: Cache
) -> ServiceSpec | tuple[Problem, ...]:
    """One service of a revision by itself, as a rollback needs it: its neighbours are not looked at.

    Raises Stalled and Retryable when plain manifests cannot be rendered now.
    """
    path = posixpath.join(fleet.directory, f"{service}.yaml")
    if path not in fleet.blobs or service == _stem(ENVIRONMENT_FILE):
        return (Problem(path, 1, 1, f"there is no service {service} in this revision of {environment}"),)
    files = Files(fleet, cache)
    where = posixpath.join(fleet.directory, ENVIRONMENT_FILE)
    spec: Mapping[str, Any] = {}
    if where in fleet.blobs:
        spec, _ = _environment(environment, where, files, Checker(schemas["environment"]))
    found = _ServiceReader(files, _checkers(schemas), _drift(spec), allow).service(service)
    if found.trouble is not None:
        raise found.trouble
    return found.problems if found.spec is None else found.spec


def _checkers(schemas: Mapping[str, Schema]) -> dict[str, Checker]:
    return {kind: Checker(schemas[name]) for kind, name in KINDS.items()}


def _drift(environment: Mapping[str, Any]) -> DriftPolicy:
    return DriftPolicy(environment.get("drift", DriftPolicy.CORRECT))


def _stem(path: str) -> str:
    return posixpath.basename(path).rpartition(".")[0]


def _listed(fleet: Fleet) -> tuple[frozenset[str], tuple[Problem, ...]]:
    """The names of the services in the directory itself, and files there whose suffix keeps them from being read.

    Hidden files, other files and directories below are no services.
    """
    names, misnamed = set(), []
    for path in sorted(fleet.blobs):
        folder, file = posixpath.split(path)
        if folder != fleet.directory or file == ENVIRONMENT_FILE or file.startswith("."):
            continue
        stem, _, suffix = file.rpartition(".")
        if suffix == "yaml":
            names.add(stem)
        elif suffix.lower() in ("yml", "yaml"):
            misnamed.append(Problem(path, 1, 1, f"this file is not read; rename it to {stem}.yaml"))
    return frozenset(names), tuple(misnamed)


def _agreed(
    read: Mapping[str, _Service], misnamed: tuple[Problem, ...], namespace: str
) -> tuple[dict[str, ServiceSpec], dict[str, tuple[Problem, ...]]]:
    """The services that are right by themselves and beside each other, and the problems of all others."""
    problems = {name: list(service.problems) for name, service in read.items() if service.problems}
    for problem in misnamed:
        problems.setdefault(_stem(problem.file), []).append(problem)
    good = {
        name: Neighbour(service.spec, service.manifest)
        for name, service in read.items()
        if service.spec is not None and name not in problems
    }
    for name, problem in disagreements(good, read.keys() | problems.keys(), namespace):
        problems.setdefault(name, []).append(problem)
    services = {name: service.spec for name, service in good.items() if name not in problems}
    return services, {name: ordered(found) for name, found in sorted(problems.items())}


def _opened(
    path: str, files: Files, checkers: Mapping[str, Checker], used: dict[str, str]
) -> tuple[Manifest, str, list[Problem]]:
    """The manifest at `path` and its kind, by default the first of `checkers`.

    There are problems when its base is missing or it is of another kind, so that no rule fits it. `used` gets the other
    files that it consists of.
    """
    kind = next(iter(checkers))

    def find(other: str) -> Document:
        if other != path:
            used[other] = files.blob(other)
        return files.document(other)

    try:
        manifest, extending = stack(path, find)
    except NoFileError as error:
        return single(path, unreadable()), kind, [Problem(path, 1, 1, str(error), error.reason)]
    given = manifest.value.get("kind") if isinstance(manifest.value, dict) else None
    if not isinstance(given, str) or given in checkers:
        kind = given if isinstance(given, str) else kind
        seen = manifest.problems(manifest.findings(checkers[kind])) if extending else []
        return manifest, kind, [*seen, *extending]
    if given == "Environment":
        message = f'kind "Environment" belongs in {ENVIRONMENT_FILE}; write kind: {kind}'
    else:
        message = f"unknown kind {shown(given)}{nearest(given, checkers)}"
    return manifest, kind, [*manifest.problems(()), *extending, manifest.problem(("kind",), message)]


def _environment(
    environment: str, where: str, files: Files, checker: Checker
) -> tuple[Mapping[str, Any], tuple[Problem, ...]]:
    """The `spec` of the environment's own file, empty when there are problems."""
    manifest, _, problems = _opened(where, files, {"Environment": checker}, {})
    problems += manifest.problems(manifest.findings(checker)) if not problems else []
    if not problems and manifest.value["metadata"]["name"] != environment:
        message = f"metadata.name is {shown(manifest.value['metadata']['name'])}, but this is the environment"
        problems = [manifest.problem(("metadata", "name"), f"{message} {shown(environment)}; make them equal")]
    if not problems:
        remarks = environment_file.rules(manifest.value.get("spec", {}))
        problems = [manifest.problem(("spec", *place), message) for place, message in remarks]
    return ({} if problems else manifest.value.get("spec", {})), ordered(problems)


@dataclass(frozen=True, slots=True)
class _Service:
    """What is known of a service by itself. `used`: the other files it was made of, and their blobs.

    `trouble`: why nothing can be said now, although that has nothing to do with these files.
    """

    manifest: Manifest
    spec: ServiceSpec | None
    problems: tuple[Problem, ...]
    used: tuple[tuple[str, str], ...]
    trouble: ReconcilerError | None = None


@dataclass(frozen=True)
class _ServiceReader:
    files: Files
    checkers: Mapping[str, Checker]
    drift: DriftPolicy
    allow: Allow

    def service(self, name: str) -> _Service:
        """The service `name`, from the cache where none of its files changed."""
        path = posixpath.join(self.files.fleet.directory, f"{name}.yaml")
        key = ("service", path, self.files.blob(path), self.drift, self.allow)
        found: _Service | None = self.files.cache.get(key)
        if found is None or any(self.files.blob(other) != blob for other, blob in found.used):
            found = self._build(name, path)
            if found.trouble is None:
                self.files.cache[key] = found
        return found

    def _build(self, name: str, path: str) -> _Service:
        used: dict[str, str] = {}

        def content(other: str) -> bytes:
            used[other] = self.files.blob(other)
            return self.files.content(other)

        manifest, kind, problems = _opened(path, self.files, self.checkers, used)
        checker, drift, allow = self.checkers[kind], self.drift, self.allow
        if problems:
            return _Service(manifest, None, ordered(problems), tuple(used.items()))
        if kind == "Service":
            found = build(manifest, name, checker=checker, content=content, drift=drift, allow=allow)
        else:
            try:
                found = bundle.build(
                    manifest, name, checker=checker, files=self.files, used=used, drift=drift, allow=allow
                )
            except ReconcilerError as trouble:
                problem = manifest.problem(("spec",), str(trouble), key=True, reason=trouble.reason)
                return _Service(manifest, None, (problem,), (), trouble)
        spec, wrong = (found, ()) if isinstance(found, ServiceSpec) else (None, found)
        return _Service(manifest, spec, wrong, tuple(used.items()))

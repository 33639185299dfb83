"""`reconciler validate`: a fleet repository's working tree, or one file of it, checked without settings or engine."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import typer

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.rendering import ProgramRenderer
from reconciler.cli.common import JsonOption, RefusedError, complain, print_json, say
from reconciler.cli.worktree import Worktree, root_of
from reconciler.core import bundle
from reconciler.core.bundle_rendering import Rendering
from reconciler.core.errors import Reason, ReconcilerError, Rejected
from reconciler.core.manifest import ENVIRONMENT_FILE, Fleet, Refusal, parse, parse_service
from reconciler.core.model import Problem, Revision, ServiceSpec
from reconciler.core.policy import Allow
from reconciler.schemas import load_schemas

NOWHERE = Revision("", (), "", "", datetime(1970, 1, 1, tzinfo=UTC), "the working tree")


Permissions = Callable[[str], Allow]
"""What the operator may be asked for in an environment: nothing that is not the default, but its engine is known."""


@dataclass(frozen=True, slots=True)
class Findings:
    """`errors` make a file unusable everywhere; `permissions` are things that the operator may or may not allow.

    `unchecked` is what could not be looked at here, `remarks` what is allowed but not as it should be.
    """

    services: int
    errors: tuple[Problem, ...]
    permissions: tuple[Problem, ...]
    unchecked: tuple[Problem, ...] = ()
    remarks: tuple[Problem, ...] = ()


def validate(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The root of a repository, or one file.")] = Path(),
    *,
    kubernetes: Annotated[
        list[str] | None,
        typer.Option(metavar="ENVIRONMENT", help="An environment that runs on Kubernetes; '*' for all. Repeatable."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check the manifests of a fleet repository: every error at once, as file:line:column: reason."""
    root = root_of(path)
    tree = Worktree(root)
    native = kubernetes or []

    def allow(environment: str) -> Allow:
        return Allow(native=any(fnmatchcase(environment, pattern) for pattern in native))

    if path.is_file():
        directory, file = path.resolve().parent.relative_to(root).as_posix(), path.name
        if not (root / directory / ENVIRONMENT_FILE).is_file():
            raise RefusedError(
                f"there is no {ENVIRONMENT_FILE} beside it, so it belongs to no environment",
                where=str(path),
                remedy="A base file is checked through what extends it: give the root of the repository instead",
            )
        environments = [directory]
        found = _file(tree, directory, file, allow)
    else:
        environments = tree.environments()
        _known(native, environments, path)
        found = _environments(tree, environments, allow)
    if not environments:
        raise RefusedError(
            f"no environment found: there is no environments/<name>/{ENVIRONMENT_FILE}",
            where=str(path),
            remedy="Give the root of a fleet repository, or make one with `reconciler init`",
        )
    if as_json:
        print_json(_document(found, environments))
    else:
        _tell(found, len(environments), prefix=_prefix(root))
    raise typer.Exit(1 if found.errors else 0)


def _known(patterns: Sequence[str], environments: Sequence[str], path: Path) -> None:
    """Refuse a name after --kubernetes that no environment has: it would be checked as if it ran on Docker."""
    names = [directory.rpartition("/")[2] for directory in environments]
    for pattern in patterns if names else ():
        if not any(fnmatchcase(name, pattern) for name in names):
            raise RefusedError(
                f"there is no environment {pattern}", where=str(path), remedy=f"There are: {', '.join(names)}"
            )


def _environments(tree: Worktree, directories: Sequence[str], allow: Permissions) -> Findings:
    services = 0
    problems: list[Problem] = []
    remarks: list[Problem] = []
    schemas, cache, renderings = load_schemas(), dict[Any, Any](), _Renderings()
    for directory in directories:
        name = directory.rpartition("/")[2]
        fleet = renderings.fleet(tree, directory)
        found = parse(name, NOWHERE, fleet, schemas=schemas, allow=allow(name), cache=cache)
        if isinstance(found, Refusal):
            problems.extend(found.problems)
        else:
            services += len(found.services) + len(found.problems)
            problems.extend(problem for group in found.problems.values() for problem in group)
            remarks.extend(each for spec in found.services.values() for each in _remarks(directory, spec))
    return _sorted(services, problems, remarks, renderings.troubles)


def _file(tree: Worktree, directory: str, file: str, allow: Permissions) -> Findings:
    name = directory.rpartition("/")[2]
    if file == ENVIRONMENT_FILE:
        whole = _environments(tree, [directory], allow)
        mine = [problem for problem in whole.errors if problem.file.rpartition("/")[2] == ENVIRONMENT_FILE]
        return _sorted(0, mine)
    service = file.removesuffix(".yaml")
    fleet = _Renderings().fleet(tree, directory)
    try:
        found = parse_service(name, service, fleet, schemas=load_schemas(), allow=allow(name), cache={})
    except ReconcilerError as trouble:
        where = file if directory == "." else f"{directory}/{file}"
        problem = Problem(where, 1, 1, str(trouble), trouble.reason)
        return _sorted(1, [problem], troubles={problem.message})
    if isinstance(found, ServiceSpec):
        return _sorted(1, (), list(_remarks(directory, found)))
    return _sorted(1, found)


@dataclass
class _Renderings:
    """Renders with the programs of this machine; `troubles` says what was in the way, apart from the files."""

    troubles: set[str] = field(default_factory=set)
    renderer: ProgramRenderer = field(default_factory=lambda: ProgramRenderer(SystemClock()))

    def fleet(self, tree: Worktree, directory: str) -> Fleet:
        """The files of an environment with what renders them."""
        return replace(tree.fleet(directory), render=self._render)

    def _render(self, rendering: Rendering) -> bytes:
        try:
            return self.renderer.render(rendering)
        except Rejected:
            raise
        except ReconcilerError as trouble:
            self.troubles.add(str(trouble))
            raise


def _remarks(directory: str, spec: ServiceSpec) -> Iterator[Problem]:
    where = f"{spec.name}.yaml" if directory == "." else f"{directory}/{spec.name}.yaml"
    for said in bundle.remarks(spec.bundle) if spec.bundle is not None else ():
        yield Problem(where, 1, 1, said)


def _sorted(
    services: int, problems: Sequence[Problem], remarks: Sequence[Problem] = (), troubles: Collection[str] = ()
) -> Findings:
    ordered = sorted(set(problems), key=lambda found: (found.file, found.line, found.column, found.message))
    unchecked = tuple(found for found in ordered if found.message in troubles)
    ordered = [found for found in ordered if found.message not in troubles]
    return Findings(
        services,
        tuple(found for found in ordered if found.reason is not Reason.POLICY_DENIED),
        tuple(found for found in ordered if found.reason is Reason.POLICY_DENIED),
        unchecked,
        tuple(sorted(remarks, key=lambda found: found.file)),
    )


def _document(found: Findings, environments: Sequence[str]) -> dict[str, Any]:
    return {
        "valid": not found.errors,
        "environments": list(environments),
        "services": found.services,
        "errors": [_json(problem) for problem in found.errors],
        "permissions": [_json(problem) for problem in found.permissions],
        "unchecked": [_json(problem) for problem in found.unchecked],
        "remarks": [{key: value for key, value in _json(each).items() if key != "reason"} for each in found.remarks],
    }


def _tell(found: Findings, environments: int, *, prefix: str) -> None:
    complain([f"{prefix}{problem}" for problem in found.errors])
    complain([f"{prefix}{problem} (note: the operator has to allow this)" for problem in found.permissions])
    complain([f"{prefix}{problem} (note: not checked here)" for problem in found.unchecked])
    complain([f"{prefix}{problem} (note)" for problem in found.remarks])
    looked = f"{_count(environments, 'environment')}, {_count(found.services, 'service')}"
    if found.errors:
        files = len({problem.file for problem in found.errors})
        complain([f"{_count(len(found.errors), 'error')} in {_count(files, 'file')} ({looked})"])
    else:
        say(f"ok: {looked}")


def _prefix(root: Path) -> str:
    """What makes a path from the root one that can be opened from here."""
    here = Path.cwd()
    if root == here:
        return ""
    return f"{root.relative_to(here) if root.is_relative_to(here) else root}/"


def _json(problem: Problem) -> dict[str, Any]:
    return {
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "reason": problem.reason.value,
        "message": problem.message,
    }


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"

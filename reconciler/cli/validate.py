"""`reconciler validate`: a fleet repository's working tree, or one file of it, checked without settings or engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from reconciler.cli.common import JsonOption, RefusedError, complain, print_json, say
from reconciler.cli.worktree import Worktree, root_of
from reconciler.core.errors import Reason
from reconciler.core.manifest import ENVIRONMENT_FILE, Refusal, parse, parse_service
from reconciler.core.model import Problem, Revision
from reconciler.core.policy import Allow
from reconciler.schemas import load_schemas

NOWHERE = Revision("", (), "", "", datetime(1970, 1, 1, tzinfo=UTC), "the working tree")


@dataclass(frozen=True, slots=True)
class Findings:
    """`errors` make a file unusable everywhere; `permissions` are things that the operator may or may not allow."""

    services: int
    errors: tuple[Problem, ...]
    permissions: tuple[Problem, ...]


def validate(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The root of a repository, or one file.")] = Path(),
    *,
    as_json: JsonOption = False,
) -> None:
    """Check the manifests of a fleet repository: every error at once, as file:line:column: reason."""
    root = root_of(path)
    tree = Worktree(root)
    if path.is_file():
        directory, file = path.resolve().parent.relative_to(root).as_posix(), path.name
        if not (root / directory / ENVIRONMENT_FILE).is_file():
            raise RefusedError(
                f"there is no {ENVIRONMENT_FILE} beside it, so it belongs to no environment",
                where=str(path),
                remedy="A base file is checked through what extends it: give the root of the repository instead",
            )
        environments = [directory]
        found = _file(tree, directory, file)
    else:
        environments = tree.environments()
        found = _environments(tree, environments)
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


def _environments(tree: Worktree, directories: Sequence[str]) -> Findings:
    services = 0
    problems: list[Problem] = []
    schemas, cache = load_schemas(), dict[Any, Any]()
    for directory in directories:
        name = directory.rpartition("/")[2]
        found = parse(name, NOWHERE, tree.fleet(directory), schemas=schemas, allow=Allow(), cache=cache)
        if isinstance(found, Refusal):
            problems.extend(found.problems)
        else:
            services += len(found.services) + len(found.problems)
            problems.extend(problem for group in found.problems.values() for problem in group)
    return _sorted(services, problems)


def _file(tree: Worktree, directory: str, file: str) -> Findings:
    name = directory.rpartition("/")[2]
    if file == ENVIRONMENT_FILE:
        whole = _environments(tree, [directory])
        mine = [problem for problem in whole.errors if problem.file.rpartition("/")[2] == ENVIRONMENT_FILE]
        return _sorted(0, mine)
    service = file.removesuffix(".yaml")
    found = parse_service(name, service, tree.fleet(directory), schemas=load_schemas(), allow=Allow(), cache={})
    return _sorted(1, found if isinstance(found, tuple) else ())


def _sorted(services: int, problems: Sequence[Problem]) -> Findings:
    ordered = sorted(set(problems), key=lambda found: (found.file, found.line, found.column, found.message))
    return Findings(
        services,
        tuple(found for found in ordered if found.reason is not Reason.POLICY_DENIED),
        tuple(found for found in ordered if found.reason is Reason.POLICY_DENIED),
    )


def _document(found: Findings, environments: Sequence[str]) -> dict[str, Any]:
    return {
        "valid": not found.errors,
        "environments": list(environments),
        "services": found.services,
        "errors": [_json(problem) for problem in found.errors],
        "permissions": [_json(problem) for problem in found.permissions],
    }


def _tell(found: Findings, environments: int, *, prefix: str) -> None:
    complain([f"{prefix}{problem}" for problem in found.errors])
    complain([f"{prefix}{problem} (note: the operator has to allow this)" for problem in found.permissions])
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

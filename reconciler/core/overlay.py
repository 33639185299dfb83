"""Manifests that extend others: the layers of a manifest, their merged value, and where each part of it was written.

The merge is RFC 7386 (JSON Merge Patch) of the base by the manifest that extends it. Files come through `Find`.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from reconciler.core.document import Document
from reconciler.core.errors import Reason
from reconciler.core.model import Problem
from reconciler.core.schema import Checker, Finding
from reconciler.core.words import shown
from reconciler.core.yaml_reader import Path, Value

MAX_EXTENDS = 8
MAX_PROBLEMS = 100


class NoFileError(Exception):
    """There is no such file, or it may not be read; says why."""

    def __init__(self, why: str, reason: Reason = Reason.MANIFEST_INVALID) -> None:
        self.reason = reason
        super().__init__(why)


Find = Callable[[str], Document]


@dataclass(frozen=True, slots=True)
class Layer:
    """One file of a manifest."""

    file: str
    document: Document


@dataclass(frozen=True, slots=True)
class Manifest:
    """A merged value and its layers, the extending one first."""

    layers: tuple[Layer, ...]
    value: Value

    def layer(self, path: Path) -> Layer:
        """The layer that the merged value at `path` comes from."""
        return next((layer for layer in self.layers if path in layer.document.marks), self.layers[0])

    def plain(self, path: Path) -> str | None:
        """The unquoted text that the scalar at `path` was written as, if it was."""
        mark = self.layer(path).document.marks.get(path)
        return mark.plain if mark else None

    def problem(
        self, path: Path, message: str, *, key: bool = False, reason: Reason = Reason.MANIFEST_INVALID
    ) -> Problem:
        """A problem at the value (or key) at `path`, or at what is nearest above it."""
        while not any(path in layer.document.marks for layer in self.layers):
            path, key = path[:-1], True
        layer = self.layer(path)
        mark = layer.document.marks[path]
        line, column = (mark.key_line, mark.key_column) if key else (mark.line, mark.column)
        return Problem(layer.file, line, column, message, reason)

    def findings(self, checker: Checker) -> tuple[Finding, ...]:
        """What the schema says of the merged value; nothing where a file could not be read to its end."""
        if not all(layer.document.readable for layer in self.layers):
            return ()
        return checker.findings(self.value, self.plain)

    def problems(self, findings: Iterable[Finding]) -> list[Problem]:
        """The flaws of the files and `findings`, without second mentions of a place."""
        found = [
            Problem(layer.file, flaw.line, flaw.column, flaw.message)
            for layer in self.layers
            for flaw in layer.document.flaws
        ]
        said = {(problem.file, problem.line, problem.column) for problem in found}
        for finding in findings:
            problem = self.problem(finding.path, finding.message, key=finding.at_key)
            if (problem.file, problem.line, problem.column) not in said:
                found.append(problem)
        return found


def ordered(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """By file, line and column; at most `MAX_PROBLEMS`."""
    return tuple(sorted(set(problems), key=lambda p: (p.file, p.line, p.column, p.message))[:MAX_PROBLEMS])


def single(file: str, document: Document) -> Manifest:
    """A manifest of one file that extends nothing."""
    return Manifest((Layer(file, document),), document.value)


def stack(file: str, find: Find) -> tuple[Manifest, tuple[Problem, ...]]:
    """The manifest in `file` with all that it extends, and what is wrong with the extending itself.

    `find` raises NoFileError. The problems are about paths, circles and depth only; where there is one, the value keeps
    its `extends`, which tells the schema that a part is missing.
    """
    layers = [Layer(file, find(file))]
    problems: list[Problem] = []
    while isinstance(value := layers[-1].document.value, dict) and "extends" in value:
        here = single(layers[-1].file, layers[-1].document)
        try:
            base = _base(here, [layer.file for layer in layers])
            layers.append(Layer(base, find(base)))
        except NoFileError as error:
            problems.append(here.problem(("extends",), str(error), reason=error.reason))
            break
    merged = _own(layers[-1].document.value)
    for layer in reversed(layers[:-1]):
        merged = merge(merged, _own(layer.document.value))
    if len(layers) > 1 and layers[-1].document.readable and not isinstance(layers[-1].document.value, dict):
        problems.append(Problem(layers[-1].file, 1, 1, "a file that is extended must hold a mapping of fields"))
    if problems:
        merged["extends"] = problems[0].file
    return Manifest(tuple(layers), merged), tuple(problems)


def _own(value: Value) -> Value:
    """A layer's value without the mention of its base."""
    return {key: each for key, each in value.items() if key != "extends"} if isinstance(value, dict) else value


def _base(manifest: Manifest, files: list[str]) -> str:
    """The path of the file that `manifest` extends, the last of `files`."""
    written = manifest.value["extends"]
    if not isinstance(written, str):
        raise NoFileError('extends must be the path of a file, as in "base/web.yaml"')
    base = resolve(manifest.layers[0].file, written)
    if base in files:
        cycle = " -> ".join([*files[files.index(base) :], base])
        raise NoFileError(f"extends goes in a circle: {cycle}; remove one of these")
    if len(files) > MAX_EXTENDS:
        raise NoFileError(f"extends goes over more than {MAX_EXTENDS} files; merge some of them")
    return base


def resolve(file: str, written: str) -> str:
    """The repository path that `written` in `file` means. Raises NoFileError when it is outside of the repository.

    A path begins at the root of the repository; one with ./ or ../ in front begins at the directory of `file`.
    """
    if not written.isprintable() or "\\" in written or not written or len(written) > 500:
        raise NoFileError(f"{shown(written)} is not a path; write one with / between the names")
    if written.startswith("/"):
        raise NoFileError(f"path {shown(written)} is absolute; begin at the repository's root, without the first /")
    start = posixpath.dirname(file) if written.startswith(("./", "../")) else ""
    found = posixpath.normpath(posixpath.join(start, written))
    if found.split("/")[0] in ("..", "."):
        raise NoFileError(f"path {shown(written)} leaves the repository; keep the file inside it")
    return found


def merge(target: Value, patch: Value) -> Value:
    """RFC 7386, section 2: `patch` over `target`. Null removes; lists and scalars replace. Changes neither."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged

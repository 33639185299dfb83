"""Where the objects of a bundle come from: plain files, a kustomization, a chart. Chooses and checks; renders nothing.

A renderer gets the files that are gathered here and no others. What it could fetch from elsewhere is refused before.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping

from reconciler.core.files import Files
from reconciler.core.model import Problem
from reconciler.core.words import shown

KUSTOMIZATIONS = ("kustomization.yaml", "kustomization.yml", "Kustomization")
CHART = "Chart.yaml"
MAX_FILES = 2_000
MAX_BYTES = 16 * 2**20
"""What may be read for one bundle, and what may come out of a renderer."""

_SUFFIXES = (".yaml", ".yml", ".json")


class UnfitError(Exception):
    """These files cannot be used; `problems` say why, each with its own place or, in `message`, at who named them."""

    def __init__(self, message: str = "", problems: tuple[Problem, ...] = ()) -> None:
        self.message = message
        self.problems = problems
        super().__init__(message)


Note = Callable[[str], object]
"""Told of every file and directory (with / at its end) that was looked at."""


def plain(directory: str, listing: Mapping[str, str], *, kustomizations: bool) -> dict[str, str]:
    """The files of manifests below `directory` to their blob ids, sorted.

    Raises UnfitError where something else is meant by them. Hidden ones are none. `kustomizations`: whether files of
    kustomize are left out instead of being refused.
    """
    if f"{directory}/{CHART}" in listing:
        raise UnfitError(f"{directory} is a Helm chart; declare it with helm.chart instead of path")
    found = {}
    for path, blob in sorted(listing.items()):
        below = path[len(directory) + 1 :]
        if any(part.startswith(".") for part in below.split("/")):
            continue
        if posixpath.basename(path) in KUSTOMIZATIONS:
            if not kustomizations:
                raise UnfitError(
                    f"{path} is a kustomization below {directory}, which is none; name it in a kustomization there, "
                    "declare its directory by itself, or set kustomize: false to read the other files as they are"
                )
        elif path.endswith(_SUFFIXES):
            found[path] = blob
    if len(found) > MAX_FILES:
        raise UnfitError(f"there are {len(found)} files below {directory}, more than {MAX_FILES}; split it")
    return found


def contents(files: Files, paths: Mapping[str, str]) -> dict[str, bytes]:
    """The content of each file. Raises NoFileError, and UnfitError beyond the caps."""
    if len(paths) > MAX_FILES:
        raise UnfitError(f"these are {len(paths)} files, more than {MAX_FILES}; keep others elsewhere")
    found, size = {}, 0
    for path in paths:
        found[path] = files.content(path)
        size += len(found[path])
        if size > MAX_BYTES:
            raise UnfitError(f"these files come to more than {MAX_BYTES} bytes; keep others elsewhere")
    return found


def chart(files: Files, directory: str, note: Note) -> dict[str, bytes]:
    """The files of the chart in `directory`. Raises NoFileError and UnfitError."""
    note(f"{directory}/")
    listing = files.below(directory)
    if f"{directory}/{CHART}" not in listing:
        raise UnfitError(f"there is no {CHART} in {shown(directory, quote=False)}; name the directory of a chart")
    return contents(files, listing)

"""A kustomization and all that it builds on, out of one revision: the files that a renderer gets, checked before.

kustomize would follow what stands in its files to any address. So every reference has to be a file or directory of the
same revision, no field that could name an address holds one, and the kustomizations themselves are written anew, out of
what was read here: the program sees exactly what was checked.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from reconciler.core import bundle_yaml
from reconciler.core.bundle_sources import KUSTOMIZATIONS, MAX_FILES, Note, UnfitError, contents
from reconciler.core.bundle_yaml import Part
from reconciler.core.files import Files
from reconciler.core.model import Problem
from reconciler.core.overlay import NoFileError
from reconciler.core.words import nearest, shown
from reconciler.core.yaml_reader import Path

MAX_ROOTS = 100

_BASES = ("resources", "bases", "components")
_PLUGINS = ("generators", "transformers", "validators")
_CHARTS = ("helmCharts", "helmGlobals", "helmChartInflationGenerator")
_TEXT = (
    *("apiVersion", "kind", "metadata", "namePrefix", "nameSuffix", "namespace", "labels", "commonLabels"),
    *("commonAnnotations", "images", "imageTags", "replicas", "vars", "generatorOptions", "buildMetadata"),
    "sortOptions",
)
"""Fields that name no file."""
_FILES = (
    *("crds", "configurations", "patches", "patchesStrategicMerge", "patchesJson6902", "replacements"),
    *("configMapGenerator", "secretGenerator", "openapi"),
)
_KNOWN = (*_BASES, *_PLUGINS, *_TEXT, *_FILES)
_INLINE = frozenset({"patch", "literals", "options", "target", "name", "namespace", "behavior", "type", "source"})
"""Parts of the entries of those fields that hold values and name no file."""
_ADDRESS = re.compile(r"https?:", re.IGNORECASE)


def gather(files: Files, root: str, note: Note) -> dict[str, bytes]:
    """All files that the kustomization in the directory `root` may use, by path. Raises NoFileError and UnfitError."""
    visit = _Visit(files, note)
    waiting, seen = [root], set[str]()
    while waiting:
        directory = waiting.pop()
        if directory in seen:
            continue
        seen.add(directory)
        if len(seen) > MAX_ROOTS or len(visit.plain) > MAX_FILES:
            raise UnfitError(f"it builds on more than {MAX_ROOTS} directories or {MAX_FILES} files; split it")
        waiting.extend(visit.directory(directory))
    if visit.problems:
        raise UnfitError(problems=tuple(visit.problems))
    return dict(sorted({**contents(files, visit.plain), **visit.written}.items()))


@dataclass
class _Visit:
    """What was found so far: files taken as they are, kustomizations written anew, and problems."""

    files: Files
    note: Note
    plain: dict[str, str] = field(default_factory=dict)
    written: dict[str, bytes] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def directory(self, directory: str) -> list[str]:
        """Take in one directory; gives those that it builds on."""
        self.note(f"{directory}/")
        listing = self.files.below(directory)
        own = [name for name in KUSTOMIZATIONS if f"{directory}/{name}" in listing]
        if len(own) != 1:
            raise UnfitError(
                f"there is {'more than one' if own else 'no'} kustomization in {shown(directory, quote=False)}; "
                f"one file there has to be called {' or '.join(KUSTOMIZATIONS)}"
            )
        # Kustomizations that nobody refers to stay out: only those that were looked at are there to be used.
        self.plain |= {path: blob for path, blob in listing.items() if posixpath.basename(path) not in KUSTOMIZATIONS}
        path = f"{directory}/{own[0]}"
        parts, flaws = bundle_yaml.read(self.files.content(path))
        self.problems.extend(Problem(path, flaw.line, flaw.column, flaw.message) for flaw in flaws)
        if flaws:
            return []
        if len(parts) != 1 or not isinstance(parts[0].value, dict):
            raise UnfitError(problems=(Problem(path, 1, 1, "a kustomization is one document, a mapping of fields"),))
        checked = _Checked(self, directory, path, parts[0])
        value = checked.value()
        self.written[path] = json.dumps(value).encode()
        return checked.found


@dataclass
class _Checked:
    """One kustomization; `found` are the directories it builds on."""

    visit: _Visit
    home: str
    path: str
    part: Part
    found: list[str] = field(default_factory=list)

    def _wrong(self, place: Path, message: str) -> None:
        self.visit.problems.append(Problem(self.path, *self.part.place(place), message))

    def value(self) -> dict[str, Any]:
        """The kustomization with its references as relative paths, which no program takes for an address."""
        given: dict[str, Any] = self.part.value
        value = dict(given)
        for key, each in given.items():
            if key in _CHARTS:
                self._wrong((key,), f"{key} is not rendered: declare the chart by itself, with helm")
            elif key not in _KNOWN:
                self._wrong((key,), f"unknown field {shown(key)}{nearest(key, _KNOWN)}")
            elif key in _BASES or key in _PLUGINS:
                entries = each if isinstance(each, list) else [] if each is None else [each]
                value[key] = [
                    self._reference((key, index), entry, plugin=key in _PLUGINS) for index, entry in enumerate(entries)
                ]
            elif key in _FILES:
                self._local((key,), each)
        return value

    def _local(self, place: Path, value: object) -> None:
        """Refuse addresses where files are named."""
        for text in _texts(value, _INLINE):
            if _ADDRESS.search(text) and "\n" not in text.strip():
                self._wrong(place, f"{shown(text)} is an address, and nothing is fetched; copy it into the repository")

    def _reference(self, place: Path, entry: object, *, plugin: bool) -> object:
        """One entry of a list of references, as the program gets it."""
        if not isinstance(entry, str):
            self._wrong(place, "this is a list of paths; write text")
            return entry
        if plugin and "\n" in entry:
            self._plugin(place, entry.encode())
            return entry
        path = posixpath.normpath(posixpath.join(self.home, entry))
        inside = entry != "" and not entry.startswith("/") and path.split("/")[0] not in ("..", ".")
        if inside and path in self.visit.plain and path.startswith(f"{self.home}/"):
            if plugin:
                self._plugin(place, self.visit.files.content(path))
        elif not inside or plugin or not self._is_base(place, path):
            what = "not a file of this directory" if plugin else "neither a file of this directory nor a kustomization"
            message = f"{shown(entry)} is {what} in this revision"
            self._wrong(place, f"{message}; what lies elsewhere is not fetched: copy it into the repository")
        relative = posixpath.relpath(path, self.home) if inside else entry
        return relative if relative.startswith("../") else f"./{relative}"

    def _is_base(self, place: Path, path: str) -> bool:
        """Whether there is a kustomization in the directory `path`, or something that is said already."""
        try:
            listing = self.visit.files.below(path)
        except NoFileError as error:
            self._wrong(place, str(error))
            return True
        if not any(f"{path}/{name}" in listing for name in KUSTOMIZATIONS):
            return False
        self.found.append(path)
        return True

    def _plugin(self, place: Path, data: bytes) -> None:
        """What generators and transformers are told could name an address in any of its fields."""
        parts, flaws = bundle_yaml.read(data)
        for flaw in flaws:
            self._wrong(place, f"in its line {flaw.line}: {flaw.message}")
        found = [text for part in parts for text in _texts(part.value, frozenset()) if _ADDRESS.search(text)]
        if found or _ADDRESS.search(data.decode("utf-8", "replace")):
            said = found[0] if found else "https:"
            self._wrong(place, f"{shown(said)} could be fetched from here; generators and transformers name no address")


def _texts(value: object, without: frozenset[str]) -> Iterator[str]:
    """All texts in `value`, keys too, but for what is below the keys `without`."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, list):
            waiting.extend(each)
        elif isinstance(each, dict):
            yield from each
            waiting.extend(below for key, below in each.items() if key not in without)

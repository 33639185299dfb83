"""The files of one revision as the manifests need them: by path, parsed once per blob. They come through functions."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Hashable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from reconciler.core import bundle_objects, document
from reconciler.core.bundle_objects import Objects
from reconciler.core.bundle_rendering import Render
from reconciler.core.document import Document
from reconciler.core.errors import Rejected
from reconciler.core.overlay import NoFileError
from reconciler.core.words import shown

Cache = MutableMapping[Hashable, Any]
"""Bounded by the caller; it may forget anything at any time. About two entries a service, one a file of objects."""

Listing = Callable[[str], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Fleet:
    """The files of one revision, all paths from the repository's root.

    `blobs` maps each file below `directory` (more may be in it) to its blob id. `read` gives the content of any file;
    it raises KeyError where there is none and Rejected where there is one that may not be read. `listing` gives the
    same as `blobs` for any other directory, nothing where there is none, and raises Rejected as well; None: no other
    directory is known. `render` renders kustomizations and charts; None: nothing here can.
    """

    directory: str
    blobs: Mapping[str, str]
    read: Callable[[str], bytes]
    listing: Listing | None = None
    render: Render | None = None


class Files:
    """Files by path, each parsed once per blob."""

    def __init__(self, fleet: Fleet, cache: Cache) -> None:
        self.fleet = fleet
        self.cache = cache
        self._elsewhere: dict[str, bytes | NoFileError] = {}
        self._below: dict[str, Mapping[str, str] | NoFileError] = {}

    def blob(self, path: str) -> str:
        """What identifies the content at `path`; that there is none, and why, counts as content too.

        A path with / at its end is a directory: its content is all that lies below.
        """
        try:
            if path.endswith("/"):
                listed = "\0".join(f"{name}\0{blob}" for name, blob in self.below(path[:-1]).items())
                return f"sha256:{hashlib.sha256(listed.encode()).hexdigest()}"
            known = self.fleet.blobs.get(path)
            return known if known is not None else f"sha256:{hashlib.sha256(self.content(path)).hexdigest()}"
        except NoFileError as error:
            return f"{error.reason}: {error}"

    def content(self, path: str) -> bytes:
        """The content at `path`. Raises NoFileError. Files outside of `blobs` are read once."""
        if path in self._elsewhere:
            found = self._elsewhere[path]
        else:
            found = self._read(path)
            if path not in self.fleet.blobs:
                self._elsewhere[path] = found
        if isinstance(found, NoFileError):
            raise found
        return found

    def _read(self, path: str) -> bytes | NoFileError:
        try:
            return self.fleet.read(path)
        except KeyError:
            return NoFileError(
                f"there is no file {shown(path, quote=False)} in this revision; a path begins at the repository's "
                "root, or with ./ or ../ at the file that says it"
            )
        except Rejected as error:
            return NoFileError(str(error), error.reason)

    def document(self, path: str) -> Document:
        """The parsed file at `path`. Raises NoFileError."""
        key = ("document", self.blob(path))
        found: Document | None = self.cache.get(key)
        if found is None:
            found = document.read(self.content(path))
            self.cache[key] = found
        return found

    def below(self, directory: str) -> Mapping[str, str]:
        """The files below `directory` to their blob ids, sorted; empty when there is no such directory.

        Raises NoFileError when it may not be read.
        """
        if directory not in self._below:
            self._below[directory] = self._listed(directory)
        found = self._below[directory]
        if isinstance(found, NoFileError):
            raise found
        return found

    def _listed(self, directory: str) -> Mapping[str, str] | NoFileError:
        prefix = f"{directory}/"
        if self.fleet.listing is None or prefix.startswith(f"{self.fleet.directory}/"):
            paths, blobs = self._sorted, self.fleet.blobs
            here = paths[bisect_left(paths, prefix) : bisect_left(paths, f"{directory}0")]  # 0 comes after /
            return {path: blobs[path] for path in here}
        try:
            return dict(sorted(self.fleet.listing(directory).items()))
        except Rejected as error:
            return NoFileError(str(error), error.reason)

    @cached_property
    def _sorted(self) -> list[str]:
        return sorted(self.fleet.blobs)

    def objects(self, path: str, blob: str) -> Objects:
        """The Kubernetes objects in the file at `path`, whose blob id is known. Raises NoFileError."""
        key = ("objects", blob)
        found: Objects | None = self.cache.get(key)
        if found is None:
            found = bundle_objects.parse(self.content(path))
            self.cache[key] = found
        return found

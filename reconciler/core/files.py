"""The files of one revision as the manifests need them: by path, parsed once per blob. They come through functions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from reconciler.core import document
from reconciler.core.document import Document
from reconciler.core.errors import Rejected
from reconciler.core.overlay import NoFileError
from reconciler.core.words import shown

Cache = MutableMapping[Hashable, Any]
"""Bounded by the caller; it may forget anything at any time. About two entries a service."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """The files of one revision, all paths from the repository's root.

    `blobs` maps each file below `directory` (more may be in it) to its blob id. `read` gives the content of any file;
    it raises KeyError where there is none and Rejected where there is one that may not be read.
    """

    directory: str
    blobs: Mapping[str, str]
    read: Callable[[str], bytes]


class Files:
    """Files by path, each parsed once per blob."""

    def __init__(self, fleet: Fleet, cache: Cache) -> None:
        self.fleet = fleet
        self.cache = cache
        self._elsewhere: dict[str, bytes | NoFileError] = {}

    def blob(self, path: str) -> str:
        """What identifies the content at `path`; that there is none, and why, counts as content too."""
        known = self.fleet.blobs.get(path)
        if known is not None:
            return known
        try:
            return f"sha256:{hashlib.sha256(self.content(path)).hexdigest()}"
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

"""`ports.Tree` on the objects of a mirror: regular files of one revision, within caps, and nothing else.

Only the directory asked for is walked. Nothing is written, followed or checked out.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import MappingProxyType

from reconciler.adapters.git_objects import Objects

ENTRIES_LIMIT = 20_000
DEPTH_LIMIT = 16
BLOB_LIMIT = 1024 * 1024
CONTENT_LIMIT = 64 * 1024 * 1024
LISTING_LIMIT = 8 * 1024 * 1024
"""Caps: names and levels of a walk, bytes of a file, of all files read of a revision, of the tree objects of a walk."""

_REGULAR = (0o100644, 0o100755)
_DIRECTORY = 0o040000
_KINDS = {0o120000: "a symbolic link", 0o160000: "a submodule"}
_KEPT_TREES = 64


class GitTree:
    """The tree `root` (an object id). What was listed is kept, so asking again costs nothing."""

    def __init__(self, objects: Objects, root: str) -> None:
        self._objects = objects
        self._root = root
        self._lock = threading.Lock()
        self._trees: dict[str, dict[str, tuple[int, str]]] = {}
        self._walked: dict[str, Mapping[str, str]] = {}
        self._sizes: dict[str, int] = {}

    def files(self, directory: str) -> Mapping[str, str]:
        """Paths (from the root of the repository) of the files below `directory`, sorted, to their blob ids.

        `""` is the root. Empty when there is no such directory. Raises Rejected(REPOSITORY_HOSTILE) for a symlink or
        submodule on the way or below, and beyond ENTRIES_LIMIT or DEPTH_LIMIT.
        """
        parts = _parts(directory)
        if parts is None:
            return MappingProxyType({})
        name = "/".join(parts)
        with self._lock:
            if name not in self._walked:
                found = self._entry(parts)
                files = self._walk(found[1], name) if found is not None and found[0] == _DIRECTORY else {}
                if len(self._walked) >= _KEPT_TREES:
                    self._walked.clear()
                self._walked[name] = MappingProxyType(dict(sorted(files.items())))
            return self._walked[name]

    def read(self, path: str) -> bytes:
        """The content of the file at `path` (from the root of the repository).

        Raises KeyError when there is no regular file; Rejected(REPOSITORY_HOSTILE) for a symlink or submodule on the
        way, a file over BLOB_LIMIT bytes, and when all files read of this revision come to over CONTENT_LIMIT bytes.
        """
        parts = _parts(path)
        with self._lock:
            found = self._entry(parts) if parts else None
            if found is None or found[0] == _DIRECTORY:
                raise KeyError(path)
            data = self._objects.read(found[1], "blob", BLOB_LIMIT)
            self._sizes[found[1]] = len(data)
            if sum(self._sizes.values()) > CONTENT_LIMIT:
                raise self._objects.hostile(f"the files come to more than {CONTENT_LIMIT} bytes")
        return data

    def _entry(self, parts: list[str]) -> tuple[int, str] | None:
        """Mode and id of what is at a path; None when there is nothing. Raises Rejected for a link on the way."""
        mode, sha = _DIRECTORY, self._root
        for number, part in enumerate(parts):
            if mode != _DIRECTORY:
                return None
            found = self._listing(sha).get(part)
            if found is None:
                return None
            mode, sha = found
            self._check(mode, "/".join(parts[: number + 1]))
        return mode, sha

    def _walk(self, root: str, name: str) -> dict[str, str]:
        """All files below the tree `root`, which lies at the path `name`."""
        files: dict[str, str] = {}
        waiting = [(root, name, 1)]
        entries = size = 0
        while waiting:
            sha, path, depth = waiting.pop()
            if depth > DEPTH_LIMIT:
                raise self._objects.hostile(f"{name or '.'} is nested deeper than {DEPTH_LIMIT} directories")
            listing, length = self._objects.entries(sha)
            entries += len(listing)
            size += length
            if entries > ENTRIES_LIMIT or size > LISTING_LIMIT:
                raise self._objects.hostile(f"{name or '.'} has more than {ENTRIES_LIMIT} entries")
            for entry, (mode, item) in listing.items():
                place = f"{path}/{entry}" if path else entry
                self._check(mode, place)
                if mode == _DIRECTORY:
                    waiting.append((item, place, depth + 1))
                else:
                    files[place] = item
        return files

    def _listing(self, sha: str) -> dict[str, tuple[int, str]]:
        if sha not in self._trees:
            if len(self._trees) >= _KEPT_TREES or sum(map(len, self._trees.values())) > ENTRIES_LIMIT:
                self._trees.clear()
            self._trees[sha], _ = self._objects.entries(sha)
        return self._trees[sha]

    def _check(self, mode: int, path: str) -> None:
        if not path.isprintable():
            raise self._objects.hostile(f"the name {path!r} has characters that are not printable")
        if mode not in _REGULAR and mode != _DIRECTORY:
            kind = _KINDS.get(mode, f"an entry of mode {mode:o}")
            raise self._objects.hostile(f"{path} is {kind}; only regular files are read")


def _parts(path: str) -> list[str] | None:
    """The components of a path from the root of the repository; None when it could never be one."""
    if path in ("", "."):
        return []
    parts = path.removesuffix("/").split("/")
    return None if any(part in ("", ".", "..") for part in parts) else parts

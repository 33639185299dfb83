"""A working tree seen as the files of a revision: regular files only, no links, within the caps. Nothing is written."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from reconciler.cli.common import RefusedError
from reconciler.core.errors import Reason, Rejected
from reconciler.core.manifest import ENVIRONMENT_FILE, Fleet

MOST_BYTES = 1024 * 1024
MOST_FILES = 20_000
DEEPEST = 8


def root_of(path: Path) -> Path:
    """The root of the repository that `path` is in: a directory itself, of a file the nearest above."""
    if not path.exists():
        raise RefusedError("there is no such file or directory", where=str(path))
    found = path.resolve()
    if found.is_dir():
        return found
    for parent in found.parents:
        if (parent / ".git").exists() or (parent / "environments").is_dir():
            return parent
    return found.parent


class Worktree:
    """The files below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def environments(self) -> list[str]:
        """The directories of `environments/`, or where there is none, all that have an environment.yaml."""
        usual = self._root / "environments"
        if usual.is_dir():
            return sorted(f"environments/{found.name}" for found in usual.iterdir() if found.is_dir())
        found = (PurePosixPath(path) for path in self._walk(""))
        return sorted(path.parent.as_posix() for path in found if path.name == ENVIRONMENT_FILE)

    def fleet(self, directory: str) -> Fleet:
        """The files as `core.manifest` wants them; nothing here renders."""
        return Fleet(directory, self._blobs(directory), self.read, self.files)

    def files(self, directory: str) -> Mapping[str, str]:
        """The files below `directory`. Raises Rejected for a link, or one that cannot be read, among them."""
        for part in (PurePosixPath(directory), *PurePosixPath(directory).parents):
            if (self._root / part).is_symlink():
                raise _hostile(part.as_posix(), "is a symbolic link", "Put the directory itself there")
        for path in self._walk(directory):
            if (self._root / path).is_symlink():
                raise _hostile(path, "is a symbolic link", "Put the file itself there")
        return self._blobs(directory)

    def _blobs(self, directory: str) -> dict[str, str]:
        blobs = {}
        for path in self._walk("" if directory == "." else directory):
            try:
                blobs[path] = hashlib.sha256(self.read(path)).hexdigest()
            except Rejected as error:
                # The reason shows where the file is read.
                blobs[path] = f"{path}: {error}"
        return blobs

    def read(self, path: str) -> bytes:
        """The content of a file. Raises KeyError where there is none, Rejected for a link or too much."""
        place = self._root
        for part in PurePosixPath(path).parts:
            if part in ("..", "/"):
                raise KeyError(path)
            place = place / part
            if place.is_symlink():
                raise _hostile(path, "is or lies behind a symbolic link", "Put the file itself there")
        try:
            status = place.lstat()
            if stat.S_ISDIR(status.st_mode):
                raise KeyError(path)
            if not stat.S_ISREG(status.st_mode):
                raise _hostile(path, "is not a regular file", "Put a regular file there")
            if status.st_size > MOST_BYTES:
                raise _hostile(path, f"has more than {MOST_BYTES} bytes", "Keep large content in the image")
            return place.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise KeyError(path) from None
        except OSError as error:
            raise _hostile(path, f"cannot be read: {error.strerror}", "Let yourself read it") from error

    def _walk(self, directory: str) -> Iterator[str]:
        """The paths of all files below `directory`, from the root; hidden directories are left out."""
        count = 0
        for place, folders, files in os.walk(self._root / directory):
            inside = Path(place).relative_to(self._root)
            folders[:] = sorted(name for name in folders if not name.startswith(".") and len(inside.parts) < DEEPEST)
            for name in files:
                count += 1
                if count > MOST_FILES:
                    raise RefusedError(
                        f"there are more than {MOST_FILES} files",
                        where=str(self._root),
                        remedy="Give the root of a fleet repository",
                    )
                yield (inside / name).as_posix()


def _hostile(path: str, what: str, remedy: str) -> Rejected:
    return Rejected(Reason.REPOSITORY_HOSTILE, what, where=path, remedy=remedy)

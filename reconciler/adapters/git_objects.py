"""Read objects of a mirror through GitPython's object database: sizes first, then content, each checked by its hash.

It must not be used for anything but reading, and it hands out values only. The two `git cat-file` that GitPython keeps
for reading live from the first read after a fetch to the next fetch (docs/adr/0003-git-memory.md).
"""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import git
from git.exc import GitError, ODBError
from git.objects.fun import tree_entries_from_data

from reconciler.adapters.git_run import environment
from reconciler.adapters.git_trailers import trailers_of
from reconciler.core.errors import Reason, Rejected, Retryable
from reconciler.core.model import Revision

COMMIT_LIMIT = 1024 * 1024
TREE_LIMIT = 6 * 1024 * 1024
PARENTS_LIMIT = 64
"""Bytes of a commit and of one tree object (20,000 names of the longest kind), and parents of a commit."""

_BROKEN = (OSError, ValueError, AssertionError, GitError, ODBError)


class _Git(git.Git):
    """GitPython's commands that read, in the exact environment of all others.

    GitPython itself starts them in the environment of its caller, where GIT_DIR and its like point elsewhere, and with
    a pipe for complaints that nobody empties.
    """

    def execute(  # type: ignore[override]
        self, command: Sequence[str], istream: int | None = None, **_: object
    ) -> git.Git.AutoInterrupt:
        """Start `command` and return it, as GitPython asks of `as_process=True`, the only way it is used here."""
        child = subprocess.Popen(
            command,
            env=environment(GIT_DIR=str(self.working_dir)),
            cwd="/",
            stdin=istream,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return self.AutoInterrupt(child, command)


class Objects:
    """The objects of the mirror at `path`. Safe among threads: one reads at a time."""

    def __init__(self, path: Path, where: str) -> None:
        self.where = where
        self.damaged = False
        self._path = path
        self._lock = threading.RLock()
        self._repo: git.Repo | None = None

    def close(self) -> None:
        """End the commands that read; the next read starts them anew."""
        with self._lock:
            if self._repo is not None:
                self._repo.close()
                self._repo = None

    @contextlib.contextmanager
    def replaced(self) -> Iterator[None]:
        """Nobody reads while the mirror is swapped for a whole one."""
        with self._lock:
            self.close()
            yield
            self.damaged = False

    def damage(self) -> Retryable:
        """Remember that the mirror is broken; the error to raise. The next fetch clones it anew."""
        self.damaged = True
        return Retryable(
            Reason.REPOSITORY_UNREACHABLE,
            "the mirror is damaged",
            where=self.where,
            remedy="nothing: it is cloned anew with the next fetch",
        )

    def size(self, sha: str) -> tuple[str, int] | None:
        """Type and size in bytes of an object, without reading it; None when the mirror does not have it."""
        with self._lock:
            for attempt in (1, 2):  # the command that reads may have been killed since
                try:
                    info = self._open().odb.info(bytes.fromhex(sha))
                except _BROKEN:
                    self.close()
                    if attempt == 2:
                        return None
                else:
                    return info.type.decode("ascii"), info.size
        return None

    def read(self, sha: str, kind: str, limit: int) -> bytes:
        """The content of an object. Raises Rejected beyond `limit` bytes, before any of it is read."""
        with self._lock:
            known = self.size(sha)
            if known is None:
                raise self.damage()
            if known[0] != kind:
                raise self.hostile(f"a {kind} was expected, not a {known[0]}")
            if known[1] > limit:
                raise self.hostile(f"a {kind} of {known[1]} bytes is larger than the {limit} that are read")
            try:
                data: bytes = self._open().odb.stream(bytes.fromhex(sha)).read()
            except _BROKEN as error:
                self.close()
                raise self.damage() from error
            header = f"{kind} {len(data)}\0".encode()
            if hashlib.sha1(header + data, usedforsecurity=False).hexdigest() != sha:
                self.close()
                raise self.damage()
        return data

    def entries(self, sha: str) -> tuple[dict[str, tuple[int, str]], int]:
        """Name to (mode, id) of one tree object, and its size in bytes. Raises Rejected for names no tree may have."""
        data = self.read(sha, "tree", TREE_LIMIT)
        try:
            rows = tree_entries_from_data(data)
        except ValueError as error:
            raise self.hostile(f"a directory cannot be read ({_clean(str(error), 100)})") from error
        found = {name: (mode, binsha.hex()) for binsha, mode, name in rows}
        if len(found) != len(rows):
            raise self.hostile("a directory has two entries of the same name")
        return found, len(data)

    def revision(self, sha: str) -> tuple[Revision, str]:
        """What is kept of a commit, and the id of its tree."""
        with self._lock:
            self.read(sha, "commit", COMMIT_LIMIT)
            try:
                commit = git.Commit(self._open(), bytes.fromhex(sha))
                message = (
                    commit.message if isinstance(commit.message, str) else commit.message.decode("utf-8", "replace")
                )
                found = Revision(
                    sha=sha,
                    parents=tuple(parent.hexsha for parent in commit.parents),
                    author=_person(commit.author),
                    committer=_person(commit.committer),
                    committed_at=_moment(commit.committed_date),
                    subject=_clean(message.strip().partition("\n")[0], 200),
                    trailers=trailers_of(message),
                )
                tree = commit.tree.hexsha
            except (*_BROKEN, LookupError, TypeError, AttributeError) as error:
                self.close()
                raise self.hostile("a commit cannot be read") from error
        if len(found.parents) > PARENTS_LIMIT:
            raise self.hostile(f"a commit has {len(found.parents)} parents, more than {PARENTS_LIMIT}")
        return found, tree

    def hostile(self, what: str) -> Rejected:
        """The error for content that no honest repository has."""
        remedy = "remove it with a new commit; the last good revision stays"
        return Rejected(Reason.REPOSITORY_HOSTILE, what, where=self.where, remedy=remedy)

    def _open(self) -> git.Repo:
        if self._repo is None:
            repo = git.Repo(self._path, expand_vars=False)
            repo.git = _Git(self._path)
            repo.odb = git.GitCmdObjectDB(self._path / "objects", repo.git)
            self._repo = repo
        return self._repo


def _person(actor: git.Actor) -> str:
    return f"{_clean(actor.name or '', 100)} <{_clean(actor.email or '', 200)}>"


def _clean(text: str, limit: int) -> str:
    """Printable characters only: what Git carries ends up in logs, terminals and pages."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text[:limit])


def _moment(seconds: int) -> datetime:
    """A commit may carry any number as its time; one that is no date counts as 1970."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return datetime.fromtimestamp(0, UTC)

"""`ports.Source` on Git repositories: the revisions of a branch, each as a snapshot whose files can be read.

A snapshot is derived from the mirror each time; nothing here decides whether a revision is acceptable. The parts:
git_address.py (what may be asked for), git_fetches.py (when a fetch is due), git_mirror.py (the copy on disk),
git_transport.py and git_run.py (how it is brought here), git_objects.py, git_tree.py and git_trailers.py (how it
is read).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Generic, TypeVar

from reconciler.adapters.git_address import RevisionName, full_ref, parse_revision
from reconciler.adapters.git_fetches import Fetches
from reconciler.adapters.git_mirror import Mirror, RefMissing
from reconciler.adapters.git_tree import GitTree
from reconciler.core.errors import Reason, Rejected, Stalled
from reconciler.core.model import Revision
from reconciler.ports import Clock, Snapshot
from reconciler.settings import RepositorySettings

Key = TypeVar("Key")
Value = TypeVar("Value")

REVISIONS_KEPT = 16
"""Revisions of a repository, and comparisons of two, that are remembered: the latest ones asked for."""


class GitSource:
    """Git repositories by name, mirrored below `mirrors` (bare, `<name>.git`). Safe among threads.

    Raises Stalled(SETTINGS_INVALID) at once for an address that is not allowed. `close` ends the commands that read.
    """

    def __init__(self, repositories: Mapping[str, RepositorySettings], mirrors: Path, clock: Clock) -> None:
        self._repositories = {
            name: _Repository(settings, mirrors.absolute(), clock) for name, settings in repositories.items()
        }

    def snapshot(self, repository: str, ref: str, *, since: datetime | None = None, known: str = "") -> Snapshot:
        """The head of the branch (or `refs/…` name) `ref`; see `ports.Source` for `since`, `known` and the errors."""
        return self._of(repository).snapshot(ref, since, known)

    def at(self, repository: str, sha: str) -> Snapshot:
        """The revision with that SHA, from the mirror; or what a revision name means in the repository now.

        A name is fetched: a branch before a tag of the same name, HEAD as the default branch. Raises
        Rejected(REVISION_MISSING), and what a fetch raises.
        """
        return self._of(repository).at(sha)

    def fetches(self, repository: str) -> int:
        """How many fetches of the repository were begun."""
        return self._of(repository).fetches.count

    def close(self) -> None:
        """End the commands that read; a later read starts them anew."""
        for repository in self._repositories.values():
            repository.mirror.objects.close()

    def _of(self, name: str) -> _Repository:
        try:
            return self._repositories[name]
        except KeyError:
            what = f"there is no repository {name!r}"
            raise Stalled(Reason.SETTINGS_INVALID, what, remedy="name it under repositories in the settings") from None


class _Repository:
    """One repository: its mirror, the fetches of it, and the revisions last asked for."""

    def __init__(self, settings: RepositorySettings, mirrors: Path, clock: Clock) -> None:
        self.mirror = Mirror(settings, mirrors)
        self.fetches = Fetches(clock, self.mirror.fetch)
        self._name = settings.name
        self._where = f"repository {settings.name}"
        self._clock = clock
        self._revisions: _Latest[str, tuple[Revision, GitTree]] = _Latest()
        self._relations: _Latest[tuple[str, str], tuple[bool, bool]] = _Latest()

    def snapshot(self, ref: str, since: datetime | None, known: str) -> Snapshot:
        full = full_ref(ref, where=self._where)
        try:
            sha, fetched_at = self._head(full, since)
        except RefMissing as error:
            raise self._gone(ref, error) from error
        revision, tree = self._revision(self._peeled(sha))
        rewritten, unrelated = self._relation(known, revision)
        return Snapshot(self._name, revision, tree, fetched_at, rewritten, unrelated)

    def at(self, text: str) -> Snapshot:
        name = parse_revision(text, where=self._where)
        sha = text if self._revisions.get(text) else self._resolve(name)
        if sha is None:
            raise Rejected(
                Reason.REVISION_MISSING,
                f"there is no revision {text}",
                where=self._where,
                remedy="name a SHA that was fetched before, or a branch or tag of the repository",
            )
        revision, tree = self._revision(sha)
        return Snapshot(self._name, revision, tree, self._clock.now())

    def _head(self, full: str, since: datetime | None) -> tuple[str, datetime]:
        """What `full` points to and when that was fetched, after a fetch if one is due."""
        if since is not None or self.mirror.objects.damaged:
            self.fetches.ensure(full, since or self._clock.now())
        head = self.mirror.head(full)
        if head is None:
            self.fetches.ensure(full, self._clock.now())
            head = self.mirror.head(full)
        if head is None:
            raise self.mirror.objects.damage()
        return head

    def _resolve(self, name: RevisionName) -> str | None:
        """The commit a revision name means: a SHA in the mirror first, then a name in the repository, fetched now."""
        if name.may_be_sha and (found := self.mirror.resolve(name.base + name.steps)):
            return found
        if name.is_sha:
            return None
        plain = name.base != "HEAD" and not name.base.startswith("refs/")
        for full in (f"refs/heads/{name.base}", f"refs/tags/{name.base}") if plain else (name.base,):
            try:
                sha, _ = self._head(full, self._clock.now())
            except RefMissing:
                continue
            return self.mirror.resolve(sha + name.steps)
        return None

    def _peeled(self, sha: str) -> str:
        """The commit behind `sha`: an annotated tag points to one."""
        if self._revisions.get(sha) is not None:
            return sha
        found = self.mirror.objects.size(sha)
        if found is None:
            raise self.mirror.objects.damage()
        if found[0] == "commit":
            return sha
        commit = self.mirror.resolve(sha)
        if commit is None:
            raise self.mirror.objects.hostile(f"the ref points to a {found[0]}, not to a commit")
        return commit

    def _revision(self, sha: str) -> tuple[Revision, GitTree]:
        found = self._revisions.get(sha)
        if found is None:
            revision, tree = self.mirror.objects.revision(sha)
            found = revision, GitTree(self.mirror.objects, tree)
            self._revisions.put(sha, found)
        return found

    def _relation(self, known: str, revision: Revision) -> tuple[bool, bool]:
        """(rewritten, unrelated). The usual case, one commit after the other, needs no command."""
        if known in ("", revision.sha, *revision.parents):
            return False, False
        if not parse_revision(known, where=self._where).is_sha:
            what = "a revision admitted before is a full SHA"
            raise Rejected(Reason.REVISION_MISSING, what, where=self._where, remedy="give the full SHA")
        found = self._relations.get((known, revision.sha))
        if found is None:
            found = self.mirror.relation(known, revision.sha)
            self._relations.put((known, revision.sha), found)
        return found

    def _gone(self, ref: str, error: RefMissing) -> Stalled:
        if error.empty:
            what, remedy = "it is empty", f"push a first commit to {ref}; until then nothing is changed"
            return Stalled(Reason.REPOSITORY_EMPTY, what, where=self._where, remedy=remedy)
        what, remedy = f"it has no {ref}", "push it again, or correct the ref in the settings; nothing is removed"
        return Stalled(Reason.BRANCH_MISSING, what, where=self._where, remedy=remedy)


class _Latest(Generic[Key, Value]):
    """The REVISIONS_KEPT values last used, by key."""

    def __init__(self) -> None:
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key) -> Value | None:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: Key, value: Value) -> None:
        with self._lock:
            self._values[key] = value
            while len(self._values) > REVISIONS_KEPT:
                self._values.popitem(last=False)

"""An in-memory `ports.Source` for the simulation, and the vocabulary in which tests write to a repository.

It keeps the promises that tests/contract/test_source.py checks on it and on Git alike: a mirror that only a fetch
renews, one fetch for all that need it, the same caps and the same errors. It runs nothing and sleeps never.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from reconciler.adapters.git_address import full_ref, parse_revision
from reconciler.adapters.git_trailers import trailers_of
from reconciler.adapters.git_tree import BLOB_LIMIT, DEPTH_LIMIT, ENTRIES_LIMIT
from reconciler.core.errors import Reason, Rejected, Retryable, Stalled
from reconciler.core.model import Revision
from reconciler.ports import Clock, Snapshot

START = datetime(2026, 1, 1, tzinfo=UTC)
ADA = "Ada <ada@example.org>"


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(frozen=True)
class Module:
    """A submodule."""

    sha: str = "1" * 40


Content = bytes | Link | Module
Change = Mapping[str, Content | None]
"""Paths to their new content; None removes the path."""


@dataclass
class FakeRepository:
    """A repository on the far side: tests write to it, the source fetches from it. `trouble` makes each fetch fail."""

    commits: dict[str, tuple[Revision, Mapping[str, Content]]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    trouble: Reason | None = None

    def commit(
        self,
        files: Change,
        *,
        branch: str = "main",
        parent: str | None = "",
        subject: str = "change",
        author: str = ADA,
    ) -> str:
        """Put a commit on `branch`, upon its head, `parent`, or (None) nothing. Returns the SHA.

        `subject` may go on as a whole message, with trailers.
        """
        full = f"refs/heads/{branch}"
        base = self.refs.get(full) if parent == "" else parent
        tree = dict(self.commits[base][1]) if base else {}
        tree |= {path: content for path, content in files.items() if content is not None}
        tree = {path: content for path, content in sorted(tree.items()) if files.get(path, b"") is not None}
        at = START + timedelta(seconds=len(self.commits))
        sha = hashlib.sha1(repr((tree, base, at, subject, author)).encode(), usedforsecurity=False).hexdigest()
        revision = Revision(
            sha, (base,) if base else (), author, author, at, subject.partition("\n")[0], trailers_of(subject)
        )
        self.commits[sha] = revision, tree
        self.refs[full] = sha
        return sha

    def delete(self, branch: str) -> None:
        del self.refs[f"refs/heads/{branch}"]

    def tag(self, name: str, sha: str) -> None:
        self.refs[f"refs/tags/{name}"] = sha

    def ancestors(self, sha: str) -> Iterator[str]:
        """The commit itself and all before it."""
        waiting = [sha]
        while waiting:
            sha = waiting.pop()
            yield sha
            waiting += self.commits[sha][0].parents


@dataclass
class _Mirror:
    heads: dict[str, tuple[str, datetime]] = field(default_factory=dict)
    commits: set[str] = field(default_factory=set)
    fetches: int = 0


class FakeSource:
    """`ports.Source` over `FakeRepository` values; `repositories` is open to tests."""

    def __init__(self, clock: Clock, *names: str) -> None:
        self.repositories = {name: FakeRepository() for name in names or ("fleet",)}
        self._mirrors = {name: _Mirror() for name in self.repositories}
        self._clock = clock

    def snapshot(self, repository: str, ref: str, *, since: datetime | None = None, known: str = "") -> Snapshot:
        far, mirror = self._of(repository)
        full = full_ref(ref, where=f"repository {repository}")
        head = mirror.heads.get(full)
        if head is None or (since is not None and head[1] < since):
            head = self._fetch(repository, full)
        sha, fetched_at = head
        ancestors = set(far.ancestors(sha))
        rewritten = bool(known) and known not in ancestors
        seen = known in mirror.commits
        unrelated = rewritten and seen and not ancestors.intersection(far.ancestors(known))
        revision, tree = far.commits[sha]
        return Snapshot(repository, revision, FakeTree(repository, tree), fetched_at, rewritten, unrelated)

    def at(self, repository: str, sha: str) -> Snapshot:
        far, mirror = self._of(repository)
        where = f"repository {repository}"
        name = parse_revision(sha, where=where)
        found = next((each for each in sorted(mirror.commits) if name.may_be_sha and each.startswith(name.base)), None)
        for full in () if found or name.is_sha else self._meanings(name.base):
            if found is None and full in far.refs:
                found, _ = self._fetch(repository, full)
        for step in re.findall(r"~\d*|\^\d?", name.steps):
            count, index = (int(step[1:] or 1), 1) if step[0] == "~" else (1, int(step[1:] or 1))
            for _ in range(count if index else 0):
                parents = far.commits[found][0].parents if found else ()
                found = parents[index - 1] if len(parents) >= index else None
        if found is None:
            raise Rejected(Reason.REVISION_MISSING, f"there is no revision {sha}", where=where)
        revision, tree = far.commits[found]
        return Snapshot(repository, revision, FakeTree(repository, tree), self._clock.now())

    def fetches(self, repository: str) -> int:
        return self._mirrors[repository].fetches

    def close(self) -> None:
        """There is nothing to close."""

    def _meanings(self, base: str) -> tuple[str, ...]:
        if base == "HEAD":
            return ("refs/heads/main",)
        return (base,) if base.startswith("refs/") else (f"refs/heads/{base}", f"refs/tags/{base}")

    def _of(self, name: str) -> tuple[FakeRepository, _Mirror]:
        if name not in self.repositories:
            raise Stalled(Reason.SETTINGS_INVALID, f"there is no repository {name!r}")
        return self.repositories[name], self._mirrors[name]

    def _fetch(self, name: str, full: str) -> tuple[str, datetime]:
        far, mirror = self._of(name)
        where = f"repository {name}"
        mirror.fetches += 1
        if far.trouble is not None:
            raise Retryable(far.trouble, "it could not be fetched", where=where)
        if full not in far.refs:
            mirror.heads.pop(full, None)
            reason = Reason.BRANCH_MISSING if far.refs else Reason.REPOSITORY_EMPTY
            raise Stalled(reason, f"it has no {full}", where=where)
        head = mirror.heads[full] = far.refs[full], self._clock.now()
        mirror.commits.update(far.ancestors(head[0]))
        return head


class FakeTree:
    """`ports.Tree` on a mapping of paths to content."""

    def __init__(self, repository: str, tree: Mapping[str, Content]) -> None:
        self._repository = repository
        self._tree = tree

    def files(self, directory: str) -> Mapping[str, str]:
        below = "" if directory in ("", ".") else directory.removesuffix("/") + "/"
        self._check_way(below)
        found: dict[str, str] = {}
        entries: set[str] = set()
        for path, content in self._tree.items():
            if path.startswith(below):
                inner = path[len(below) :].split("/")
                entries.update("/".join(inner[: depth + 1]) for depth in range(len(inner)))
                if len(inner) > DEPTH_LIMIT or len(entries) > ENTRIES_LIMIT:
                    raise self._hostile(f"{directory} is too deep or has too many entries")
                found[path] = _blob_id(self._regular(path, content))
        return found

    def read(self, path: str) -> bytes:
        self._check_way(path + "/")
        content = self._regular(path, self._tree[path])
        if len(content) > BLOB_LIMIT:
            raise self._hostile(f"{path} is too large")
        return content

    def _check_way(self, path: str) -> None:
        """No link or submodule at any directory of the path."""
        for end in re.finditer("/", path):
            place = path[: end.start()]
            if place in self._tree:
                self._regular(place, self._tree[place])

    def _regular(self, path: str, content: Content) -> bytes:
        if not isinstance(content, bytes):
            raise self._hostile(f"{path} is not a regular file")
        return content

    def _hostile(self, what: str) -> Rejected:
        return Rejected(Reason.REPOSITORY_HOSTILE, what, where=f"repository {self._repository}")


def _blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()

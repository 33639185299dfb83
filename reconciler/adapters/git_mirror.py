"""One repository's mirror on disk: fetched, mended, kept small. Bare: no worktree, no hook, no filter, no submodule.

Whoever writes to a mirror holds its lock, among threads and among programs. A mirror is a copy: what is broken in it is
cloned anew, beside the old one, which is given up only when the new one is whole. It must not decide when to fetch.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from reconciler.adapters import git_run
from reconciler.adapters.git_address import mirror_ref, parse_address
from reconciler.adapters.git_objects import Objects
from reconciler.adapters.git_run import Outcome, environment, run
from reconciler.adapters.git_transport import TOO_LARGE, Trouble, diagnose, failure, too_slow, transport_environment
from reconciler.core.errors import Reason, Retryable
from reconciler.settings import RepositorySettings

PACKS = 32
"""So many packs are merged into few. Every fetch that brings something leaves one pack."""


class RefMissing(Exception):  # noqa: N818 (named after the fact)
    """The repository has no such ref. `empty`: it has none at all."""

    def __init__(self, *, empty: bool) -> None:
        self.empty = empty
        super().__init__("there is no such ref")


class Mirror:
    """The mirror `<root>/<name>.git`. `objects` reads from it."""

    def __init__(self, settings: RepositorySettings, root: Path) -> None:
        self.address = parse_address(
            settings.name, settings.url, allow_file=settings.allow_file, username=settings.username
        )
        self.path = root / f"{settings.name}.git"
        self.objects = Objects(self.path, f"repository {settings.name}")
        self._settings = settings
        self._timeout = settings.timeout.total_seconds()
        self._writing = threading.Lock()
        self._swept = False
        self._local = environment(GIT_DIR=str(self.path))

    def head(self, ref: str) -> tuple[str, datetime] | None:
        """What the full name `ref` pointed to when it was last fetched, and when that was. No command is run."""
        file = self._ref_file(ref)
        try:
            sha, when = file.read_text("ascii").strip(), file.stat().st_mtime
        except (OSError, ValueError):
            return None
        if len(sha) != 40:
            return None
        return sha, datetime.fromtimestamp(when, UTC)

    def fetch(self, ref: str, began: datetime) -> None:
        """Bring the full name `ref` here, as of `began`.

        Raises RefMissing, Retryable (unreachable, unauthorized, out of disk) and Rejected (too large).
        """
        reach = transport_environment(self._settings, self.address)
        with self._exclusively():
            self._prepare()
            self.objects.close()  # so that no long-lived reader holds on to packs that go
            if self.objects.damaged:
                self._anew(ref, reach)
            else:
                self._fetch_or_mend(ref, reach)
            stamp = began.timestamp()
            os.utime(self._ref_file(ref), (stamp, stamp))
            self._tidy()

    def resolve(self, expression: str) -> str | None:
        """The commit that `expression` (already validated) names here, or None."""
        command = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{expression}^{{commit}}")
        outcome = self._here(command)
        return outcome.out.strip() if outcome.code == 0 and not outcome.killed else None

    def relation(self, known: str, head: str) -> tuple[bool, bool]:
        """(rewritten, unrelated): `head` does not contain `known`; the two have no common ancestor.

        A `known` that the mirror does not have is not contained in a head that was fetched whole.
        """
        if self.objects.size(known) is None:
            return True, False
        if self._answer("merge-base", "--is-ancestor", known, head):
            return False, False
        return True, not self._answer("merge-base", known, head)

    def ref_name(self, ref: str) -> str:
        """The mirror's own name for the full name `ref`."""
        return mirror_ref(self.address, ref)

    def _ref_file(self, ref: str) -> Path:
        return self.path / self.ref_name(ref)

    def _here(self, command: Sequence[str]) -> Outcome:
        return run(command, self._local, self._timeout)

    def _answer(self, *command: str) -> bool:
        """Yes (exit code 0) or no (1). Anything else is trouble with the mirror."""
        outcome = self._here(command)
        if outcome.killed or outcome.code not in (0, 1):
            raise self.objects.damage()
        return outcome.code == 0

    def _fetch_or_mend(self, ref: str, reach: Mapping[str, str]) -> None:
        outcome = self._fetch(self.path, ref, reach)
        if outcome.code == 0:
            return
        trouble = Trouble.UNREACHABLE if outcome.killed else diagnose(outcome.err)
        if trouble is Trouble.DOUBTFUL and not self._sound():
            self._anew(ref, reach)
            return
        self._give_up(ref, outcome, trouble, reach)

    def _fetch(self, path: Path, ref: str, reach: Mapping[str, str]) -> Outcome:
        """The one command that reaches out: one explicit refspec, nothing that follows from it."""
        outcome = run(
            (
                f"--git-dir={path}",
                "fetch",
                "--quiet",
                "--no-tags",
                "--no-write-fetch-head",
                "--no-auto-maintenance",
                "--no-recurse-submodules",
                "--",
                self.address.url,
                f"+{ref}:{self.ref_name(ref)}",
            ),
            reach,
            self._timeout,
        )
        if outcome.code != 0:
            unfinished = (path / "objects" / "pack").glob("tmp_*")
            if any(file.stat().st_size >= git_run.FILE_LIMIT for file in unfinished):
                outcome = replace(outcome, err=TOO_LARGE)  # git only says that what it started has died
            _sweep(path)
        return outcome

    def _give_up(self, ref: str, outcome: Outcome, trouble: Trouble, reach: Mapping[str, str]) -> None:
        if outcome.killed:
            raise too_slow(self._settings)
        if trouble is not Trouble.MISSING:
            raise failure(trouble, outcome.err, self._settings)
        # Nothing may take the stale ref for the branch; its commits stay readable by their SHA.
        self._ref_file(ref).unlink(missing_ok=True)
        listed = run(("ls-remote", "--quiet", "--", self.address.url), reach, self._timeout)
        if listed.killed or listed.code != 0:
            raise failure(diagnose(listed.err), listed.err, self._settings)
        raise RefMissing(empty=not listed.out)

    def _sound(self) -> bool:
        outcome = self._here(("rev-list", "--objects", "--all", "--quiet"))
        return outcome.killed or outcome.code == 0

    def _anew(self, ref: str, reach: Mapping[str, str]) -> None:
        """Clone beside the damaged mirror, then swap. What is lost are commits that no branch contains any more."""
        fresh, old = self.path.with_suffix(".new"), self.path.with_suffix(".old")
        _remove(fresh, old)
        self._create(fresh)
        outcome = self._fetch(fresh, ref, reach)
        if outcome.code != 0:
            self._give_up(ref, outcome, diagnose(outcome.err), reach)
        with self.objects.replaced():
            self.path.rename(old)
            fresh.rename(self.path)
        _remove(old)

    def _prepare(self) -> None:
        """Once in the life of this object: make the mirror, or clear away what a killed program has left."""
        if self._swept and self.path.is_dir():
            return
        _remove(self.path.with_suffix(".new"), self.path.with_suffix(".old"))
        if self.path.is_dir():
            _sweep(self.path)
        else:
            self._create(self.path)
        self._swept = True

    def _create(self, path: Path) -> None:
        outcome = run(("init", "--quiet", "--bare", "--template=", "--", str(path)), environment(), 60)
        if outcome.code != 0:
            raise failure(diagnose(outcome.err), outcome.err, self._settings)

    def _tidy(self) -> None:
        """Merge small packs, by count because that is what costs; `--geometric` leaves the large ones alone.

        It drops no object, not even one that no branch contains, so an admitted revision can always be read again.
        Should it fail, the next fetch tries again.
        """
        packs = list((self.path / "objects" / "pack").glob("*.pack"))
        if len(packs) < PACKS:
            return
        if self._here(("repack", "--geometric=2", "-d", "-n", "-q")).killed:
            _sweep(self.path)

    @contextlib.contextmanager
    def _exclusively(self) -> Iterator[None]:
        """One writer among the threads and, by a lock on a file beside the mirror, among programs."""
        deadline = time.monotonic() + self._timeout
        if not self._writing.acquire(timeout=self._timeout):
            raise too_slow(self._settings)
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self.path.with_suffix(".lock").open("ab") as file:
                while not _locked(file.fileno()):
                    if time.monotonic() > deadline:
                        raise Retryable(
                            Reason.REPOSITORY_UNREACHABLE,
                            "another program is writing to the mirror",
                            where=f"repository {self._settings.name}",
                            remedy="wait for it to end; a data directory belongs to one daemon",
                        )
                    time.sleep(0.02)
                yield
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise Retryable(
                Reason.OUT_OF_DISK if full else Reason.REPOSITORY_UNREACHABLE,
                f"the mirror cannot be written ({error.strerror})",
                where=f"{self._settings.name}: {self.path}",
                remedy="give the data directory room, and let the user that Reconciler runs as write to it",
            ) from error
        finally:
            self._writing.release()


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sweep(path: Path) -> None:
    """Remove what a killed git leaves: locks, keep marks and unfinished packs. The caller holds the lock."""
    packs = path / "objects" / "pack"
    stale = [*path.glob("*.lock"), *(path / "refs").rglob("*.lock"), *(path / "objects").glob("*/*.lock")]
    stale += [*packs.glob("*.keep"), *packs.glob("tmp_*"), *packs.glob(".tmp-*")]
    for file in stale:
        file.unlink(missing_ok=True)


def _remove(*paths: Path) -> None:
    for path in paths:
        if path.exists():
            shutil.rmtree(path)

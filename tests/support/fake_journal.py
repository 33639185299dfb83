"""`ports.Journal` in memory, for the simulation: the real chain and fold, and a disk that fails on demand.

A `JournalDisk` outlives the writers that open it, as a file outlives a crash. `fault` is called before and after
entries become durable and may raise what it likes: an error of the disk, or the simulated end of the program.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from reconciler.core import audit
from reconciler.core.audit import GENESIS, Head
from reconciler.core.errors import Fenced, Reason, Retryable, Stalled
from reconciler.core.fold import remember
from reconciler.core.memory import EnvironmentMemory
from reconciler.core.record import Entry, Record, What
from reconciler.ports import Clock, Verification

BEFORE = "before"
AFTER = "after"


@dataclass
class JournalDisk:
    """What survives. `damage` it by assigning to `records`; `holder` is the writer that has the lock."""

    records: list[Record] = field(default_factory=list)
    fault: Callable[[str, tuple[Entry, ...]], None] = lambda moment, entries: None
    holder: FakeJournal | None = None
    guard: threading.RLock = field(default_factory=threading.RLock)

    def head(self) -> Head:
        return audit.head_of(self.records[-1]) if self.records else GENESIS

    def crash(self) -> None:
        """The holder is gone without a word: its lock with it."""
        self.holder = None

    def fail_next(self, moment: str) -> None:
        """The next append fails once, `BEFORE` or `AFTER` its entries are durable."""

        def once(now: str, entries: tuple[Entry, ...]) -> None:
            if now == moment:
                self.fault = type(self).fault
                raise Retryable(Reason.JOURNAL_UNAVAILABLE, f"simulated failure {moment} durability")

        self.fault = once


class FakeJournal:
    """One writer's view of a `JournalDisk`."""

    def __init__(self, disk: JournalDisk, epoch: int, *, act: bool) -> None:
        self.disk = disk
        self._epoch = epoch
        self._act = act
        self._closed = False
        self._memories: dict[str, EnvironmentMemory] = {}
        self._folded = 0

    @classmethod
    def open(cls, disk: JournalDisk, clock: Clock, writer: str, *, act: bool) -> FakeJournal:
        """As `SqlJournal.open`. Raises Stalled (JOURNAL_LOCKED, JOURNAL_DAMAGED, JOURNAL_UNAVAILABLE)."""
        with disk.guard:
            if not act:
                if not disk.records:
                    raise Stalled(Reason.JOURNAL_UNAVAILABLE, "there is no journal here yet")
                return cls(disk, disk.head().epoch, act=False)
            if disk.holder is not None:
                raise Stalled(Reason.JOURNAL_LOCKED, "another daemon acts on this journal")
            problem = audit.check(disk.records)
            if problem:
                raise Stalled(Reason.JOURNAL_DAMAGED, problem)
            epoch = disk.head().epoch + 1
            entries = [Entry(at=clock.now(), what=What.EPOCH_OPENED, details={"writer": writer})]
            if not disk.records:
                entries.insert(0, Entry(at=clock.now(), what=What.JOURNAL_BEGAN))
            for entry in entries:
                disk.records.append(audit.chain(disk.head(), epoch, entry))
            disk.holder = cls(disk, epoch, act=True)
            return disk.holder

    @property
    def epoch(self) -> int:
        return self._epoch

    def append(self, *entries: Entry) -> tuple[Record, ...]:
        ready = [audit.prepare(entry) for entry in entries]
        with self.disk.guard:
            if self._closed:
                raise Retryable(Reason.JOURNAL_UNAVAILABLE, "the journal is closed")
            head = self.disk.head()
            if self._act and head.epoch != self._epoch:
                raise Fenced(Reason.FENCED, f"epoch {head.epoch} was opened, so epoch {self._epoch} must not act")
            self.disk.fault(BEFORE, entries)
            found = []
            for entry in ready:
                found.append(audit.chain(head, head.epoch, entry))
                head = audit.head_of(found[-1])
            self.disk.records.extend(found)
            self.disk.fault(AFTER, entries)
            return tuple(found)

    def memory(self, environment: str) -> EnvironmentMemory:
        self._catch_up()
        return self._memories.get(environment, EnvironmentMemory())

    def environments(self) -> tuple[str, ...]:
        self._catch_up()
        return tuple(sorted(self._memories))

    def _catch_up(self) -> None:
        with self.disk.guard:
            for record in self.disk.records[self._folded :]:
                name = record.entry.environment
                if name:
                    self._memories[name] = remember(self._memories.get(name, EnvironmentMemory()), record.entry)
            self._folded = len(self.disk.records)

    def records(
        self,
        *,
        after: int = 0,
        environment: str = "",
        service: str = "",
        limit: int | None = None,
        newest: bool = False,
    ) -> Iterator[Record]:
        found = [
            record
            for record in self.disk.records
            if record.index > after
            and environment in ("", record.entry.environment)
            and service in ("", record.entry.service)
        ]
        if limit is not None:
            found = found[max(0, len(found) - limit) :] if newest else found[:limit]
        return iter(found)

    def verify(self) -> Verification:
        head = self.disk.head()
        problem = audit.check(self.disk.records)
        return Verification(records=len(self.disk.records), head=head.hash, epochs=head.epoch, problem=problem)

    def close(self) -> None:
        self._closed = True
        if self.disk.holder is self:
            self.disk.holder = None

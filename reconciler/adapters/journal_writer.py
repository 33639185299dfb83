"""The one thread that writes the journal: what is asked for at the same time is made durable by one commit.

Each transaction begins with the write lock and with reading the last record. So the chain continues whatever other
programs added, and a writer of an older epoch finds out before it writes: that is the fence. After a failure nothing
is assumed of what reached the disk; the connection is dropped and the next transaction reads the last record again.

A server can be lost in the middle of a commit. The next transaction there waits at the fence for the end of the lost
one, then looks whether its records are there by place and hash: so nothing is written twice, and nothing is lost.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from queue import SimpleQueue

from sqlalchemy import Connection, Engine

from reconciler.adapters.journal_errors import damaged, transaction, unavailable, was_lost
from reconciler.adapters.journal_rows import add, head_at, newest_head
from reconciler.adapters.journal_store import Store
from reconciler.core import audit
from reconciler.core.audit import GENESIS, Head, Prepared
from reconciler.core.errors import Fenced, Reason, Retryable
from reconciler.core.record import Record

GROUP = 512
DEADLINE_SECONDS = 30.0
SETTLE_SECONDS = 10.0
"""For a lost server to come back and say what became of a commit."""
PAUSE_SECONDS = 0.1

Written = list[tuple[Record, ...]]


@dataclass(frozen=True, slots=True)
class _Job:
    """Entries to append, or other work for the same transaction."""

    entries: tuple[Prepared, ...] = ()
    work: Callable[[Connection], None] | None = None
    done: Future[tuple[Record, ...]] = field(default_factory=Future)


class JournalWriter:
    """Group commit. `epoch`: the one this writer opened, or None for one that only adds to the newest."""

    def __init__(self, engine: Engine, store: Store, epoch: int | None) -> None:
        self._engine = engine
        self._store = store
        self._epoch = epoch
        self._last = GENESIS
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._closing = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def append(self, entries: Sequence[Prepared]) -> tuple[Record, ...]:
        """Durable on return, all or none. Raises Fenced, Retryable(JOURNAL_UNAVAILABLE), Stalled(JOURNAL_DAMAGED).

        After Retryable the records may still turn up, when the disk had them but did not say so.
        """
        done = self._submit(_Job(entries=tuple(entries)))
        try:
            return done.result(timeout=DEADLINE_SECONDS)
        except FutureTimeoutError as error:
            done.cancel()
            late = f"the disk or the server did not answer within {DEADLINE_SECONDS:.0f} s"
            raise unavailable(late, self._store.place) from error

    def soon(self, work: Callable[[Connection], None]) -> Future[tuple[Record, ...]]:
        """Do `work` in one of the next transactions, behind the same fence."""
        return self._submit(_Job(work=work))

    def _submit(self, job: _Job) -> Future[tuple[Record, ...]]:
        with self._closing:
            if self._closed:
                raise unavailable("the journal is closed", self._store.place)
            self._jobs.put(job)
        return job.done

    def close(self) -> None:
        """Finish what was asked for, then stop. The engine stays open."""
        with self._closing:
            if not self._closed:
                self._jobs.put(None)
            self._closed = True
        self._thread.join()

    def _run(self) -> None:
        stop = False
        while not stop:
            group, stop = self._take()
            group = [job for job in group if job.done.set_running_or_notify_cancel()]
            if group:
                self._commit(group)

    def _take(self) -> tuple[list[_Job], bool]:
        """Wait for a job and take with it what is waiting too; and whether that was the last."""
        group: list[_Job] = []
        job = self._jobs.get()
        while job is not None:
            group.append(job)
            if len(group) == GROUP or self._jobs.empty():
                return group, False
            job = self._jobs.get()
        return group, True

    def _commit(self, group: list[_Job]) -> None:
        try:
            found = self._written(group)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is for those who wait, and the thread lives on
            for job in group:
                job.done.set_exception(error)
            return
        self._last = next((audit.head_of(records[-1]) for records in reversed(found) if records), self._last)
        for job, records in zip(group, found, strict=True):
            job.done.set_result(records)

    def _written(self, group: list[_Job]) -> Written:
        """The records of each job, durable. Tries again where a server settles what became of a lost connection."""
        unsure: Written | None = None  # what a commit that did not answer has written, or not
        end, again = time.monotonic() + SETTLE_SECONDS, True
        while True:
            sent: Written | None = None
            try:
                with transaction(self._engine, self._store.place) as connection:
                    self._store.fence(connection)
                    if unsure is None or not self._is_there(connection, unsure):
                        sent = self._write(connection, group)
                return unsure if sent is None and unsure is not None else sent or []
            except Retryable as error:
                unsure = sent if sent is not None else unsure
                stale, again = again and was_lost(error), False
                if not self._store.settles or not (stale or (unsure is not None and time.monotonic() < end)):
                    raise
            time.sleep(PAUSE_SECONDS)

    def _is_there(self, connection: Connection, written: Written) -> bool:
        last = next((records[-1] for records in reversed(written) if records), None)
        return last is not None and head_at(connection, last.index) == audit.head_of(last)

    def _write(self, connection: Connection, group: list[_Job]) -> Written:
        head = newest_head(connection)
        # A server that was set back to an older state, by a backup or a standby that lagged, has no right to go on.
        if self._last not in (head, GENESIS) and head_at(connection, self._last.index) != self._last:
            raise damaged(f"record {self._last.index} was confirmed here and is missing or changed", self._store.place)
        if self._epoch is not None and head.epoch != self._epoch:
            raise Fenced(
                Reason.FENCED,
                f"epoch {head.epoch} was opened by another daemon, so this one of epoch {self._epoch} must not act",
                where=self._store.place,
                remedy="Run one daemon for each journal",
            )
        found = []
        for job in group:
            records, head = _chained(head, job.entries)
            found.append(records)
        add(connection, [record for records in found for record in records])
        for job in group:
            if job.work is not None:
                job.work(connection)
        return found


def _chained(head: Head, entries: Sequence[Prepared]) -> tuple[tuple[Record, ...], Head]:
    records = []
    for entry in entries:
        record = audit.chain(head, head.epoch, entry)
        records.append(record)
        head = audit.head_of(record)
    return tuple(records), head

"""The one thread that writes the journal: what is asked for at the same time is made durable by one commit.

Each transaction begins with the write lock and with reading the last record. So the chain continues whatever other
programs added, and a writer of an older epoch finds out before it writes: that is the fence. After a failure nothing
is assumed of what reached the disk; the connection is dropped and the next transaction reads the last record again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

from sqlalchemy import Connection, Engine

from reconciler.adapters.journal_errors import transaction, unavailable
from reconciler.adapters.journal_rows import add, newest_head
from reconciler.core import audit
from reconciler.core.audit import Head, Prepared
from reconciler.core.errors import Fenced, Reason
from reconciler.core.record import Record

GROUP = 512
DEADLINE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class _Job:
    """Entries to append, or other work for the same transaction."""

    entries: tuple[Prepared, ...] = ()
    work: Callable[[Connection], None] | None = None
    done: Future[tuple[Record, ...]] = field(default_factory=Future)


class JournalWriter:
    """Group commit. `epoch`: the one this writer opened, or None for one that only adds to the newest."""

    def __init__(self, engine: Engine, path: Path, epoch: int | None) -> None:
        self._engine = engine
        self._path = path
        self._epoch = epoch
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
            raise unavailable(f"the disk did not answer within {DEADLINE_SECONDS:.0f} s", self._path) from error

    def soon(self, work: Callable[[Connection], None]) -> Future[tuple[Record, ...]]:
        """Do `work` in one of the next transactions, behind the same fence."""
        return self._submit(_Job(work=work))

    def _submit(self, job: _Job) -> Future[tuple[Record, ...]]:
        with self._closing:
            if self._closed:
                raise unavailable("the journal is closed", self._path)
            self._jobs.put(job)
        return job.done

    def close(self) -> None:
        """Finish what was asked for, then stop."""
        with self._closing:
            if not self._closed:
                self._jobs.put(None)
            self._closed = True
        self._thread.join()
        self._engine.dispose()

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
            with transaction(self._engine, self._path) as connection:
                found = self._write(connection, group)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is for those who wait, and the thread lives on
            for job in group:
                job.done.set_exception(error)
            return
        for job, records in zip(group, found, strict=True):
            job.done.set_result(records)

    def _write(self, connection: Connection, group: list[_Job]) -> list[tuple[Record, ...]]:
        head = newest_head(connection)
        if self._epoch is not None and head.epoch != self._epoch:
            raise Fenced(
                Reason.FENCED,
                f"epoch {head.epoch} was opened by another daemon, so this one of epoch {self._epoch} must not act",
                where=str(self._path),
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

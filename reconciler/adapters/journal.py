"""The journal in an SQL database: append-only, hash-chained, fenced by epoch. `ports.Journal` over SQLAlchemy Core.

At each start of the daemon the newest records are checked (10,000, and all that no projection covers yet), so that a
start stays fast with a million of them; `verify` checks them all. What a record means is for `core/memory.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from sqlalchemy import Engine, select

from reconciler import __version__
from reconciler.adapters import journal_schema as schema
from reconciler.adapters.journal_check import check_tail, look_through
from reconciler.adapters.journal_errors import transaction, translated
from reconciler.adapters.journal_lock import Lock
from reconciler.adapters.journal_memory import JournalMemory
from reconciler.adapters.journal_rows import add, newest_head, pages, record_of
from reconciler.adapters.journal_schema import records
from reconciler.adapters.journal_writer import JournalWriter
from reconciler.core import audit
from reconciler.core.audit import GENESIS
from reconciler.core.errors import Reason, ReconcilerError, Stalled
from reconciler.core.memory import EnvironmentMemory
from reconciler.core.record import Entry, Record, What
from reconciler.ports import Clock, Verification


class SqlJournal:
    """One writer's view of a journal. Safe to use from many threads."""

    def __init__(
        self, path: Path, reading: Engine, writer: JournalWriter, memory: JournalMemory, epoch: int, lock: Lock | None
    ) -> None:
        self._path = path
        self._reading = reading
        self._writer = writer
        self._memory = memory
        self._epoch = epoch
        self._lock = lock

    @classmethod
    def open(cls, url: str, clock: Clock, writer: str, *, act: bool) -> SqlJournal:
        """Open the journal `sqlite:///FILE`.

        `act`: as the daemon. Makes the file where there is none, takes the lock `FILE.lock`, checks the newest records
        and opens a new epoch, recorded with `writer` (who this is, for people). Otherwise as a reader that may add
        records of a person's doing to the newest epoch; then the journal must exist.

        Raises Stalled (SETTINGS_INVALID, JOURNAL_LOCKED, JOURNAL_DAMAGED, JOURNAL_UNAVAILABLE where there is no
        journal) and Retryable(JOURNAL_UNAVAILABLE).
        """
        path = schema.file_of(url)
        return cls._open_to_act(path, clock, writer) if act else cls._open_beside(path)

    @classmethod
    def _open_to_act(cls, path: Path, clock: Clock, writer: str) -> SqlJournal:
        with translated(path):
            schema.create_file(path)
            lock = Lock(path.with_name(path.name + ".lock"))
        writing, reading = schema.writing_engine(path, checkpoints=True), schema.reading_engine(path)
        try:
            # Nothing is written before what is there is known to hold.
            with translated(path):
                schema.use_wal(writing, path)
            with transaction(reading, path) as connection:
                schema.check_schema(connection, path)
                exists = schema.has_tables(connection)
            if exists:
                check_tail(reading, path)
            else:
                with transaction(writing, path) as connection:
                    schema.create_tables(connection)
            memory = JournalMemory(reading, path)
            memory.latest()
            epoch = _open_epoch(writing, path, clock, writer)
        except BaseException:
            writing.dispose()
            reading.dispose()
            lock.release()
            raise
        return cls(path, reading, JournalWriter(writing, path, epoch), memory, epoch, lock)

    @classmethod
    def _open_beside(cls, path: Path) -> SqlJournal:
        if not path.exists():
            raise _no_journal(path)
        writing, reading = schema.writing_engine(path, checkpoints=False), schema.reading_engine(path)
        try:
            with transaction(reading, path) as connection:
                head = newest_head(connection) if schema.has_tables(connection) else GENESIS
                if head == GENESIS:
                    raise _no_journal(path)
                schema.check_schema(connection, path)
            memory = JournalMemory(reading, path)
        except BaseException:
            reading.dispose()
            raise
        return cls(path, reading, JournalWriter(writing, path, None), memory, head.epoch, None)

    @property
    def epoch(self) -> int:
        """The epoch this writer opened; for one that does not act, the newest at its opening."""
        return self._epoch

    def append(self, *entries: Entry) -> tuple[Record, ...]:
        """Durable on return, all of the entries or none; see `ports.Journal`.

        Raises Fenced, Retryable(JOURNAL_UNAVAILABLE), Stalled(JOURNAL_DAMAGED), and UnrecordableError for an entry
        that has no canonical form. After Retryable the records may still turn up: a disk can keep what it did not
        confirm.
        """
        return self._writer.append([audit.prepare(entry) for entry in entries])

    def memory(self, environment: str) -> EnvironmentMemory:
        """The fold of all records of an environment. Raises Stalled(JOURNAL_DAMAGED), Retryable."""
        fold = self._memory.latest()
        save = self._memory.due(fold) if self._lock else None
        if save is not None:
            self._writer.soon(save)
        return fold.memories.get(environment, EnvironmentMemory())

    def environments(self) -> tuple[str, ...]:
        """All environments the journal has records of, by name. Raises Stalled(JOURNAL_DAMAGED), Retryable."""
        return tuple(sorted(self._memory.latest().memories))

    def records(
        self,
        *,
        after: int = 0,
        environment: str = "",
        service: str = "",
        limit: int | None = None,
        newest: bool = False,
    ) -> Iterator[Record]:
        """Records by rising index, not checked; see `ports.Journal`.

        Raises Retryable, and Stalled(JOURNAL_DAMAGED) at one that cannot be read.
        """
        query = select(records)
        if environment:
            query = query.where(records.c.environment == environment)
        if service:
            query = query.where(records.c.service == service)
        if newest and limit is not None:
            with transaction(self._reading, self._path) as connection:
                last = query.where(records.c.index > after).order_by(records.c.index.desc()).limit(limit)
                rows = connection.execute(last).mappings().all()
            yield from (record_of(row, self._path) for row in reversed(rows))
            return
        for row in pages(self._reading, self._path, query, after, limit):
            yield record_of(row, self._path)

    def verify(self) -> Verification:
        """Check every record, and that the memory and the saved projections are their fold. Raises Retryable."""
        return look_through(self._reading, self._path, self._memory.known())

    def close(self) -> None:
        """Finish the appends under way, save the projections where this writer acts, and let go of the lock."""
        if self._lock is not None:
            # Only a cache: what is not saved is folded again at the next start.
            with suppress(ReconcilerError):
                save = self._memory.due(self._memory.latest(), closing=True)
                if save is not None:
                    self._writer.soon(save)
        self._writer.close()
        self._reading.dispose()
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def _no_journal(path: Path) -> Stalled:
    return Stalled(
        Reason.JOURNAL_UNAVAILABLE,
        "there is no journal here yet",
        where=str(path),
        remedy="Start the daemon once (`reconciler run`), or correct the journal in the settings",
    )


def _open_epoch(engine: Engine, path: Path, clock: Clock, writer: str) -> int:
    """Record the next epoch, from which on all earlier writers are fenced; in an empty journal, also its beginning."""
    with transaction(engine, path) as connection:
        schema.create_triggers(connection)
        head = newest_head(connection)
        epoch = head.epoch + 1
        if head == GENESIS:
            note = "The journal begins anew here: what was recorded before, if anything, is not in it"
            begun = audit.chain(head, epoch, Entry(at=clock.now(), what=What.JOURNAL_BEGAN, details={"note": note}))
            add(connection, [begun])
            head = audit.head_of(begun)
        details = {"writer": writer, "program": __version__, "pid": os.getpid()}
        opened = Entry(at=clock.now(), what=What.EPOCH_OPENED, details=details)
        add(connection, [audit.chain(head, epoch, opened)])
    return epoch

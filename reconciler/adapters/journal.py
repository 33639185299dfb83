"""The journal in an SQL database: append-only, hash-chained, fenced by epoch. `ports.Journal` over SQLAlchemy Core.

At each start of the daemon the newest records are checked (10,000, and all that no projection covers yet), so that a
start stays fast with a million of them; `verify` checks them all. What a record means is for `core/memory.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

from sqlalchemy import Engine, select

from reconciler import __version__
from reconciler.adapters.journal_check import check_tail, look_through
from reconciler.adapters.journal_errors import reading, transaction, translated
from reconciler.adapters.journal_memory import JournalMemory
from reconciler.adapters.journal_postgres import PostgresStore
from reconciler.adapters.journal_postgres_url import address_of
from reconciler.adapters.journal_rows import add, newest_head, pages, record_of
from reconciler.adapters.journal_schema import records
from reconciler.adapters.journal_sqlite import SqliteStore, file_of
from reconciler.adapters.journal_store import Lock, Store
from reconciler.adapters.journal_writer import JournalWriter
from reconciler.core import audit
from reconciler.core.audit import GENESIS
from reconciler.core.errors import Reason, ReconcilerError, Stalled
from reconciler.core.journal_rules import POSTGRES
from reconciler.core.memory import EnvironmentMemory
from reconciler.core.record import Entry, Record, What
from reconciler.ports import Clock, Verification
from reconciler.settings import JournalSettings


class SqlJournal:
    """One writer's view of a journal. Safe to use from many threads."""

    def __init__(
        self,
        store: Store,
        engines: tuple[Engine, Engine],
        writer: JournalWriter,
        memory: JournalMemory,
        epoch: int,
        lock: Lock | None,
    ) -> None:
        self._place = store.place
        self._writing, self._reading = engines
        self._writer = writer
        self._memory = memory
        self._epoch = epoch
        self._lock = lock

    @classmethod
    def open(
        cls,
        url: str,
        clock: Clock,
        writer: str,
        *,
        act: bool,
        login: JournalSettings | None = None,
        take_over: bool = False,
    ) -> SqlJournal:
        """Open the journal `sqlite:///FILE` or `postgresql://USER@HOST:PORT/DATABASE`, there with `login`.

        `act`: as the daemon. Makes what is not there (the file and its lock `FILE.lock`, or the schema), takes the
        lock, checks the newest records and opens a new epoch, recorded with `writer` (who this is, for people).
        Otherwise as a reader that may add records of a person's doing to the newest epoch; then the journal must exist.
        `take_over`: who acts was settled elsewhere; in PostgreSQL the new epoch is opened although the session of
        another daemon still holds the lock, and that one is fenced.

        Raises Stalled (SETTINGS_INVALID, JOURNAL_LOCKED, JOURNAL_DAMAGED, JOURNAL_UNAVAILABLE where there is no
        journal, or the database cannot hold one) and Retryable(JOURNAL_UNAVAILABLE).
        """
        store = store_of(url, login or JournalSettings())
        engines = store.writing_engine(acts=act), store.reading_engine()
        try:
            if act:
                return cls._open_to_act(store, engines, clock, writer, take_over=take_over)
            return cls._open_beside(store, engines)
        except BaseException:
            for engine in engines:
                engine.dispose()
            raise

    @classmethod
    def _open_to_act(
        cls, store: Store, engines: tuple[Engine, Engine], clock: Clock, writer: str, *, take_over: bool
    ) -> SqlJournal:
        writing, reads = engines
        with translated(store.place):
            store.make()
            lock = store.take(writing, over=take_over)
        try:
            # Nothing is written before what is there is known to hold.
            with translated(store.place):
                store.check_fit(writing)
            with reading(reads, store.place) as connection:
                store.check_schema(connection)
                exists = store.has_tables(connection)
            if exists:
                check_tail(reads, store.place)
            else:
                with transaction(writing, store.place) as connection:
                    store.create_tables(connection)
            memory = JournalMemory(reads, store.place)
            memory.latest()
            epoch = _open_epoch(writing, store, clock, writer)
        except BaseException:
            _let_go(engines, lock)
            raise
        return cls(store, engines, JournalWriter(writing, store, epoch), memory, epoch, lock)

    @classmethod
    def _open_beside(cls, store: Store, engines: tuple[Engine, Engine]) -> SqlJournal:
        if not store.exists():
            raise _no_journal(store.place)
        writing, reads = engines
        with reading(reads, store.place) as connection:
            head = newest_head(connection) if store.has_tables(connection) else GENESIS
            if head == GENESIS:
                raise _no_journal(store.place)
            store.check_schema(connection)
        memory = JournalMemory(reads, store.place)
        return cls(store, engines, JournalWriter(writing, store, None), memory, head.epoch, None)

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
            with reading(self._reading, self._place) as connection:
                last = query.where(records.c.index > after).order_by(records.c.index.desc()).limit(limit)
                rows = connection.execute(last).mappings().all()
            yield from (record_of(row, self._place) for row in reversed(rows))
            return
        for row in pages(self._reading, self._place, query, after, limit):
            yield record_of(row, self._place)

    def verify(self) -> Verification:
        """Check every record, and that the memory and the saved projections are their fold. Raises Retryable."""
        return look_through(self._reading, self._place, self._memory.known())

    def close(self) -> None:
        """Finish the appends under way, save the projections where this writer acts, and let go of the lock."""
        if self._lock is not None:
            # Only a cache: what is not saved is folded again at the next start.
            with suppress(ReconcilerError):
                save = self._memory.due(self._memory.latest(), closing=True)
                if save is not None:
                    self._writer.soon(save)
        self._writer.close()
        _let_go((self._writing, self._reading), self._lock)
        self._lock = None


def store_of(url: str, login: JournalSettings) -> Store:
    """The place that `url` names. Raises Stalled(SETTINGS_INVALID)."""
    return PostgresStore(address_of(url), login) if url.startswith(POSTGRES) else SqliteStore(file_of(url))


def _let_go(engines: tuple[Engine, Engine], lock: Lock | None) -> None:
    writing, reads = engines
    reads.dispose()
    if lock is not None:
        lock.release(writing)
    else:
        writing.dispose()


def _no_journal(place: str) -> Stalled:
    return Stalled(
        Reason.JOURNAL_UNAVAILABLE,
        "there is no journal here yet",
        where=place,
        remedy="Start the daemon once (`reconciler run`), or correct the journal in the settings",
    )


def _open_epoch(engine: Engine, store: Store, clock: Clock, writer: str) -> int:
    """Record the next epoch, from which on all earlier writers are fenced; in an empty journal, also its beginning."""
    with transaction(engine, store.place) as connection:
        store.create_triggers(connection)
        store.fence(connection)
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

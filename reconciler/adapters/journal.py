"""The journal in an SQL database: append-only, hash-chained, fenced by epoch. `ports.Journal` over SQLAlchemy Core.

At each start of the daemon the newest records are checked (10,000, and all that no projection covers yet), so that a
start stays fast with a million of them; `verify` checks them all. What a record means is for `core/memory.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Engine, select

from reconciler import __version__
from reconciler.adapters import journal_schema as schema
from reconciler.adapters.journal_check import check_tail, look_through
from reconciler.adapters.journal_errors import translated
from reconciler.adapters.journal_lock import Lock
from reconciler.adapters.journal_memory import JournalMemory
from reconciler.adapters.journal_rows import add, newest_head, pages, record_of
from reconciler.adapters.journal_schema import records
from reconciler.adapters.journal_writer import JournalWriter
from reconciler.core import audit
from reconciler.core.audit import GENESIS
from reconciler.core.errors import Reason, Stalled
from reconciler.core.memory import EnvironmentMemory
from reconciler.core.record import Entry, Record, What
from reconciler.ports import Clock, Verification


class SqlJournal:
    """One writer's view of a journal. Safe to use from many threads."""

    def __init__(self, path: Path, reading: Engine, writer: JournalWriter, epoch: int, lock: Lock | None) -> None:
        self._path = path
        self._reading = reading
        self._writer = writer
        self._epoch = epoch
        self._lock = lock
        self._memory: JournalMemory = JournalMemory(reading, path)

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
            with translated(path):
                schema.use_wal(writing, path)
                with writing.begin() as connection:
                    schema.create_tables(connection, path)
            check_tail(reading, path)
            epoch = _open_epoch(writing, path, clock, writer)
            journal = cls(path, reading, JournalWriter(writing, path, epoch), epoch, lock)
        except BaseException:
            writing.dispose()
            reading.dispose()
            lock.release()
            raise
        return journal

    @classmethod
    def _open_beside(cls, path: Path) -> SqlJournal:
        pass

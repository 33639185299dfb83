"""A journal in a file: what is SQLite's own about it, that is its file, pragmas, transactions, triggers and lock.

The tables are those of `journal_schema.py`. No record is read or written here.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event, inspect, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError

from reconciler.adapters.durable_file import keep_names
from reconciler.adapters.journal_lock import Lock
from reconciler.adapters.journal_schema import SCHEMA, check_layout, metadata, records
from reconciler.core.errors import Reason, Stalled

BUSY_SECONDS = 5

_TRIGGERS = (
    """CREATE TRIGGER IF NOT EXISTS records_no_update BEFORE UPDATE ON records
       BEGIN SELECT RAISE(ABORT, 'the journal is append-only: no record is changed'); END""",
    """CREATE TRIGGER IF NOT EXISTS records_no_delete BEFORE DELETE ON records
       BEGIN SELECT RAISE(ABORT, 'the journal is append-only: no record is removed'); END""",
    # INSERT OR REPLACE would remove a row without firing the trigger above.
    """CREATE TRIGGER IF NOT EXISTS records_in_order BEFORE INSERT ON records
       WHEN NEW."index" <> (SELECT coalesce(max("index"), 0) + 1 FROM records)
       BEGIN SELECT RAISE(ABORT, 'the journal is append-only: a record goes to the end'); END""",
)


def file_of(url: str) -> Path:
    """The file of a journal URL `sqlite:///path`. Raises Stalled(SETTINGS_INVALID) for any other URL."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise _bad_url("it is not a URL") from error
    if parsed.get_backend_name() != "sqlite":
        raise _bad_url(f"a journal in {parsed.get_backend_name()} is not supported")
    if not parsed.database or parsed.database == ":memory:":
        raise _bad_url("it names no file")
    if "?" in url:
        raise _bad_url("it has parameters; there are none for a journal")
    return Path(parsed.database).absolute()


def _bad_url(what: str) -> Stalled:
    # The URL itself is not shown: that of another database can hold a password.
    return Stalled(
        Reason.SETTINGS_INVALID, what, where="journal", remedy="Set it to sqlite:///FILE, with an absolute FILE"
    )


class SqliteStore:
    """`journal_store.Store` in the file at `path`."""

    settles = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self.place = str(path)

    def exists(self) -> bool:
        """Whether the file is there."""
        return self._path.exists()

    def make(self) -> None:
        """Make the empty file, durable in its directory, readable by owner and group only. Nothing where it exists."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o640))
        except FileExistsError:
            return
        keep_names(self._path.parent)

    def writing_engine(self, *, acts: bool) -> Engine:
        """One connection whose every transaction holds the write lock from its beginning.

        Only the daemon's (`acts`) moves the WAL into the file: two connections that do so side by side can lose a
        commit in SQLite before 3.51.3 (its "WAL-reset bug").
        """
        engine = _engine(self._path, pool_size=1)
        autocheckpoint = 1000 if acts else 0
        pragmas = f"PRAGMA wal_autocheckpoint = {autocheckpoint}; PRAGMA journal_size_limit = 67108864"
        _on_connect(engine, pragmas)
        _on_begin(engine, "BEGIN IMMEDIATE")
        return engine

    def reading_engine(self) -> Engine:
        """Connections that cannot write."""
        engine = _engine(self._path, pool_size=4)
        _on_connect(engine, "PRAGMA query_only = ON; PRAGMA wal_autocheckpoint = 0")
        _on_begin(engine, "BEGIN")
        return engine

    def take(self, writing: Engine, *, over: bool) -> Lock:  # noqa: ARG002 (nobody can take a file lock away)
        """The lock `FILE.lock`. Raises Stalled(JOURNAL_LOCKED) naming the holder."""
        return Lock(self._path.with_name(self._path.name + ".lock"))

    def check_fit(self, engine: Engine) -> None:
        """Turn on write-ahead logging, which stays with the file. Raises Stalled where the file system cannot do it."""
        raw = engine.raw_connection()
        try:
            cursor = raw.cursor()
            mode = cursor.execute("PRAGMA journal_mode = WAL").fetchone()
        finally:
            raw.close()
        if mode is None or str(mode[0]).lower() != "wal":
            raise Stalled(
                Reason.JOURNAL_UNAVAILABLE,
                "this file system cannot hold the journal: SQLite cannot use a write-ahead log on it",
                where=self.place,
                remedy="Put the journal on a local disk",
            )

    def check_schema(self, connection: Connection) -> None:
        """Raises Stalled for a file whose tables a newer release made."""
        check_layout(connection.exec_driver_sql("PRAGMA user_version").scalar_one(), self.place)

    def has_tables(self, connection: Connection) -> bool:
        """Whether this is a journal at all."""
        return inspect(connection).has_table(records.name)

    def create_tables(self, connection: Connection) -> None:
        """Make the tables and indexes of a new journal."""
        metadata.create_all(connection)
        self.create_triggers(connection)
        connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA}")

    def create_triggers(self, connection: Connection) -> None:
        """Make the database refuse to change records, also where someone took that away."""
        for trigger in _TRIGGERS:
            connection.exec_driver_sql(trigger)

    def fence(self, connection: Connection) -> None:
        """Nothing: the transaction began with the write lock."""


def _engine(path: Path, *, pool_size: int) -> Engine:
    # mode=rw: opening a journal never makes a file.
    url = URL.create("sqlite", database=f"file:{quote(str(path))}", query={"mode": "rw", "uri": "true"})
    return create_engine(
        url, pool_size=pool_size, max_overflow=-1, connect_args={"timeout": BUSY_SECONDS, "isolation_level": None}
    )


def _on_connect(engine: Engine, pragmas: str) -> None:
    # FULL: in WAL mode each commit returns after the WAL is on the disk. EXTRA adds nothing there: it is about
    # the deletion of a rollback journal, and a WAL has none. fullfsync is for macOS, where fsync alone is a hint.
    common = (
        "PRAGMA synchronous = FULL; PRAGMA fullfsync = ON; PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON"
    )

    @event.listens_for(engine, "connect")
    def connect(connection: sqlite3.Connection, _: object) -> None:
        # A damaged text is still read, so that the record it stands in can be named.
        connection.text_factory = lambda text: text.decode(errors="replace")
        for pragma in f"{common}; {pragmas}".split("; "):
            connection.execute(pragma)


def _on_begin(engine: Engine, statement: str) -> None:
    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(statement)

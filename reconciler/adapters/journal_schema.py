"""The journal's tables, and the part that is SQLite's own: its file, pragmas, transactions and triggers.

The tables use types and statements that PostgreSQL has too. What another database needs in place of this module's
second half: a transaction that holds off other writers while it reads the head (an advisory lock), triggers that
refuse UPDATE, DELETE and TRUNCATE, and `REVOKE UPDATE, DELETE, TRUNCATE ON records` from the role of the daemon.
No record is read or written here.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    create_engine,
    event,
    inspect,
    make_url,
)
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError

from reconciler.core.errors import Reason, Stalled

SCHEMA = 1
BUSY_SECONDS = 5

# On SQLite only INTEGER makes the key the row's own place in the file.
_Big = BigInteger().with_variant(Integer(), "sqlite")

metadata = MetaData()

records = Table(
    "records",
    metadata,
    Column("index", _Big, primary_key=True, autoincrement=False),
    Column("epoch", _Big, nullable=False),
    Column("previous", Text, nullable=False),
    Column("hash", Text, nullable=False),
    # What follows is a copy out of the body, for queries; `verify` compares it.
    Column("at", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Column("service", Text, nullable=False),
    Column("what", Text, nullable=False),
    Column("revision", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    sqlite_strict=True,
)
Index("records_of_service", records.c.environment, records.c.service, records.c.index)
Index("records_of_environment", records.c.environment, records.c.index)

# A cache: the memory of each environment, folded up to and with the record `upto`, whose hash is `head`. All rows are
# written together; `digest` is over all of them, so a row that is missing or changed by accident is noticed.
projections = Table(
    "projections",
    metadata,
    Column("environment", Text, primary_key=True),
    Column("upto", _Big, nullable=False),
    Column("head", Text, nullable=False),
    Column("program", Text, nullable=False),
    Column("memory", LargeBinary, nullable=False),
    Column("digest", Text, nullable=False),
    sqlite_strict=True,
)

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


def create_file(path: Path) -> None:
    """Make the empty file, durable in its directory, readable by owner and group only. Nothing where it exists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o640))
    except FileExistsError:
        return
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def writing_engine(path: Path, *, checkpoints: bool) -> Engine:
    """One connection whose every transaction holds the write lock from its beginning.

    `checkpoints`: whether it moves the WAL into the file. Only the daemon's does: two connections that do so side by
    side can lose a commit in SQLite before 3.51.3 (its "WAL-reset bug").
    """
    engine = _engine(path, pool_size=1)
    autocheckpoint = 1000 if checkpoints else 0
    pragmas = f"PRAGMA wal_autocheckpoint = {autocheckpoint}; PRAGMA journal_size_limit = 67108864"
    _on_connect(engine, pragmas)
    _on_begin(engine, "BEGIN IMMEDIATE")
    return engine


def reading_engine(path: Path) -> Engine:
    """Connections that cannot write."""
    engine = _engine(path, pool_size=4)
    _on_connect(engine, "PRAGMA query_only = ON; PRAGMA wal_autocheckpoint = 0")
    _on_begin(engine, "BEGIN")
    return engine


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


def use_wal(engine: Engine, path: Path) -> None:
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
            where=str(path),
            remedy="Put the journal on a local disk",
        )


def create_tables(connection: Connection) -> None:
    """Make the tables and indexes of a new journal."""
    metadata.create_all(connection)
    create_triggers(connection)
    connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA}")


def create_triggers(connection: Connection) -> None:
    """Make the database refuse to change records, also where someone took that away."""
    for trigger in _TRIGGERS:
        connection.exec_driver_sql(trigger)


def check_schema(connection: Connection, path: Path) -> None:
    """Raises Stalled for a file whose tables a newer release made."""
    version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    if version > SCHEMA:
        raise Stalled(
            Reason.JOURNAL_UNAVAILABLE,
            f"the journal has layout {version}, and this release knows up to {SCHEMA}",
            where=str(path),
            remedy="Use the newer release of Reconciler that wrote it",
        )


def has_tables(connection: Connection) -> bool:
    """Whether this is a journal at all."""
    return inspect(connection).has_table(records.name)

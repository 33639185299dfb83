"""A journal in PostgreSQL: what is its own about it, that is its schema, its fence, triggers, lock and sessions.

The tables are those of `journal_schema.py`. No record is read or written here. All names are written with their
schema, because the search path of a session can be another one behind a connection pooler.

What pg8000 does: its one timeout is that of the socket, for each read and write; a connection is useless after it, so
the server's own limits are shorter. Of a session that an administrator ended it says only "network error". Several rows
are three ways to the server each, so `journal_rows.add` sends all of them as one JSON array.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Sequence
from typing import Any

import pg8000.dbapi  # type: ignore[import-untyped]
from sqlalchemy import Boolean, Column, Connection, Engine, MetaData, Table, create_engine, event, inspect, select, text
from sqlalchemy.engine.interfaces import IsolationLevel

from reconciler.adapters import journal_postgres_url
from reconciler.adapters.journal_errors import transaction, unfit
from reconciler.adapters.journal_postgres_lock import SessionLock, key_of
from reconciler.adapters.journal_postgres_url import Address
from reconciler.adapters.journal_schema import SCHEMA, Big, check_layout, metadata, records
from reconciler.settings import JournalSettings

OLDEST = 140000
READERS = 8

_own = MetaData()
# One row. Who adds records holds it locked from before reading the last record until the commit.
_fence = Table(
    "fence", _own, Column("only", Boolean, primary_key=True, autoincrement=False), Column("layout", Big, nullable=False)
)

_FUNCTIONS = {
    "records_are_kept": "RAISE EXCEPTION 'the journal is append-only: no record is changed or removed';",
    # Also where several rows come in one statement: such a function sees those before its own.
    "records_go_to_the_end": (
        'IF NEW."index" <> (SELECT coalesce(max("index"), 0) + 1 FROM {schema}.records) THEN '
        "RAISE EXCEPTION 'the journal is append-only: a record goes to the end'; END IF; RETURN NEW;"
    ),
}
_TRIGGERS = {
    "records_no_change": "BEFORE UPDATE OR DELETE ON {schema}.records FOR EACH ROW EXECUTE FUNCTION "
    "{schema}.records_are_kept()",
    "records_no_truncate": "BEFORE TRUNCATE ON {schema}.records FOR EACH STATEMENT EXECUTE FUNCTION "
    "{schema}.records_are_kept()",
    "records_in_order": "BEFORE INSERT ON {schema}.records FOR EACH ROW EXECUTE FUNCTION "
    "{schema}.records_go_to_the_end()",
}


class PostgresStore:
    """`journal_store.Store` in a schema of a database. `login` has the password and the certificates."""

    settles = True

    def __init__(self, address: Address, login: JournalSettings) -> None:
        self._address = address
        self._login = login
        self._schema = f'"{address.schema}"'
        self.place = address.shown

    def exists(self) -> bool:
        """It takes a connection to know."""
        return True

    def make(self) -> None:
        """Nothing: the database is made by its administrator, the schema with the tables."""

    def writing_engine(self, *, acts: bool) -> Engine:
        """One connection. Each of its commits returns after the log is on the disk, also on that of a standby."""
        return self._engine("daemon" if acts else "person", 1, "READ COMMITTED", synchronous_commit="on")

    def reading_engine(self) -> Engine:
        """Connections that cannot write."""
        # Each look is one statement, which sees one state: a transaction would only cost ways to the server. Whether
        # the connection still stands is asked first; who writes finds out by itself, and knows what to do then.
        return self._engine("reader", READERS, "AUTOCOMMIT", default_transaction_read_only="on")

    def _engine(self, role: str, most: int, isolation: IsolationLevel, **parameters: str) -> Engine:
        engine = create_engine(
            "postgresql+pg8000://",
            module=pg8000.dbapi,  # not its older module, which SQLAlchemy takes and which asks the server more often
            isolation_level=isolation,
            hide_parameters=True,  # whoever logs an error must not log records
            pool_pre_ping=isolation == "AUTOCOMMIT",
            pool_size=min(most, 2),
            max_overflow=most - min(most, 2),
            pool_timeout=journal_postgres_url.ANSWER_SECONDS,
            execution_options={"schema_translate_map": {None: self._address.schema}},
        )
        # Each failure is raised. The pool would log it once more, as an error of its own with a traceback.
        logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
        name = f"reconciler {role} {socket.gethostname()}:{os.getpid()}"

        @event.listens_for(engine, "do_connect")
        def connect(_dialect: object, _record: object, _arguments: Sequence[object], named: dict[str, Any]) -> None:
            named.clear()
            named.update(journal_postgres_url.arguments(self._address, self._login, name, **parameters))

        return engine

    def take(self, writing: Engine, *, over: bool) -> SessionLock:
        """A lock that the session of the writing connection holds. Raises Stalled(JOURNAL_LOCKED), and Retryable."""
        return SessionLock(writing, self.place, key_of(self._address.schema), over=over)

    def check_fit(self, engine: Engine) -> None:
        """Raises Stalled where the server cannot keep what is written, or what can be written."""
        with transaction(engine, self.place) as connection:
            found = connection.execute(text(_FITNESS)).one()
        version, encoding, fsync, standby = found
        if int(version) < OLDEST:
            raise unfit(f"PostgreSQL {int(version) // 10000} is too old", self.place, f"Use {OLDEST // 10000} or newer")
        if encoding != "UTF8":
            remedy = "Create a database with ENCODING 'UTF8' TEMPLATE template0"
            raise unfit(f"the database has the encoding {encoding}: not all can be written in it", self.place, remedy)
        if fsync != "on":
            remedy = "Set fsync = on in postgresql.conf: what is recorded must be on the disk before anything is done"
            raise unfit("the server runs with fsync off, so that a crash loses records", self.place, remedy)
        if standby:
            raise unfit("the server is a standby", self.place, "Name the primary server in the journal's URL")

    def check_schema(self, connection: Connection) -> None:
        """Raises Stalled for tables that a newer release made."""
        if self._has(connection, _fence):
            check_layout(connection.execute(select(_fence.c.layout)).scalar_one(), self.place)

    def has_tables(self, connection: Connection) -> bool:
        """Whether this is a journal at all."""
        return self._has(connection, records)

    def _has(self, connection: Connection, table: Table) -> bool:
        return inspect(connection).has_table(table.name, schema=self._address.schema)

    def create_tables(self, connection: Connection) -> None:
        """Make the schema, tables and indexes of a new journal; nothing where another daemon was faster."""
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key_of(self._address.schema) + 1})
        # Asked first: who may not create schemas must not be refused where one is there already.
        if not inspect(connection).has_schema(self._address.schema):
            connection.exec_driver_sql(f"CREATE SCHEMA {self._schema}")
        if self.has_tables(connection):
            return
        metadata.create_all(connection)
        _own.create_all(connection)
        connection.execute(_fence.insert().values(only=True, layout=SCHEMA))
        self._put_triggers(connection)

    def create_triggers(self, connection: Connection) -> None:
        """Make the database refuse to change records, also where someone took that away."""
        found = connection.execute(text(_ENABLED), {"table": f"{self._schema}.records"}).scalars().all()
        if set(found) != set(_TRIGGERS):
            self._put_triggers(connection)

    def _put_triggers(self, connection: Connection) -> None:
        for name, body in _FUNCTIONS.items():
            connection.exec_driver_sql(
                f"CREATE OR REPLACE FUNCTION {self._schema}.{name}() RETURNS trigger LANGUAGE plpgsql AS "
                f"$body$ BEGIN {body.format(schema=self._schema)} END $body$"
            )
        for name, rest in _TRIGGERS.items():
            connection.exec_driver_sql(f"CREATE OR REPLACE TRIGGER {name} {rest.format(schema=self._schema)}")
            # Otherwise a session that calls itself a replica would not be refused.
            connection.exec_driver_sql(f"ALTER TABLE {self._schema}.records ENABLE ALWAYS TRIGGER {name}")

    def fence(self, connection: Connection) -> None:
        """Lock the one row of `fence` until the end of the transaction."""
        connection.execute(select(_fence.c.layout).with_for_update())


_FITNESS = (
    "SELECT current_setting('server_version_num'), current_setting('server_encoding'), current_setting('fsync'), "
    "pg_is_in_recovery()"
)
_ENABLED = (
    "SELECT tgname::text FROM pg_trigger WHERE tgrelid = to_regclass(:table) AND NOT tgisinternal AND tgenabled = 'A'"
)

"""The lock of a journal in PostgreSQL: an advisory lock that the session of the daemon's writing connection holds.

It keeps a second daemon, started by mistake, from taking the place of the first. It ends with the session, and a
session that comes after a lost one takes it again if nobody else has: when it connects, or, where the server still
keeps the lost one by then, with the first transaction after that is gone. The fence by epoch holds without it.
"""

from __future__ import annotations

import hashlib
import time
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection, Engine, event, text

from reconciler.adapters.journal_errors import transaction
from reconciler.core.errors import Reason, ReconcilerError, Stalled

TRIES = 5
PAUSE_SECONDS = 0.05

_TRY = "SELECT pg_try_advisory_lock({key})"
_HOLDER = """
SELECT coalesce(max(application_name), '') FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND database = (SELECT oid FROM pg_database
  WHERE datname = current_database()) AND (classid::bigint << 32 | objid::bigint) = :key
"""


def key_of(schema: str) -> int:
    """The number of a schema's lock among those of its database: positive and even; the next one is for its making."""
    digest = hashlib.sha256(f"reconciler journal {schema}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1 & ~1


class SessionLock:
    """`journal_store.Lock`, held by the one connection of `engine`."""

    def __init__(self, engine: Engine, place: str, key: int, *, over: bool) -> None:
        """Take it. `over`: go on where another session has it. Raises Stalled(JOURNAL_LOCKED) and Retryable."""
        self._place = place
        self._key = key
        self._held = False
        with transaction(engine, place) as connection:
            self._take(connection)
            holder = "" if self._held else connection.execute(text(_HOLDER), {"key": key}).scalar_one()
        if not self._held and not over:
            raise self._locked(str(holder))
        event.listen(engine, "connect", self._again)
        event.listen(engine, "begin", self._take)

    def _again(self, connection: Any, _record: object) -> None:  # noqa: ANN401 (of pg8000, which has no types)
        self._held = False
        cursor = connection.cursor()
        for _ in range(TRIES):
            cursor.execute(_TRY.format(key=self._key))
            self._held = bool(cursor.fetchone()[0])
            if self._held:
                break
            time.sleep(PAUSE_SECONDS)  # the session before this one is not quite gone
        cursor.close()
        connection.commit()

    def _take(self, connection: Connection) -> None:
        """In a transaction, at its beginning. What is taken is kept, also where the transaction fails."""
        if not self._held:
            self._held = bool(connection.exec_driver_sql(_TRY.format(key=self._key)).scalar_one())

    def _locked(self, holder: str) -> Stalled:
        return Stalled(
            Reason.JOURNAL_LOCKED,
            f"another daemon ({holder or 'its session is not shown'}) acts on this journal",
            where=self._place,
            remedy="Stop it first, or give this daemon a journal of its own (?schema=NAME). Of a machine that is gone, "
            "the server forgets the session within half a minute",
        )

    def release(self, writing: Engine) -> None:
        """Let go, before the session ends: the server would notice that only later."""
        event.remove(writing, "connect", self._again)
        event.remove(writing, "begin", self._take)
        with suppress(ReconcilerError), transaction(writing, self._place) as connection:
            connection.exec_driver_sql(f"SELECT pg_advisory_unlock({self._key})")
        writing.dispose()

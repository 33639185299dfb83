"""What a failing disk, server or network means for the journal: each library exception as one of our errors."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from reconciler.core.errors import Reason, ReconcilerError, Retryable, Stalled

_SQLITE_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# https://www.postgresql.org/docs/current/errcodes-appendix.html: data or index corrupted, no such table or column.
_POSTGRES_DAMAGE = ("XX001", "XX002", "42P01", "42703")
_DEEPEST = 8
_DISK = "Check free space, health and permissions of that disk"
_SERVER = "Check the server and the network between"
_REMEDIES = {
    "25006": "Name the primary server in the journal's URL: this one is a standby or read-only",
    "28": "Check the user in the journal's URL, journalPasswordFile and the server's pg_hba.conf",
    "3D000": "Create the database, or correct the journal in the settings",
    "3F000": "Create the schema, or let the user create it",
    "42501": "Grant the user what docs/adr/0010-journal-on-postgresql.md lists",
    "53": "Give the server room: disk, memory or connections",
    "55P03": "Look for a session that holds the table `fence` locked (pg_locks, pg_stat_activity)",
}


@contextmanager
def translated(place: str) -> Iterator[None]:
    """Raise Retryable(JOURNAL_UNAVAILABLE) or Stalled(JOURNAL_DAMAGED) for what goes wrong inside."""
    try:
        yield
    except DBAPIError as error:
        raise _of(error.orig or error, place) from error
    except (sqlite3.Error, SQLAlchemyError, OSError) as error:
        raise _of(error, place) from error


@contextmanager
def transaction(engine: Engine, place: str) -> Iterator[Connection]:
    """A transaction that commits at the end. After a failure all connections are dropped: none is trusted any more."""
    try:
        with translated(place), engine.begin() as connection:
            yield connection
    except BaseException:
        engine.dispose()
        raise


@contextmanager
def reading(engine: Engine, place: str) -> Iterator[Connection]:
    """As `transaction`, with nothing to commit at the end: on a server that is a way there and back saved."""
    try:
        with translated(place), engine.connect() as connection:
            yield connection
    except BaseException:
        engine.dispose()
        raise


def was_lost(error: BaseException) -> bool:
    """Whether the connection broke, as one that was good when it was last used does after the server started anew."""
    cause = error.__cause__
    return isinstance(cause, OSError) or (isinstance(cause, DBAPIError) and cause.connection_invalidated)


def _of(error: BaseException, place: str) -> ReconcilerError:
    answer = _answer(error)
    if answer:
        return _said(answer, place)
    code = getattr(error, "sqlite_errorcode", None)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    # The lowest byte is the kind, the rest says more about it.
    if code is not None and (code & 0xFF in _SQLITE_DAMAGE or "no such table" in str(error)):
        return damaged(f"the file is damaged: {error} ({name})", place)
    reason = f": {error.__cause__}" if error.__cause__ is not None else ""
    remedy = _DISK if code is not None or isinstance(error, sqlite3.Error) else _SERVER
    return unavailable(f"the journal cannot be used: {error} ({name}{reason})", place, remedy)


def _answer(error: BaseException) -> dict[str, str]:
    """The fields of the server's message, as pg8000 raises them; empty when it said nothing.

    pg8000 can hide it behind the error of closing the connection: the server that refused a user closed it, too.
    """
    found: BaseException | None = error
    for _ in range(_DEEPEST):
        if found is None:
            break
        if found.args and isinstance(found.args[0], dict):
            return found.args[0]
        found = found.__cause__ or found.__context__
    return {}


def _said(answer: dict[str, str], place: str) -> ReconcilerError:
    """The error that a PostgreSQL server answered; not its detail, in which values of a row can stand."""
    code, text = answer.get("C", ""), answer.get("M", "no reason given")
    if code in _POSTGRES_DAMAGE:
        return damaged(f"the database is damaged: {text} (SQLSTATE {code})", place)
    remedy = _REMEDIES.get(code) or _REMEDIES.get(code[:2], _SERVER)
    return unavailable(f"the journal cannot be used: {text} (SQLSTATE {code})", place, remedy)


def unavailable(what: str, place: str, remedy: str = _DISK) -> Retryable:
    """The disk, the server or another writer is in the way. Nothing was recorded, so nothing may be done."""
    return Retryable(
        Reason.JOURNAL_UNAVAILABLE,
        what,
        where=place,
        remedy=f"Nothing is changed without it. {remedy}; it is tried again by itself",
    )


def unfit(what: str, place: str, remedy: str) -> Stalled:
    """This database cannot hold a journal as it is."""
    return Stalled(Reason.JOURNAL_UNAVAILABLE, what, where=place, remedy=remedy)


def damaged(what: str, place: str) -> Stalled:
    """The records are not what was written."""
    return Stalled(
        Reason.JOURNAL_DAMAGED,
        what,
        where=place,
        remedy="Keep a copy of it as evidence, then restore a backup, or put it aside to begin a new journal: "
        "running instances are adopted by their labels",
    )

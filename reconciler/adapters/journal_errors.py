"""What a failing disk or database means for the journal: each library exception as one of our errors."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from reconciler.core.errors import Reason, ReconcilerError, Retryable, Stalled

_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise Retryable(JOURNAL_UNAVAILABLE) or Stalled(JOURNAL_DAMAGED) for what goes wrong inside."""
    try:
        yield
    except DBAPIError as error:
        raise _of(error.orig or error, path) from error
    except (sqlite3.Error, SQLAlchemyError, OSError) as error:
        raise _of(error, path) from error


@contextmanager
def transaction(engine: Engine, path: Path) -> Iterator[Connection]:
    """A transaction that commits at the end. After a failure all connections are dropped: none is trusted any more."""
    try:
        with translated(path), engine.begin() as connection:
            yield connection
    except BaseException:
        engine.dispose()
        raise


def _of(error: BaseException, path: Path) -> ReconcilerError:
    code = getattr(error, "sqlite_errorcode", None)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    # The lowest byte is the kind, the rest says more about it.
    if code is not None and (code & 0xFF in _DAMAGE or "no such table" in str(error)):
        return damaged(f"the file is damaged: {error} ({name})", path)
    return unavailable(f"the journal cannot be used: {error} ({name})", path)


def unavailable(what: str, path: Path) -> Retryable:
    """The disk or another writer is in the way. Nothing was recorded, so nothing may be done."""
    return Retryable(
        Reason.JOURNAL_UNAVAILABLE,
        what,
        where=str(path),
        remedy="Nothing is changed without it. Check free space, health and permissions of that disk; "
        "it is tried again by itself",
    )


def damaged(what: str, path: Path) -> Stalled:
    """The records are not what was written."""
    return Stalled(
        Reason.JOURNAL_DAMAGED,
        what,
        where=str(path),
        remedy="Keep a copy of the file as evidence, then restore a backup, or move it away to begin a new journal: "
        "running instances are adopted by their labels",
    )

"""The fold over the journal, kept in memory and now and then saved as projections, so that a start is fast.

A projection is only a cache: it is used when this very release wrote it and nothing about it is wrong, and made anew
from the records otherwise. Every record that is folded is checked first.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import rfc8785
from sqlalchemy import Connection, Engine, delete, insert, select

from reconciler import __version__
from reconciler.adapters.journal_errors import damaged, reading
from reconciler.adapters.journal_rows import checked, head_at, newest_head, pages
from reconciler.adapters.journal_schema import projections, records
from reconciler.core import audit, memory_codec
from reconciler.core.audit import GENESIS, Head
from reconciler.core.fold import remember
from reconciler.core.memory import EnvironmentMemory
from reconciler.core.record import Record

SAVE_EVERY = 2_000


@dataclass(frozen=True, slots=True)
class Fold:
    """The memories of all environments after the record `head`."""

    head: Head
    memories: Mapping[str, EnvironmentMemory]


NOTHING = Fold(head=GENESIS, memories={})


class JournalMemory:
    """The fold of all records so far. Safe to use from many threads."""

    def __init__(self, engine: Engine, place: str) -> None:
        """Begin with the projections, or with nothing. Raises Stalled(JOURNAL_DAMAGED) where records are missing."""
        self._engine = engine
        self._place = place
        self._lock = threading.Lock()
        with reading(engine, place) as connection:
            self._fold = load(connection, place) or NOTHING
        self._saved = self._fold.head.index

    def known(self) -> Fold:
        """The fold as far as it was asked for."""
        with self._lock:
            return self._fold

    def latest(self) -> Fold:
        """The fold, with what was recorded since by whomever. Raises Stalled(JOURNAL_DAMAGED)."""
        with self._lock:
            memories = dict(self._fold.memories)
            head = self._fold.head
            for row in pages(self._engine, self._place, select(records), head.index, None):
                record = checked(head, row)
                if isinstance(record, str):
                    raise damaged(record, self._place)
                fold_in(memories, record)
                head = audit.head_of(record)
            if head != self._fold.head:
                self._fold = Fold(head=head, memories=memories)
            return self._fold

    def due(self, fold: Fold, *, closing: bool = False) -> Callable[[Connection], None] | None:
        """How to save `fold`, when enough was recorded since the last time; None when not."""
        behind = fold.head.index - self._saved
        if behind < (1 if closing else SAVE_EVERY):
            return None
        self._saved = fold.head.index
        return lambda connection: save(connection, fold)


def fold_in(memories: dict[str, EnvironmentMemory], record: Record) -> None:
    """Add one record to the memories."""
    environment = record.entry.environment
    if environment:
        memories[environment] = remember(memories.get(environment, EnvironmentMemory()), record.entry)


def save(connection: Connection, fold: Fold) -> None:
    """Replace the projections by this fold."""
    bodies = {name: rfc8785.dumps(memory_codec.dump(memory)) for name, memory in fold.memories.items()}
    common = {"upto": fold.head.index, "head": fold.head.hash, "program": __version__}
    common["digest"] = _digest(bodies, fold.head.index, fold.head.hash)
    connection.execute(delete(projections))
    if bodies:
        rows = [{"environment": name, "memory": body} | common for name, body in bodies.items()]
        connection.execute(insert(projections), rows)


def load(connection: Connection, place: str) -> Fold | None:
    """The fold that the projections hold; None when there is none that this release can use.

    Raises Stalled(JOURNAL_DAMAGED) when intact projections know of a record that the journal does not have (any more).
    """
    rows = connection.execute(select(projections)).mappings().all()
    if not rows:
        return None
    first = rows[0]
    bodies = {row["environment"]: row["memory"] for row in rows}
    try:
        intact = first["digest"] == _digest(bodies, first["upto"], first["head"])
    except (TypeError, ValueError):
        intact = False
    if not intact:
        return None
    head = head_at(connection, first["upto"])
    if head is None:
        last = newest_head(connection).index
        raise damaged(f"record {last + 1} is missing: there were {first['upto']} records, now there are {last}", place)
    if head.hash != first["head"]:
        raise damaged(f"record {head.index} was changed: it had another hash when it was last folded", place)
    if first["program"] != __version__:
        return None
    try:
        memories = {name: memory_codec.load(json.loads(body)) for name, body in bodies.items()}
    except ValueError:
        return None
    return Fold(head=head, memories=memories)


def _digest(bodies: Mapping[str, bytes], upto: int, head: str) -> str:
    whole = {name: hashlib.sha256(body).hexdigest() for name, body in bodies.items()}
    return hashlib.sha256(rfc8785.dumps({"head": head, "memories": whole, "upto": upto})).hexdigest()

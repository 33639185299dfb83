"""Looking through the journal: the newest records at each start, all of them when a person asks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from sqlalchemy import Engine, select

from reconciler.adapters.journal_errors import damaged, reading
from reconciler.adapters.journal_memory import Fold, fold_in, load
from reconciler.adapters.journal_rows import checked, head_at, newest_head, pages
from reconciler.adapters.journal_schema import records
from reconciler.core import audit
from reconciler.core.audit import GENESIS, Head
from reconciler.core.errors import Stalled
from reconciler.core.memory import EnvironmentMemory
from reconciler.ports import Verification

TAIL = 10_000


def check_tail(engine: Engine, place: str) -> None:
    """Check the last TAIL records. Raises Stalled(JOURNAL_DAMAGED) with the first problem."""
    with reading(engine, place) as connection:
        before = max(0, newest_head(connection).index - TAIL)
        after = head_at(connection, before)
    if after is None:
        raise damaged(f"record {before} is missing", place)
    for row in pages(engine, place, select(records), after.index, None):
        record = checked(after, row)
        if isinstance(record, str):
            raise damaged(record, place)
        after = audit.head_of(record)


@dataclass(slots=True)
class _Look:
    """How far a look through the journal is."""

    head: Head = GENESIS
    memories: dict[str, EnvironmentMemory] = field(default_factory=dict)
    folds: list[Fold] = field(default_factory=list)

    def result(self, problem: str = "") -> Verification:
        return Verification(records=self.head.index, head=self.head.hash, epochs=self.head.epoch, problem=problem)

    def fold_problem(self) -> str:
        """What is wrong with the folds that someone relies on and that end here; "" when nothing is."""
        for fold in self.folds:
            if fold.head.index == self.head.index and fold.head.hash != self.head.hash:
                return f"record {self.head.index} was changed: it had another hash when it was last folded"
            if fold.head.index == self.head.index and fold.memories != self.memories:
                return (
                    f"the projections are not the fold of the first {self.head.index} records, though these hold; "
                    "stop the daemon and empty the table projections: they are made anew from the records"
                )
        return ""


def look_through(engine: Engine, place: str, known: Fold) -> Verification:
    """Check every record, and compare `known` and the saved projections with the fold of the records.

    A problem of the records is returned, not raised. Raises Retryable(JOURNAL_UNAVAILABLE).
    """
    look = _Look(folds=[known])
    engine.dispose()  # what a connection read before it keeps, and does not see what others did to the file
    wrong = ""
    try:
        with reading(engine, place) as connection:
            saved = load(connection, place)
        look.folds += [saved] if saved is not None else []
    except Stalled as error:
        wrong = error.what
    try:
        found = _look(look, engine, place)
    except Stalled as error:
        found = look.result(error.what)
    # The records first: they name the first one that is wrong, the projections only the last one they cover.
    return found if found.problem else replace(found, problem=wrong)


def _look(look: _Look, engine: Engine, place: str) -> Verification:
    for row in pages(engine, place, select(records), 0, None):
        record = checked(look.head, row)
        if isinstance(record, str):
            return look.result(record)
        fold_in(look.memories, record)
        look.head = audit.head_of(record)
        problem = look.fold_problem()
        if problem:
            return look.result(problem)
    longest = max(fold.head.index for fold in look.folds)
    if longest > look.head.index:
        return look.result(f"record {look.head.index + 1} is missing: there were {longest} records")
    return look.result()

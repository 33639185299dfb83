"""Looking through the journal: the newest records at each start, all of them when a person asks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Engine, select

from reconciler.adapters.journal_errors import damaged, translated
from reconciler.adapters.journal_memory import Fold, fold_in, load
from reconciler.adapters.journal_rows import checked, head_at, newest_head, pages
from reconciler.adapters.journal_schema import records
from reconciler.core import audit
from reconciler.core.audit import GENESIS, Head
from reconciler.core.errors import Reason, Stalled
from reconciler.core.memory import EnvironmentMemory
from reconciler.ports import Verification

TAIL = 10_000


def check_tail(engine: Engine, path: Path) -> None:
    """Check the last TAIL records. Raises Stalled(JOURNAL_DAMAGED) with the first problem."""
    with translated(path), engine.begin() as connection:
        before = max(0, newest_head(connection).index - TAIL)
        after = head_at(connection, before)
    if after is None:
        raise damaged(f"record {before} is missing", path)
    for row in pages(engine, path, select(records), after.index, None):
        record = checked(after, row)
        if isinstance(record, str):
            raise damaged(record, path)
        after = audit.head_of(record)


@dataclass(slots=True)
class _Look:
    """How far a look through the journal is."""

    head: Head = GENESIS
    memories: dict[str, EnvironmentMemory] = field(default_factory=dict)
    folds: list[Fold] = field(default_factory=list)

    def result(self, problem: str = "") -> Verification:
        return Verification(
            records=self.head.index, head=self.head.hash, epochs=self.head.epoch, problem=problem
        )

    def wrong_fold(self) -> bool:
        """Whether a fold that someone relies on, and that ends here, is not the fold of the records."""
        return any(fold.head == self.head and fold.memories != self.memories for fold in self.folds)


def look_through(engine: Engine, path: Path, known: Fold) -> Verification:
    """Check every record, and compare `known` and the saved projections with the fold of the records.

    A problem of the records is returned, not raised. Raises Retryable(JOURNAL_UNAVAILABLE).
    """
    look = _Look(folds=[known])
    try:
        with translated(path), engine.begin() as connection:
            saved = load(connection, path)
        if saved is not None:
            look.folds.append(saved)
        return _look(look, engine, path)
    except Stalled as error:
        if error.reason is not Reason.JOURNAL_DAMAGED:
            raise
        return look.result(error.what)


def _look(look: _Look, engine: Engine, path: Path) -> Verification:
    for row in pages(engine, path, select(records), 0, None):
        record = checked(look.head, row)
        if isinstance(record, str):
            return look.result(record)
        fold_in(look.memories, record)
        look.head = audit.head_of(record)
        if look.wrong_fold():
            return look.result(
                f"the projections are not the fold of the first {look.head.index} records, although nothing is wrong "
                "with these; stop the daemon and empty the table projections, it is made anew from the records"
            )
    return look.result()

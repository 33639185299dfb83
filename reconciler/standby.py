"""What a daemon that stands by shows: the journal as others write it, and who leads. It records and mutates nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

from reconciler.board import Board
from reconciler.core.errors import Reason, ReconcilerError, Stalled
from reconciler.core.memory import EnvironmentMemory
from reconciler.core.record import Entry, Record
from reconciler.core.status import EnvironmentStatus
from reconciler.journal_access import NoJournal
from reconciler.ports import Clock, Journal, Verification
from reconciler.settings import Settings


class ShownJournal:
    """`ports.Journal` to read only, opened by `opening` at its first use: there may be none before the first leader."""

    def __init__(self, opening: Callable[[], Journal]) -> None:
        self._opening = opening
        self._lock = threading.Lock()
        self._journal: Journal | None = None

    @property
    def epoch(self) -> int:
        """The newest epoch when it was opened."""
        return self._opened().epoch

    def append(self, *entries: Entry) -> tuple[Record, ...]:
        """Refuse."""
        return NoJournal().append(*entries)

    def memory(self, environment: str) -> EnvironmentMemory:
        """See `ports.Journal`."""
        return self._opened().memory(environment)

    def environments(self) -> tuple[str, ...]:
        """See `ports.Journal`."""
        return self._opened().environments()

    def records(
        self,
        *,
        after: int = 0,
        environment: str = "",
        service: str = "",
        limit: int | None = None,
        newest: bool = False,
    ) -> Iterator[Record]:
        """See `ports.Journal`."""
        journal = self._opened()
        return journal.records(after=after, environment=environment, service=service, limit=limit, newest=newest)

    def verify(self) -> Verification:
        """See `ports.Journal`."""
        return self._opened().verify()

    def close(self) -> None:
        """Let go of it, if it was opened."""
        with self._lock:
            journal, self._journal = self._journal, None
        if journal is not None:
            journal.close()

    def _opened(self) -> Journal:
        with self._lock:
            if self._journal is None:
                try:
                    self._journal = self._opening()
                except Stalled as error:
                    if error.reason is not Reason.JOURNAL_UNAVAILABLE:
                        raise
                    return NoJournal()
            return self._journal


def show(board: Board, journal: Journal, settings: Settings, clock: Clock, leader: str) -> None:
    """Put on the board, of each environment, what the journal remembers and who looks after it."""
    who = f"{leader} leads" if leader else "nobody leads now"
    for name in settings.environments:
        admitted = ""
        # A journal that cannot be read is for /readyz to tell.
        with suppress(ReconcilerError):
            admitted = journal.memory(name).admitted
        known = board.get(name)
        message = f"{who}, and this daemon stands by; ask the leader for the live state"
        if known is None or (known.revision, known.message) != (admitted, message):
            board.publish(
                EnvironmentStatus(name, clock.now(), revision=admitted, reason=Reason.NOT_LEADER, message=message)
            )

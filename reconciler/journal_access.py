"""How the journal of an installation is opened, to act on it or to read it. What it holds is read elsewhere."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

from reconciler.adapters.journal import SqlJournal
from reconciler.core import audit
from reconciler.core.errors import Reason, Stalled
from reconciler.core.memory import EnvironmentMemory
from reconciler.core.record import Entry, Record
from reconciler.ports import Clock, Journal, Verification
from reconciler.settings import Settings


def open_journal(settings: Settings, clock: Clock, *, act: bool, take_over: bool = False) -> SqlJournal:
    """The journal: to `act` on it (one daemon at a time), or to read it and add a person's word.

    `take_over`: this daemon was elected to act. What is left of the one before must not keep it from that where the
    journal's place can do without (PostgreSQL); it is fenced.
    """
    writer = f"{socket.gethostname()}:{os.getpid()}"
    login = settings.journal_settings
    return SqlJournal.open(settings.journal, clock, writer, act=act, login=login, take_over=take_over)


def exported(journal: Journal) -> Iterator[str]:
    """All records as lines of JSON Lines."""
    return (audit.export(record) for record in journal.records())


class NoJournal:
    """`ports.Journal` before there is one: an empty memory that takes nothing in."""

    epoch = 0

    def append(self, *entries: Entry) -> tuple[Record, ...]:
        """Refuse: whoever looks only, records nothing."""
        raise Stalled(Reason.JOURNAL_UNAVAILABLE, f"there is no journal to take {len(entries)} records")

    def memory(self, environment: str) -> EnvironmentMemory:  # noqa: ARG002 (the port's signature)
        """Nothing is remembered."""
        return EnvironmentMemory()

    def environments(self) -> tuple[str, ...]:
        """None."""
        return ()

    def records(
        self,
        *,
        after: int = 0,  # noqa: ARG002 (the port's signature)
        environment: str = "",  # noqa: ARG002
        service: str = "",  # noqa: ARG002
        limit: int | None = None,  # noqa: ARG002
        newest: bool = False,  # noqa: ARG002
    ) -> Iterator[Record]:
        """None."""
        return iter(())

    def verify(self) -> Verification:
        """Nothing to hold or not to hold."""
        return Verification(0, "", 0)

    def close(self) -> None:
        """Nothing is open."""

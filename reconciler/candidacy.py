"""A daemon's candidacy: its election by the Lease that the settings name, and what it shows while another leads."""

from __future__ import annotations

import random
import socket
import uuid
from collections.abc import Callable

from reconciler import journal_access, standby
from reconciler.adapters.lease import open_lease
from reconciler.core.errors import ReconcilerError
from reconciler.core.lease import Terms
from reconciler.leadership import Election, Hold, Post
from reconciler.ports import Journal
from reconciler.settings import LeaderSettings, Settings
from reconciler.standby import ShownJournal
from reconciler.tenure import Office

SHOW_SECONDS = 5.0
"""Between two looks at the journal, for what is shown."""
SILENT_SECONDS = 60.0
"""Every request of a turn has a deadline; a thread that is silent for longer does not turn any more."""


class Candidacy:
    """From `start` until `close`. `changed`: won or lost. `look`: another daemon asks the leader for a look."""

    def __init__(
        self,
        settings: Settings,
        leader: LeaderSettings,
        office: Office,
        *,
        changed: Callable[[], None],
        look: Callable[[str], None],
    ) -> None:
        self._office = office
        self._terms = Terms(leader.duration.total_seconds(), leader.renew.total_seconds(), leader.retry.total_seconds())
        self._lease = open_lease(settings, leader)
        self._uniform = random.SystemRandom().uniform
        self._election = Election(
            self._lease,
            self._terms,
            f"{socket.gethostname()[:200]}_{uuid.uuid4()}",
            office.clock,
            self._uniform,
            Post(changed, look, self._alive),
        )
        self._journal = ShownJournal(lambda: journal_access.open_journal(settings, office.clock, act=False))
        self._shown_at = float("-inf")
        self._shown_leader = ""
        self._unable = ""

    @property
    def hold(self) -> Hold | None:
        """The time of leading that was won."""
        return self._election.hold

    @property
    def journal(self) -> Journal:
        """The journal to show, whoever writes it."""
        return self._journal

    @property
    def me(self) -> str:
        """The name under which this daemon stands."""
        return self._election.me

    @property
    def place(self) -> str:
        """Where the lease is, for people."""
        return self._lease.place

    def start(self) -> None:
        """Stand for election."""
        self._election.start()

    def ask(self, environment: str) -> None:
        """Ask the leader for a look at `environment`."""
        self._election.ask(environment)

    def stand(self) -> None:
        """The last tenure is closed: stand again."""
        self._shown_at = float("-inf")
        self._election.stand()

    def leads(self) -> None:
        """A tenure began."""
        self._unable = ""

    def cannot_lead(self, why: str) -> None:
        """Let another try, who may be able to; then stand again."""
        self._unable = why
        self._election.release()
        self._election.stand(after=self._terms.duration * self._uniform(0.5, 1.0))

    def stands_by(self) -> bool:
        """Whether the lease was looked at, and this daemon waits for it."""
        return self._election.looked and self._election.hold is None

    def show(self, settings: Settings) -> None:
        """Put on the board what is known of the environments, from time to time and when the leader changes."""
        now, leader = self._office.clock.monotonic(), self._election.leader
        if now - self._shown_at < SHOW_SECONDS and leader == self._shown_leader:
            return
        self._shown_at, self._shown_leader = now, leader
        standby.show(self._office.board, self._journal, settings, self._office.clock, leader)

    def lease_problem(self) -> str:
        """Why it can not be elected: the lease was never reached, or this daemon is not allowed to use it."""
        election = self._election
        return election.problem if not election.looked or election.refused else ""

    def journal_problem(self) -> str:
        """Why it could not lead when it was elected, or why the journal cannot be read."""
        if self._election.leader not in ("", self._election.me):
            # Somebody can lead. Whether this daemon could shows when it is its turn again.
            self._unable = ""
        if self._unable:
            return self._unable
        try:
            next(iter(self._journal.records(limit=1)), None)
        except ReconcilerError as error:
            return str(error)
        return ""

    def silent(self) -> bool:
        """Whether the thread that looks after the lease is gone or stuck."""
        return self._election.silent > SILENT_SECONDS

    def close(self) -> None:
        """Let go of the lease, and close what is shown."""
        self._election.stop()
        self._election.release()
        self._lease.close()
        self._journal.close()

    def _alive(self) -> None:
        # While it leads its workers tell; a watchdog must not be fed for them.
        if self._election.hold is None:
            self._office.alive()

"""One time of acting: all that exists from the moment this daemon may act until it may not, or ends.

It opens the journal's epoch and closes it again. When it begins and ends is for the daemon to say; a tenure that ended
is never used again. A daemon without leader election has one, for as long as it runs.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from reconciler import journal_access, wiring
from reconciler.adapters.clock import SystemClock
from reconciler.board import Board
from reconciler.guard import guarded
from reconciler.journal_follower import JournalFollower
from reconciler.leadership import Hold
from reconciler.loop import House, Reconciler
from reconciler.ports import Cause, Journal
from reconciler.redact import Redactor
from reconciler.settings import Settings
from reconciler.telemetry import Metrics
from reconciler.triggers.inbox import Inbox
from reconciler.triggers.schedule import Schedule
from reconciler.workers import Desk, Workers

SLICE = 0.2
"""Seconds between two looks at the time that is left for the steps in hand."""


@dataclass(frozen=True, slots=True)
class Office:
    """What outlives a tenure. `fatal` is told by a tenure why it can not go on; `alive` that progress was made."""

    clock: SystemClock
    board: Board
    metrics: Metrics
    redactor: Redactor
    fatal: Callable[[Tenure, BaseException], None]
    alive: Callable[[], None]


class Tenure:
    """Made with the journal open for this writer and everything built; `start` begins to work. `hold`: None without
    leader election. Raises what keeps the journal or a part from being opened."""

    def __init__(self, office: Office, settings: Settings, hold: Hold | None) -> None:
        self._office = office
        self._hold = hold
        self._inbox = Inbox(office.clock)
        self._journal: Journal = journal_access.open_journal(
            settings, office.clock, act=True, take_over=hold is not None
        )
        try:
            self._house = self._build(settings, None)
        except BaseException:
            self._journal.close()
            raise
        self._reconciler = self._reconciler_of(self._house)
        desk = Desk(
            inbox=self._inbox,
            board=office.board,
            metrics=office.metrics,
            clock=office.clock,
            fatal=self._fatal,
            alive=office.alive,
            uniform=random.SystemRandom().uniform,
            redact=office.redactor.exception,
        )
        self._workers = Workers(desk, self._reconciler, settings.environments, settings.concurrency)
        self._schedule = Schedule(office.clock, self._inbox.request)
        self._follower = JournalFollower(self._journal, office.clock, office.metrics, self._inbox.request, self._fatal)

    @property
    def hold(self) -> Hold | None:
        """The lease under which it acts."""
        return self._hold

    @property
    def journal(self) -> Journal:
        """The journal, open for this writer."""
        return self._journal

    def holds(self) -> bool:
        """Whether it may act now."""
        return self._hold is None or self._hold.holds()

    def looked(self) -> bool:
        """Whether each environment has had its first cycle."""
        return self._workers.looked(self._house.settings.environments)

    def stuck(self) -> bool:
        """Whether a cycle takes longer than it possibly can."""
        return self._workers.stuck()

    def request(self, environment: str, cause: Cause) -> None:
        """Ask for a look at `environment`."""
        self._inbox.request(environment, cause)

    def start(self) -> None:
        """Begin; the first cycle of each environment recovers what an earlier tenure left behind."""
        self._follower.start()
        self._watch_engines(self._house, None)
        self._workers.start()
        self._request_all("start")
        self._schedule.start(self._house.settings)

    def swap(self, settings: Settings) -> None:
        """Take on other settings: build everything that can fail first, then exchange. The old reconciler finishes its
        step and no more."""
        old_house, old_reconciler = self._house, self._reconciler
        house = self._build(settings, old_house)
        reconciler = self._reconciler_of(house)
        self._house, self._reconciler = house, reconciler
        self._workers.swap(reconciler, settings.environments)
        old_reconciler.stop()
        for environment in set(old_house.settings.environments) - set(settings.environments):
            self._inbox.forget(environment)
            self._office.board.forget(environment)
            self._office.metrics.forget(environment)
        self._watch_engines(house, old_house)
        self._schedule.apply(settings)
        wiring.close_house(old_house, keep=house)
        self._request_all("reload")

    def halt(self) -> None:
        """Take nothing new, and begin no new step."""
        self._inbox.close()
        self._reconciler.stop()

    def join(self, seconds: float) -> bool:
        """After `halt`: wait for the steps in hand, `seconds` at most and never past the lease; whether all ended."""
        end = time.monotonic() + seconds
        while True:
            left = end - time.monotonic()
            if self._hold is not None:
                left = min(left, max(self._hold.left(), SLICE))
            if self._workers.join(max(min(left, SLICE), 0.0)):
                return True
            if left <= SLICE:
                return False

    def close(self) -> None:
        """After `join`: close everything, the journal last."""
        self._schedule.stop()
        self._follower.stop()
        self._reconciler.close()
        wiring.close_house(self._house)
        self._journal.close()

    def _build(self, settings: Settings, before: House | None) -> House:
        return wiring.build_house(
            settings, self._journal, self._office.redactor, metrics=self._office.metrics, before=before
        )

    def _reconciler_of(self, house: House) -> Reconciler:
        """A cycle ends early for the newest commit, and for the loss of the lease."""
        if self._hold is None:
            return Reconciler(house, self._inbox.news)
        return Reconciler(
            guarded(house, self._hold.holds),
            lambda environment: not self.holds() or self._inbox.news(environment),
        )

    def _watch_engines(self, house: House, before: House | None) -> None:
        """Hear of what changes at the engines and proxies that `before` did not have."""
        for name, runtime in house.runtimes.items():
            if before is None or runtime is not before.runtimes.get(name):
                runtime.watch(self._engine_changed)
        if house.traffic is not None and (before is None or house.traffic is not before.traffic):
            house.traffic.watch(self._traffic_changed)

    def _request_all(self, kind: str) -> None:
        now = self._office.clock.now()
        for environment in self._house.settings.environments:
            self._inbox.request(environment, Cause(kind, now, git=True))

    def _engine_changed(self, environment: str, detail: str) -> None:
        self._inbox.request(environment, Cause("engine", self._office.clock.now(), detail))

    def _traffic_changed(self, environment: str, detail: str) -> None:
        self._inbox.request(environment, Cause("traffic", self._office.clock.now(), detail))

    def _fatal(self, error: BaseException) -> None:
        self._office.fatal(self, error)

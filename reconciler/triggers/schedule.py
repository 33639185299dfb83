"""Polling: at every interval a repository's environments get a hint that Git may have changed.

APScheduler keeps the intervals. It reckons with the time of day, so after the clock was set back it waits until the old
time comes round again (seen with 3.11); `check`, which reckons with the monotonic clock, notices an overdue poll, polls
and arms the job anew. This module must not fetch anything.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

from reconciler.ports import Cause, Clock
from reconciler.settings import Settings

JITTER = 0.1
"""As a part of the interval, to both sides."""

_log = structlog.get_logger(__name__)


class Schedule:
    """One interval job for each repository. `request` is `Inbox.request`."""

    def __init__(self, clock: Clock, request: Callable[[str, Cause], None]) -> None:
        self._clock = clock
        self._request = request
        self._lock = threading.RLock()
        self._scheduler = BackgroundScheduler(
            timezone="UTC",
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        self._intervals: dict[str, float] = {}
        self._environments: dict[str, tuple[str, ...]] = {}
        self._polled: dict[str, float] = {}
        self._stop = threading.Event()
        self._watchdog = threading.Thread(target=self._watch, name="poll-watchdog", daemon=True)

    def start(self, settings: Settings) -> None:
        """Begin to poll every repository of `settings`; the first time after one interval."""
        self._scheduler.start()
        self.apply(settings)
        self._watchdog.start()

    def apply(self, settings: Settings) -> None:
        """Follow `settings` from now on; repositories whose interval did not change keep their rhythm."""
        wanted = {name: repository.poll.total_seconds() for name, repository in settings.repositories.items()}
        with self._lock:
            self._environments = {
                name: tuple(e.name for e in settings.environments.values() if e.repository == name) for name in wanted
            }
            for name in set(self._intervals) - set(wanted):
                self._scheduler.remove_job(name)
                del self._intervals[name], self._polled[name]
            for name, seconds in wanted.items():
                if self._intervals.get(name) != seconds:
                    self._intervals[name] = seconds
                    self._polled[name] = self._clock.monotonic()
                    self._arm(name)

    def poll(self, repository: str) -> None:
        """Drop a hint for each environment of `repository`; all with the same time, so that they share one fetch."""
        with self._lock:
            if repository not in self._intervals:
                return
            self._polled[repository] = self._clock.monotonic()
            environments = self._environments[repository]
        cause = Cause(kind="poll", at=self._clock.now(), detail=repository, git=True)
        for environment in environments:
            self._request(environment, cause)

    def check(self) -> tuple[str, ...]:
        """Poll what is overdue by the monotonic clock and arm it anew; the names of these repositories."""
        now = self._clock.monotonic()
        with self._lock:
            overdue = tuple(
                name for name, seconds in self._intervals.items() if now - self._polled[name] > self._patience(seconds)
            )
            for name in overdue:
                _log.warning("poll_overdue", repository=name, seconds=round(now - self._polled[name], 1))
                self._arm(name)
        for name in overdue:
            self.poll(name)
        return overdue

    def stop(self) -> None:
        """Poll no more."""
        self._stop.set()
        if self._watchdog.is_alive():
            self._watchdog.join(timeout=5)
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def _arm(self, name: str) -> None:
        seconds = self._intervals[name]
        trigger = IntervalTrigger(seconds=seconds, jitter=seconds * JITTER, timezone="UTC")
        self._scheduler.add_job(self.poll, trigger, args=(name,), id=name, replace_existing=True)

    def _patience(self, seconds: float) -> float:
        """When a poll counts as overdue: two jitters and a moment of load after its interval."""
        return seconds * (1 + 2 * JITTER) + min(1.0, seconds)

    def _watch(self) -> None:
        while not self._stop.wait(self._pace()):
            self.check()

    def _pace(self) -> float:
        with self._lock:
            return min([5.0, *(seconds / 2 for seconds in self._intervals.values())])

"""Converge once: every environment is reconciled until it is in sync or cannot get further by itself. No triggers.

It uses the same reconciler as the daemon and decides only when to look again and when to give up.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from reconciler.backoff import Backoff
from reconciler.core.errors import Fenced, Reason, ReconcilerError, Retryable, Stalled
from reconciler.core.status import EnvironmentStatus, ServicePlan
from reconciler.loop import Cycle, House, Reconciler
from reconciler.ports import Cause

TRIES = 5
"""Failures in a row, without anything done between them, after which an environment is given up."""
LONGEST_WAIT = 5.0
"""Seconds between two looks at an environment, even when no event of its engine comes."""

Show = Callable[[EnvironmentStatus], None]


class Once:
    """One convergence. `show` is called in several threads with every status."""

    def __init__(self, house: House, reconciler: Reconciler, show: Show) -> None:
        self._house = house
        self._reconciler = reconciler
        self._show = show
        self._stopping = threading.Event()
        self._news = {name: threading.Event() for name in house.settings.environments}

    def run(self) -> bool:
        """Converge all environments side by side; whether all of them are in sync. Raises Fenced, and our own bugs."""
        for runtime in self._house.runtimes.values():
            runtime.watch(self._engine_changed)
        if self._house.traffic is not None:
            self._house.traffic.watch(self._engine_changed)
        names = sorted(self._news)
        with ThreadPoolExecutor(max_workers=len(names) or 1, thread_name_prefix="once") as pool:
            try:
                return all(list(pool.map(self._converge, names)))
            except BaseException:
                self.stop()
                raise

    def stop(self) -> None:
        """Finish the steps in hand and give up."""
        self._stopping.set()
        self._reconciler.stop()
        for news in self._news.values():
            news.set()

    def _converge(self, environment: str) -> bool:
        backoff = Backoff()
        clock = self._house.clock
        causes: Sequence[Cause] = (Cause("command", clock.now(), git=True),)
        while not self._stopping.is_set():
            self._news[environment].clear()
            try:
                cycle = self._reconciler.reconcile(environment, causes)
            except Fenced:
                raise
            except ReconcilerError as error:
                cycle = Cycle(
                    EnvironmentStatus(environment, clock.now(), reason=error.reason, message=str(error)), "failed"
                )
                if isinstance(error, Stalled):
                    self._show(cycle.status)
                    return False
                backoff.failed(clock.now(), random.SystemRandom().uniform, _after(error))
            else:
                causes = (Cause("command", clock.now()),)
                if cycle.steps_done:
                    backoff.reset()
                elif cycle.result == "failed":
                    backoff.failed(clock.now(), random.SystemRandom().uniform)
            self._show(cycle.status)
            if is_settled(cycle) or backoff.failures >= TRIES:
                return cycle.result == "synced"
            self._wait(environment, cycle, backoff)
        return False

    def _wait(self, environment: str, cycle: Cycle, backoff: Backoff) -> None:
        """Until the plan wants to look again or the engine has news; after a failure for the pause, whatever comes."""
        now = self._house.clock.now()
        if backoff.until is not None and backoff.holds(now):
            self._stopping.wait((backoff.until - now).total_seconds())
            return
        until = (cycle.recheck_at - now).total_seconds() if cycle.recheck_at is not None else LONGEST_WAIT
        self._news[environment].wait(min(max(until, 0.0), LONGEST_WAIT))

    def _engine_changed(self, environment: str, _detail: str) -> None:
        if environment in self._news:
            self._news[environment].set()


def is_settled(cycle: Cycle) -> bool:
    """Whether nothing more will happen by itself."""
    plan = cycle.status.plan
    if cycle.result == "synced":
        return True
    if plan is None:
        return False
    return not plan.steps and not any(_moves(service) for service in plan.services.values())


def _moves(service: ServicePlan) -> bool:
    """Whether something is to be done or waited for; a dependency is waited for only while that one moves, and a
    person not at all."""
    waits = service.reason in (Reason.DEPENDENCY_NOT_READY, Reason.PAUSED)
    return bool(service.steps or service.waiting) and not waits


def _after(error: ReconcilerError) -> timedelta | None:
    return error.after if isinstance(error, Retryable) else None

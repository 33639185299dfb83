"""Health: a fold of check results into a status. Pure: the checks themselves are made by an adapter.

An instance starts as STARTING. `healthy_after` successes in a row make it HEALTHY; from then on `unhealthy_after`
failures in a row make it UNHEALTHY. Before it was healthy once, failures are forgiven for `startup`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

from reconciler.core.live import HealthStatus
from reconciler.core.model import Health

FIRST_SPACING = timedelta(milliseconds=100)
SUCCESS_SPACING = timedelta(milliseconds=200)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check said; `detail` tells in words why it failed."""

    ok: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class HealthState:
    """The fold so far. `was_healthy` holds once the instance has been HEALTHY; the counts are those in a row."""

    status: HealthStatus = HealthStatus.STARTING
    detail: str = ""
    successes: int = 0
    failures: int = 0
    was_healthy: bool = False


def fold(state: HealthState, health: Health, result: CheckResult, age: timedelta) -> HealthState:
    """The state after one more result of an instance that has been running for `age`."""
    if result.ok:
        state = replace(state, successes=state.successes + 1, failures=0)
        if state.status is HealthStatus.HEALTHY or state.successes >= health.healthy_after:
            return replace(state, status=HealthStatus.HEALTHY, was_healthy=True, detail="")
        return state
    state = replace(state, successes=0, failures=state.failures + 1, detail=result.detail)
    if state.was_healthy:
        lost = state.failures >= health.unhealthy_after
        return replace(state, status=HealthStatus.UNHEALTHY) if lost else state
    if age >= health.startup and state.failures >= health.unhealthy_after:
        return replace(state, status=HealthStatus.UNHEALTHY)
    return state


def unreachable(state: HealthState, detail: str) -> HealthState:
    """The state of an instance that cannot be checked at all from here: it never becomes healthy, and says why."""
    return replace(state, status=HealthStatus.STARTING, detail=detail, successes=0)


def running(health: Health, age: timedelta) -> HealthState:
    """The state of an instance without a check: healthy once it has been running for `healthy_after` intervals."""
    if age >= health.interval * health.healthy_after:
        return HealthState(HealthStatus.HEALTHY, was_healthy=True)
    return HealthState()


def spacing(state: HealthState, health: Health) -> timedelta:
    """How long to wait until the next check.

    An instance that was healthy is checked every `interval`. A starting one is checked sooner, so that a fast start
    is seen fast: 100 ms after the first failure, half as much again after each further one, and every 200 ms while it
    succeeds; never slower than every `interval`.
    """
    if state.was_healthy:
        return health.interval
    if state.successes:
        return min(health.interval, SUCCESS_SPACING)
    grown = FIRST_SPACING * 1.5 ** min(max(state.failures - 1, 0), 30)
    return min(health.interval, grown)

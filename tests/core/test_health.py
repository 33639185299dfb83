"""The fold of check results into health: when an instance becomes healthy, when it is lost, how often it is asked."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.health import CheckResult, HealthState, fold, running, spacing, unreachable
from reconciler.core.live import HealthStatus
from reconciler.core.model import Health

GOOD, BAD = CheckResult(ok=True), CheckResult(ok=False, detail="503")
HEALTH = Health(interval=timedelta(seconds=5), healthy_after=2, unhealthy_after=3, startup=timedelta(seconds=60))
YOUNG, OLD = timedelta(seconds=1), timedelta(seconds=61)


def told(*results: CheckResult, age: timedelta = YOUNG, health: Health = HEALTH) -> HealthState:
    state = HealthState()
    for result in results:
        state = fold(state, health, result, age)
    return state


def test_healthy_after_successes_in_a_row() -> None:
    assert told(GOOD).status is HealthStatus.STARTING
    assert told(GOOD, BAD, GOOD).status is HealthStatus.STARTING
    assert told(GOOD, GOOD).status is HealthStatus.HEALTHY


def test_failures_are_forgiven_until_the_startup_time_is_over() -> None:
    young = told(*[BAD] * 100)
    assert (young.status, young.detail) == (HealthStatus.STARTING, "503")
    assert fold(young, HEALTH, BAD, OLD).status is HealthStatus.UNHEALTHY
    assert told(BAD, BAD, age=OLD).status is HealthStatus.STARTING


def test_a_healthy_one_is_lost_after_failures_in_a_row() -> None:
    state = told(GOOD, GOOD, BAD, BAD, GOOD, BAD, BAD)
    assert (state.status, state.detail) == (HealthStatus.HEALTHY, "503")
    lost = fold(state, HEALTH, BAD, YOUNG)
    assert lost.status is HealthStatus.UNHEALTHY
    back = fold(fold(lost, HEALTH, GOOD, OLD), HEALTH, GOOD, OLD)
    assert (lost.was_healthy, back.status, back.detail) == (True, HealthStatus.HEALTHY, "")


def test_without_a_check_it_is_healthy_after_its_intervals() -> None:
    assert running(HEALTH, timedelta(seconds=9.9)).status is HealthStatus.STARTING
    assert running(HEALTH, timedelta(seconds=10)).status is HealthStatus.HEALTHY


def test_what_cannot_be_checked_says_why_and_stays_starting() -> None:
    state = unreachable(told(GOOD), "no way there")
    assert (state.status, state.detail, state.successes) == (HealthStatus.STARTING, "no way there", 0)


def test_a_starting_instance_is_asked_often_and_a_healthy_one_at_its_interval() -> None:
    def milliseconds(*results: CheckResult, health: Health = HEALTH) -> float:
        return spacing(told(*results, health=health), health) / timedelta(milliseconds=1)

    assert milliseconds() == 100
    assert milliseconds(BAD) == 100
    assert milliseconds(BAD, BAD, BAD) == 225
    assert milliseconds(GOOD) == 200
    assert milliseconds(GOOD, GOOD) == 5000
    assert milliseconds(*[BAD] * 500) == 5000
    fast = Health(interval=timedelta(milliseconds=50), healthy_after=2)
    assert milliseconds(health=fast) == milliseconds(GOOD, health=fast) == 50


@given(st.lists(st.booleans(), max_size=40), st.integers(1, 5), st.integers(1, 5))
def test_healthy_is_never_told_without_enough_successes(results: list[bool], up: int, down: int) -> None:
    health = Health(healthy_after=up, unhealthy_after=down)
    state = HealthState()
    for index, ok in enumerate(results):
        before, state = state, fold(state, health, CheckResult(ok, "x"), YOUNG)
        if state.status is HealthStatus.HEALTHY and before.status is not HealthStatus.HEALTHY:
            assert all(results[index + 1 - up : index + 1])
        if state.status is HealthStatus.UNHEALTHY:
            assert before.was_healthy
        assert spacing(state, health) <= health.interval

"""How many instances are asked for: by one look, and by the looks of some time. Up at once, down with patience."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.delivery import Scaling
from reconciler.core.scaling import EVERY, Decision, Demand, decide, told, wish

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=1)
WINDOW = timedelta(minutes=5)
SESSIONS = Scaling(1, 8, sessions=5, stabilization=WINDOW)
RATE = Scaling(2, 8, rate=10, stabilization=WINDOW)
CPU = Scaling(1, 8, cpu=0.5, stabilization=WINDOW)
SLEEPY = Scaling(0, 8, sessions=5, stabilization=WINDOW)
SLEEPY_CPU = Scaling(0, 8, cpu=0.5, stabilization=WINDOW)


def demand(sessions: float = 0, rate: float = 0, cpu: float | None = None, waiting: int = 0, n: int = 2) -> Demand:
    return Demand(sessions, rate, cpu, waiting, n)


@pytest.mark.parametrize(
    ("scaling", "seen", "count"),
    [
        (SESSIONS, demand(sessions=24), 5),
        (SESSIONS, demand(sessions=25), 5),
        (SESSIONS, demand(sessions=26), 6),
        (SESSIONS, demand(sessions=1000), 8),
        (SESSIONS, demand(), 1),
        (SESSIONS, demand(sessions=3, n=0), 1),
        (RATE, demand(rate=35), 4),
        (RATE, demand(sessions=1000, rate=1), 2),
        (CPU, demand(cpu=1.4), 3),
        (CPU, demand(cpu=None, sessions=9), None),
        (CPU, demand(cpu=None, waiting=1), None),
        (CPU, demand(cpu=None, waiting=1, n=0), 1),
        # A float that is a hair above a whole number is that number: 2.1 / 0.3 is 7.000000000000001.
        (Scaling(1, 20, cpu=0.3), demand(cpu=2.1), 7),
    ],
)
def test_a_look_asks_for_the_total_over_the_target_within_the_limits(scaling, seen, count):
    assert wish(scaling, seen) == count


@pytest.mark.parametrize(("sessions", "count"), [(17, 4), (18, 4), (20, 4), (22, 4), (23, 5), (15, 3)])
def test_within_a_tenth_of_the_target_nothing_changes(sessions, count):
    assert wish(SESSIONS, demand(sessions=sessions, n=4)) == count


def test_the_tolerance_keeps_what_rounding_would_change():
    assert wish(SESSIONS, demand(sessions=21, n=4)) == 4
    assert wish(SESSIONS, demand(sessions=21, n=0)) == 5
    assert wish(Scaling(1, 30, sessions=5), demand(sessions=95, n=20)) == 20
    assert wish(Scaling(1, 30, sessions=5), demand(sessions=95, n=2)) == 19


@pytest.mark.parametrize(
    ("scaling", "seen", "count"),
    [
        (SLEEPY, demand(), 0),
        (SLEEPY, demand(waiting=1, n=0), 1),
        (SLEEPY, demand(rate=0.01), 1),
        (SLEEPY, demand(sessions=1), 1),
        (SLEEPY, demand(sessions=40, waiting=40, n=0), 8),
        (SLEEPY_CPU, demand(cpu=0.3), 0),
        (SLEEPY_CPU, demand(cpu=0.0, rate=1), 1),
        (SLEEPY_CPU, demand(cpu=None, waiting=1, n=0), 1),
        (SLEEPY_CPU, demand(cpu=None, n=0), 0),
    ],
)
def test_with_a_minimum_of_none_it_sleeps_only_while_nobody_wants_anything(scaling, seen, count):
    assert wish(scaling, seen) == count


@given(
    st.tuples(st.integers(0, 5), st.integers(1, 10)).map(lambda two: (two[0], sum(two))),
    st.floats(0.1, 50),
    st.builds(demand, st.floats(0, 1e6), st.floats(0, 1e6), st.none(), st.integers(0, 1000), st.integers(0, 40)),
)
def test_a_wish_is_within_the_limits_and_more_demand_never_asks_for_fewer(limits, target, seen):
    scaling = Scaling(*limits, sessions=target)
    count = wish(scaling, seen)
    assert count is not None
    assert limits[0] <= count <= limits[1]
    more = wish(scaling, Demand(seen.sessions * 1.5 + 1, seen.rate, None, seen.waiting, seen.instances))
    assert more is not None
    assert more >= count


def wishes(*looks: tuple[float, int]) -> list[tuple[datetime, int]]:
    """Looks so many minutes ago, and the count each asked for."""
    return [(NOW - timedelta(minutes=minutes), count) for minutes, count in looks]


def test_up_at_once_to_the_newest_wish():
    found = decide(SESSIONS, 2, wishes((1, 7), (0, 5)), NOW, NOW)
    assert found == Decision(5, "5 instances", NOW + EVERY)


def test_down_only_to_the_highest_wish_of_the_window():
    found = decide(SESSIONS, 6, wishes((5, 6), (4.9, 4), (2, 3), (0, 2)), NOW, LONG_AGO)
    assert found.count == 4
    assert found.said == "4 instances, fewer only after 5m for which that is enough"
    assert found.until == NOW + timedelta(seconds=6)


def test_down_when_all_of_the_window_asked_for_fewer():
    found = decide(SESSIONS, 6, wishes((6, 6), (5, 6), (4, 1), (0, 2)), NOW, LONG_AGO)
    assert found == Decision(2, "2 instances, enough for all of the last 5m", NOW + EVERY)


def test_a_window_that_was_not_all_looked_at_does_not_bring_it_down():
    begun = NOW - WINDOW + timedelta(seconds=7)
    found = decide(SESSIONS, 6, wishes((4, 1), (0, 1)), NOW, begun)
    assert found.count == 6
    assert found.until == NOW + timedelta(seconds=7)
    later = NOW + timedelta(seconds=7)
    assert decide(SESSIONS, 6, wishes((4, 1), (0, 1)), later, begun).count == 1


def test_what_is_between_the_newest_and_the_highest_wish_stays():
    found = decide(SESSIONS, 4, wishes((1, 8), (0, 2)), NOW, LONG_AGO)
    assert found.count == 4
    assert found.until == NOW + EVERY


def test_nothing_new_is_looked_at_again_as_often_as_ever():
    assert decide(SESSIONS, 3, wishes((0, 3)), NOW, NOW) == Decision(3, "3 instances", NOW + EVERY)
    assert decide(SESSIONS, 1, wishes((0, 1)), NOW, NOW).said == "1 instance"


def test_a_sleeping_service_is_woken_by_the_request_and_needs_no_look():
    assert decide(SLEEPY, 0, wishes((0, 0)), NOW, NOW) == Decision(0, "no instances", None)
    slept = decide(SLEEPY, 1, wishes((4, 0), (0, 0)), NOW, LONG_AGO)
    assert slept == Decision(0, "no instances, enough for all of the last 5m", None)
    assert decide(SLEEPY, 0, wishes((0, 1)), NOW, NOW) == Decision(1, "1 instance", NOW + EVERY)


def test_new_limits_hold_at_once_and_equal_ones_leave_nothing_to_decide():
    assert decide(SESSIONS, 20, wishes((0, 1)), NOW, NOW).count == 8
    assert decide(RATE, 1, [], NOW, NOW) == Decision(2, "2 instances", NOW + EVERY)
    fixed = Scaling(3, 3, sessions=5)
    assert decide(fixed, 3, wishes((1, 8), (0, 1)), NOW, LONG_AGO) == Decision(3, "3 instances", None)


looks = st.lists(
    st.tuples(st.integers(0, 900), st.integers(0, 10)), min_size=1, max_size=12, unique_by=lambda two: two[0]
)


@given(looks, st.integers(0, 10), st.integers(0, 1000))
def test_it_never_goes_below_what_the_window_asked_for_and_never_looks_again_in_the_past(found, current, begun):
    rows = sorted((NOW - timedelta(seconds=ago), count) for ago, count in found)
    since = NOW - timedelta(seconds=begun)
    decision = decide(SLEEPY, current, rows, NOW, since)
    now_asked = min(8, rows[-1][1])
    within = [min(8, count) for at, count in rows if at > NOW - WINDOW]
    assert decision.count >= now_asked
    if decision.count < min(8, current):
        assert since <= NOW - WINDOW
        assert decision.count >= max(within, default=now_asked)
    assert decision.until is None or decision.until > NOW
    if now_asked < decision.count:
        assert decision.until is not None


@given(looks, st.integers(0, 8))
def test_looking_again_when_it_says_ends_at_the_newest_wish(found, current):
    rows = sorted((NOW - timedelta(seconds=ago), count) for ago, count in found)
    newest = min(8, rows[-1][1])
    decision, now, rounds = Decision(current, "", NOW), NOW, 0
    while decision.until is not None and decision.count != newest:
        now, rounds = decision.until, rounds + 1
        decision = decide(SLEEPY, decision.count, rows, now, LONG_AGO)
        assert rounds <= 2 + WINDOW / EVERY + len(rows)
    assert decision.count == newest or current == newest


@pytest.mark.parametrize(
    ("scaling", "seen", "said"),
    [
        (SESSIONS, demand(sessions=24), "12 sessions at each of 2 instances, more than 5"),
        (SESSIONS, demand(sessions=5, n=2), "2.5 sessions at each of 2 instances, at most 5"),
        (SESSIONS, demand(n=1), "0 sessions at the only instance, at most 5"),
        (RATE, demand(rate=4000, n=1), "4,000 requests per second at the only instance, more than 10"),
        (CPU, demand(cpu=1.0), "0.5 cores at each of 2 instances, at most 0.5"),
        (CPU, demand(cpu=None, n=2), "cores not known"),
        (SLEEPY, demand(), "no requests"),
        (SLEEPY, demand(sessions=1500, waiting=1500, n=0), "1,500 requests wait while no instance serves"),
    ],
)
def test_what_was_seen_is_said(scaling, seen, said):
    assert told(scaling, seen) == said

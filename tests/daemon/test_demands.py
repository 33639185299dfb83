"""The demand for a service over time: what is summed of a live state, and how the looks become a count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.delivery import Scaling
from reconciler.core.live import (
    Backend,
    Instance,
    LiveState,
    Phase,
    ProxyState,
    ProxyStatus,
    Served,
    Server,
    ServerMode,
)
from reconciler.core.scaling import EVERY, decide
from reconciler.demands import FORGOTTEN, GAP, Demands

START = datetime(2026, 3, 1, tzinfo=UTC)
WINDOW = timedelta(minutes=1)
SESSIONS = Scaling(1, 8, sessions=5, stabilization=WINDOW)
RATE = Scaling(1, 8, rate=10, stabilization=WINDOW)
CPU = Scaling(1, 8, cpu=0.5, stabilization=WINDOW)
SLEEPY = Scaling(0, 8, sessions=5, stabilization=WINDOW)


def server(requests: int = 0, **how) -> Server:
    return replace(Server("10.0.0.1", 80, ServerMode.READY, 10, up=True, served=Served(requests)), **how)


def instance(number: int = 0, cpu: float | None = None, *, service: str = "web", **how) -> Instance:
    plain = Instance(f"i{number}", f"i{number}", service, "v", "r", number, "i", Phase.RUNNING, START, cpu=cpu)
    return replace(plain, **{"server": server(), **how})


def live(instances: Sequence[Instance] = (), status: ProxyStatus = ProxyStatus.READY, **backend) -> LiveState:
    backends = {"rec.prod.web": Backend(**backend), "rec.prod.api": Backend(sessions=1000, rate=1000.0)}
    return LiveState("prod", START, tuple(instances), proxy=ProxyState(status, "c", backends))


TWO = (instance(0), instance(1))


class Clock:
    """Looks at one service, each so many seconds after the one before."""

    def __init__(self, scaling: Scaling = SESSIONS) -> None:
        self.demands = Demands()
        self.scaling = scaling
        self.now = START

    def look(self, state: LiveState, after: float = 0):
        self.now += timedelta(seconds=after)
        return self.demands.note("prod", "web", self.scaling, state, self.now)

    def count(self, state: LiveState, after: float = 0) -> int:
        found = self.look(state, after)
        assert found is not None
        return found.count


def test_it_says_what_it_saw_and_what_follows():
    found = Clock().look(live(TWO, sessions=24))
    assert found is not None
    assert (found.count, found.said) == (5, "12 sessions at each of 2 instances, more than 5: 5 instances")
    assert found.until == START + EVERY


def test_it_goes_up_at_once_and_down_after_the_window():
    clock = Clock()
    assert clock.count(live(TWO, sessions=24)) == 5
    for _ in range(3):
        assert clock.count(live(TWO, sessions=9), 15) == 5
    assert clock.count(live(TWO, sessions=9), 14.9) == 5
    found = clock.look(live(TWO, sessions=9), 0.1)
    assert found is not None
    assert (found.count, found.said) == (
        2,
        "4.5 sessions at each of 2 instances, at most 5: 2 instances, enough for all of the last 1m",
    )


def test_after_a_restart_it_does_not_go_down_early():
    clock = Clock()
    four = tuple(instance(number) for number in range(4))
    for _ in range(4):
        assert clock.count(live(four, sessions=1), 15) == 4
    assert clock.count(live(four, sessions=1), 15) == 1


def test_what_was_taken_out_of_traffic_is_not_counted_after_a_restart():
    held = tuple(instance(number, server=server(mode=ServerMode.MAINT)) for number in range(5, 8))
    ended = instance(3, phase=Phase.EXITED, server=None)
    assert Clock().count(live((*TWO, *held, ended, instance(9, service="api")), sessions=5)) == 3


@pytest.mark.parametrize(
    "state",
    [
        live(TWO, ProxyStatus.UNREACHABLE, sessions=1),
        live(TWO, ProxyStatus.ABSENT, sessions=1),
        live(TWO, sessions=1, servers=(server(), server(sessions=None))),
        replace(live(TWO), proxy=None),
        replace(live(TWO), proxy=ProxyState(ProxyStatus.READY)),
    ],
    ids=["unreachable", "absent", "one silent", "none", "no backend"],
)
def test_nothing_is_said_without_the_proxies_and_the_window_begins_anew(state):
    clock = Clock()
    assert clock.count(live(TWO, sessions=24)) == 5
    for _ in range(3):
        clock.look(live(TWO, sessions=1), 15)
    assert clock.look(state, 10) is None
    for _ in range(4):
        assert clock.count(live(TWO, sessions=1), 15) == 5
    assert clock.count(live(TWO, sessions=1), 14.9) == 5
    assert clock.count(live(TWO, sessions=1), 0.1) == 1


def test_a_time_without_looks_is_no_time_of_few_requests():
    clock = Clock()
    assert clock.count(live(TWO, sessions=24)) == 5
    assert clock.count(live(TWO, sessions=1), GAP.total_seconds() + 1) == 5
    assert clock.count(live(TWO, sessions=1), GAP.total_seconds()) == 1


def test_cpu_is_that_of_the_instances_that_serve():
    warming = instance(2, 4.0, server=server(weight=0))
    starting = instance(3, 4.0, phase=Phase.CREATED)
    alone = instance(4, 0.4, server=None, serving=True)
    clock = Clock(CPU)
    assert clock.count(live((instance(0, 1.5), instance(1, 1.1), warming, starting, alone))) == 6


def test_cpu_that_is_not_known_of_one_instance_says_nothing():
    clock = Clock(CPU)
    assert clock.look(live((instance(0, 0.9), instance(1)))) is None
    assert clock.count(live((instance(0, 0.9), instance(1, 0.9)))) == 4


@pytest.mark.parametrize("proxy", [None, ProxyState(ProxyStatus.READY)])
def test_cpu_needs_no_proxy_unless_the_service_may_sleep(proxy):
    state = replace(live((instance(0, 1.4),)), proxy=proxy)
    assert Clock(CPU).count(state) == 3
    assert Clock(replace(CPU, minimum=0)).look(state) is None


def test_a_sleeping_service_wakes_with_the_first_request_and_sleeps_again_after_the_window():
    clock = Clock(SLEEPY)
    asleep = clock.look(live())
    assert asleep is not None
    assert (asleep.count, asleep.said, asleep.until) == (0, "no requests: no instances", None)
    woken = clock.look(live(sessions=1, waiting=1), 3600)
    assert woken is not None
    assert (woken.count, woken.said) == (1, "1 request waits while no instance serves: 1 instance")
    one = (instance(),)
    for _ in range(4):
        assert clock.count(live(one), 14) == 1
    assert clock.count(live(one), 4) == 0


def test_requests_that_wait_are_demand_even_where_they_are_no_sessions_yet():
    assert Clock(SLEEPY).count(live(waiting=22)) == 5


def test_a_request_between_two_looks_keeps_a_service_awake():
    clock = Clock(SLEEPY)
    one = (instance(),)
    assert clock.count(live(one, servers=(server(100),))) == 1
    for requests in range(101, 112):
        assert clock.count(live(one, servers=(server(requests),)), 30) == 1
    assert clock.count(live(one, servers=(server(5),)), 30) == 1
    assert clock.count(live(one, servers=(server(5),)), 30) == 0


def test_the_rate_is_the_higher_one_of_the_last_seconds_and_since_the_look_before():
    clock = Clock(RATE)
    assert clock.count(live(TWO, rate=35.0, servers=(server(1_000_000),))) == 4
    assert clock.count(live(TWO, rate=1.0, servers=(server(1_000_600),)), 10) == 6
    # Requests of a moment are not taken for those of a second.
    assert clock.count(live(TWO, rate=1.0, servers=(server(1_000_665),)), 0.1) == 7


def test_while_none_serves_it_does_not_ask_for_fewer():
    clock = Clock()
    assert clock.count(live(TWO, sessions=24)) == 5
    down = tuple(instance(number, phase=Phase.EXITED) for number in range(2))
    for _ in range(10):
        assert clock.count(live(down), 30) == 5


def test_another_scaling_begins_anew_within_its_limits():
    clock = Clock()
    assert clock.count(live(TWO, sessions=38)) == 8
    clock.scaling = replace(SESSIONS, sessions=50.0)
    for _ in range(4):
        assert clock.count(live(TWO, sessions=38), 15) == 8
    clock.scaling = replace(SESSIONS, maximum=3)
    assert clock.count(live(TWO, sessions=38)) == 3


def test_services_are_looked_at_apart_and_forgotten_when_nobody_asks():
    demands = Demands()
    for service, wanted in (("web", 1), ("api", 8)):
        found = demands.note("prod", service, SESSIONS, live(TWO, sessions=1), START)
        assert found is not None
        assert found.count == (2 if service == "web" else wanted)
    later = START + FORGOTTEN
    demands.note("prod", "other", SESSIONS, live(), later)
    found = demands.note("prod", "api", replace(SESSIONS, sessions=10_000.0), live(), later)
    assert found is not None
    assert found.count == 1


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 45)), min_size=1, max_size=40))
def test_what_is_forgotten_of_the_looks_makes_no_difference(series):
    clock = Clock()
    everything: list[tuple[datetime, int]] = []
    wanted = 1
    for after, sessions in series:
        found = clock.look(live((instance(),), sessions=sessions), after)
        assert found is not None
        asked = min(8, max(1, -(-sessions // 5)))
        everything.append((clock.now, asked))
        wanted = decide(SESSIONS, wanted, everything, clock.now, everything[0][0]).count
        assert found.count == wanted


def test_no_more_looks_are_kept_than_there_can_be_instances():
    clock = Clock(replace(SESSIONS, stabilization=timedelta(days=1)))
    for sessions in (*range(100), *range(100, 0, -1)) * 3:
        clock.look(live(TWO, sessions=sessions), 1)
    assert len(clock.demands._services["prod", "web"].wishes) <= SESSIONS.maximum

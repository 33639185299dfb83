"""How many fetches hints cost, by the clock of the caller: the promise behind `Source.snapshot(since=…)`."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from reconciler.adapters.git_fetches import Fetches

T0 = datetime(2026, 1, 1, tzinfo=UTC)


class TickingClock:
    """Every look is one second later."""

    def __init__(self) -> None:
        self.time = T0
        self.looks = threading.Semaphore(0)
        self._lock = threading.Lock()

    def now(self) -> datetime:
        with self._lock:
            self.time += timedelta(seconds=1)
            self.looks.release()
            return self.time

    def monotonic(self) -> float:
        raise AssertionError("not needed here")


class Far:
    """A fetch that waits until it is let go, and may fail."""

    def __init__(self) -> None:
        self.started = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.error: Exception | None = None

    def __call__(self, ref: str, began: datetime) -> None:
        self.started.release()
        assert self.go.acquire(timeout=60)
        if self.error is not None:
            raise self.error


def test_a_thousand_hints_during_a_fetch_cost_one_more() -> None:
    clock, far = TickingClock(), Far()
    fetches = Fetches(clock, far)
    with ThreadPoolExecutor(101) as threads:
        first = threads.submit(fetches.ensure, "main", clock.now())
        assert far.started.acquire(timeout=60)
        hints = [clock.now() for _ in range(1000)]
        others = [threads.submit(fetches.ensure, "main", hint) for hint in hints]
        far.go.release()
        first.result(60)
        assert far.started.acquire(timeout=60)
        far.go.release()
        for other in others:
            other.result(60)
    assert fetches.count == 2


def test_a_fetch_that_began_before_the_hint_is_not_enough() -> None:
    clock, far = TickingClock(), Far()
    fetches = Fetches(clock, far)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(fetches.ensure, "main", T0)
        assert far.started.acquire(timeout=60)
        assert clock.looks.acquire(timeout=60)
        hint = clock.now()
        assert clock.looks.acquire(timeout=60)
        second = threads.submit(fetches.ensure, "main", hint)
        assert clock.looks.acquire(timeout=60)  # it has seen the fetch that runs
        far.go.release()
        first.result(60)
        assert far.started.acquire(timeout=60), "another fetch begins"
        far.go.release()
        second.result(60)
    assert fetches.count == 2


def test_whoever_came_before_a_fetch_began_shares_it() -> None:
    clock, far = TickingClock(), Far()
    fetches = Fetches(clock, far)
    early = clock.now()
    with ThreadPoolExecutor(10) as threads:
        calls = [threads.submit(fetches.ensure, "main", early) for _ in range(10)]
        assert far.started.acquire(timeout=60)
        far.go.release()
        for call in calls:
            call.result(60)
    fetches.ensure("main", early)
    assert fetches.count == 1


def test_a_failure_reaches_all_who_wait_and_is_not_remembered() -> None:
    clock, far = TickingClock(), Far()
    fetches = Fetches(clock, far)
    far.error = ValueError("down")
    early = clock.now()
    with ThreadPoolExecutor(5) as threads:
        calls = [threads.submit(fetches.ensure, "main", early) for _ in range(5)]
        for _ in calls:
            far.go.release()
        assert {type(call.exception(60)) for call in calls} == {ValueError}
    far.error = None
    far.go.release()
    fetches.ensure("main", early)


def test_refs_do_not_wait_for_each_other() -> None:
    clock, far = TickingClock(), Far()
    fetches = Fetches(clock, far)
    with ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(fetches.ensure, ref, clock.now()) for ref in ("a", "b")]
        assert far.started.acquire(timeout=60)
        assert far.started.acquire(timeout=60)
        far.go.release(2)
        for call in calls:
            call.result(60)
    assert fetches.count == 2


@pytest.mark.parametrize("back", [timedelta(hours=1), timedelta(seconds=3)])
def test_a_clock_set_back_loses_no_hint(back: timedelta) -> None:
    clock, far = TickingClock(), Far()
    fetches = Fetches(clock, far)
    far.go.release(10)
    fetches.ensure("main", clock.now())
    clock.time -= back
    fetches.ensure("main", clock.now())
    assert fetches.count == 2
    fetches.ensure("main", clock.now() + timedelta(hours=1))
    assert fetches.count == 3


def test_many_names_are_forgotten_again() -> None:
    clock, far = TickingClock(), Far()
    fetches = Fetches(clock, far)
    far.go.release(3000)
    for number in range(2500):
        fetches.ensure(f"refs/heads/{number}", clock.now())
    assert len(fetches._lines) <= 1000

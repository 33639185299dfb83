"""The gates of releases under way: what is remembered of each candidate, and queries that never hold anybody up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from reconciler.core.analysis import Verdict
from reconciler.core.delivery import Gate, Query
from reconciler.core.gate import GateFinding
from reconciler.core.live import Instance, Phase, Served, Server, ServerMode
from reconciler.gates import FORGOTTEN, FRESH, PAUSE, Gates

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
ERRORS = Gate(minimum=100)
LOAD = Query("load", 'load{env="{environment}",svc="{service}",v="{version}"}', maximum=2)
ASKS = Gate(errors=False, queries=(LOAD,))


class Gauge:
    """Answers what it is told to, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: tuple[float | None, str] = (1.0, "")
        self.trouble: Exception | None = None

    def query(self, promql: str) -> tuple[float | None, str]:
        self.asked.append(promql)
        if self.trouble is not None:
            raise self.trouble
        return self.answer


class AtOnce(Executor):
    """Runs what it gets on the spot, or only when `run` is called."""

    def __init__(self, *, later: bool = False) -> None:
        self.later = later
        self.waiting: list[tuple[Future, object, tuple]] = []
        self.shut: dict[str, bool] | None = None

    def submit(self, fn, /, *args, **kwargs):
        if self.shut is not None:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future = Future()
        self.waiting.append((future, fn, args))
        if not self.later:
            self.run()
        return future

    def run(self) -> None:
        for future, fn, args in self.waiting:
            try:
                future.set_result(fn(*args))
            except AssertionError as error:
                future.set_exception(error)
        self.waiting.clear()

    def shutdown(self, wait=True, *, cancel_futures=False):
        self.shut = {"wait": wait, "cancel_futures": cancel_futures}
        for future, *_ in self.waiting:
            future.cancel()


@pytest.fixture
def gauge() -> Gauge:
    return Gauge()


@pytest.fixture
def executor() -> AtOnce:
    return AtOnce()


@pytest.fixture
def gates(gauge: Gauge, executor: AtOnce) -> Iterator[Gates]:
    made = Gates({"prod": gauge}, executor)
    yield made
    made.close()


def instance(name: str, requests: int = 0, errors: int = 0) -> Instance:
    server = Server("10.0.0.1", 80, ServerMode.READY, 10, up=True, served=Served(requests, errors))
    return Instance(name, name, "web", "v", "r", 0, "i", Phase.RUNNING, NOW, server=server)


def look(gates: Gates, at: timedelta = timedelta(), gate: Gate = ASKS, version: str = "v2") -> GateFinding:
    return gates.findings("prod", "web", version, gate, [], [], NOW + at)


def count(gates: Gates, requests: int, errors: int, version: str = "v2", service: str = "web", at=NOW) -> GateFinding:
    ours, theirs = [instance("a", requests, errors)], [instance("s", requests, 0)]
    return gates.findings("prod", service, version, ERRORS, ours, theirs, at)


def requests_of(found: GateFinding) -> int:
    return found.details["errors"]["candidate"]["requests"]


def test_what_is_seen_adds_up_over_the_looks_at_one_candidate(gates: Gates):
    assert count(gates, 10, 0).verdict is Verdict.HOLD
    assert requests_of(count(gates, 60, 0)) == 50
    assert count(gates, 400, 0).verdict is Verdict.PASS
    assert count(gates, 900, 400).verdict is Verdict.FAIL


def test_another_candidate_begins_anew_and_the_first_one_too_when_it_comes_again(gates: Gates):
    count(gates, 0, 0)
    assert count(gates, 500, 400).verdict is Verdict.FAIL
    assert requests_of(count(gates, 600, 400, version="v3")) == 0
    assert requests_of(count(gates, 700, 400)) == 0


def test_a_second_try_of_the_same_version_is_not_judged_by_the_first(gates: Gates):
    """A person mended what was wrong around it, and resumed the service."""

    def seen(requests: int, errors: int, begun: datetime) -> GateFinding:
        ours, theirs = [instance("a", requests, errors)], [instance("s", requests, 0)]
        return gates.findings("prod", "web", "v2", ERRORS, ours, theirs, NOW, begun=begun)

    seen(0, 0, NOW)
    assert seen(500, 400, NOW).verdict is Verdict.FAIL
    again = NOW + timedelta(minutes=1)
    assert seen(500, 400, again).verdict is Verdict.HOLD
    assert seen(1000, 400, again).verdict is Verdict.PASS


def test_services_and_environments_are_looked_at_apart(gates: Gates):
    for service in ("web", "api"):
        count(gates, 0, 0, service=service)
    assert requests_of(count(gates, 500, 0)) == 500
    assert requests_of(count(gates, 7, 0, service="api")) == 7
    other = gates.findings("test", "web", "v2", ERRORS, [instance("a", 9)], [], NOW)
    assert requests_of(other) == 0


def test_what_nobody_asks_about_any_more_is_forgotten(gates: Gates):
    for version in ("v2", "v2"):
        count(gates, 10, 0, version)
    count(gates, 0, 0, service="api", at=NOW + FORGOTTEN)
    assert requests_of(count(gates, 500, 0, at=NOW + FORGOTTEN)) == 0


def test_a_query_holds_until_its_answer_is_there(gauge: Gauge):
    executor = AtOnce(later=True)
    gates = Gates({"prod": gauge}, executor)
    assert look(gates) == GateFinding(Verdict.HOLD, "load: not answered yet")
    assert gauge.asked == []
    executor.run()
    assert gauge.asked == ['load{env="prod",svc="web",v="v2"}']
    found = look(gates, SECOND)
    assert found.verdict is Verdict.PASS
    assert found.details["query load"]["value"] == "1"


def test_a_query_is_asked_again_after_a_pause_only(gates: Gates, gauge: Gauge):
    assert look(gates).verdict is Verdict.PASS
    gauge.answer = (3.0, "")
    assert look(gates, PAUSE - SECOND).verdict is Verdict.PASS
    assert len(gauge.asked) == 1
    assert look(gates, PAUSE).verdict is Verdict.FAIL
    assert len(gauge.asked) == 2


def test_the_same_query_is_asked_once_however_many_bounds_it_has(gates: Gates, gauge: Gauge):
    gauge.answer = (3.0, "")
    gate = replace(ASKS, queries=(LOAD, replace(LOAD, name="floor", maximum=None, minimum=1)))
    found = look(gates, gate=gate)
    assert found.said == "load: the value 3 is above the maximum 2; floor: the value 3 is within its limits"
    assert len(gauge.asked) == 1


def test_no_answer_holds_also_after_a_good_one(gates: Gates, gauge: Gauge):
    look(gates)
    gauge.answer = (None, "Prometheus: connection refused")
    assert look(gates, PAUSE).verdict is Verdict.HOLD
    assert "connection refused" in look(gates, PAUSE).said


def test_an_answer_that_is_not_renewed_is_believed_for_some_time_only(gauge: Gauge, executor: AtOnce):
    gates = Gates({"prod": gauge}, executor)
    look(gates)
    executor.later = True
    assert look(gates, FRESH - SECOND).verdict is Verdict.PASS
    found = look(gates, FRESH)
    assert (found.verdict, found.said) == (Verdict.HOLD, "load: the last answer is 60 s old, and none came since")
    assert len(executor.waiting) == 1


def test_a_clock_that_was_set_back_does_not_stop_the_asking(gates: Gates, gauge: Gauge):
    look(gates, timedelta(hours=1))
    look(gates)
    assert len(gauge.asked) == 2


def test_another_candidate_is_asked_for_at_once(gates: Gates, gauge: Gauge):
    look(gates)
    look(gates, SECOND, version="v3")
    assert gauge.asked == ['load{env="prod",svc="web",v="v2"}', 'load{env="prod",svc="web",v="v3"}']


def test_a_query_that_left_the_gate_is_forgotten(gates: Gates, gauge: Gauge):
    look(gates)
    look(gates, gate=replace(ASKS, queries=()))
    look(gates)
    assert len(gauge.asked) == 2


def test_without_a_metrics_server_it_holds_and_says_what_to_do(executor: AtOnce):
    found = look(Gates({}, executor))
    assert found.verdict is Verdict.HOLD
    assert found.said == "load: nowhere to ask; the operator can set environments.prod.prometheus"


def test_queries_and_counts_are_one_verdict(gates: Gates, gauge: Gauge):
    gate = replace(ERRORS, queries=(LOAD,))
    found = gates.findings("prod", "web", "v2", gate, [instance("a")], [instance("s")], NOW)
    assert found.verdict is Verdict.HOLD
    assert set(found.details) == {"errors", "query load"}


def test_a_fault_of_ours_is_not_swallowed_and_the_query_is_asked_again(gates: Gates, gauge: Gauge):
    gauge.trouble = AssertionError("a bug")
    with pytest.raises(AssertionError, match="a bug"):
        look(gates)
    gauge.trouble = None
    assert look(gates, PAUSE).verdict is Verdict.PASS


def test_after_the_end_nothing_is_asked(gauge: Gauge):
    executor = AtOnce(later=True)
    gates = Gates({"prod": gauge}, executor)
    look(gates)
    gates.close()
    assert executor.shut == {"wait": False, "cancel_futures": True}
    assert look(gates, PAUSE).said == "load: not answered yet"
    assert look(gates, 2 * PAUSE).said == "load: not answered yet"
    assert gauge.asked == []


class Slow:
    """A metrics server that does not answer before it is allowed to."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()

    def query(self, promql: str) -> tuple[float | None, str]:
        self.begun.set()
        assert self.go.wait(60)
        return 1.0, ""


def test_a_slow_metrics_server_holds_nobody_up():
    slow = Slow()
    pool = ThreadPoolExecutor(1)
    gates = Gates({"prod": slow}, pool)
    assert look(gates).verdict is Verdict.HOLD
    assert slow.begun.wait(60)
    assert look(gates, PAUSE).verdict is Verdict.HOLD  # while the thread is still asking
    slow.go.set()
    pool.submit(int).result(20)
    assert look(gates, PAUSE).verdict is Verdict.PASS
    gates.close()


def test_it_brings_threads_of_its_own():
    slow = Slow()
    gates = Gates({"prod": slow})
    assert look(gates).verdict is Verdict.HOLD
    assert slow.begun.wait(60)
    slow.go.set()
    gates.close()

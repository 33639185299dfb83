"""The workers: what becomes of each outcome of a cycle. The reconciler is scripted, everything around it is real."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from queue import Empty, SimpleQueue

import pytest
from structlog.testing import capture_logs

from reconciler.adapters.clock import SystemClock
from reconciler.board import Board
from reconciler.core.errors import Fenced, Reason, Retryable
from reconciler.core.status import EnvironmentStatus, Plan, ServiceHealth, ServicePlan, Sync
from reconciler.loop import Cycle
from reconciler.ports import Cause
from reconciler.redact import Redactor
from reconciler.telemetry import Metrics
from reconciler.triggers.inbox import Inbox
from reconciler.workers import Desk, Workers

PATIENCE = 60.0
Act = Callable[[str], Cycle]


class Script:
    """Does what `acts` say, one after the other, the last one for ever."""

    def __init__(self, *acts: Act) -> None:
        self.acts = list(acts)
        self.causes: SimpleQueue[tuple[str, ...]] = SimpleQueue()

    def reconcile(self, environment: str, causes: Sequence[Cause]) -> Cycle:
        act = self.acts.pop(0) if len(self.acts) > 1 else self.acts[0]
        self.causes.put(tuple(cause.kind for cause in causes))
        return act(environment)


class Stage:
    """Workers with all that they need; `fatal` holds what was told to the daemon."""

    def __init__(self) -> None:
        self.clock = SystemClock()
        self.inbox = Inbox(self.clock)
        self.board = Board()
        self.metrics = Metrics()
        self.fatal: SimpleQueue[BaseException] = SimpleQueue()
        self.alive = threading.Event()
        self.bounds: list[float] = []
        self.workers: Workers | None = None

    def begin(self, script: Script, *environments: str) -> Workers:
        desk = Desk(
            inbox=self.inbox,
            board=self.board,
            metrics=self.metrics,
            clock=self.clock,
            fatal=self.fatal.put,
            alive=self.alive.set,
            uniform=self.uniform,
            redact=Redactor(["hunter22"]).exception,
        )
        self.workers = Workers(desk, script, environments, concurrency=2)
        self.workers.start()
        return self.workers

    def uniform(self, low: float, high: float) -> float:
        """The upper bound, so that a pause is never over by itself before a test has looked; both are noted."""
        self.bounds.append(high)
        return 3600.0

    def ask(self, environment: str, kind: str, *, git: bool = False) -> None:
        self.inbox.request(environment, Cause(kind, self.clock.now(), git=git))

    def status(self, environment: str, wanted: Callable[[EnvironmentStatus], bool]) -> EnvironmentStatus:
        """The status on the board once it is `wanted`."""
        seen = -1
        for _ in range(100):
            status = self.board.get(environment)
            if status is not None and wanted(status):
                return status
            seen = self.board.wait(seen, PATIENCE)
        raise AssertionError(f"not as wanted: {self.board.get(environment)}")


@pytest.fixture
def stage() -> Iterator[Stage]:
    found = Stage()
    yield found
    found.inbox.close()
    assert found.workers is None or found.workers.join(PATIENCE)


def synced(environment: str) -> Cycle:
    return Cycle(EnvironmentStatus(environment, SystemClock().now(), revision="a" * 40), "synced")


def unreachable(environment: str) -> Cycle:
    raise Retryable(Reason.ENGINE_UNREACHABLE, "the engine does not answer")


def bug(environment: str) -> Cycle:
    raise ZeroDivisionError("hunter22")


def test_an_outcome_is_published_and_counted(stage: Stage) -> None:
    workers = stage.begin(Script(synced), "staging")
    assert not workers.looked(["staging"])
    stage.ask("staging", "start", git=True)
    assert workers.looked(["staging"], PATIENCE)
    assert stage.status("staging", lambda _: True).revision == "a" * 40
    labels = {"environment": "staging", "result": "synced"}
    assert stage.metrics.registry.get_sample_value("reconciler_reconcile_total", labels) == 1
    assert stage.alive.wait(PATIENCE)


def test_trouble_pauses_but_news_end_the_pause(stage: Stage) -> None:
    script = Script(synced, unreachable)
    stage.begin(script, "staging")
    for kind, git in (("start", True), ("engine", False)):
        stage.ask("staging", kind, git=git)
        assert script.causes.get(timeout=PATIENCE) == (kind,)
        stage.status("staging", lambda status, first=kind == "start": (status.reason is None) is first)
    status = stage.board.get("staging")
    assert status is not None
    assert (status.reason, status.revision) == (Reason.ENGINE_UNREACHABLE, "a" * 40), "the last known state stays"
    stage.ask("staging", "engine")
    stage.ask("other", "engine")  # unknown: dropped, and by then the hint before it was put off
    stage.ask("staging", "poll", git=True)
    assert "poll" in script.causes.get(timeout=PATIENCE), "an engine's event is no reason to try again, Git is"
    stage.ask("staging", "webhook", git=True)
    assert "webhook" in script.causes.get(timeout=PATIENCE)
    stage.status("staging", lambda _: len(stage.bounds) == 3)
    assert stage.bounds == [2.0, 4.0, 2.0], "a poll keeps the pauses growing, a new commit begins anew"


def test_a_bug_is_told_without_secrets_and_other_environments_go_on(stage: Stage) -> None:
    script = Script(bug, synced)
    with capture_logs() as logs:
        stage.begin(script, "one", "two")
        stage.ask("one", "start")
        status = stage.status("one", lambda _: True)
        stage.ask("two", "start")
        stage.status("two", lambda _: True)
    assert status.reason is Reason.INTERNAL_ERROR
    assert "ZeroDivisionError" in status.message
    assert "hunter22" not in status.message
    assert [log["exc_info"] for log in logs if log["event"] == "a bug in Reconciler"] == [True]


def test_a_fenced_daemon_is_told_to_end(stage: Stage) -> None:
    def fenced(environment: str) -> Cycle:
        raise Fenced(Reason.FENCED, "a newer epoch")

    stage.begin(Script(fenced), "staging")
    stage.ask("staging", "start")
    assert isinstance(stage.fatal.get(timeout=PATIENCE), Fenced)


def test_idle_cycles_are_quiet(stage: Stage) -> None:
    script = Script(synced)
    with capture_logs() as logs:
        stage.begin(script, "staging")
        for count in (1, 2, 3):
            stage.ask("staging", "poll")
            stage.board.wait(count - 1, PATIENCE)
        stage.status("staging", lambda _: stage.board.version == 3)
        stage.inbox.close()
        assert stage.workers is not None
        assert stage.workers.join(PATIENCE)
    levels = [log["log_level"] for log in logs if log["event"] == "reconciled"]
    assert levels == ["info", "debug", "debug"]


def test_the_line_of_a_cycle_names_the_services_in_trouble(stage: Stage) -> None:
    def troubled(environment: str) -> Cycle:
        well = ServicePlan("api", Sync.SYNCED, ServiceHealth.HEALTHY)
        ill = replace(well, service="web", reason=Reason.PORT_TAKEN, message="a host port is in use")
        plan = Plan(environment, None, {"api": well, "web": ill})
        return Cycle(EnvironmentStatus(environment, SystemClock().now(), plan=plan), "failed")

    with capture_logs() as logs:
        stage.begin(Script(troubled), "staging")
        stage.ask("staging", "start")
        stage.status("staging", lambda _: True)
        stage.inbox.close()
        assert stage.workers is not None
        assert stage.workers.join(PATIENCE)
    (line,) = [log for log in logs if log["event"] == "reconciled"]
    assert line["services"] == {"web": "PortTaken: a host port is in use"}


def test_after_a_swap_only_what_is_configured_is_looked_at(stage: Stage) -> None:
    before, after = Script(synced), Script(synced)
    workers = stage.begin(before, "old", "kept")
    workers.swap(after, ["kept", "new"])
    for name in ("old", "kept", "new"):
        stage.ask(name, "reload")
    assert workers.looked(["kept", "new"], PATIENCE)
    assert not workers.looked(["old"])
    assert before.causes.empty()


def test_a_stop_waits_for_the_cycle_in_hand(stage: Stage) -> None:
    begun, free = threading.Event(), threading.Event()

    def slow(environment: str) -> Cycle:
        begun.set()
        assert free.wait(PATIENCE)
        return synced(environment)

    workers = stage.begin(Script(slow), "staging")
    stage.ask("staging", "start")
    assert begun.wait(PATIENCE)
    stage.inbox.close()
    assert not workers.join(0.0)
    free.set()
    assert workers.join(PATIENCE)
    assert stage.board.get("staging") is not None


def test_after_a_long_look_events_of_the_engine_are_taken_together_and_others_at_once(stage: Stage) -> None:
    script = Script(lambda name: Cycle(EnvironmentStatus(name, stage.clock.now()), "synced", rest=3600.0))
    stage.begin(script, "a")
    stage.ask("a", "poll")
    assert script.causes.get(timeout=PATIENCE) == ("poll",)
    stage.workers.looked(["a"], PATIENCE)  # type: ignore[union-attr]
    for _ in range(3):
        stage.ask("a", "engine")
    with pytest.raises(Empty):
        script.causes.get(timeout=0.3)
    stage.ask("a", "webhook", git=True)
    assert "webhook" in script.causes.get(timeout=PATIENCE)

"""The workers: threads that take an environment from the inbox, have it reconciled, and say how it went.

They know neither Git nor an engine. What is to be done about an error is decided here and nowhere else: back off, or
end the daemon.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Protocol

import structlog

from reconciler.backoff import Backoff
from reconciler.board import Board
from reconciler.core.errors import Fenced, Reason, ReconcilerError, Retryable
from reconciler.core.status import EnvironmentStatus
from reconciler.loop import Cycle
from reconciler.ports import Cause, Clock
from reconciler.telemetry import Metrics
from reconciler.triggers.inbox import Inbox

IDLE_WAIT = 5.0
"""Seconds a worker waits for work before it says that it is alive: well within what whoever watches over the program
asks for (60 s in our unit), and seldom enough that a daemon at rest hardly runs."""
STUCK_AFTER = 900.0
"""Seconds. A cycle that takes longer than any sum of deadlines inside it: the worker counts as stuck."""
NEWS = frozenset({"webhook", "file", "operator", "reload", "peer"})
"""Kinds of cause that end a backoff: somebody changed something. A poll only looks."""

SERVICES_TOLD = 20
"""So many services are named in the line about a cycle."""

_log = structlog.get_logger(__name__)


class Reconciles(Protocol):
    """What the workers call; see `reconciler.loop.Reconciler`."""

    def reconcile(self, environment: str, causes: Sequence[Cause]) -> Cycle: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Desk:
    """What all workers share. `fatal` is told why the daemon must end; `alive` that progress was made."""

    inbox: Inbox
    board: Board
    metrics: Metrics
    clock: Clock
    fatal: Callable[[BaseException], None]
    alive: Callable[[], None]
    uniform: Callable[[float, float], float]
    redact: Callable[[BaseException], str]


@dataclass(slots=True)
class _Record:
    """What the workers know of one environment: its pauses, and its last outcome, to tell idle cycles from others."""

    backoff: Backoff = field(default_factory=Backoff)
    outcome: tuple[str, str, str] = ("", "", "")
    looked: bool = False


class Workers:
    """`concurrency` threads. Environments never wait for each other while there is a free worker."""

    def __init__(self, desk: Desk, reconciler: Reconciles, environments: Collection[str], concurrency: int) -> None:
        self._desk = desk
        self._reconciler = reconciler
        self._environments = frozenset(environments)
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._records: dict[str, _Record] = {}
        self._busy: dict[str, float] = {}
        self._threads = [
            threading.Thread(target=self._work, name=f"worker-{number}", daemon=True) for number in range(concurrency)
        ]

    def start(self) -> None:
        """Begin to take work."""
        for thread in self._threads:
            thread.start()

    def swap(self, reconciler: Reconciles, environments: Collection[str]) -> None:
        """Use `reconciler`, which knows `environments`, for every cycle that begins from now on."""
        with self._changed:
            self._reconciler = reconciler
            self._environments = frozenset(environments)
            self._records = {name: known for name, known in self._records.items() if name in self._environments}

    def looked(self, environments: Collection[str], seconds: float = 0.0) -> bool:
        """Whether each of `environments` has had a cycle, well or badly; waits up to `seconds` for it."""
        with self._changed:
            return self._changed.wait_for(
                lambda: all(name in self._records and self._records[name].looked for name in environments), seconds
            )

    def stuck(self) -> bool:
        """Whether a cycle takes longer than it possibly can."""
        now = self._desk.clock.monotonic()
        with self._changed:
            return any(now - began > STUCK_AFTER for began in self._busy.values())

    def join(self, seconds: float) -> bool:
        """Take no more work and wait for the cycles in hand, `seconds` in all; whether all of them ended."""
        self._stopping.set()
        end = time.monotonic() + seconds
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(end - time.monotonic(), 0.0))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        inbox = self._desk.inbox
        while not self._stopping.is_set():
            taken = inbox.take(IDLE_WAIT)
            if taken is not None:
                environment, causes = taken
                try:
                    self._attend(environment, causes)
                except Exception:  # noqa: BLE001 (a bug must not end the thread)
                    # Outside of a cycle: with its thread the worker would be lost for all environments.
                    _log.exception("a bug in Reconciler")
                finally:
                    inbox.done(environment)
            self._desk.metrics.inbox_depth.set(inbox.depth)
            if not self.stuck():
                self._desk.alive()

    def _attend(self, environment: str, causes: Sequence[Cause]) -> None:
        """One look, unless the environment is backing off and nothing here is news."""
        now = self._desk.clock.now()
        with self._changed:
            if environment not in self._environments:
                return
            record = self._records.setdefault(environment, _Record())
            reconciler = self._reconciler
        if any(cause.kind in NEWS for cause in causes):
            record.backoff.reset()
        elif (until := record.backoff.until) and record.backoff.holds(now) and not any(cause.git for cause in causes):
            self._desk.inbox.later(environment, until, causes[-1])
            return
        name = threading.current_thread().name
        with self._changed:
            self._busy[name] = self._desk.clock.monotonic()
        try:
            self._cycle(reconciler, environment, causes, record)
        finally:
            with self._changed:
                self._busy.pop(name, None)
                record.looked = True
                self._changed.notify_all()

    def _cycle(self, reconciler: Reconciles, environment: str, causes: Sequence[Cause], record: _Record) -> None:
        structlog.contextvars.bind_contextvars(reconcile=uuid.uuid4().hex[:12], environment=environment)
        began = self._desk.clock.monotonic()
        try:
            cycle = reconciler.reconcile(environment, causes)
        except Fenced as error:
            self._desk.fatal(error)
        except ReconcilerError as error:
            after = error.after if isinstance(error, Retryable) else None
            cycle = self._pause(environment, record, error.reason, str(error), after)
            self._tell(cycle, causes, began, record)
        except Exception as error:  # noqa: BLE001 (a bug must not take the other environments with it)
            _log.exception("a bug in Reconciler")
            said = f"a bug in Reconciler: {self._desk.redact(error)}; the log has the traceback"
            self._tell(self._pause(environment, record, Reason.INTERNAL_ERROR, said, None), causes, began, record)
        else:
            record.backoff.reset()
            self._tell(cycle, causes, began, record)
        finally:
            structlog.contextvars.clear_contextvars()

    def _pause(self, environment: str, record: _Record, reason: Reason, said: str, after: timedelta | None) -> Cycle:
        """The outcome of a cycle that could not be finished: the last known status with the reason, and a pause."""
        now = self._desk.clock.now()
        until = record.backoff.failed(now, self._desk.uniform, after)
        known = self._desk.board.get(environment) or EnvironmentStatus(environment, now)
        status = replace(known, at=now, reason=reason, message=said)
        return Cycle(status, "failed", recheck_at=until)

    def _tell(self, cycle: Cycle, causes: Sequence[Cause], began: float, record: _Record) -> None:
        """The outcome to the board, the metrics and the log, and the time of the next look to the inbox."""
        desk, status = self._desk, cycle.status
        duration = desk.clock.monotonic() - began
        desk.inbox.rest(status.environment, cycle.rest)
        if cycle.recheck_at is not None:
            desk.inbox.later(status.environment, cycle.recheck_at, Cause("recheck", desk.clock.now()))
        desk.board.publish(status)
        desk.metrics.show(status)
        desk.metrics.reconcile_duration.observe(duration)
        desk.metrics.reconciles.labels(status.environment, cycle.result).inc()
        troubled = _troubled(status)
        reasons = ",".join(f"{name}={said.partition(':')[0]}" for name, said in troubled.items())
        outcome = (cycle.result, status.revision, f"{status.reason or ''} {reasons}")
        quiet = cycle.steps_done == 0 and outcome == record.outcome
        record.outcome = outcome
        level = "debug" if quiet else "warning" if cycle.result == "failed" else "info"
        getattr(_log, level)(
            "reconciled",
            cause=",".join(sorted({cause.kind for cause in causes})),
            revision=status.revision[:12],
            result=cycle.result,
            steps=cycle.steps_done,
            duration=round(duration, 3),
            reason=str(status.reason or ""),
            message=status.message,
            services=troubled,
        )


def _troubled(status: EnvironmentStatus) -> dict[str, str]:
    """The services that are not as they should be, with the reason; the first SERVICES_TOLD of them."""
    plans = status.plan.services.items() if status.plan else ()
    told = {name: f"{plan.reason}: {plan.message}" for name, plan in sorted(plans) if plan.reason is not None}
    return dict(list(told.items())[:SERVICES_TOLD])

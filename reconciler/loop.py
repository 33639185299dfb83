"""reconcile(environment): the whole program in one readable function.

Git -> desired state -> live state -> plan -> steps, again until nothing is left to do now. It branches; everything it
calls computes. It keeps nothing between cycles but backoffs and caches: a restart loses neither truth nor progress.
"""

from __future__ import annotations

import random
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import structlog

from reconciler.backoff import Backoff
from reconciler.core.admission import Wanted, admission, describe
from reconciler.core.bounds import fitted
from reconciler.core.errors import Fenced, Reason, ReconcilerError, Retryable, Stalled
from reconciler.core.memory import EnvironmentMemory, ServiceMemory
from reconciler.core.plan import plan
from reconciler.core.record import Entry, What
from reconciler.core.rest import Rests
from reconciler.core.status import EnvironmentStatus, Plan, ServiceHealth, ServicePlan
from reconciler.core.steps import Step
from reconciler.desire import Desire
from reconciler.execute import Commission, Executor
from reconciler.gates import Gates
from reconciler.ports import Cause, Clock, Gauge, Journal, Runtime, Secrets, Source, Traffic
from reconciler.rendering_port import Renderer
from reconciler.settings import EnvironmentSettings, Settings
from reconciler.survey import Survey
from reconciler.trouble import PLACES, Trouble, in_vain, steps_of

ROUNDS = 40
SHORT_LOOK = 0.02
LONGEST_REST = 1.0
STEP = 0.005
"""Seconds. A large fleet would be looked at without end, for each of its many events. So where a look takes longer than
the first, there is a rest of twice its time after a cycle, doubled with each that found nothing to do for such events,
and at most the second; and a cycle ends when its looks take longer than what they find to do, at so much for a step."""
GATE_LOOK = timedelta(seconds=1)
"""Between two looks at an environment with an open gate."""


@dataclass(frozen=True)
class House:
    """Everything a reconcile needs. `redact` takes secrets out of whatever is written down."""

    settings: Settings
    source: Source
    runtimes: Mapping[str, Runtime]
    journal: Journal
    secrets: Secrets
    clock: Clock
    schemas: Mapping[str, Any]
    redact: Callable[[str], str] = str
    uniform: Callable[[float, float], float] = random.uniform
    traffic: Traffic | None = None
    gauges: Mapping[str, Gauge] = field(default_factory=dict)
    renderer: Renderer | None = None


@dataclass(frozen=True)
class Cycle:
    """What one reconcile came to. `result`: synced, progressing, waiting, failed. `rest`: for how many seconds
    events of the engine can wait after it."""

    status: EnvironmentStatus
    result: str
    steps_done: int = 0
    recheck_at: datetime | None = None
    rest: float = 0.0


class Reconciler:
    """Reconciles environments; one call for an environment at a time, several environments side by side."""

    def __init__(self, house: House, news: Callable[[str], bool] = lambda _environment: False) -> None:
        """`news`: whether Git may have changed since. Then a cycle ends early, for the newest commit comes first."""
        self._house = house
        self._news = news
        self._desire = Desire(house.settings, house.source, house.secrets, house.schemas, house.renderer)
        self._gates = Gates(house.gauges)
        self._survey = Survey(self._desire, house.traffic, self._gates, house.clock)
        self._pool = ThreadPoolExecutor(max_workers=house.settings.concurrency, thread_name_prefix="service")
        self._stopping = threading.Event()
        self._up_since = dict.fromkeys(house.settings.environments, house.clock.now())
        self._able_since: dict[str, dict[str, datetime]] = {}
        self._away: set[str] = set()
        self._took: dict[str, float] = {}
        self._vain: dict[str, int] = {}
        self._rests = {name: Rests() for name in house.settings.environments}
        self._trouble: dict[str, Trouble] = {}
        self._log = structlog.get_logger("reconciler.loop")

    def stop(self) -> None:
        """Finish the steps in hand and begin no new ones."""
        self._stopping.set()

    def close(self) -> None:
        """Wait for the steps in hand."""
        self.stop()
        self._gates.close()
        self._pool.shutdown(wait=True)

    def reconcile(self, environment: str, causes: Sequence[Cause]) -> Cycle:
        """Bring the environment as near to Git as can be done now. Raises Fenced, and Retryable for the whole of it."""
        try:
            return self._reconcile(environment, causes)
        except ReconcilerError:
            self._away.add(environment)
            raise

    def _reconcile(self, environment: str, causes: Sequence[Cause]) -> Cycle:
        house = self._house
        settings = house.settings.environments[environment]
        runtime = house.runtimes[settings.runtime]
        memory = house.journal.memory(environment)
        wanted = self._desire.wanted(settings, memory, _since(causes))
        trigger = ",".join(sorted({cause.kind for cause in causes}))
        if entries := admission(wanted, memory, trigger, house.clock.now()):
            house.journal.append(*map(fitted, entries))
            memory = house.journal.memory(environment)
        trouble = self._troubles(environment, wanted, causes)
        done = 0
        found = self._look(settings, runtime, wanted, memory)
        self._note_able(environment, found)
        for _ in range(ROUNDS):
            worked = self._work(settings, runtime, wanted, memory, found, trouble, trigger)
            done += worked
            if not worked or self._stopping.is_set() or self._news(environment):
                break
            if done > worked and SHORT_LOOK < self._took[environment] > worked * STEP:
                break
            memory = house.journal.memory(environment)
            found = self._look(settings, runtime, wanted, memory)
        for name in list(trouble.errors):
            if name not in found.bugs and not steps_of(found, name):
                trouble.over(name)
        vain = not done and all(cause.kind == "engine" for cause in causes)
        self._vain[environment] = self._vain.get(environment, 0) + 1 if vain else 0
        return self._cycle(wanted, memory, found, trouble, done)

    def plan(self, environment: str, revision: str | None = None) -> EnvironmentStatus:
        """What `reconcile` would do first, for the branch's head or any revision: looks only, records nothing."""
        house = self._house
        settings = house.settings.environments[environment]
        memory = house.journal.memory(environment)
        wanted = self._desire.proposed(settings, memory, revision, house.clock.now())
        memory = replace(memory, admitted=wanted.revision.sha) if wanted.revision else memory
        found = self._look(settings, house.runtimes[settings.runtime], wanted, memory, only_looking=True)
        return describe(wanted, memory, found, {}, house.clock.now())

    def proxy_config(self, environment: str) -> str:
        """What the environment's proxies need to know for what Git declares now; "" where there is no proxy."""
        house = self._house
        settings = house.settings.environments[environment]
        memory = house.journal.memory(environment)
        wanted = self._desire.proposed(settings, memory, None, house.clock.now())
        if wanted.state is None and wanted.error is not None:
            raise wanted.error
        front = self._survey.front(settings, wanted, memory)
        return front.text if front is not None else ""

    def _look(
        self,
        settings: EnvironmentSettings,
        runtime: Runtime,
        wanted: Wanted,
        memory: EnvironmentMemory,
        *,
        only_looking: bool = False,
    ) -> Plan:
        began = self._house.clock.monotonic()
        away = settings.name in self._away
        up_since = self._house.clock.now() if away else self._up_since[settings.name]
        since = (up_since, self._able_since.get(settings.name, {}))
        question = self._survey.question(settings, runtime, wanted, memory, since=since, only_looking=only_looking)
        found = plan(question, None if only_looking else self._rests[settings.name])
        self._took[settings.name] = self._house.clock.monotonic() - began
        return found

    def _note_able(self, environment: str, found: Plan) -> None:
        """The time in which nothing could be done at a service is not held against the version it moves to."""
        now = self._house.clock.now()
        if environment in self._away:
            self._away.discard(environment)
            self._up_since[environment] = now
            self._able_since.pop(environment, None)
        before = self._able_since.get(environment, {})
        self._able_since[environment] = {
            name: now if _waits_for_others(service) else before[name]
            for name, service in found.services.items()
            if name in before or _waits_for_others(service)
        }

    def _work(
        self,
        settings: EnvironmentSettings,
        runtime: Runtime,
        wanted: Wanted,
        memory: EnvironmentMemory,
        found: Plan,
        trouble: Trouble,
        trigger: str,
    ) -> int:
        """Do the steps of a plan, services side by side; returns how many steps were taken on."""
        house = self._house
        if self._stopping.is_set():
            return 0
        executor = Executor(
            runtime,
            house.traffic,
            house.journal,
            house.clock,
            house.redact,
            lambda: self._stopping.is_set() or self._news(settings.name),
        )
        revision = wanted.revision

        def commission(service: ServicePlan | None) -> Commission:
            return Commission(
                environment=settings.name,
                service=service.service if service else "",
                revision=revision.sha if revision else memory.admitted,
                author=revision.author if revision else memory.author,
                committer=revision.committer if revision else memory.committer,
                trigger=trigger,
                desired=service.desired if service else None,
                stable=service.stable if service else None,
                instances=service.instances if service else (),
            )

        now = house.clock.now()
        for name, bug in found.bugs.items():
            if not trouble.holds(name, now):
                self._note(name, self._bug(settings.name, name, bug), commission(found.services[name]), trouble)
        common = 0
        for key in (PLACES, ""):
            steps = trouble.paced(key, steps_of(found, key), now)[0] if not trouble.holds(key, now) else ()
            if steps:
                trouble.did(key, steps, now)
                self._attempt(key, executor, commission(None), steps, trouble)
                common += len(steps)
        due = trouble.due(found, now)
        for name, steps in due.items():
            trouble.did(name, steps, now)
        self._side_by_side(
            [
                partial(self._attempt, name, executor, commission(found.services[name]), steps, trouble)
                for name, steps in due.items()
            ]
        )
        return common + sum(len(steps) for steps in due.values())

    def _side_by_side(self, tasks: Sequence[Callable[[], None]]) -> None:
        """Do them, and return or raise only when all of them ended: nothing works on when the cycle is over."""
        if len(tasks) == 1:
            tasks[0]()
            return
        begun: list[Future[None]] = []
        try:
            begun.extend(self._pool.submit(task) for task in tasks)
        except RuntimeError:
            # The pool is closed: the daemon stops. What was begun ends, the rest is for the next start.
            self._stopping.set()
        wait(begun)
        for one in begun:
            one.result()

    def _attempt(
        self, service: str, executor: Executor, commission: Commission, steps: Sequence[Step], trouble: Trouble
    ) -> None:
        """Do the steps of one service; what goes wrong stays with this service, but for a lost journal or fence."""
        try:
            executor.run(commission, steps)
        except Fenced:
            raise
        except ReconcilerError as error:
            if error.reason is Reason.JOURNAL_UNAVAILABLE:
                raise
            self._note(service, error, commission, trouble)
        except Exception as error:  # noqa: BLE001 - our own bug: this service pauses and says so, the others go on
            self._note(service, self._bug(commission.environment, service, error), commission, trouble)
        else:
            trouble.over(service)

    def _bug(self, environment: str, service: str, error: Exception) -> Stalled:
        shown = "".join(traceback.format_exception(error))
        self._log.error("internal error", service=service, traceback=shown)
        return Stalled(
            Reason.INTERNAL_ERROR,
            f"{type(error).__name__}: {error}",
            where=f"{environment}/{service}",
            remedy="this is a fault of Reconciler: please report it with the traceback in the log",
        )

    def _note(self, service: str, error: ReconcilerError, commission: Commission, trouble: Trouble) -> None:
        """Remember a pause for a service that failed, and record once that a person is needed."""
        house = self._house
        after = error.after if isinstance(error, Retryable) else None
        trouble.backoffs.setdefault(service, Backoff()).failed(house.clock.now(), house.uniform, after)
        trouble.errors[service] = error
        memory = house.journal.memory(commission.environment)
        known = memory.services.get(service, ServiceMemory()).stalled if service else memory.stalled
        if isinstance(error, Stalled) and known != error.reason:
            stalled = Entry(
                at=house.clock.now(),
                what=What.STALLED,
                environment=commission.environment,
                service=service,
                revision=commission.revision,
                trigger=commission.trigger,
                reason=error.reason,
                details={"said": house.redact(str(error))},
            )
            house.journal.append(fitted(stalled))

    def _troubles(self, environment: str, wanted: Wanted, causes: Sequence[Cause]) -> Trouble:
        """The pauses of an environment; a new revision or a person's word ends them all."""
        sha = wanted.revision.sha if wanted.revision else ""
        trouble = self._trouble.get(environment)
        if trouble is None or trouble.revision != sha or any(cause.kind == "operator" for cause in causes):
            trouble = self._trouble[environment] = Trouble(revision=sha)
        return trouble

    def _cycle(
        self,
        wanted: Wanted,
        memory: EnvironmentMemory,
        found: Plan,
        trouble: Trouble,
        done: int,
    ) -> Cycle:
        now = self._house.clock.now()
        slowed = {
            name: (steps[0], until)
            for name, steps in [("", found.steps), *((name, plan.steps) for name, plan in found.services.items())]
            if (until := trouble.paced(name, steps, now)[1]) is not None
        }
        errors = {**{name: in_vain(first) for name, (first, _) in slowed.items()}, **trouble.errors}
        status = describe(wanted, memory, found, errors, now)
        times = [backoff.until for name, backoff in trouble.backoffs.items() if backoff.until and backoff.holds(now)]
        times.extend(until for _, until in slowed.values())
        if found.recheck_at is not None:
            times.append(max(found.recheck_at, now))
        rest = self._rest(found.environment)
        if trouble.due(found, now) and not self._stopping.is_set():
            times.append(now + timedelta(seconds=rest))
        if self._survey.judging(found.environment):
            times.append(now + GATE_LOOK)
        result = "synced" if found.in_sync and not status.reason else "progressing"
        if wanted.error is not None or errors or found.bugs:
            result = "failed"
        return Cycle(status, result, done, min(times, default=None), rest)

    def _rest(self, environment: str) -> float:
        took = self._took.get(environment, 0.0)
        if took <= SHORT_LOOK:
            return 0.0
        return min(took * 2.0 ** min(1 + self._vain.get(environment, 0), 10), LONGEST_REST)


def _waits_for_others(service: ServicePlan) -> bool:
    """Whether it stands still for a reason that is not its own."""
    held = service.health in (ServiceHealth.SUSPENDED, ServiceHealth.UNKNOWN)
    return held or service.reason in (Reason.DEPENDENCY_NOT_READY, Reason.PROXY_UNREACHABLE)


def _since(causes: Sequence[Cause]) -> datetime | None:
    """From when on Git has to be looked at anew, if at all."""
    return max((cause.at for cause in causes if cause.git), default=None)

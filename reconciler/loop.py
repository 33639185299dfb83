"""reconcile(environment): the whole program in one readable function.

Git -> desired state -> live state -> plan -> steps, again until nothing is left to do now. It branches; everything it
calls computes. It keeps nothing between cycles but backoffs and caches: a restart loses neither truth nor progress.
"""

from __future__ import annotations

import random
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import structlog

from reconciler.backoff import Backoff
from reconciler.core.admission import Wanted, admission, describe
from reconciler.core.errors import Fenced, Reason, ReconcilerError, Retryable, Stalled
from reconciler.core.memory import EnvironmentMemory
from reconciler.core.model import Health
from reconciler.core.plan import Question, plan
from reconciler.core.record import Entry, What
from reconciler.core.status import EnvironmentStatus, Plan, ServicePlan
from reconciler.core.steps import Step
from reconciler.desire import Desire
from reconciler.execute import Commission, Executor
from reconciler.ports import Cause, Clock, Journal, Runtime, Secrets, Source
from reconciler.settings import EnvironmentSettings, Settings

ROUNDS = 40


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


@dataclass(frozen=True)
class Cycle:
    """What one reconcile came to. `result`: synced, progressing, waiting, failed."""

    status: EnvironmentStatus
    result: str
    steps_done: int = 0
    recheck_at: datetime | None = None


@dataclass
class _Trouble:
    """How the services of an environment failed lately ("" is the environment itself): pauses between tries.

    Nothing in it matters after a restart.
    """

    backoffs: dict[str, Backoff] = field(default_factory=dict)
    errors: dict[str, ReconcilerError] = field(default_factory=dict)
    revision: str = ""

    def holds(self, service: str, now: datetime) -> bool:
        """Whether it is too early to try again."""
        return service in self.backoffs and self.backoffs[service].holds(now)


class Reconciler:
    """Reconciles environments; one call for an environment at a time, several environments side by side."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._desire = Desire(house.settings, house.source, house.secrets, house.schemas)
        self._pool = ThreadPoolExecutor(max_workers=house.settings.concurrency, thread_name_prefix="service")
        self._stopping = threading.Event()
        self._up_since = house.clock.now()
        self._trouble: dict[str, _Trouble] = {}
        self._log = structlog.get_logger("reconciler.loop")

    def stop(self) -> None:
        """Finish the steps in hand and begin no new ones."""
        self._stopping.set()

    def close(self) -> None:
        """Wait for the steps in hand."""
        self.stop()
        self._pool.shutdown(wait=True)

    def reconcile(self, environment: str, causes: Sequence[Cause]) -> Cycle:
        """Bring the environment as near to Git as can be done now. Raises Fenced, and Retryable for the whole of it."""
        house = self._house
        settings = house.settings.environments[environment]
        runtime = house.runtimes[settings.runtime]
        memory = house.journal.memory(environment)
        wanted = self._desire.wanted(settings, memory, _since(causes))
        trigger = ",".join(sorted({cause.kind for cause in causes}))
        if entries := admission(wanted, memory, trigger, house.clock.now()):
            house.journal.append(*entries)
            memory = house.journal.memory(environment)
        trouble = self._troubles(environment, wanted, causes)
        done = 0
        found = self._look(settings, runtime, wanted, memory)
        for _ in range(ROUNDS):
            worked = self._work(settings, runtime, wanted, memory, found, trouble, trigger)
            done += worked
            if not worked or self._stopping.is_set():
                break
            memory = house.journal.memory(environment)
            found = self._look(settings, runtime, wanted, memory)
        return self._cycle(wanted, memory, found, trouble, done)

    def plan(self, environment: str, revision: str | None = None) -> EnvironmentStatus:
        """What `reconcile` would do first, for the branch's head or any revision: looks only, records nothing."""
        house = self._house
        settings = house.settings.environments[environment]
        memory = house.journal.memory(environment)
        wanted = self._desire.proposed(settings, memory, revision, house.clock.now())
        memory = replace(memory, admitted=wanted.revision.sha) if wanted.revision else memory
        found = self._look(settings, house.runtimes[settings.runtime], wanted, memory)
        return describe(wanted, memory, found, {}, house.clock.now())

    def _look(self, settings: EnvironmentSettings, runtime: Runtime, wanted: Wanted, memory: EnvironmentMemory) -> Plan:
        wishes = self._desire.wishes(settings, wanted, memory)
        checks: dict[str, Health] = {}
        images: set[str] = set()
        for wish in wishes.values():
            for target in (wish.fallback, wish.desired):
                if target is not None:
                    checks[target.version] = target.spec.health
                    images.add(target.spec.image.pinned)
        live = runtime.observe(settings.name, checks, sorted(images))
        held = self._desire.removals_held(wanted, memory, {instance.service for instance in live.instances})
        now = self._house.clock.now()
        return plan(Question(settings.name, wanted.revision, wishes, live, memory, now, held, self._up_since))

    def _work(
        self,
        settings: EnvironmentSettings,
        runtime: Runtime,
        wanted: Wanted,
        memory: EnvironmentMemory,
        found: Plan,
        trouble: _Trouble,
        trigger: str,
    ) -> int:
        """Do the steps of a plan, services side by side; returns how many steps were taken on."""
        house = self._house
        executor = Executor(runtime, house.journal, house.clock, house.redact, self._stopping.is_set)
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
        due = [
            (service.service, commission(service), service.steps)
            for service in found.services.values()
            if service.steps and not trouble.holds(service.service, now)
        ]
        if found.steps and not trouble.holds("", now):
            self._attempt("", executor, commission(None), found.steps, trouble)
        if len(due) == 1:
            self._attempt(due[0][0], executor, due[0][1], due[0][2], trouble)
        else:
            tasks = [
                self._pool.submit(self._attempt, name, executor, mine, steps, trouble) for name, mine, steps in due
            ]
            for task in tasks:
                task.result()
        return len(due)

    def _attempt(
        self, service: str, executor: Executor, commission: Commission, steps: Sequence[Step], trouble: _Trouble
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
            self._log.error("internal error", service=service, traceback=traceback.format_exc())
            bug = Stalled(
                Reason.INTERNAL_ERROR,
                f"{type(error).__name__}: {error}",
                where=f"{commission.environment}/{service}",
                remedy="this is a fault of Reconciler: please report it with the traceback in the log",
            )
            self._note(service, bug, commission, trouble)
        else:
            trouble.backoffs.pop(service, None)
            trouble.errors.pop(service, None)

    def _note(self, service: str, error: ReconcilerError, commission: Commission, trouble: _Trouble) -> None:
        """Remember a pause for a service that failed, and record once that a person is needed."""
        house = self._house
        after = error.after if isinstance(error, Retryable) else None
        trouble.backoffs.setdefault(service, Backoff()).failed(house.clock.now(), house.uniform, after)
        known = trouble.errors.get(service)
        trouble.errors[service] = error
        if isinstance(error, Stalled) and (known is None or known.reason != error.reason):
            house.journal.append(
                Entry(
                    at=house.clock.now(),
                    what=What.STALLED,
                    environment=commission.environment,
                    service=service,
                    revision=commission.revision,
                    trigger=commission.trigger,
                    reason=error.reason,
                    details={"said": house.redact(str(error))},
                )
            )

    def _troubles(self, environment: str, wanted: Wanted, causes: Sequence[Cause]) -> _Trouble:
        """The pauses of an environment; a new revision or a person's word ends them all."""
        sha = wanted.revision.sha if wanted.revision else ""
        trouble = self._trouble.get(environment)
        if trouble is None or trouble.revision != sha or any(cause.kind == "operator" for cause in causes):
            trouble = self._trouble[environment] = _Trouble(revision=sha)
        return trouble

    def _cycle(
        self,
        wanted: Wanted,
        memory: EnvironmentMemory,
        found: Plan,
        trouble: _Trouble,
        done: int,
    ) -> Cycle:
        now = self._house.clock.now()
        status = describe(wanted, memory, found, trouble.errors, now)
        times = [backoff.until for name, backoff in trouble.backoffs.items() if backoff.until and backoff.holds(now)]
        if found.recheck_at is not None:
            times.append(max(found.recheck_at, now))
        pending = any(service.steps and not trouble.holds(name, now) for name, service in found.services.items())
        if pending and not self._stopping.is_set():
            times.append(now)
        result = "synced" if found.in_sync and not status.reason else "progressing"
        if wanted.error is not None or trouble.errors:
            result = "failed"
        return Cycle(status, result, done, min(times, default=None))


def _since(causes: Sequence[Cause]) -> datetime | None:
    """From when on Git has to be looked at anew, if at all."""
    return max((cause.at for cause in causes if cause.git), default=None)

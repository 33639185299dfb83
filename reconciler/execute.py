"""Steps become effects: intent before, effect, outcome after. It decides nothing.

Records that need not wait travel with the next intent in one durable append, so that an effect costs one flush of the
disk. A crash after an effect leaves an intent without outcome, and the next look at the engine shows what happened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any

from reconciler.core.bounds import fitted
from reconciler.core.errors import Fenced, Reason, ReconcilerError
from reconciler.core.live import Instance
from reconciler.core.record import Entry, VersionRef, What
from reconciler.core.steps import (
    CreateInstance,
    Effect,
    EnsureGroup,
    EnsureNetwork,
    EnsureProxy,
    PullImage,
    RemoveInstance,
    RouteGroups,
    ShiftTraffic,
    Step,
    TrafficEffect,
    Transition,
    WarmInstance,
)
from reconciler.core.traffic import described
from reconciler.failpoints import hit
from reconciler.ports import Clock, Journal, Runtime, Traffic

EVIDENCE_LINES = 50
EVIDENCE_LINE_LENGTH = 400


@dataclass(frozen=True, slots=True)
class Commission:
    """For what the steps are done: the service and versions, the revision and its people, and what triggered it."""

    environment: str
    service: str
    revision: str
    author: str
    committer: str
    trigger: str
    desired: VersionRef | None = None
    stable: VersionRef | None = None
    instances: tuple[Instance, ...] = ()


class Executor:
    """Does the steps of one service in their order, each surrounded by its records."""

    def __init__(
        self,
        runtime: Runtime,
        traffic: Traffic | None,
        journal: Journal,
        clock: Clock,
        redact: Callable[[str], str],
        stopping: Callable[[], bool],
    ) -> None:
        self._runtime = runtime
        self._traffic = traffic
        self._journal = journal
        self._clock = clock
        self._redact = redact
        self._stopping = stopping

    def run(self, commission: Commission, steps: Sequence[Step]) -> int:
        """Do the steps; returns how many effects were done. Ends early when the daemon stops.

        Raises what the journal or the runtime raises; the outcome of a failed effect is recorded first.
        """
        done = 0
        unwritten: list[Entry] = []
        for step in steps:
            if self._stopping():
                break
            if isinstance(step, Transition):
                unwritten.append(self._transition(commission, step))
                continue
            self._journal.append(*unwritten, self._entry(commission, What.INTENT, step))
            unwritten = [self._effect(commission, step)]
            done += 1
        if unwritten:
            self._journal.append(*unwritten)
        return done

    def _effect(self, commission: Commission, step: Effect) -> Entry:
        """Do one effect whose intent is durable; the record of its success is returned, that of a failure written."""
        hit("loop.after_intent")
        began = self._clock.monotonic()
        try:
            if not isinstance(step, TrafficEffect):
                self._runtime.apply(step)
            elif self._traffic is not None:
                self._traffic.apply(commission.environment, step)
        except Fenced:
            raise
        except ReconcilerError as error:
            self._journal.append(self._entry(commission, What.FAILED, step, began, error.reason, str(error)))
            raise
        except Exception as bug:
            said = f"{type(bug).__name__}: {bug}"
            self._journal.append(self._entry(commission, What.FAILED, step, began, Reason.INTERNAL_ERROR, said))
            raise
        hit("loop.after_effect")
        return self._entry(commission, What.DONE, step, began)

    def _entry(
        self,
        commission: Commission,
        what: What,
        step: Effect,
        began: float | None = None,
        reason: str = "",
        said: str = "",
    ) -> Entry:
        details = dict(describe(step))
        mine = next((i for i in commission.instances if i.name == details["name"]), None)
        before = VersionRef(mine.version, mine.image, mine.revision) if mine else commission.stable
        if isinstance(step, RemoveInstance) and mine is not None and mine.exit_code is not None:
            details |= {"exitCode": mine.exit_code, "forced": mine.exit_code == 137}
        if said:
            details["said"] = self._redact(said)
        return fitted(
            Entry(
                at=self._clock.now(),
                what=what,
                environment=commission.environment,
                service=commission.service,
                from_version=before,
                to_version=commission.desired,
                revision=commission.revision,
                author=commission.author,
                committer=commission.committer,
                trigger=commission.trigger,
                reason=reason,
                duration=None if began is None else timedelta(seconds=self._clock.monotonic() - began),
                details=details,
            )
        )

    def _transition(self, commission: Commission, step: Transition) -> Entry:
        details: dict[str, Any] = {key: _plain(value) for key, value in step.details.items() if value is not None}
        if "said" in details:
            details["said"] = self._redact(str(details["said"]))
        if step.evidence_of is not None:
            details["instance"] = step.evidence_of
            details["log"] = self._evidence(step.evidence_of)
        now = self._clock.now()
        return fitted(
            Entry(
                at=now,
                what=step.what,
                environment=commission.environment,
                service=commission.service,
                from_version=step.from_version,
                to_version=step.to_version,
                revision=commission.revision,
                author=commission.author,
                committer=commission.committer,
                trigger=commission.trigger,
                reason=step.reason,
                duration=None if step.since is None else max(now - step.since, timedelta(0)),
                details=details,
            )
        )

    def _evidence(self, name: str) -> list[str]:
        """The last lines an instance wrote; what cannot be read is said instead of held against the record."""
        try:
            lines = self._runtime.logs(name, EVIDENCE_LINES)
        except ReconcilerError as error:
            lines = (f"(the log could not be read: {error})",)
        return [self._redact(line)[:EVIDENCE_LINE_LENGTH] for line in lines[-EVIDENCE_LINES:]]


def describe(step: Effect) -> Mapping[str, Any]:
    """An effect as plain values for a record: its kind and what it is about, not the contents of a specification."""
    found: dict[str, Any] = {"effect": type(step).__name__}
    if isinstance(step, CreateInstance):
        return found | {"name": step.name, "image": step.spec.image.pinned, "version": step.version}
    if isinstance(step, PullImage | EnsureNetwork | EnsureProxy):
        more = {"config": step.config} if isinstance(step, EnsureProxy) else {}
        return found | {"name": step.image if isinstance(step, PullImage) else step.environment} | more
    if isinstance(step, EnsureGroup):
        found |= {"image": step.spec.image.pinned, "version": step.version, "replicas": step.replicas}
        return found | {"name": step.name}
    if isinstance(step, RouteGroups):
        shares = {share.name: f"ready {share.weight}" if share.weight else "drain" for share in step.shares}
        reached = {} if step.stage is None else {"stage": step.stage}
        return found | {"name": step.name, "shares": shares, "mixed": step.mixed, **reached}
    if isinstance(step, ShiftTraffic):
        reached = {} if step.stage is None else {"stage": step.stage}
        return found | {"name": step.name, "shares": dict(described(step.shares)), **reached}
    if isinstance(step, WarmInstance):
        return found | {"name": step.name, "requests": step.warm_up.count, "beside": step.beside}
    values = {item.name: getattr(step, item.name) for item in fields(step)}
    return found | {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _plain(value: object) -> object:
    return value if isinstance(value, str | int | float | bool | list | dict) else str(value)

"""Desired x live x journal x now -> the next safe steps of an environment, and when to look again.

Each cycle computes this anew; there is no other memory than the fold of the journal. The order of the questions in
`plan_service` is the order in which they matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from reconciler.core import names, reports
from reconciler.core.diff import View, serves, sort
from reconciler.core.errors import Reason
from reconciler.core.live import ImageState, Instance, LiveState
from reconciler.core.memory import EnvironmentMemory, ServiceMemory, remember
from reconciler.core.model import ImageRef, Revision, ServiceSpec, Target
from reconciler.core.record import Entry, VersionRef, What
from reconciler.core.rollout import Motion, move
from reconciler.core.status import Plan, ServiceHealth, ServicePlan, Sync
from reconciler.core.steps import (
    CreateInstance,
    EnsureNetwork,
    PullImage,
    StartInstance,
    Step,
    SweepOrphan,
    Transition,
)


@dataclass(frozen=True, slots=True)
class Wish:
    """What shall become of one service.

    `desired` is the target by Git (None: removed, or held because nothing usable is known), `fallback` the stable
    version to return to. `held`: leave the service as it is, for the reason and message given.
    """

    name: str
    desired: Target | None = None
    fallback: Target | None = None
    suspended: str = ""
    held: Reason | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """All that a plan is a function of.

    `able_since`: by service, since when this daemon can do something about it; before that nothing could progress.
    `up_since` is the same for those not named there.
    """

    environment: str
    revision: Revision | None
    wishes: Mapping[str, Wish]
    live: LiveState
    memory: EnvironmentMemory
    now: datetime
    removals_held: tuple[Reason, str] | None = None
    up_since: datetime | None = None
    able_since: Mapping[str, datetime] = field(default_factory=dict)


def plan(question: Question) -> Plan:
    """The plan of an environment. Services are independent of each other, but for `dependsOn`.

    A fault of ours in one of them holds that one and stands in `bugs`; the others go on.
    """
    live, memory = question.live, question.memory
    found: dict[str, ServicePlan] = {}
    bugs: dict[str, Exception] = {}
    owned: dict[str, list[Instance]] = {}
    for instance in live.instances:
        owned.setdefault(instance.service, []).append(instance)
    remembered = {name for name, known in memory.services.items() if known.stable or known.rollout or known.made}
    for name in sorted(question.wishes.keys() | owned.keys() | remembered):
        instances = tuple(owned.get(name, ()))
        wish = question.wishes.get(name, Wish(name))
        if (wish.desired is None and wish.held is None) and question.removals_held is not None:
            wish = replace(wish, held=question.removals_held[0], message=question.removals_held[1])
        try:
            found[name] = plan_service(question, wish, instances)
        except Exception as bug:  # noqa: BLE001 - whatever it is, it must not stop the other services
            bugs[name] = bug
            said = f"a fault of Reconciler, {type(bug).__name__}: {bug}"
            known = memory.services.get(name, ServiceMemory())
            found[name] = _still(wish, known, instances, Reason.INTERNAL_ERROR, said)
    for name, service in found.items():
        found[name] = _await_dependencies(question, service, found)
    steps = _environment_steps(question, found)
    times = [service.recheck_at for service in found.values() if service.recheck_at is not None]
    return Plan(question.environment, question.revision, found, steps, min(times, default=None), bugs)


def _environment_steps(question: Question, services: Mapping[str, ServicePlan]) -> tuple[Step, ...]:
    """What is in the way is told first, the network comes before the first instance, leftovers go at any time.

    In this order nothing that may fail keeps from what matters more.
    """
    steps: list[Step] = [*reports.foreign(question.live, question.memory)]
    if not question.live.network_ready and any(service.steps for service in services.values()):
        steps.append(EnsureNetwork(question.environment))
    return (*steps, *(SweepOrphan(name) for name in question.live.orphans))


def _await_dependencies(question: Question, service: ServicePlan, found: Mapping[str, ServicePlan]) -> ServicePlan:
    """No instance of a new version is made before the services it depends on run what Git declares.

    Repairs and the way back never wait, nor does an instance that is made already: for it the old one may be gone.
    """
    wish = question.wishes.get(service.service)
    if wish is None or wish.desired is None or wish.held or wish.suspended:
        return service
    known = question.memory.services.get(service.service, ServiceMemory())
    if wish.desired.version in known.quarantine:
        return service
    if service.stable is not None and service.stable.version == wish.desired.version:
        return service
    for needed in wish.desired.spec.depends_on:
        other = found.get(needed)
        if other is not None and (other.sync is not Sync.SYNCED or other.health is not ServiceHealth.HEALTHY):
            return replace(
                service,
                steps=_without_growth(service.steps),
                waiting=f"{needed}, which it depends on, to be in sync and healthy",
                reason=Reason.DEPENDENCY_NOT_READY,
                message=f"{needed} is {other.sync} and {other.health}",
            )
    return service


def _without_growth(steps: Sequence[Step]) -> tuple[Step, ...]:
    """The steps without those that make an instance."""
    new = {step.name for step in steps if isinstance(step, CreateInstance)}
    return tuple(
        step
        for step in steps
        if not isinstance(step, CreateInstance) and not (isinstance(step, StartInstance) and step.name in new)
    )


def plan_service(question: Question, wish: Wish, instances: tuple[Instance, ...]) -> ServicePlan:
    """The plan of one service."""
    memory = question.memory.services.get(wish.name, ServiceMemory())
    if wish.suspended:
        return _still(wish, memory, instances, Reason.SUSPENDED, wish.suspended)
    if wish.held is not None and wish.desired is None:
        return _still(wish, memory, instances, wish.held, wish.message)
    if wish.desired is None:
        return _remove(question, wish, memory, instances)
    adopted = _adopt(wish.desired, memory, instances)
    if adopted is not None:
        return _still(wish, memory, instances, None, "", adopted)
    target, quarantined = choose(wish.desired, wish.fallback, memory)
    blind = target is None and memory.stable is not None
    if target is None:
        if memory.stable is None:
            return _remove_failed(question, wish, memory, instances)
        target = _stand_in(wish.desired, memory.stable)
    view = _view(question, target, memory, instances)
    opening = reports.bookkeeping(view, wish.desired)
    if opening:
        # What follows is planned as if this stood in the journal already, for it will when the first step is done.
        view = _view(question, target, _foretold(question, wish.name, opening), instances)
    motion = _motion(question, view, blind=blind)
    motion.steps[:0] = opening
    return _describe(view, wish, motion, quarantined=quarantined, blind=blind)


def _motion(question: Question, view: View, *, blind: bool) -> Motion:
    """What to record and to do for one service. `blind`: none of its instances can be made anew."""
    able_since = question.able_since.get(view.spec.name, question.up_since)
    failures = reports.failure(view, able_since)
    if failures:
        return Motion(steps=[*failures])
    motion = move(view)
    if blind:
        motion.steps = [step for step in _without_growth(motion.steps) if not isinstance(step, PullImage)]
    # A promotion is the commit point: it stands in the journal before anything of the old version is given up for it.
    motion.steps[:0] = [*reports.drift(view), *reports.completion(view)]
    deadline = reports.progress_deadline(view, able_since)
    if deadline is not None:
        motion.rechecks.append(deadline)
    motion.rechecks.extend(reports.lifetime_ends(view))
    return motion


def _foretold(question: Question, service: str, transitions: Sequence[Transition]) -> ServiceMemory:
    """The memory of a service after records that are still to be written."""
    memory = question.memory
    for step in transitions:
        entry = Entry(
            question.now,
            step.what,
            question.environment,
            service,
            from_version=step.from_version,
            to_version=step.to_version,
        )
        memory = remember(memory, entry)
    return memory.services.get(service, ServiceMemory())


def _stand_in(desired: Target, stable: VersionRef) -> Target:
    """The stable version where its files cannot be read any more: what runs of it stays, none can be made anew."""
    repository, _, digest = stable.image.partition("@")
    return Target(replace(desired.spec, image=ImageRef(repository, digest)), stable.version, stable.revision)


def choose(desired: Target, fallback: Target | None, memory: ServiceMemory) -> tuple[Target | None, bool]:
    """The target: what Git declares, unless that version failed; then the stable one, if there is one."""
    if desired.version not in memory.quarantine:
        return desired, False
    if fallback is not None and fallback.version not in memory.quarantine:
        return fallback, True
    return None, True


def _view(question: Question, target: Target, memory: ServiceMemory, instances: tuple[Instance, ...]) -> View:
    images: Mapping[str, ImageState] = question.live.images
    taken = frozenset(foreign.name for foreign in question.live.foreign)
    return sort(question.environment, target, memory, instances, images, taken, question.now)


def _adopt(desired: Target, memory: ServiceMemory, instances: tuple[Instance, ...]) -> tuple[Transition, ...] | None:
    """With an empty memory, running instances are taken over as they are: nothing restarts for a lost journal.

    Many names take several records, since each has a limit.
    """
    if memory.stable is not None or memory.rollout is not None or memory.made or memory.intended or memory.quarantine:
        return None
    serving = [instance for instance in instances if instance.serving]
    if not serving:
        return None
    versions = {instance.version for instance in serving}
    best = min(versions, key=lambda v: (-sum(i.version == v for i in serving), v != desired.version, v))
    chosen = next(instance for instance in serving if instance.version == best)
    ordered = sorted(instances, key=lambda instance: instance.name)
    return tuple(
        Transition(
            What.ADOPTED,
            {"names": [i.name for i in some], "served": [i.name for i in some if i.serving]},
            reason="these instances carry our labels and the journal does not know them",
            to_version=VersionRef(best, chosen.image, chosen.revision),
        )
        for some in _pages(ordered)
    )


def _pages(instances: Sequence[Instance]) -> list[Sequence[Instance]]:
    size = reports.NAMES_IN_A_RECORD
    return [instances[start : start + size] for start in range(0, len(instances), size)]


def _remove(question: Question, wish: Wish, memory: ServiceMemory, instances: tuple[Instance, ...]) -> ServicePlan:
    """Git no longer declares the service: drain and remove all of it, then forget it."""
    if not instances:
        gone = Transition(What.SERVICE_REMOVED, from_version=memory.stable, reason="no longer declared")
        known = wish.name in question.memory.services
        return _still(wish, memory, instances, None, "", (gone,) if known else ())
    motion = _emptied(question, wish, memory, instances)
    return ServicePlan(
        wish.name,
        Sync.OUT_OF_SYNC,
        ServiceHealth.PROGRESSING,
        tuple(motion.steps),
        "; ".join(motion.waits),
        min(motion.rechecks, default=None),
        message="no longer declared: being removed",
        stable=memory.stable,
        instances=instances,
    )


def _remove_failed(
    question: Question, wish: Wish, memory: ServiceMemory, instances: tuple[Instance, ...]
) -> ServicePlan:
    """The first version of a service failed and there is none to return to: nothing is left running."""
    motion = _emptied(question, wish, memory, instances)
    assert wish.desired is not None
    why = memory.quarantine[wish.desired.version].reason
    return ServicePlan(
        wish.name,
        Sync.OUT_OF_SYNC,
        ServiceHealth.DEGRADED,
        tuple(motion.steps),
        "; ".join(motion.waits),
        min(motion.rechecks, default=None),
        reason=Reason.QUARANTINED,
        message=f"version {names.short(wish.desired.version)} failed ({why}) and there is no earlier version",
        desired=reports.ref(wish.desired),
        replicas=wish.desired.spec.replicas,
        instances=instances,
    )


def _emptied(question: Question, wish: Wish, memory: ServiceMemory, instances: tuple[Instance, ...]) -> Motion:
    """The motion towards zero instances, with the drain that is declared, or else the default one."""
    known = wish.desired or wish.fallback
    nothing = ServiceSpec(wish.name, ImageRef("none", "sha256:" + "0" * 64))
    spec = replace(known.spec if known else nothing, replicas=0)
    return move(_view(question, Target(spec, "", ""), memory, instances))


def _still(
    wish: Wish,
    memory: ServiceMemory,
    instances: tuple[Instance, ...],
    reason: Reason | None,
    message: str,
    steps: tuple[Step, ...] = (),
) -> ServicePlan:
    """A service at which nothing is done to the engine."""
    health = ServiceHealth.SUSPENDED if reason is Reason.SUSPENDED else ServiceHealth.UNKNOWN
    settled = reason is None and not steps
    as_declared = reason is Reason.SUSPENDED and _runs_as_declared(wish, memory, instances)
    return ServicePlan(
        wish.name,
        Sync.SYNCED if settled or as_declared else Sync.OUT_OF_SYNC,
        ServiceHealth.HEALTHY if settled else health,
        steps,
        reason=reason,
        message=message,
        desired=reports.ref(wish.desired) if wish.desired else None,
        stable=memory.stable,
        replicas=wish.desired.spec.replicas if wish.desired else 0,
        instances=instances,
    )


def _runs_as_declared(wish: Wish, memory: ServiceMemory, instances: tuple[Instance, ...]) -> bool:
    """Whether what runs is what Git declares, to tell of a service that is not looked at more closely."""
    version = wish.desired.version if wish.desired else ""
    wanted = wish.desired.spec.replicas if wish.desired else 0
    return len(instances) == wanted and all(i.version == version and serves(i, memory) for i in instances)


def _describe(view: View, wish: Wish, motion: Motion, *, quarantined: bool, blind: bool) -> ServicePlan:
    """Say how the service stands."""
    assert wish.desired is not None
    memory = view.memory
    complete = len(view.fresh_capacity) == view.spec.replicas and not view.rolling
    busy = bool(motion.steps or motion.waits)
    drifted = reports.current_drift(view)
    reason, message = motion.reason, motion.message
    if quarantined:
        failed = memory.quarantine[wish.desired.version]
        reason = Reason.QUARANTINED
        message = f"version {names.short(wish.desired.version)} failed ({failed.reason}); the stable version runs"
        if blind:
            message += ", but its files cannot be read: none of its instances can be replaced; commit a good version"
        elif view.target.obstacle:
            message += f", but {view.target.obstacle}"
    elif wish.held is not None:
        reason, message = wish.held, wish.message
    elif drifted and reason is None:
        reason, message = drifted[0][1].reason, f"{drifted[0][0]}: {drifted[0][1].detail}"
    clean = complete and not busy and not quarantined and not drifted and wish.held is None
    if len(view.fresh_capacity) >= view.spec.replicas:
        health = ServiceHealth.HEALTHY
    elif view.rolling or memory.returning is not None:
        health = ServiceHealth.PROGRESSING
    else:
        health = ServiceHealth.DEGRADED if memory.losses else ServiceHealth.PROGRESSING
    return ServicePlan(
        wish.name,
        Sync.SYNCED if clean else Sync.OUT_OF_SYNC,
        health,
        tuple(motion.steps),
        "; ".join(motion.waits),
        min((at for at in motion.rechecks if at > view.now), default=None),
        reason,
        message,
        reports.ref(wish.desired),
        memory.stable,
        view.spec.replicas,
        view.instances,
    )

"""Desired x live x journal x now -> the next safe steps of an environment, and when to look again.

Each cycle computes this anew; there is no other memory than the fold of the journal. The order of the questions in
`plan_service` is the order in which they matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from reconciler.core import names, reports
from reconciler.core.diff import View, serves, sort
from reconciler.core.errors import Reason
from reconciler.core.live import ImageState, Instance, LiveState
from reconciler.core.memory import EnvironmentMemory, ServiceMemory
from reconciler.core.model import ImageRef, Revision, ServiceSpec, Target
from reconciler.core.record import VersionRef, What
from reconciler.core.rollout import Motion, move
from reconciler.core.status import Plan, ServiceHealth, ServicePlan, Sync
from reconciler.core.steps import CreateInstance, EnsureNetwork, StartInstance, Step, SweepOrphan, Transition


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

    `up_since`: when this daemon began to look; before that nothing could progress.
    """

    environment: str
    revision: Revision | None
    wishes: Mapping[str, Wish]
    live: LiveState
    memory: EnvironmentMemory
    now: datetime
    removals_held: tuple[Reason, str] | None = None
    up_since: datetime | None = None


def plan(question: Question) -> Plan:
    """The plan of an environment. Services are independent of each other, but for `dependsOn`."""
    live, memory = question.live, question.memory
    found: dict[str, ServicePlan] = {}
    owned = {instance.service for instance in live.instances}
    remembered = {name for name, known in memory.services.items() if known.stable or known.rollout or known.made}
    for name in sorted(question.wishes.keys() | owned | remembered):
        instances = tuple(instance for instance in live.instances if instance.service == name)
        wish = question.wishes.get(name, Wish(name))
        if (wish.desired is None and wish.held is None) and question.removals_held is not None:
            wish = replace(wish, held=question.removals_held[0], message=question.removals_held[1])
        found[name] = plan_service(question, wish, instances)
    for name, service in found.items():
        found[name] = _await_dependencies(question, service, found)
    steps = (*_environment_steps(question, found), *reports.foreign(live, memory))
    times = [service.recheck_at for service in found.values() if service.recheck_at is not None]
    return Plan(question.environment, question.revision, found, steps, min(times, default=None))


def _environment_steps(question: Question, services: Mapping[str, ServicePlan]) -> tuple[Step, ...]:
    """The network before the first instance; leftovers at any time."""
    steps: list[Step] = [SweepOrphan(name) for name in question.live.orphans]
    if not question.live.network_ready and any(service.steps for service in services.values()):
        steps.append(EnsureNetwork(question.environment))
    return tuple(steps)


def _await_dependencies(question: Question, service: ServicePlan, found: Mapping[str, ServicePlan]) -> ServicePlan:
    """A new version starts only when the services it depends on run what Git declares; repairs never wait."""
    wish = question.wishes.get(service.service)
    if wish is None or wish.desired is None or wish.held:
        return service
    if service.stable is not None and service.stable.version == wish.desired.version:
        return service
    for needed in wish.desired.spec.depends_on:
        other = found.get(needed)
        if other is not None and (other.sync is not Sync.SYNCED or other.health is not ServiceHealth.HEALTHY):
            kept = tuple(step for step in service.steps if not isinstance(step, CreateInstance | StartInstance))
            return replace(
                service,
                steps=kept,
                waiting=f"{needed}, which it depends on, to be in sync and healthy",
                reason=Reason.DEPENDENCY_NOT_READY,
            )
    return service


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
        return _still(wish, memory, instances, None, "", (adopted,))
    target, quarantined = choose(wish.desired, wish.fallback, memory)
    if target is None:
        return _remove_failed(question, wish, memory, instances)
    view = _view(question, target, memory, instances)
    first = reports.bookkeeping(view, wish.desired) or reports.failure(view, question.up_since)
    if first:
        return _describe(view, wish, Motion(steps=list(first)), quarantined=quarantined)
    motion = move(view)
    # A promotion is the commit point: it stands in the journal before anything of the old version is given up for it.
    motion.steps[:0] = [*reports.drift(view), *reports.completion(view)]
    deadline = reports.progress_deadline(view, question.up_since)
    if deadline is not None:
        motion.rechecks.append(deadline)
    motion.rechecks.extend(reports.lifetime_ends(view))
    return _describe(view, wish, motion, quarantined=quarantined)


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


def _adopt(desired: Target, memory: ServiceMemory, instances: tuple[Instance, ...]) -> Transition | None:
    """With an empty memory, running instances are taken over as they are: nothing restarts for a lost journal."""
    if memory.stable is not None or memory.rollout is not None or memory.made or memory.intended or memory.quarantine:
        return None
    serving = [instance for instance in instances if instance.serving]
    if not serving:
        return None
    versions = {instance.version for instance in serving}
    best = min(versions, key=lambda v: (-sum(i.version == v for i in serving), v != desired.version, v))
    chosen = next(instance for instance in serving if instance.version == best)
    return Transition(
        What.ADOPTED,
        {
            "names": sorted(instance.name for instance in instances),
            "served": sorted(instance.name for instance in serving),
        },
        reason="these instances carry our labels and the journal does not know them",
        to_version=VersionRef(best, chosen.image, chosen.revision),
    )


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


def _describe(view: View, wish: Wish, motion: Motion, *, quarantined: bool) -> ServicePlan:
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

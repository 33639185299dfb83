"""Desired x live x journal x now -> the next safe steps of an environment, and when to look again.

Each cycle computes this anew; there is no other memory than the fold of the journal. The order of the questions in
`plan_service` is the order in which they matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from reconciler.core import names, native, native_stages, reports, stages, traffic
from reconciler.core.adoption import adopt
from reconciler.core.caps import held_for_return
from reconciler.core.diff import View, sort
from reconciler.core.errors import Reason
from reconciler.core.fold import remember
from reconciler.core.live import Group, ImageState, ImageStatus, Instance
from reconciler.core.memory import ServiceMemory
from reconciler.core.model import ImageRef, ServiceSpec, Target
from reconciler.core.motion import Motion
from reconciler.core.question import Question, Wish
from reconciler.core.record import Entry, VersionRef, What
from reconciler.core.rest import Rests, basis
from reconciler.core.rollout import move
from reconciler.core.size import scaled
from reconciler.core.standing import count, describe, still
from reconciler.core.status import Plan, ServiceHealth, ServicePlan, Sync
from reconciler.core.steps import (
    CreateInstance,
    EnsureGroup,
    EnsureNetwork,
    EnsureProxy,
    PullImage,
    StartInstance,
    Step,
    SweepOrphan,
    Transition,
)


def plan(question: Question, rests: Rests | None = None) -> Plan:
    """The plan of an environment. Services are independent of each other, but for `dependsOn`.

    A fault of ours in one of them holds that one and stands in `bugs`; the others go on. `rests`: what the last look at
    the environment found of services at rest, and what this one does; the plan is as without it.
    """
    live, memory = question.live, question.memory
    found: dict[str, ServicePlan] = {}
    bugs: dict[str, Exception] = {}
    owned: dict[str, list[Instance]] = {}
    for instance in live.instances:
        owned.setdefault(instance.service, []).append(instance)
    groups: dict[str, list[Group]] = {}
    for group in live.groups:
        groups.setdefault(group.service, []).append(group)
    remembered = {name for name, known in memory.services.items() if known.stable or known.rollout or known.made}
    noted = Rests() if rests is None else rests.anew()
    for name in sorted(question.wishes.keys() | owned.keys() | groups.keys() | live.routes.keys() | remembered):
        instances, mine = tuple(owned.get(name, ())), tuple(groups.get(name, ()))
        wish = question.wishes.get(name, Wish(name))
        if (wish.desired is None and wish.held is None) and question.removals_held is not None:
            wish = replace(wish, held=question.removals_held[0], message=question.removals_held[1])
        now = basis(question, wish, instances, mine)
        known = noted.recalled(name, now)
        if known is None:
            # Of the groups each service is shown its own only: to find them among thousands takes long.
            narrow = replace(question, live=replace(live, groups=mine)) if groups else question
            known = _planned(narrow, wish, instances, bugs)
            noted.note(now, known, memory.services.get(name))
        found[name] = known
    if rests is not None:
        rests.take(noted)
    for name, planned in list(found.items()):
        found[name] = _await_dependencies(question, planned, found)
    steps = _environment_steps(question, found)
    times = [each.recheck_at for each in found.values() if each.recheck_at is not None]
    return Plan(question.environment, question.revision, found, steps, min(times, default=None), bugs)


def _planned(
    question: Question, wish: Wish, instances: tuple[Instance, ...], bugs: dict[str, Exception]
) -> ServicePlan:
    try:
        return plan_service(question, wish, instances)
    except Exception as bug:  # noqa: BLE001 - whatever it is, it must not stop the other services
        bugs[wish.name] = bug
        said = f"a fault of Reconciler, {type(bug).__name__}: {bug}"
        memory = question.memory.services.get(wish.name, ServiceMemory())
        return still(wish, memory, instances, Reason.INTERNAL_ERROR, said)


def _environment_steps(question: Question, services: Mapping[str, ServicePlan]) -> tuple[Step, ...]:
    """What is in the way is told first, the network comes before the first instance, leftovers go at any time.

    In this order nothing that may fail keeps from what matters more.
    """
    steps: list[Step] = [*reports.foreign(question.live, question.memory)]
    front, shown = question.front, question.live.proxy
    stale = front is not None and bool(front.config) and (shown is None or shown.config != front.config)
    if not question.live.network_ready and (stale or any(service.steps for service in services.values())):
        steps.append(EnsureNetwork(question.environment))
    steps.extend(traffic.strays(question.live))
    if front is not None and stale:
        steps.append(EnsureProxy(question.environment, front.config, front.text))
    return (*steps, *(SweepOrphan(name) for name in question.live.orphans))


def _await_dependencies(question: Question, service: ServicePlan, found: Mapping[str, ServicePlan]) -> ServicePlan:
    """No instance of a new version is made before the services it depends on run what Git declares.

    Repairs and the way back never wait, nor does an instance that is made already: for it the old one may be gone.
    """
    wish = question.wishes.get(service.service)
    if wish is None or wish.desired is None or wish.held or wish.suspended or not wish.desired.spec.depends_on:
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
                steps=_without_growth(service.steps, wish.desired.version),
                waiting=f"{needed}, which it depends on, to be in sync and healthy",
                reason=Reason.DEPENDENCY_NOT_READY,
                message=f"{needed} is {other.sync} and {other.health}",
            )
    return service


def _without_growth(steps: Sequence[Step], version: str = "") -> tuple[Step, ...]:
    """The steps without those that make an instance; of groups only those of this `version`, where one is given."""
    new = {step.name for step in steps if isinstance(step, CreateInstance)}

    def grows(step: Step) -> bool:
        if isinstance(step, EnsureGroup):
            return step.version == (version or step.version)
        return isinstance(step, CreateInstance) or (isinstance(step, StartInstance) and step.name in new)

    return tuple(step for step in steps if not grows(step))


def plan_service(question: Question, wish: Wish, instances: tuple[Instance, ...]) -> ServicePlan:
    """The plan of one service."""
    memory = question.memory.services.get(wish.name, ServiceMemory())
    if wish.suspended:
        return still(wish, memory, instances, Reason.SUSPENDED, wish.suspended)
    if wish.held is not None and wish.desired is None:
        return still(wish, memory, instances, wish.held, wish.message)
    if wish.desired is None:
        return _remove(question, wish, memory, instances)
    adopted = adopt(question, wish.desired, memory, instances)
    if adopted is not None:
        return still(wish, memory, instances, None, "", adopted)
    held = question.changes_held
    if held is not None and _would_begin(wish.desired, memory):
        if wish.fallback is None:
            return replace(still(wish, memory, instances, held.reason, held.message), recheck_at=held.until)
        wish = replace(wish, held=held.reason, message=held.message, waits=True)
    return _plan_target(question, wish, memory, instances)


def _plan_target(question: Question, wish: Wish, memory: ServiceMemory, instances: tuple[Instance, ...]) -> ServicePlan:
    """The plan of a service towards what it shall run now."""
    assert wish.desired is not None
    wish, records = scaled(question, wish, memory, instances)
    assert wish.desired is not None
    target, quarantined = choose(wish, memory)
    blind = target is None and memory.stable is not None
    if target is None:
        if memory.stable is None:
            return _remove_failed(question, wish, memory, instances)
        target = _stand_in(wish.desired, memory.stable)
    view = _view(question, target, memory, instances)
    opening = (*records, *reports.bookkeeping(view, wish.desired))
    if opening:
        # What follows is planned as if this stood in the journal already, for it will when the first step is done.
        view = _view(question, target, _foretold(question, wish.name, opening), instances)
    motion = _motion(question, view, wish.fallback, blind=blind)
    motion.steps[:0] = opening
    if wish.waits and question.changes_held is not None:
        motion.steps.extend(_ahead(question, wish.desired))
        if question.changes_held.until is not None:
            motion.quiet(question.changes_held.until)
    decision = question.demands.get(wish.name)
    if decision is not None and decision.until is not None:
        motion.quiet(decision.until)
    return describe(view, wish, motion, quarantined=quarantined, blind=blind)


def _ahead(question: Question, desired: Target) -> list[PullImage]:
    """The image of a version that has to wait is fetched meanwhile."""
    pinned = desired.spec.image.pinned
    known = question.live.images.get(pinned)
    return [PullImage(pinned)] if known is not None and known.status is ImageStatus.ABSENT else []


def _would_begin(desired: Target, memory: ServiceMemory) -> bool:
    """Whether this would be a version that is neither stable nor under way, nor the one before while that is held."""
    under_way = memory.rollout.to if memory.rollout else None
    known = {ref.version for ref in (memory.stable, under_way) if ref is not None}
    if desired.version in known or desired.version in memory.quarantine:
        return False
    return not held_for_return(memory, desired.version)


def _motion(question: Question, view: View, fallback: Target | None, *, blind: bool) -> Motion:
    """What to record and to do for one service. `blind`: none of its instances can be made anew."""
    able_since = question.able_since.get(view.spec.name, question.up_since)
    staged = stages.in_stages(view, fallback)
    failures = reports.failure(view, able_since, staged=staged)
    if failures:
        return Motion(steps=[*failures])
    deadline = reports.progress_deadline(view, able_since, staged=staged)
    if view.native is not None:
        motion = _native(question, view, fallback if staged else None, deadline)
    elif staged and fallback is not None:
        motion = stages.move_in_stages(view, fallback, deadline)
        motion.steps[:0] = reports.losses(stages.beside(view, fallback))
    else:
        motion = move(view)
    if blind:
        motion.steps = [step for step in _without_growth(motion.steps) if not isinstance(step, PullImage)]
    # A promotion is the commit point: it stands in the journal before anything of the old version is given up for it.
    motion.steps[:0] = [*reports.drift(view), *reports.completion(view, deadline, staged=staged)]
    if deadline is not None:
        motion.rechecks.append(deadline)
    motion.rechecks.extend((*reports.soak_ends(view, staged=staged), *reports.lifetime_ends(view)))
    return motion


def _native(question: Question, view: View, beside: Target | None, deadline: datetime | None) -> Motion:
    """The motion where the engine replaces by itself; `beside`: the stable version where there are stages."""
    if beside is None:
        return native.move(view)
    motion = native_stages.move_in_stages(view, beside)
    rollout, index, _, _ = stages.position(view)
    if rollout.shifted == index:
        stages.soak(view, motion, deadline)
    motion.steps[:0] = reports.losses(native.look(question, beside, view.memory, view.instances))
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
            details=step.details,
        )
        memory = remember(memory, entry)
    return memory.services.get(service, ServiceMemory())


def _stand_in(desired: Target, stable: VersionRef) -> Target:
    """The stable version where its files cannot be read any more: what runs of it stays, none can be made anew."""
    repository, _, digest = stable.image.partition("@")
    return Target(replace(desired.spec, image=ImageRef(repository, digest)), stable.version, stable.revision)


def choose(wish: Wish, memory: ServiceMemory) -> tuple[Target | None, bool]:
    """The target: what Git declares, unless that version failed or may not begin; then the stable one, if there is one.

    The second value is whether it failed.
    """
    desired, fallback = wish.desired, wish.fallback
    assert desired is not None
    if wish.waits:
        return fallback, False
    if desired.version not in memory.quarantine:
        return desired, False
    if fallback is not None and fallback.version not in memory.quarantine:
        return fallback, True
    return None, True


def _view(question: Question, target: Target, memory: ServiceMemory, instances: tuple[Instance, ...]) -> View:
    if question.native is not None:
        return native.look(question, target, memory, instances)
    images: Mapping[str, ImageState] = question.live.images
    taken = frozenset(foreign.name for foreign in question.live.foreign)
    finding = question.findings.get(target.spec.name)
    proxy = question.live.proxy
    return sort(
        question.environment, target, memory, instances, images, taken, question.now, proxy=proxy, finding=finding
    )


def _remove(question: Question, wish: Wish, memory: ServiceMemory, instances: tuple[Instance, ...]) -> ServicePlan:
    """Git no longer declares the service: drain and remove all of it, then forget it."""
    live = question.live
    kept = wish.name in live.routes or any(group.service == wish.name for group in live.groups)
    if not instances and not kept:
        gone = Transition(What.SERVICE_REMOVED, from_version=memory.stable, reason="no longer declared")
        known = wish.name in question.memory.services
        return still(wish, memory, instances, None, "", (gone,) if known else ())
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
    """The first version of a service failed and there is none to return to: nothing is left running.

    A bundle stays as it is: of its objects some may have been there before, as where it came from Flux or Argo CD.
    """
    assert wish.desired is not None
    bundled = wish.desired.spec.bundle is not None
    motion = Motion() if bundled else _emptied(question, wish, memory, instances)
    why = memory.quarantine[wish.desired.version].reason
    return ServicePlan(
        wish.name,
        Sync.OUT_OF_SYNC,
        ServiceHealth.DEGRADED,
        tuple(motion.steps),
        "; ".join(motion.waits),
        min(motion.rechecks, default=None),
        reason=Reason.QUARANTINED,
        message=f"version {names.short(wish.desired.version)} failed ({why}) and there is no earlier version"
        + ("; what was applied of it stays" if bundled else ""),
        desired=reports.ref(wish.desired),
        replicas=count(wish.desired.spec),
        instances=instances,
    )


def _emptied(question: Question, wish: Wish, memory: ServiceMemory, instances: tuple[Instance, ...]) -> Motion:
    """The motion towards zero instances, with the drain that is declared, or else the default one."""
    known = wish.desired or wish.fallback
    nothing = ServiceSpec(wish.name, ImageRef("none", "sha256:" + "0" * 64))
    spec = replace(known.spec if known else nothing, replicas=0)
    if question.live.proxy is None:
        # The proxies went before the service did: nothing is left to drain it from.
        spec = replace(spec, route=None)
    view = _view(question, Target(spec, "", ""), memory, instances)
    return move(view) if view.native is None else native.empty(view)

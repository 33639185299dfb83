"""The motion of one service on an engine with controllers of its own: groups are declared, the engine replaces.

The rules are those of `core/rollout.py`: grow the target, give it the requests once it stands, let others go only when
it serves. How instances come and go within a group is the engine's affair. Releases in stages: `core/native_stages.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from reconciler.core import groups, names
from reconciler.core.diff import View, sort
from reconciler.core.errors import Reason
from reconciler.core.fold import taking
from reconciler.core.groups import WHOLE
from reconciler.core.live import Group, GroupRoute, HealthStatus, ImageStatus, Instance, Phase
from reconciler.core.memory import ServiceMemory
from reconciler.core.model import DriftPolicy, ServiceSpec, Target
from reconciler.core.motion import Motion, stable_version
from reconciler.core.question import Question
from reconciler.core.record import What
from reconciler.core.steps import (
    EnsureGroup,
    GroupShare,
    PruneGroup,
    RemoveGroup,
    RemoveRoute,
    RouteGroups,
    Step,
    Transition,
)

IN_A_RECORD = 100


def look(question: Question, target: Target, memory: ServiceMemory, instances: tuple[Instance, ...]) -> View:
    """One service sorted: the instances by their version, and the groups by who carries the target."""
    live, service = question.live, target.spec.name
    mine = [group for group in live.groups if group.service == service]
    carrier = _carrier(target, mine)
    view = sort(question.environment, target, memory, (), live.images, frozenset(), question.now)
    # One that was lost may have healed; one that the engine takes away says nothing about its version.
    fresh = [i for i in instances if i.version == target.version and not i.leaving]
    chosen = {i.name for i in fresh}
    return replace(
        view,
        fresh=tuple(sorted(fresh, key=lambda i: i.name)),
        stale=tuple(sorted((i for i in instances if i.name not in chosen), key=lambda i: i.name)),
        finding=question.findings.get(service),
        native=question.native,
        group=carrier,
        others=tuple(sorted((g for g in mine if g is not carrier), key=lambda g: g.name)),
        route=live.routes.get(service),
    )


def _carrier(target: Target, mine: Sequence[Group]) -> Group | None:
    """The group that runs the target already, under whatever name; else the one under the name it gets."""
    name = carrier_name(target)
    of_target = [group for group in mine if group.version == target.version]
    if of_target:
        return min(of_target, key=lambda group: (group.name != name, -group.ready, group.name))
    return next((group for group in mine if group.name == name), None)


def carrier_name(target: Target) -> str:
    """The name of the group that a target gets where it has none yet."""
    return names.group(target.spec.name, target.version if groups.of_its_own(target.spec) else "")


def move(view: View) -> Motion:
    """The next safe steps of a service that does not go through stages: rolling, recreate, repair and every return."""
    motion = Motion()
    declare(view, view.target, view.group, view.spec.replicas, motion)
    if not returns(view):
        progress(view, motion)
    group = view.group
    mixed = not groups.of_its_own(view.spec)
    taken = group is not None and group.version == view.target.version and (mixed or _may_carry(view, group))
    if taken and group is not None:
        shares = [(group, WHOLE), *((other, 0) for other in view.others)]
        lead(view, motion, shares, mixed=mixed, shown=None if mixed else group)
    for other in view.others:
        leave(view, other, motion)
    if group is not None and group.leftovers and not motion.steps and not view.rolling and view.complete:
        motion.steps.append(PruneGroup(group.name, view.environment, group.version, group.leftovers))
    return motion


def in_stages(view: View, fallback: Target | None) -> bool:
    """Whether the target goes through stages: there must be a stable version beside which it can."""
    return (
        view.rolling
        and groups.of_its_own(view.spec)
        and view.spec.replicas > 0
        and view.memory.stable is not None
        and fallback is not None
        and fallback.version == view.memory.stable.version
        and not returns(view)
    )


def returns(view: View) -> bool:
    """Whether the target is the version before, whose group still stands and had requests before this."""
    previous, rollout, group = view.memory.previous, view.memory.rollout, view.group
    if previous is None or previous.version != view.target.version or rollout is None or rollout.shifted >= 0:
        return False
    if group is None or group.version != view.target.version or group.name not in view.memory.exposed:
        return False
    return group.created_at <= rollout.started_at and view.standing(group)


def _may_carry(view: View, group: Group) -> bool:
    """Whether the requests can be given to a group: it stands, or nobody else has any instance that is ready."""
    return view.standing(group) or (group.ready > 0 and not any(other.ready for other in view.others))


def declare(
    view: View, target: Target, group: Group | None, count: int, motion: Motion, *, pinned: bool = False
) -> None:
    """Declare a group to the engine where it is not, or not any more, as it should be; say what it is waited for.

    `pinned`: the number is ours although demand would have its say.
    """
    spec = replace(target.spec, scaling=None) if pinned else target.spec
    owned = count if spec.scaling is None else None
    digest = groups.operated(spec, owned)
    changed = group is not None and bool(group.differences) and spec.drift is DriftPolicy.CORRECT
    other_version = group is None or group.version != target.version
    if group is not None and not other_version and not changed and group.operated == digest:
        _await(view, group, count if owned is not None else group.replicas, motion)
        return
    if group is None and _removed_by_hand(view) and spec.drift is DriftPolicy.REPORT:
        return
    if target.obstacle and (other_version or changed):
        bundled = spec.bundle is not None
        motion.reason = Reason.MANIFEST_INVALID if bundled else Reason.SECRET_MISSING
        motion.message = target.obstacle
        motion.wait("the manifests of this version" if bundled else "the secrets of this version")
        return
    name = group.name if group is not None else carrier_name(target)
    motion.steps.append(
        EnsureGroup(
            name, view.environment, spec, target.version, target.revision, owned, _first(view, count, spec), digest
        )
    )


def _removed_by_hand(view: View) -> bool:
    return not view.rolling and view.memory.returning is None and view.memory.stable is not None


def _first(view: View, count: int, spec: ServiceSpec) -> int:
    """With how many instances a group begins: where demand decides, with as many as run now."""
    if spec.scaling is None:
        return count
    running = max((group.replicas for group in (view.group, *view.others) if group is not None), default=count)
    return min(max(running, spec.scaling.minimum), spec.scaling.maximum)


def _await(view: View, group: Group, count: int, motion: Motion) -> None:
    if group.settled and group.ready >= count:
        return
    if view.spec.bundle is None:
        motion.wait(f"{group.name}: {group.ready} of {count} ready")
    else:
        motion.wait(group.detail if group.reason is None else f"{group.name} to become well")
    motion.reason, motion.message = _hindrance(view, group)


def _hindrance(view: View, group: Group) -> tuple[Reason | None, str]:
    """What keeps a group from standing, as far as the engine says it: a quota, no node, an image."""
    if group.reason is not None:
        return group.reason, group.detail
    image = view.images.get(group.image)
    if image is not None and image.status is ImageStatus.FAILED:
        return image.reason, image.detail
    return None, ""


def progress(view: View, motion: Motion) -> None:
    """Record new healthy instances of a version on trial, and an image that cannot be fetched."""
    rollout = view.memory.rollout
    if rollout is None or rollout.to.version != view.target.version:
        return
    well = {i.name for i in view.fresh if i.phase is Phase.RUNNING and i.health is HealthStatus.HEALTHY}
    new = sorted(well - rollout.healthy)[:IN_A_RECORD]
    if new and not view.complete:
        details = {"name": new[0], **({"names": new} if len(new) > 1 else {})}
        motion.steps.append(Transition(What.INSTANCE_HEALTHY, details, to_version=rollout.to))
    image = view.image
    if image.status is ImageStatus.FAILED and image.reason is not None and image.reason != view.memory.pull_failed:
        details = {"image": view.spec.image.pinned, "said": image.detail}
        motion.steps.append(Transition(What.PULL_FAILED, details, reason=image.reason, from_version=view.memory.stable))


def lead(
    view: View,
    motion: Motion,
    shares: Sequence[tuple[Group, int]],
    *,
    mixed: bool,
    shown: Group | None = None,
    stage: int | None = None,
) -> None:
    """Lead the requests to groups by these shares, where the engine and the journal do not have it so.

    `shown`: the group of the newest version, for the preview address where one is declared. What is declared already
    and only has to be taken by a Gateway is waited for; the journal has it as done from then on.
    """
    step, live = _route(view, shares, mixed=mixed, shown=shown, stage=stage), view.route
    if isinstance(step, RouteGroups) and live is not None and live.refusal and _is_declared(view, live, step):
        motion.reason, motion.message = Reason.PROXY_UNREACHABLE, live.refusal
        motion.wait(f"the Gateway to lead the requests of {step.name} as declared")
    elif step is not None:
        motion.steps.append(step)


def _route(
    view: View, shares: Sequence[tuple[Group, int]], *, mixed: bool, shown: Group | None, stage: int | None
) -> Step | None:
    spec, live = view.spec, view.route
    if not spec.ports and not view.exact and stage is None:
        return RemoveRoute(spec.name, view.environment) if live is not None else None
    digest = groups.route_operated(spec, exact=view.exact)
    has_preview = view.exact and spec.route is not None and bool(spec.route.preview)
    preview = shown.name if shown is not None and has_preview else ""
    table = tuple(GroupShare(group.name, group.version, weight) for group, weight in shares)
    step = RouteGroups(spec.name, view.environment, spec, table, mixed, digest, preview, stage)
    if live is not None and stage is None and not live.refusal and _is_declared(view, live, step):
        known = view.memory.shares
        if known is not None and taking(known) == {group.name for group, weight in shares if weight}:
            return None
    return step


def _is_declared(view: View, live: GroupRoute, step: RouteGroups) -> bool:
    """Whether a step would change nothing that is declared."""
    wanted = {share.name: share.weight for share in step.shares if share.weight}
    found = None if live.weights is None else {name: weight for name, weight in live.weights.items() if weight}
    changed = bool(live.differences) and view.spec.drift is DriftPolicy.CORRECT
    alike = found == (None if step.mixed else wanted)
    return alike and not changed and live.operated == step.operated and live.preview == step.preview


def leave(view: View, group: Group, motion: Motion) -> None:
    """The next step of a group that is no longer wanted. It goes when the target serves, and nobody is sent to it."""
    proven = view.rolling and group.version == stable_version(view)
    if proven or not (view.complete or _is_superfluous(view, group)):
        motion.wait(f"the target to serve before {group.name} goes")
        return
    until = held_until(view, group)
    if until is not None:
        motion.quiet(until)
        return
    since = view.memory.detached.get(group.name)
    if since is not None and view.now < since + view.spec.drain.deadline:
        # Whoever looked up the way before the change may still come.
        motion.wait(f"the last requests for {group.name}", since + view.spec.drain.deadline)
        return
    motion.steps.append(RemoveGroup(group.name, view.environment))


def _is_superfluous(view: View, group: Group) -> bool:
    """Whether a group has nobody who could answer a request, or was never sent any: it is missed by nobody."""
    return group.ready == 0 or group.name not in view.memory.exposed


def held_until(view: View, group: Group) -> datetime | None:
    """Until when the group of the version before is kept, without requests, for an instant return; None: not now."""
    memory, hold = view.memory, view.spec.rollout.hold
    before = memory.previous is not None and memory.previous.version == group.version
    if view.rolling or not before or memory.promoted_at is None or not groups.of_its_own(view.spec):
        return None
    until = memory.promoted_at + hold
    return until if view.now < until else None


def empty(view: View) -> Motion:
    """The motion towards nothing: first nobody is led there any more, then all goes."""
    motion = Motion()
    if view.route is not None:
        motion.steps.append(RemoveRoute(view.spec.name, view.environment))
    mine = (view.group, *view.others)
    motion.steps.extend(RemoveGroup(group.name, view.environment) for group in mine if group is not None)
    if view.instances:
        motion.wait(f"{len(view.instances)} instances to go")
    return motion

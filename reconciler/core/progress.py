"""How far a release is and who gets the traffic: the memory and what the proxies show, made into a value for people.

It decides nothing; what comes next is found in `core/rollout.py` and `core/stages.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from reconciler.core import names, native, stages
from reconciler.core.delivery import Scaling
from reconciler.core.diff import View
from reconciler.core.gate import GateFinding
from reconciler.core.groups import of_its_own
from reconciler.core.live import Instance, Phase, Server, ServerMode
from reconciler.core.memory import RolloutMemory, ServiceMemory
from reconciler.core.model import ServiceSpec
from reconciler.core.question import Wish
from reconciler.core.status import Kept, Progress, Scale, StageProgress, VersionTraffic


def progress_of(view: View, wish: Wish) -> Progress | None:
    """The progress of a service that is looked at closely; None where neither a proxy nor demand plays a part."""
    staged = view.memory.rollout if stages.in_stages(view, wish.fallback) else None
    backends = view.proxy.backends if view.proxy is not None else {}
    shown = backends.get(names.backend(view.environment, view.spec.name))
    queued = shown.waiting if shown is not None else 0
    if view.native is not None:
        return _of_groups(view, staged)
    return _progress(view.spec, view.memory, view.instances, staged, view.finding, view.now, queued)


def _of_groups(view: View, staged: RolloutMemory | None) -> Progress | None:
    """The same where the engine keeps groups: the shares are those of their address, or follow from their numbers."""
    spec, memory, scaling = view.spec, view.memory, view.spec.scaling
    if not of_its_own(spec) and scaling is None:
        return None
    mine = [group for group in (view.group, *view.others) if group is not None]
    weights = view.route.weights if view.route is not None else {}
    parts = {group.name: group.ready if weights is None else weights.get(group.name, 0) for group in mine}
    total = sum(parts.values())
    stable = memory.stable.version if memory.stable is not None else ""
    split = [
        VersionTraffic(group.version, parts[group.name] / total if total else 0.0, None, group.ready) for group in mine
    ]
    return Progress(
        spec.rollout.strategy,
        memory.rollout.started_at if memory.rollout is not None else None,
        memory.returning,
        _stage(spec, staged, view.finding) if staged is not None else None,
        tuple(sorted(split, key=lambda each: (each.version != stable, -each.share, each.version))),
        _scale(scaling, spec.replicas),
        _held_groups(view),
    )


def _held_groups(view: View) -> tuple[Kept, ...]:
    """The groups of the version before that are kept, without requests, for a return."""
    held = [(group, native.held_until(view, group)) for group in view.others]
    return tuple(Kept(group.name, group.version, until) for group, until in held if until is not None)


def progress_at_rest(wish: Wish, memory: ServiceMemory, instances: Sequence[Instance]) -> Progress | None:
    """The same for a service at which nothing is done: a release that is held stays where it is, and so do its shares.

    Nothing is judged and no time is known here: instances kept for a return are named whatever the clock says.
    """
    target = wish.desired or wish.fallback
    if target is None:
        return None
    rollout = memory.rollout
    staged = rollout is not None and rollout.to.version == target.version and memory.stable is not None
    return _progress(target.spec, memory, instances, rollout if staged else None)


def _progress(
    spec: ServiceSpec,
    memory: ServiceMemory,
    instances: Sequence[Instance],
    staged: RolloutMemory | None,
    finding: GateFinding | None = None,
    now: datetime | None = None,
    queued: int = 0,
) -> Progress | None:
    """`staged` is the rollout where it goes through stages."""
    if spec.route is None and spec.scaling is None:
        return None
    return Progress(
        spec.rollout.strategy,
        memory.rollout.started_at if memory.rollout is not None else None,
        memory.returning,
        _stage(spec, staged, finding) if staged is not None else None,
        _split(instances, memory.stable.version if memory.stable is not None else ""),
        _scale(spec.scaling, spec.replicas if memory.scale is None else memory.scale),
        _kept(spec, memory, instances, now),
        queued,
    )


def _scale(scaling: Scaling | None, count: int) -> Scale | None:
    if scaling is None:
        return None
    return Scale(min(max(count, scaling.minimum), scaling.maximum), scaling.minimum, scaling.maximum)


def _stage(spec: ServiceSpec, rollout: RolloutMemory, finding: GateFinding | None) -> StageProgress | None:
    plan = spec.rollout.plan
    if not plan:
        return None
    index, since = stages.whereabouts(rollout, plan)
    stage = plan[index]
    gated = spec.rollout.gate is not None and stage.weight > 0
    return StageProgress(
        index + 1,
        len(plan),
        stage.weight,
        since,
        since + stage.soak if since is not None else None,
        paused=stage.pause and rollout.paused >= index > rollout.continued,
        gated=gated,
        finding=finding if gated else None,
    )


def _split(instances: Sequence[Instance], stable: str) -> tuple[VersionTraffic, ...]:
    """What each version has by the weights of servers that are ready and up; the others have a place and no share."""
    places: dict[str, list[Server]] = {}
    for instance in instances:
        if instance.server is not None:
            places.setdefault(instance.version, []).append(instance.server)
    weights = {version: sum(map(_weight, servers)) for version, servers in places.items()}
    total = sum(weights.values())
    found = [
        VersionTraffic(version, weights[version] / total if total else 0.0, _sessions(servers), len(servers))
        for version, servers in places.items()
    ]
    return tuple(sorted(found, key=lambda each: (each.version != stable, -each.share, each.version)))


def _weight(server: Server) -> int:
    return server.weight if server.mode is ServerMode.READY and server.up else 0


def _sessions(servers: Sequence[Server]) -> int | None:
    known = [server.sessions for server in servers if server.sessions is not None]
    return sum(known) if len(known) == len(servers) else None


def _kept(
    spec: ServiceSpec, memory: ServiceMemory, instances: Sequence[Instance], now: datetime | None
) -> tuple[Kept, ...]:
    """The instances of the version before that `core/leaving.py` holds, out of traffic."""
    previous, promoted = memory.previous, memory.promoted_at
    if previous is None or promoted is None or memory.rollout is not None:
        return ()
    until = promoted + spec.rollout.hold
    if until <= (now or promoted):
        return ()
    return tuple(
        Kept(instance.name, instance.version, until)
        for instance in instances
        if instance.version == previous.version
        and instance.phase is Phase.RUNNING
        and instance.name in memory.detached
        and instance.name not in memory.terminated
        and instance.name not in memory.lost
    )

"""Leaving: how an instance that is no longer wanted gives up its traffic and goes, one safe step at a time."""

from __future__ import annotations

from datetime import datetime, timedelta

from reconciler.core import names
from reconciler.core.diff import View
from reconciler.core.live import HealthStatus, Instance, Phase, ServerMode
from reconciler.core.motion import Motion, stable_version
from reconciler.core.steps import (
    CutSessions,
    DetachTraffic,
    KillInstance,
    RemoveInstance,
    Share,
    Step,
    TerminateInstance,
)
from reconciler.core.traffic import FULL, draining


def leave(view: View, instance: Instance, capacity: list[Instance], motion: Motion) -> Share | None:
    """The next step of one instance on its way out; behind a proxy, the place in the table that it still has.

    `capacity` are the instances that carry traffic; it shrinks as they give it up.
    """
    memory = view.memory
    match instance.phase:
        case Phase.CREATED:
            motion.steps.append(RemoveInstance(instance.name))
        case Phase.EXITED:
            if _still_wanted(view, instance):
                motion.wait(f"a healthy instance before {instance.name} is removed")
            else:
                motion.steps.append(RemoveInstance(instance.name))
        case Phase.PAUSED:
            motion.steps.append(KillInstance(instance.name))
        case Phase.RUNNING if instance.name in memory.terminated:
            until = memory.terminated[instance.name] + view.spec.drain.grace
            if view.now >= until:
                motion.steps.extend(_cut(view, instance))
                motion.steps.append(KillInstance(instance.name))
            else:
                motion.wait(f"{instance.name} to exit", until)
        case _ if view.routed and not _by_name(instance):
            return _withdraw(view, instance, capacity, motion)
        case _:
            _give_up_traffic(view, instance, capacity, motion)
    return None


def _withdraw(view: View, instance: Instance, capacity: list[Instance], motion: Motion) -> Share | None:
    """Behind a proxy: drain until the last request is done, then out of the table, then stop.

    Some requests never end. At the deadline their clients lose the right to come back; at the end of the tail the
    instance is told to stop, so that it can take leave of them; at the end of its grace they are cut.
    """
    server, route = instance.server, view.spec.route
    if route is not None and (_last_to_return(view, instance, capacity) or _lost_its_place(view, instance, capacity)):
        motion.wait("enough healthy instances before old ones go")
        port, weight = (server.port, server.weight) if server is not None and server.weight else (route.port, FULL)
        return Share(instance.name, instance.address, port, ServerMode.READY, weight)
    if server is None or (server.mode is ServerMode.MAINT and server.even and server.idle):
        _stop(view, instance, motion)
        return None
    weightless = server.mode is ServerMode.READY and server.even and not server.weight
    if weightless and instance.name not in view.memory.exposed:
        return None
    since = view.memory.detached.get(instance.name)
    if since is None:
        if server.mode is ServerMode.READY and not _may_detach(view, instance, capacity):
            motion.wait("enough healthy instances before old ones go")
            return Share(instance.name, server.address, server.port, ServerMode.READY, server.weight)
        if _last_taken_out(view, instance, capacity):
            motion.wait("enough healthy instances before old ones go")
            return Share(instance.name, server.address, server.port, ServerMode.READY, max(server.weight, 1))
        capacity[:] = [other for other in capacity if other.name != instance.name]
        return draining(instance, server)
    if server.mode is ServerMode.MAINT:
        _outlast(view, instance, since, motion)
        return None
    until = since + view.spec.drain.deadline
    held = _held_until(view, instance)
    # Known clients may come back while it drains: with sticky sessions a drain alone would never end.
    if held is not None and not (route is not None and route.sticky and view.now >= until):
        motion.quiet(held)
        return draining(instance, server)
    if server.idle or view.now >= until:
        return None
    motion.wait(f"{instance.name} to drain", until)
    return draining(instance, server)


def _last_taken_out(view: View, instance: Instance, capacity: list[Instance]) -> bool:
    """Whether somebody else took it out of traffic, in one proxy at least, and nobody is in traffic beside it."""
    if capacity or not view.spec.replicas or instance.version in view.memory.quarantine:
        return False
    return instance.health is not HealthStatus.UNHEALTHY and not any(
        other.name != instance.name
        and other.server is not None
        and other.server.mode is ServerMode.READY
        and other.server.weight > 0
        and other.phase is Phase.RUNNING
        and other.health is not HealthStatus.UNHEALTHY
        for other in view.instances
    )


def _last_to_return(view: View, instance: Instance, capacity: list[Instance]) -> bool:
    """Whether an instance gave up its traffic to others, and all of these were lost meanwhile."""
    if view.spec.stop_first:
        return False
    gave = instance.name in view.memory.detached and instance.name in view.memory.exposed
    return gave and instance.health is HealthStatus.HEALTHY and _last_taken_out(view, instance, capacity)


def _lost_its_place(view: View, instance: Instance, capacity: list[Instance]) -> bool:
    """Whether it should be in traffic still, by our own last table, and the proxies have forgotten it."""
    memory, server = view.memory, instance.server
    if view.spec.stop_first or instance.version in memory.quarantine or instance.health is HealthStatus.UNHEALTHY:
        return False
    out = server is None or (server.mode is ServerMode.MAINT and server.sessions == 0)
    return out and instance.name in memory.served - memory.detached.keys() and len(capacity) < _least(view)


def _outlast(view: View, instance: Instance, since: datetime, motion: Motion) -> None:
    """Wait for the last requests at an instance that is out of the table; then it is told to stop all the same."""
    until = since + view.spec.drain.deadline + view.spec.drain.tail
    if view.now < until:
        motion.wait(f"the last requests at {instance.name}", until)
        return
    if instance.serving:
        motion.steps.append(DetachTraffic(instance.name, instance.service))
    else:
        _stop(view, instance, motion)


def _cut(view: View, instance: Instance) -> list[Step]:
    """The step that cuts what still goes on at an instance, where something does."""
    server = instance.server
    if server is None or not server.sessions:
        return []
    backend = names.backend(view.environment, view.spec.name)
    return [CutSessions(instance.name, backend, server.address, server.port, server.sessions)]


def _stop(view: View, instance: Instance, motion: Motion) -> None:
    """Stop what has no traffic any more, unless it is held for an instant return."""
    held = _held_until(view, instance)
    if held is not None:
        motion.quiet(held)
    else:
        motion.steps.append(_terminate(view, instance))


def _by_name(instance: Instance) -> bool:
    """Whether it has traffic by its service's name only, as from a time before the service had a proxy."""
    server = instance.server
    return instance.serving and (server is None or (server.mode is ServerMode.MAINT and server.sessions == 0))


def _held_until(view: View, instance: Instance) -> datetime | None:
    """Until when an instance of the version before is kept, out of traffic, for an instant return; None: not now."""
    memory, hold = view.memory, view.spec.rollout.hold
    if view.rolling and hold and instance.version == stable_version(view) and instance.name not in memory.lost:
        # What is given up by a return is held as well, and the hold begins with the promotion.
        return view.now + hold
    before = memory.previous is not None and memory.previous.version == instance.version
    if view.rolling or not before or memory.promoted_at is None or instance.name in memory.lost:
        return None
    until = memory.promoted_at + hold
    return until if view.now < until else None


def _still_wanted(view: View, instance: Instance) -> bool:
    """A stopped instance stays as the way back until enough instances of the target serve."""
    return instance.name in view.memory.kept and len(view.fresh_capacity) < view.spec.replicas


def _give_up_traffic(view: View, instance: Instance, capacity: list[Instance], motion: Motion) -> None:
    memory = view.memory
    if instance.name in memory.detached and not instance.serving:
        until = memory.detached[instance.name] + view.spec.drain.deadline
        if view.now >= until:
            motion.steps.append(_terminate(view, instance))
        else:
            motion.wait(f"{instance.name} to drain", until)
        return
    if not instance.serving and instance.name not in memory.exposed and _is_idle(view, instance):
        motion.steps.append(_terminate(view, instance))
        return
    if not instance.serving or _may_detach(view, instance, capacity):
        # A drain of no length is a declared wish to stop at once.
        drains = view.spec.drain.deadline > timedelta(0)
        motion.steps.append(DetachTraffic(instance.name, instance.service) if drains else _terminate(view, instance))
        capacity[:] = [other for other in capacity if other.name != instance.name]
    else:
        motion.wait("enough healthy instances before old ones go")


def _is_idle(view: View, instance: Instance) -> bool:
    """Whether an instance that is out of traffic can stop without a drain.

    With a published host port traffic comes without the name, so such an instance always drains.
    """
    return not view.spec.stop_first or instance.version != stable_version(view)


def _least(view: View) -> int:
    """How many instances have to serve at any time."""
    return max(view.spec.replicas - view.spec.rollout.unavailable, min(view.spec.replicas, 1))


def _may_detach(view: View, instance: Instance, capacity: list[Instance]) -> bool:
    """The rule that keeps the service up: enough others serve, or this one does not serve well anyway."""
    wanted = _least(view)
    if view.spec.stop_first:
        ready = any(i.phase is Phase.CREATED or i.name in view.memory.kept for i in view.fresh)
        return wanted == 0 or ready or len(view.fresh_capacity) >= wanted
    if any(other.name == instance.name for other in capacity):
        return len(capacity) - 1 >= wanted
    return wanted == 0 or bool(capacity)


def _terminate(view: View, instance: Instance) -> TerminateInstance:
    """Stop it; with a host port the stable instance is kept, stopped, until the new one is healthy."""
    keep = (
        view.spec.stop_first
        and instance.version == stable_version(view)
        and view.spec.replicas > 0
        and len(view.fresh_capacity) < view.spec.replicas
    )
    return TerminateInstance(instance.name, keep=keep)

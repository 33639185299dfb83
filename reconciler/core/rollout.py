"""The motion of one service: the next safe steps from a sorted view, and what is waited for.

One motion serves releases, rollbacks, repairs and scaling: grow the target, put proven instances into traffic, let
others go only when enough of them serve. Nothing here knows how far an earlier cycle came: each look starts anew.
Releases that go through stages stand in `core/stages.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.core import names, traffic
from reconciler.core.diff import View, serves
from reconciler.core.errors import Reason
from reconciler.core.growth import grow
from reconciler.core.leaving import leave
from reconciler.core.live import HealthStatus, Instance, Phase, ProxyStatus, ServerMode, WarmthStatus
from reconciler.core.motion import Motion, keepers
from reconciler.core.record import What
from reconciler.core.steps import AttachTraffic, Share, ShiftTraffic, Step, Transition, WarmInstance


def move(view: View) -> Motion:
    """The next safe steps of one service without stages (rolling; stop-first where only one instance can run)."""
    motion = Motion()
    staying, extras = keepers(view)
    able = prove(view, staying, motion)
    if not view.routed:
        motion.steps.extend(AttachTraffic(i.name, view.spec.name) for i in able if not serves(i, view.memory))
    growth = Motion()
    grow(view, growth)
    leaving = [*view.stale, *reversed(extras)]
    if view.blind:
        blinded(view, motion)
        absorb(motion, growth)
        return motion
    shares: list[Share] = (
        [*traffic.ready(view, able), *_resting(staying, able), *_awaited(view, staying, able)] if view.routed else []
    )
    going = Motion()
    shares += let_go(view, leaving, carrying(view, able), going)
    if view.routed:
        shown = able or [instance for instance in view.stale if serves(instance, view.memory)]
        shift, preview = traffic.shift(view, shares), traffic.preview(view, shown)
        if shift is not None and not _brings(view, shift):
            # Nobody waits for what is only taken away; a new instance needs its time.
            absorb(motion, growth)
            growth = Motion()
        put(motion, shift, preview)
    absorb(motion, growth)
    absorb(motion, going)
    return motion


def _brings(view: View, shift: ShiftTraffic) -> bool:
    """Whether somebody gets traffic by it."""
    serving = {instance.name for instance in view.instances if instance.serving}
    return any(share.mode is ServerMode.READY and share.name not in serving for share in shift.shares)


def _resting(staying: Sequence[Instance], able: Sequence[Instance]) -> list[Share]:
    """The places of instances that come back from a hold and are not proven anew yet: they keep them until they are."""
    proven = {instance.name for instance in able}
    return [
        traffic.draining(i, i.server)
        for i in staying
        if i.name not in proven and i.server is not None and i.server.mode is ServerMode.DRAIN
    ]


def _awaited(view: View, staying: Sequence[Instance], able: Sequence[Instance]) -> list[Share]:
    """Places without weight for instances that are being proven: the proxy's own checks of them run beside ours.

    Where nobody carries the traffic there is no time for a second table. With sticky sessions a client of an instance
    that is gone would come to the next owner of its address, with weight or without.
    """
    if not carrying(view, able) or (view.spec.route is not None and view.spec.route.sticky):
        return []
    proven = {instance.name for instance in able}
    known = view.memory.exposed | view.memory.terminated.keys()
    coming = [
        i
        for i in staying
        if i.phase is Phase.RUNNING
        and i.health is not HealthStatus.UNHEALTHY
        and i.name not in proven | known
        and (i.server is None or i.server.mode is not ServerMode.DRAIN)
    ]
    return traffic.ready(view, coming, 0)


def blinded(view: View, motion: Motion) -> None:
    """Say that nothing can be done about traffic now."""
    motion.reason = Reason.PROXY_UNREACHABLE
    motion.message = (view.proxy.said if view.proxy else "") or "the proxy is not ready"
    if view.proxy is not None and view.proxy.status is ProxyStatus.READY:
        backend = names.backend(view.environment, view.spec.name)
        motion.message = f"the proxy has no backend {backend}; an own one needs what `reconciler proxy config` prints"
    motion.wait("the proxy")


def absorb(motion: Motion, other: Motion) -> None:
    """Put the finds of `other` behind those of `motion`."""
    motion.steps.extend(other.steps)
    motion.rechecks.extend(other.rechecks)
    motion.waits.extend(wait for wait in other.waits if wait not in motion.waits)
    if motion.reason is None:
        motion.reason, motion.message = other.reason, other.message


def put(motion: Motion, *steps: Step | None) -> None:
    """Add the steps that are there."""
    motion.steps.extend(step for step in steps if step is not None)


def carrying(view: View, able: Sequence[Instance]) -> list[Instance]:
    """The instances that carry traffic well. Behind a proxy also those that the next table brings in: it takes nothing
    from others before these are up."""
    if not view.routed:
        return list(view.capacity)
    well = {i.name for i in able if i.health is HealthStatus.HEALTHY}
    return [i for i in view.instances if i.name in well or serves(i, view.memory)]


def let_go(view: View, leaving: Sequence[Instance], capacity: list[Instance], motion: Motion) -> list[Share]:
    """The steps of instances on their way out, and the places in the table that they still have."""
    found = []
    for instance in leaving:
        share = leave(view, instance, capacity, motion)
        if share is not None:
            found.append(share)
    return found


def prove(view: View, staying: Sequence[Instance], motion: Motion, others: Sequence[Instance] = ()) -> list[Instance]:
    """The running instances that may have traffic: healthy, and warm where that is asked for; waits for the others.

    What is in a proxy already stays there while its health is not known, as after a restart of this program.
    """
    rollout, able = view.memory.rollout, []
    for instance in staying:
        if instance.phase is not Phase.RUNNING:
            continue
        if _in_traffic(view, instance):
            able.append(instance)
            continue
        if instance.health is not HealthStatus.HEALTHY:
            said = f" ({instance.detail})" if instance.detail else ""
            motion.wait(f"{instance.name} to become healthy{said}")
            continue
        if rollout is not None and instance.version == rollout.to.version and instance.name not in rollout.healthy:
            motion.steps.append(
                Transition(What.INSTANCE_HEALTHY, {"name": instance.name}, to_version=rollout.to),
            )
        if _warm(view, instance, motion, [*others, *view.stale, *view.fresh]):
            able.append(instance)
    return able


def _in_traffic(view: View, instance: Instance) -> bool:
    """Whether an instance is in traffic by an act of ours, and may stay.

    That it lost its traffic before says nothing: the outcome of the act that brought it back may be unknown. Where the
    proxies disagree it is in traffic somewhere: one of them may have lost its table.
    An address that the engine gives away anew may stand in a proxy still: that proves nothing about its new owner.
    """
    if not view.routed:
        return serves(instance, view.memory)
    return (
        instance.server is not None
        and (instance.server.mode is ServerMode.READY or not instance.server.even)
        and instance.health is not HealthStatus.UNHEALTHY
        and instance.name in view.memory.exposed
    )


def _warm(view: View, instance: Instance, motion: Motion, others: Sequence[Instance]) -> bool:
    """Whether an instance is warm, or need not be: it had traffic before, or it failed to and nothing better is there.

    A repair with a cold instance is better than none; for a version on trial a failure is the end of it.
    """
    warm_up, route, rollout = view.spec.warm_up, view.spec.route, view.memory.rollout
    if warm_up is None or route is None or instance.name in view.memory.exposed:
        return True
    if instance.warmth is None:
        beside = next((i.name for i in others if serves(i, view.memory)), "") if warm_up.relative else ""
        motion.steps.append(WarmInstance(instance.name, route.port, warm_up, beside))
        return False
    if instance.warmth.status is WarmthStatus.RUNNING:
        motion.wait(f"{instance.name} to warm up ({instance.warmth.requests} requests)")
        return False
    if rollout is not None and instance.version == rollout.to.version and instance.name not in rollout.warm:
        p95 = instance.warmth.p95
        details = {"name": instance.name, "requests": instance.warmth.requests, "said": instance.warmth.said}
        more = {"p95Ms": str(round(p95 * 1000, 3))} if p95 is not None else {}
        motion.steps.append(Transition(What.INSTANCE_WARM, details | more, to_version=rollout.to))
    return True

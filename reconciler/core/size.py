"""How many instances a service shall have: as Git declares, as demand asks, or as an engine came to by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from reconciler.core.live import Instance
from reconciler.core.memory import ServiceMemory
from reconciler.core.model import Target
from reconciler.core.question import Question, Wish
from reconciler.core.record import What
from reconciler.core.steps import Transition


def _running(instances: Sequence[Instance]) -> int:
    """How many instances serve, of whatever version."""
    return sum(instance.serving for instance in instances)


def scaled(
    question: Question, wish: Wish, memory: ServiceMemory, instances: Sequence[Instance]
) -> tuple[Wish, tuple[Transition, ...]]:
    """The wish with the number of instances that demand asks for, and the record of a new decision.

    A version on trial has at least one instance, also where the service sleeps: it has to prove itself.
    """
    assert wish.desired is not None
    scaling, replicas = wish.desired.spec.scaling, wish.desired.spec.replicas
    if question.native is not None:
        return _by_engine(question, wish, memory)
    if scaling is None:
        if memory.scale is None or memory.scale == replicas:
            return wish, ()
        details = {"from": memory.scale, "to": replicas, "said": "Git declares the number"}
        return wish, (Transition(What.SCALED, details, reason="Git", to_version=memory.stable),)
    # Where nothing was decided yet, as many as run: what Git said before is not forgotten at once.
    before = memory.scale if memory.scale is not None else _running(instances) or replicas
    count = min(max(before, scaling.minimum), scaling.maximum)
    decision = question.demands.get(wish.name)
    found: tuple[Transition, ...] = ()
    if decision is not None and decision.count != count:
        details = {"from": count, "to": decision.count, "said": decision.said}
        found = (Transition(What.SCALED, details, reason="demand", to_version=memory.stable),)
        count = decision.count
    trial = not wish.waits and (memory.stable is None or memory.stable.version != wish.desired.version)
    count = max(count, 1) if trial and wish.desired.version not in memory.quarantine else count

    def sized(target: Target) -> Target:
        most = min(count, 1) if target.spec.stop_first else count
        return replace(target, spec=replace(target.spec, replicas=most))

    fallback = sized(wish.fallback) if wish.fallback is not None else None
    return replace(wish, desired=sized(wish.desired), fallback=fallback), found


def _by_engine(question: Question, wish: Wish, memory: ServiceMemory) -> tuple[Wish, tuple[Transition, ...]]:
    """The wish with as many instances as the engine's own autoscaler has come to.

    While two versions share the requests by their numbers, these are ours: as many as ran when the release began.
    """
    assert wish.desired is not None
    scaling = wish.desired.spec.scaling
    if scaling is None or question.native is None:
        return wish, ()
    running = max((group.replicas for group in question.live.groups if group.service == wish.name), default=0)
    count = min(max(running, scaling.minimum), scaling.maximum)
    exact = question.native.gateway and wish.desired.spec.route is not None
    found: tuple[Transition, ...] = ()
    if memory.stable is not None and memory.stable.version != wish.desired.version and not exact:
        if memory.rollout is not None and memory.scale is not None:
            count = min(max(memory.scale, scaling.minimum), scaling.maximum)
        elif count != memory.scale and not wish.waits and wish.desired.version not in memory.quarantine:
            details = {"from": memory.scale, "to": count, "said": "as many as run now, until the release is over"}
            found = (Transition(What.SCALED, details, reason="release", to_version=memory.stable),)

    def sized(target: Target | None) -> Target | None:
        return replace(target, spec=replace(target.spec, replicas=count)) if target is not None else None

    return replace(wish, desired=sized(wish.desired), fallback=sized(wish.fallback)), found

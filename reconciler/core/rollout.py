"""The motion of one service: the next safe steps from a sorted view, and what is waited for.

One motion serves releases, rollbacks, repairs and scaling: grow the target, put healthy instances into traffic, let
others go only when enough healthy ones serve. Nothing here knows how far an earlier cycle came: each look starts anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from reconciler.core import names
from reconciler.core.diff import View, missing, serves
from reconciler.core.errors import Reason
from reconciler.core.live import HealthStatus, ImageStatus, Instance, Phase
from reconciler.core.model import DriftPolicy
from reconciler.core.record import What
from reconciler.core.steps import (
    AttachTraffic,
    CreateInstance,
    DetachTraffic,
    KillInstance,
    PullImage,
    RemoveInstance,
    StartInstance,
    Step,
    TerminateInstance,
    Transition,
)

BACKOFF_LIMIT = timedelta(minutes=5)
LOSS_WINDOW = timedelta(minutes=10)


@dataclass
class Motion:
    """The steps found so far, what is waited for, and when to look again at the latest."""

    steps: list[Step] = field(default_factory=list)
    waits: list[str] = field(default_factory=list)
    rechecks: list[datetime] = field(default_factory=list)
    reason: Reason | None = None
    message: str = ""

    def wait(self, for_what: str, until: datetime | None = None) -> None:
        """Note a wait, and its end when it has one."""
        if for_what not in self.waits:
            self.waits.append(for_what)
        if until is not None:
            self.rechecks.append(until)


def move(view: View) -> Motion:
    """The next safe steps of one service (strategy rolling; stop-first where a host port is published)."""
    motion = Motion()
    keepers, extras = _keepers(view)
    _attach(view, keepers, motion)
    _grow(view, motion)
    leaving = [*view.stale, *reversed(extras)]
    capacity = list(view.capacity)
    for instance in leaving:
        _leave(view, instance, capacity, motion)
    return motion


def backoff(attempts: int) -> timedelta:
    """How long to wait after the given number of failures in a row: none, 1 s, 2 s, 4 s … 5 min."""
    if attempts <= 1:
        return timedelta(0)
    return min(timedelta(seconds=2 ** min(attempts - 2, 12)), BACKOFF_LIMIT)


def recent_losses(view: View) -> int:
    """How many instances of the stable version were lost in the last ten minutes."""
    return sum(1 for lost_at in view.memory.losses if lost_at > view.now - LOSS_WINDOW)


def _alive(view: View) -> list[Instance]:
    """Instances of the target that are there or coming."""
    return [i for i in view.fresh if i.phase is not Phase.EXITED and i.name not in view.memory.terminated]


def _way_back(view: View) -> list[Instance]:
    """Instances of the target that we stopped and kept: they are started again instead of made anew."""
    return [i for i in view.fresh if i.phase is Phase.EXITED and i.name in view.memory.kept]


def _keepers(view: View) -> tuple[list[Instance], list[Instance]]:
    """The fresh instances that stay, and those beyond the replicas or already on their way out."""
    candidates = [*_alive(view), *_way_back(view)]
    keepers = candidates[: view.spec.replicas]
    staying = {instance.name for instance in keepers}
    return keepers, [instance for instance in view.fresh if instance.name not in staying]


def _attach(view: View, keepers: list[Instance], motion: Motion) -> None:
    """Put healthy instances into traffic; wait for the others."""
    rollout = view.memory.rollout
    for instance in keepers:
        if instance.phase is not Phase.RUNNING or serves(instance, view.memory):
            continue
        if instance.health is not HealthStatus.HEALTHY:
            said = f" ({instance.detail})" if instance.detail else ""
            motion.wait(f"{instance.name} to become healthy{said}")
            continue
        if rollout is not None and instance.name not in rollout.healthy:
            motion.steps.append(
                Transition(What.INSTANCE_HEALTHY, {"name": instance.name}, to_version=rollout.to),
            )
        motion.steps.append(AttachTraffic(instance.name, view.spec.name))


def _grow(view: View, motion: Motion) -> None:
    """Start what is created, create what is needed, within the surge."""
    for instance in [*_alive(view), *_way_back(view)]:
        if instance.phase in (Phase.CREATED, Phase.EXITED):
            if _may_start(view, instance):
                motion.steps.append(StartInstance(instance.name))
            else:
                motion.wait(f"the host port of {view.spec.name} to become free")
    short = _shortage(view)
    if short > 0 and view.target.obstacle:
        motion.reason, motion.message = Reason.SECRET_MISSING, view.target.obstacle
        motion.wait("the secrets of this version")
        return
    if short <= 0 or not _image_ready(view, motion) or not _rested(view, motion):
        return
    for ordinal in _free_ordinals(view, min(short, _room(view))):
        name = names.instance(view.environment, view.spec.name, view.target.version, ordinal)
        motion.steps.append(
            CreateInstance(name, view.environment, view.spec, view.target.version, view.target.revision, ordinal)
        )
        if not view.spec.stop_first or not _others_running(view, name):
            motion.steps.append(StartInstance(name))


def _shortage(view: View) -> int:
    """How many instances of the target are still to be made."""
    short = view.spec.replicas - len(_alive(view)) - len(_way_back(view))
    if view.spec.drift is DriftPolicy.REPORT and not view.rolling:
        # Names of an earlier version that somebody removed say nothing about this one.
        mine = names.instance(view.environment, view.spec.name, view.target.version, 0)[:-1]
        short -= sum(name.startswith(mine) for name in missing(view.instances, view.memory))
    return short


def _room(view: View) -> int:
    """How many instances may be made now. Those that already gave up their traffic do not count."""
    if view.spec.stop_first:
        return view.spec.replicas
    going = view.memory.detached.keys() | view.memory.terminated.keys()
    stale = [i for i in view.stale if i.phase in (Phase.RUNNING, Phase.PAUSED) and i.name not in going]
    fresh = [i for i in view.fresh if i.phase is not Phase.EXITED and i.name not in going]
    # Without any surge a version that does not stop first could never be replaced: nothing may leave before it.
    surge = max(view.spec.rollout.surge, 1)
    room = view.spec.replicas + surge - len(stale) - len(fresh)
    # Where nothing serves well, the old ones stay until a new one does: however many they are, there is room for it.
    return room if view.capacity else max(room, surge - len(fresh))


def _image_ready(view: View, motion: Motion) -> bool:
    """Whether the image is there; asks for it otherwise, with backoff after failures."""
    pinned = view.spec.image.pinned
    match view.image.status:
        case ImageStatus.PRESENT:
            return True
        case ImageStatus.PULLING:
            motion.wait(f"the image {pinned}")
        case ImageStatus.ABSENT:
            if view.memory.pull_failed:
                # A newer release may have recorded a reason that this one does not know.
                known = (reason for reason in Reason if reason == view.memory.pull_failed)
                motion.reason, motion.message = next(known, Reason.IMAGE_UNAVAILABLE), view.memory.pull_said
            motion.steps.append(PullImage(pinned))
        case _:
            motion.reason, motion.message = view.image.reason, view.image.detail
            if motion.reason is not None and motion.reason != view.memory.pull_failed:
                motion.steps.append(
                    Transition(
                        What.PULL_FAILED,
                        {"image": pinned, "said": view.image.detail},
                        reason=motion.reason,
                        from_version=view.memory.stable,
                    )
                )
            again = (view.image.failed_at or view.now) + backoff(view.image.attempts + 1)
            if view.now >= again:
                motion.steps.append(PullImage(pinned))
            else:
                motion.wait(f"another try to pull {pinned}", again)
    return False


def _rested(view: View, motion: Motion) -> bool:
    """Whether a lost instance may be replaced already: the first at once, then with growing pauses."""
    losses = recent_losses(view)
    if view.rolling or losses == 0:
        return True
    again = view.memory.losses[-1] + backoff(losses)
    if view.now >= again:
        return True
    motion.wait(f"a pause after {losses} lost instances", again)
    return False


def _free_ordinals(view: View, count: int) -> list[int]:
    found: list[int] = []
    ordinal = 0
    while len(found) < count:
        name = names.instance(view.environment, view.spec.name, view.target.version, ordinal)
        if name not in view.names_taken:
            found.append(ordinal)
        ordinal += 1
    return found


def _others_running(view: View, name: str) -> bool:
    return any(i.phase in (Phase.RUNNING, Phase.PAUSED) and i.name != name for i in view.instances)


def _may_start(view: View, instance: Instance) -> bool:
    """A host port is held by one instance only: the others have to be down first."""
    return not view.spec.stop_first or not _others_running(view, instance.name)


def _leave(view: View, instance: Instance, capacity: list[Instance], motion: Motion) -> None:
    """The next step of one instance on its way out. `capacity` shrinks as instances give up their traffic."""
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
                motion.steps.append(KillInstance(instance.name))
            else:
                motion.wait(f"{instance.name} to exit", until)
        case _:
            _give_up_traffic(view, instance, capacity, motion)


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
    return not view.spec.stop_first or instance.version != _stable_version(view)


def _stable_version(view: View) -> str:
    return view.memory.stable.version if view.memory.stable else ""


def _may_detach(view: View, instance: Instance, capacity: list[Instance]) -> bool:
    """The rule that keeps the service up: enough others serve, or this one does not serve well anyway."""
    wanted = view.spec.replicas
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
        and instance.version == _stable_version(view)
        and view.spec.replicas > 0
        and len(view.fresh_capacity) < view.spec.replicas
    )
    return TerminateInstance(instance.name, keep=keep)

"""Growth: start what is made, make what is missing, as far as there is room, an image and rest after losses."""

from __future__ import annotations

from reconciler.core import names
from reconciler.core.diff import View, missing
from reconciler.core.errors import Reason
from reconciler.core.live import ImageStatus, Instance, Phase
from reconciler.core.model import DriftPolicy
from reconciler.core.motion import Motion, alive, backoff, keepers, recent_losses, way_back
from reconciler.core.record import What
from reconciler.core.steps import CreateInstance, PullImage, StartInstance, Transition


def grow(view: View, motion: Motion, room: int | None = None) -> None:
    """Start what is created, create what is needed: `room` instances at most, by default what the surge allows."""
    for instance in keepers(view)[0]:
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
    for ordinal in _free_ordinals(view, min(short, _room(view) if room is None else room)):
        name = names.instance(view.environment, view.spec.name, view.target.version, ordinal)
        motion.steps.append(
            CreateInstance(name, view.environment, view.spec, view.target.version, view.target.revision, ordinal)
        )
        if not view.spec.stop_first or not _others_running(view, name):
            motion.steps.append(StartInstance(name))


def _shortage(view: View) -> int:
    """How many instances of the target are still to be made."""
    short = view.spec.replicas - len(alive(view)) - len(way_back(view))
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
    # Where nothing may be missing and nothing may be beyond, a version could never be replaced.
    surge = max(view.spec.rollout.surge, 0 if view.spec.rollout.unavailable else 1)
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
    ordinal = view.first_ordinal
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

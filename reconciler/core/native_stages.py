"""Releases in stages on an engine with controllers of its own: canary and blue-green by groups.

The table of stages is that of `core/stages.py`. A share is given by the weights of a gateway where there is one; else a
canary's by the numbers of instances that all take the same, and the whole by the group that the address leads to.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from reconciler.core import groups, stages
from reconciler.core.diff import View
from reconciler.core.groups import WHOLE
from reconciler.core.live import Group
from reconciler.core.model import Target
from reconciler.core.motion import Motion
from reconciler.core.native import declare, lead, leave, progress


@dataclass(frozen=True, slots=True)
class _Sides:
    """The groups of both versions, and how many instances each shall have."""

    candidate: Group | None
    stable: Group | None
    mine: int
    theirs: int


def move_in_stages(view: View, fallback: Target) -> Motion:
    """The next safe steps of a candidate, and of the stable version beside it.

    The soak, the gate and the person are asked by the caller once the share of the stage is given.
    """
    motion = Motion()
    rollout, index, _, _ = stages.position(view)
    sides = _sides(view, fallback)
    grown = _has_grown(sides)
    if not grown and rollout.shifted != index and index > 0:
        # Nothing is taken from the stable version before the candidate can carry it.
        sides = replace(sides, theirs=max(sides.theirs, _size(view, index - 1)[1]))
    pinned = view.spec.scaling is not None and not view.exact
    declare(view, view.target, sides.candidate, sides.mine, motion, pinned=pinned)
    progress(view, motion)
    declare(view, fallback, sides.stable, sides.theirs, motion, pinned=pinned)
    at = index if grown or rollout.shifted == index else index - 1
    reached = index if grown and rollout.shifted != index else None
    shares, mixed = _shares(view, sides, at)
    if shares:
        shown = sides.candidate if sides.candidate is not None and sides.candidate.ready else sides.stable
        lead(view, motion, shares, mixed=mixed, shown=shown, stage=reached)
    mine = {group.name for group in (sides.candidate, sides.stable) if group is not None}
    for other in view.others:
        if other.name not in mine:
            leave(view, other, motion)
    return motion


def _sides(view: View, fallback: Target) -> _Sides:
    _, index, _, _ = stages.position(view)
    carrier = view.group
    candidate = carrier if carrier is not None and carrier.version == view.target.version else None
    beside = [group for group in (carrier, *view.others) if group is not None and group.version == fallback.version]
    stable = max(beside, key=lambda group: (group.ready, group.name), default=None)
    mine, theirs = _size(view, index)
    return _Sides(candidate, stable, mine, theirs)


def _size(view: View, index: int) -> tuple[int, int]:
    """How many instances of the candidate and of the stable version a stage has.

    At the last one the stable version keeps all of its own: it goes when the candidate is promoted.
    """
    count, stage = view.spec.replicas, view.spec.rollout.plan[index]
    if stage.weight in (0, WHOLE):
        return count, count
    if view.exact:
        return max(-(-count * stage.weight // WHOLE), 1), count
    return groups.split(count, view.spec.rollout.surge, stage.weight)


def _has_grown(sides: _Sides) -> bool:
    """Whether the candidate is as large as its stage asks for, and stands."""
    candidate = sides.candidate
    return candidate is not None and candidate.settled and candidate.ready >= sides.mine


def _shares(view: View, sides: _Sides, at: int) -> tuple[list[tuple[Group, int]], bool]:
    """The shares of the stage `at`, which is -1 before the first one, and whether all instances are alike.

    Where the stable version has nobody ready, a candidate that stands takes over.
    """
    candidate, stable = sides.candidate, sides.stable
    weight = view.spec.rollout.plan[at].weight if at >= 0 else 0
    if candidate is not None and candidate.ready and (stable is None or not stable.ready):
        weight = WHOLE
    found = [(group, share) for group, share in ((candidate, weight), (stable, WHOLE - weight)) if group is not None]
    if not any(share for _, share in found):
        return [], False
    resting = [(group, 0) for group in view.others if group not in (candidate, stable)]
    return [*found, *resting], not view.exact and 0 < weight < WHOLE

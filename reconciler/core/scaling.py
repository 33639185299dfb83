"""How many instances a service needs: what one look asks for, and what is made of the looks of some time.

It must not know where figures come from, and keeps nothing: the looks are handed in.

Source of both rules: the HorizontalPodAutoscaler of Kubernetes (`kubernetes.io`, "Algorithm details" and
"Stabilization window"): total over target, rounded up, with a tolerance of 10 %; up at once, down only to the highest
count that was asked for within the window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from reconciler.core.delivery import Scaling
from reconciler.core.quantity import duration_text

TOLERANCE = 0.1
"""How far the share of each instance may be from its target, as a part of it, before a look asks for a change."""
EVERY = timedelta(seconds=15)
"""How often demand is looked at: nothing tells of it but looking. Kubernetes does the same."""
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Demand:
    """One look at a service, summed over it.

    `sessions`: open and waiting ones; `rate`: requests per second; `cpu`: cores that the serving instances use, None
    when that is not known; `waiting`: requests that wait for an instance; `instances`: how many serve.
    """

    sessions: float
    rate: float
    cpu: float | None
    waiting: int
    instances: int

    @property
    def idle(self) -> bool:
        """Whether nobody wants anything of the service."""
        return not (self.sessions or self.rate or self.waiting)


@dataclass(frozen=True, slots=True)
class Decision:
    """How many instances there shall be, why in words, and when to look again: None when a hint will tell."""

    count: int
    said: str
    until: datetime | None


def wish(scaling: Scaling, demand: Demand) -> int | None:
    """How many instances this look alone asks for, within the limits; None: it cannot be said.

    As many as serve now, when the share of each is within `TOLERANCE` of the target. With a minimum of 0: none only
    while the service is idle, whatever its processors do, and at least one as soon as it is not.
    """
    if demand.idle and scaling.minimum == 0:
        return 0
    least = max(scaling.minimum, 0 if demand.idle else 1)
    total, target, _ = _measure(scaling, demand)
    if total is None:
        # Nothing runs that could be measured, so any instance at all is what is asked for.
        return least if demand.waiting and not demand.instances else None
    needed = total / target
    if abs(needed - demand.instances) <= TOLERANCE * demand.instances + _ROUNDING:
        count = demand.instances
    else:
        count = math.ceil(needed - _ROUNDING)
    return _within(scaling, max(count, least))


def decide(
    scaling: Scaling, current: int, wishes: Sequence[tuple[datetime, int]], now: datetime, since: datetime
) -> Decision:
    """How many instances there shall be where `current` were wanted so far.

    `wishes` are the looks in rising order of time, with the count that each asked for; of a look, a later one that
    asks for as many makes no difference. `since`: when looking began, without a gap to now. Up at once to the newest
    wish; down to the highest one of the last `stabilization`, and not before all of that time was looked at. Limits
    that changed hold at once.
    """
    current = _within(scaling, current)
    if not wishes:
        return Decision(current, _instances(current), _again(scaling, current, now))
    asked = [(at, _within(scaling, count)) for at, count in wishes]
    newest = asked[-1][1]
    if newest > current:
        return Decision(newest, _instances(newest), _again(scaling, newest, now))
    begins = now - scaling.stabilization
    highest = max((count for at, count in asked if at > begins), default=newest)
    count = min(current, highest) if since <= begins else current
    if newest == count:
        said = _instances(count)
        if count < current:
            said = f"{said}, enough for all of the last {duration_text(scaling.stabilization)}"
        return Decision(count, said, _again(scaling, count, now))
    fewer = f"{_instances(count)}, fewer only after {duration_text(scaling.stabilization)} for which that is enough"
    lasts = max([since, *(at for at, count_then in asked if count_then >= count)]) + scaling.stabilization
    return Decision(count, fewer, min(lasts, now + EVERY))


def told(scaling: Scaling, demand: Demand) -> str:
    """What a look saw, in words."""
    if demand.idle and scaling.minimum == 0:
        return "no requests"
    if not demand.instances:
        many = "1 request waits" if demand.waiting == 1 else f"{demand.waiting:,} requests wait"
        return f"{many} while no instance serves"
    total, target, what = _measure(scaling, demand)
    if total is None:
        return f"{what} not known"
    each = total / demand.instances
    where = "the only instance" if demand.instances == 1 else f"each of {demand.instances} instances"
    return f"{_number(each)} {what} at {where}, {'more than' if each > target else 'at most'} {_number(target)}"


def _measure(scaling: Scaling, demand: Demand) -> tuple[float | None, float, str]:
    """The measured total, the target for each instance, and the unit."""
    if scaling.sessions is not None:
        return demand.sessions, scaling.sessions, "sessions"
    if scaling.rate is not None:
        return demand.rate, scaling.rate, "requests per second"
    assert scaling.cpu is not None, "scaling without a target"
    return demand.cpu, scaling.cpu, "cores"


def _within(scaling: Scaling, count: int) -> int:
    return min(max(count, scaling.minimum), scaling.maximum)


def _again(scaling: Scaling, count: int, now: datetime) -> datetime | None:
    """A sleeping service is woken by the request itself, and between equal limits there is nothing to decide."""
    return now + EVERY if count and scaling.minimum < scaling.maximum else None


def _instances(count: int) -> str:
    return "1 instance" if count == 1 else f"{count or 'no'} instances"


def _number(value: float) -> str:
    return f"{value:,.2f}".rstrip("0").rstrip(".")

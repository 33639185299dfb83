"""Services at rest: what was found of them holds for as long as nothing changes of all that it was found by. Pure.

It is for engines with controllers of their own, where thousands of services are looked at again and again of which
nothing is new. A service is at rest only where time alone can change nothing: none of what is planned for one without a
rollout, a return, a drain, a lifetime or a wait asks for the time, but for losses that are forgotten after a while, and
at rest there were too few of them to matter already.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from reconciler.core.live import Group, Instance
from reconciler.core.memory import ServiceMemory
from reconciler.core.question import Question, Wish
from reconciler.core.status import ServicePlan, Sync


@dataclass(frozen=True, slots=True)
class Basis:
    """All that the plan of one service at rest is a function of."""

    parts: tuple[object, ...]
    at: datetime

    def holds(self, now: Basis) -> bool:
        """Whether what was found by this is also found by what there is `now`; never for a clock that was set back."""
        return self.at <= now.at and self.parts == now.parts


def basis(question: Question, wish: Wish, instances: tuple[Instance, ...], groups: tuple[Group, ...]) -> Basis | None:
    """By what the plan of a service is found; None where it is never kept."""
    desired, name = wish.desired, wish.name
    if question.native is None or desired is None or wish.held is not None or wish.suspended:
        return None
    if desired.spec.lifetime is not None or name in question.findings or name in question.demands:
        return None
    memory, live = question.memory.services.get(name), question.live
    image = live.images.get(desired.spec.image.pinned)
    return Basis((wish, memory, instances, groups, live.routes.get(name), image, question.native), question.now)


class Rests:
    """What was found of the services of one environment that are at rest. What a look neither recalls nor notes is
    forgotten with it."""

    def __init__(self, before: Mapping[str, tuple[Basis, ServicePlan]] | None = None) -> None:
        self._before = before or {}
        self._noted: dict[str, tuple[Basis, ServicePlan]] = {}

    def anew(self) -> Rests:
        """For the next look, which recalls what this one knew."""
        return Rests(self._noted)

    def take(self, look: Rests) -> None:
        """Know what a look knew."""
        self._noted = look._noted

    def recalled(self, name: str, now: Basis | None) -> ServicePlan | None:
        """The plan of a service, if all that it is found by is as it was."""
        known = self._before.get(name)
        if known is None or now is None or not known[0].holds(now):
            return None
        self._noted[name] = known
        return known[1]

    def note(self, now: Basis | None, found: ServicePlan, memory: ServiceMemory | None) -> None:
        """What was `found`; it is kept if only news can change it."""
        if now is not None and memory is not None and _is_at_rest(found, memory):
            self._noted[found.service] = now, found


def _is_at_rest(found: ServicePlan, memory: ServiceMemory) -> bool:
    quiet = found.sync is Sync.SYNCED and not found.steps and found.recheck_at is None
    return quiet and memory.rollout is None and memory.returning is None

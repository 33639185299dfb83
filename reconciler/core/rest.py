"""Services at which nothing is to be done: what was found of them holds for as long as nothing changes of all that it
was found by, and until the time that it named. Pure.

It is for engines with controllers of their own, where thousands of services are looked at again and again of which
nothing is new, at rest or while the engine works. A plan says at which time it would be another one without any news;
only losses are forgotten after a while without a word, and at a service in sync there were too few of them to matter.
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
    """All that the plan of one service is a function of."""

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
    targets = (desired, wish.fallback)
    images = tuple(live.images.get(target.spec.image.pinned) for target in targets if target is not None)
    able_since = question.able_since.get(name, question.up_since)
    parts = (wish, memory, instances, groups, live.routes.get(name), images, question.native)
    return Basis((*parts, able_since, question.changes_held), question.now)


class Rests:
    """What was found of the services of one environment at which nothing is to be done. What a look neither recalls nor
    notes is forgotten with it."""

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
        if known[1].recheck_at is not None and now.at >= known[1].recheck_at:
            return None
        self._noted[name] = known
        return known[1]

    def note(self, now: Basis | None, found: ServicePlan, memory: ServiceMemory | None) -> None:
        """What was `found`; it is kept if only news can change it."""
        forgets = found.sync is not Sync.SYNCED and memory is not None and bool(memory.losses)
        if now is not None and memory is not None and not found.steps and not forgets:
            self._noted[found.service] = now, found

"""What went wrong in an environment of late, and what may be tried again now. It does nothing itself.

Nothing in it matters after a restart: whatever is wrong still shows then.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import takewhile

from reconciler.backoff import Backoff, Pace
from reconciler.core.errors import Reason, ReconcilerError, Retryable
from reconciler.core.record import What
from reconciler.core.status import Plan
from reconciler.core.steps import (
    AttachTraffic,
    CreateInstance,
    EnsureGroup,
    EnsureNetwork,
    FreePlace,
    RouteGroups,
    ShiftTraffic,
    StartInstance,
    Step,
    Transition,
)


@dataclass
class Trouble:
    """How the services of an environment failed lately ("" is the environment itself): pauses between tries.

    Nothing in it matters after a restart.
    """

    backoffs: dict[str, Backoff] = field(default_factory=dict)
    errors: dict[str, ReconcilerError] = field(default_factory=dict)
    paces: dict[str, Pace] = field(default_factory=dict)
    revision: str = ""

    def holds(self, service: str, now: datetime) -> bool:
        """Whether it is too early to try again."""
        return service in self.backoffs and self.backoffs[service].holds(now)

    def over(self, service: str) -> None:
        """Nothing is wrong with it any more."""
        self.backoffs.pop(service, None)
        self.errors.pop(service, None)

    def due(self, found: Plan, now: datetime) -> Mapping[str, Sequence[Step]]:
        """The steps of each service that can be tried now. Without their network no instance is made or started."""
        alone = "" in self.errors and any(isinstance(step, EnsureNetwork) for step in found.steps)
        steps = {name: self.paced(name, plan.steps, now)[0] for name, plan in found.services.items()}
        if alone:
            steps = {name: tuple(takewhile(_needs_no_network, mine)) for name, mine in steps.items()}
        return {name: mine for name, mine in steps.items() if mine and not self.holds(name, now)}

    def paced(self, service: str, steps: Sequence[Step], now: datetime) -> tuple[Sequence[Step], datetime | None]:
        """The steps up to the first one that was repeated too often of late, and until when that one waits."""
        pace = self.paces.get(service)
        if pace is None:
            return steps, None
        found = []
        for step in steps:
            until = pace.until(_key(step), now)
            if until is None:
                found.append(step)
            elif not isinstance(step, Transition) or step.what is not What.DRIFT_FOUND:
                return found, until
        return found, None

    def did(self, service: str, steps: Sequence[Step], now: datetime) -> None:
        """Note steps that are tried now."""
        pace = self.paces.setdefault(service, Pace())
        for step in steps:
            pace.did(_key(step), now)


PLACES = "*"
"""Instead of a service: the places in the proxies that belong to nobody. Whatever else is in trouble, they go first."""


def steps_of(found: Plan, name: str) -> Sequence[Step]:
    """The steps of a service, of the environment itself (""), or those that free PLACES."""
    if name == PLACES:
        return [step for step in found.steps if isinstance(step, FreePlace)]
    if not name:
        return [step for step in found.steps if not isinstance(step, FreePlace)]
    return found.services[name].steps if name in found.services else ()


def in_vain(step: Step) -> Retryable:
    """What is said of a step that was repeated too often."""
    kind, name = (step.what, "") if isinstance(step, Transition) else (type(step).__name__, getattr(step, "name", ""))
    return Retryable(
        Reason.ENGINE_REFUSED,
        f"{kind} {name} is done again and again, and each time it is undone at once",
        remedy="look for what else acts on the engine; it is tried again with growing pauses",
    )


def _key(step: Step) -> Hashable:
    """What makes a step the same one as another."""
    if isinstance(step, Transition):
        which = tuple(str(step.details.get(key, "")) for key in ("name", "stage", "to"))
        return step.what, which, step.to_version
    if isinstance(step, ShiftTraffic | FreePlace):
        return step
    if isinstance(step, RouteGroups):
        return type(step), step.name, step.shares, step.mixed, step.stage
    if isinstance(step, EnsureGroup):
        return type(step), step.name, step.version, step.replicas
    return type(step), getattr(step, "name", "") or getattr(step, "image", "")


def _needs_no_network(step: Step) -> bool:
    return not isinstance(step, CreateInstance | StartInstance | AttachTraffic)

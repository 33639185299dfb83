"""What a motion is made of: the steps found so far, what is waited for, and small questions that several stages ask."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from reconciler.core.diff import View
from reconciler.core.errors import Reason
from reconciler.core.live import Instance, Phase
from reconciler.core.steps import Step

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

    def quiet(self, until: datetime) -> None:
        """Look again then; until then all is as it should be."""
        self.rechecks.append(until)


def backoff(attempts: int) -> timedelta:
    """How long to wait after the given number of failures in a row: none, 1 s, 2 s, 4 s … 5 min."""
    if attempts <= 1:
        return timedelta(0)
    return min(timedelta(seconds=2 ** min(attempts - 2, 12)), BACKOFF_LIMIT)


def recent_losses(view: View) -> int:
    """How many instances of the stable version were lost in the last ten minutes."""
    return sum(1 for lost_at in view.memory.losses if lost_at > view.now - LOSS_WINDOW)


def alive(view: View) -> list[Instance]:
    """Instances of the target that are there or coming."""
    return [i for i in view.fresh if i.phase is not Phase.EXITED and i.name not in view.memory.terminated]


def way_back(view: View) -> list[Instance]:
    """Instances of the target that we stopped and kept: they are started again instead of made anew."""
    return [i for i in view.fresh if i.phase is Phase.EXITED and i.name in view.memory.kept]


def keepers(view: View) -> tuple[list[Instance], list[Instance]]:
    """The fresh instances that stay, and those beyond the replicas or already on their way out."""
    staying = [*alive(view), *way_back(view)][: view.spec.replicas]
    names = {instance.name for instance in staying}
    return staying, [instance for instance in view.fresh if instance.name not in names]


def stable_version(view: View) -> str:
    """The version that is stable, "" for none."""
    return view.memory.stable.version if view.memory.stable else ""

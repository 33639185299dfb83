"""The pure world of `scene.py` on an engine with controllers of its own: the plan, the fold and a fake cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta

from reconciler.core.errors import Retryable
from reconciler.core.fold import remember
from reconciler.core.gate import GateFinding
from reconciler.core.memory import EnvironmentMemory, ServiceMemory
from reconciler.core.model import Port, Target
from reconciler.core.plan import plan
from reconciler.core.question import Native, Question, Wish
from reconciler.core.record import Entry, What
from reconciler.core.rest import Rests
from reconciler.core.status import Plan, ServicePlan
from reconciler.core.steps import RouteGroups, Step, Transition
from reconciler.execute import describe
from tests.support.fake_cluster import FakeCluster, FakeClusterRuntime
from tests.support.fake_engine import HandClock
from tests.support.scene import ENVIRONMENT, target

PORTS = (Port("http", 8080),)


@dataclass
class NativeScene:
    """One service `web`. `rounds` lets time pass second by second; `watch` is called after each step.

    At each look the plan is made twice, with what is kept of services at rest and without it: it must be the same.
    """

    gateway: bool = False
    common: dict[str, object] = field(default_factory=lambda: {"ports": PORTS, "replicas": 2})
    wanted: Target | None = None
    memory: EnvironmentMemory = field(default_factory=EnvironmentMemory)
    known: dict[str, Target] = field(default_factory=dict)
    finding: GateFinding | None = None
    log: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    watch: Callable[[NativeScene], None] = lambda scene: None
    unreadable: bool = False

    def __post_init__(self) -> None:
        self.clock = HandClock()
        self.cluster = FakeCluster(self.clock, gateway=self.gateway)
        self.runtime = FakeClusterRuntime(self.cluster)
        self.rests = Rests()

    def commit(self, letter: str, **changes: object) -> Target:
        """A commit of this image's letter; what is given here holds for the commits after it, too."""
        self.common |= changes
        self.wanted = target(letter, f"r-{letter}", **self.common)
        self.known[self.wanted.version] = self.wanted
        return self.wanted

    def question(self) -> Question:
        """What a look comes to now."""
        wishes = {}
        if self.wanted is not None:
            stable = self.memory.services.get("web", ServiceMemory()).stable
            known = self.known.get(stable.version) if stable is not None and not self.unreadable else None
            fallback = replace(known, spec=known.spec.operated_as(self.wanted.spec)) if known else None
            wishes["web"] = Wish("web", self.wanted, fallback)
        live = self.runtime.observe(ENVIRONMENT, {}, sorted({t.spec.image.pinned for t in self.known.values()}))
        return Question(
            ENVIRONMENT,
            None,
            wishes,
            live,
            self.memory,
            self.clock.now(),
            findings={} if self.finding is None else {"web": self.finding},
            native=Native(gateway=self.gateway),
        )

    def look(self) -> Plan:
        question = self.question()
        found = plan(question, self.rests)
        assert found == plan(question), "what was kept of a service at rest is not so any more"
        return found

    @property
    def service(self) -> ServicePlan:
        return self.look().services["web"]

    @property
    def web(self) -> ServiceMemory:
        return self.memory.services.get("web", ServiceMemory())

    def step(self) -> bool:
        """One round: all that the plan says."""
        found = self.look()
        mine = found.services["web"].steps if "web" in found.services else ()
        for service, step in [*(("", step) for step in found.steps), *(("web", step) for step in mine)]:
            self.do(step, service)
            self.watch(self)
        return bool(found.steps or mine)

    def do(self, step: Step, service: str = "web") -> None:
        if isinstance(step, Transition):
            self.log.append(step.what.value)
            self._record(
                step.what,
                service,
                reason=step.reason,
                details=step.details,
                from_version=step.from_version,
                to_version=step.to_version,
            )
            return
        self._record(What.INTENT, service, details=dict(describe(step)))
        self.log.append(type(step).__name__)
        try:
            self.runtime.apply(step)  # type: ignore[arg-type]
        except Retryable as error:
            self._record(What.FAILED, service, reason=error.reason, details=dict(describe(step)))
            return
        self._record(What.DONE, service, details=dict(describe(step)))
        if isinstance(step, RouteGroups):
            self.splits.append(self.split())

    def _record(self, what: What, service: str, **changes: object) -> None:
        entry = Entry(self.clock.now(), what, ENVIRONMENT, service)
        self.memory = remember(self.memory, replace(entry, **changes))  # type: ignore[arg-type]

    def rounds(self, seconds: int) -> None:
        """So many seconds, a round at each."""
        for _ in range(seconds):
            while self.step():
                pass
            self.clock.advance(timedelta(seconds=1))
            self.watch(self)

    def settle(self, seconds: int = 900) -> None:
        """Rounds until nothing happened for half a minute."""
        quiet = 0
        for _ in range(seconds):
            quiet = 0 if self.step() else quiet + 1
            if quiet > 30 and self.service.sync.value == "Synced":
                return
            if quiet > 400:
                return
            self.clock.advance(timedelta(seconds=1))
            self.watch(self)
        raise AssertionError("it does not settle: " + " ".join(self.log[-30:]))

    def until(self, word: str, seconds: int = 300) -> None:
        """Single steps up to the first one that does or records `word`."""
        self.log.clear()
        for _ in range(seconds):
            for step in (*self.look().steps, *self.service.steps):
                self.do(step)
                if word in self.log:
                    return
            self.clock.advance(timedelta(seconds=1))
            self.watch(self)
        raise AssertionError(f"no {word}: " + " ".join(self.log[-30:]))

    def split(self) -> str:
        """Who gets which share: `a 95 b 5`."""
        return " ".join(f"{letter} {share:g}" for letter, share in self.cluster.receiving("web").items())

    def groups(self) -> dict[str, str]:
        """The deployments, and the letters they declare."""
        return {name: each.effect.spec.image.digest[-1] for name, each in sorted(self.cluster.deployments.items())}


def native(letter: str = "a", *, gateway: bool = False, **changes: object) -> NativeScene:
    """A cluster in which the version of this letter is stable."""
    scene = NativeScene(gateway)
    scene.commit(letter, **changes)
    scene.settle()
    assert scene.service.sync.value == "Synced", scene.service
    scene.log.clear()
    scene.splits.clear()
    return scene


def never_down(scene: NativeScene) -> None:
    """A watch: somebody who is ready gets the requests."""
    assert scene.cluster.receiving("web"), " ".join(scene.log[-20:])

"""The pure world of `scene.py` with a proxy in front of the service: tables, sessions, gates and demand as values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta

from reconciler.core import names, proxy_config
from reconciler.core.analysis import Verdict
from reconciler.core.delivery import Gate, Rollout, Route, Stage, Strategy, WarmRequest, WarmUp
from reconciler.core.errors import ReconcilerError
from reconciler.core.freeze import Held
from reconciler.core.gate import GateFinding
from reconciler.core.live import HealthStatus, Instance, LiveState, Phase, ServerMode, Warmth, WarmthStatus
from reconciler.core.memory import ServiceMemory
from reconciler.core.proxy_config import RouteWish
from reconciler.core.question import ProxyWish, Question, Wish
from reconciler.core.scaling import Decision
from reconciler.core.steps import (
    CutSessions,
    EnsureProxy,
    FreePlace,
    ShiftTraffic,
    StartInstance,
    Step,
    TerminateInstance,
    WarmInstance,
)
from reconciler.core.traffic import joined
from tests.support.fake_traffic import FakeTraffic
from tests.support.scene import ENVIRONMENT, Scene

BACKEND = names.backend(ENVIRONMENT, "web")
ROUTE = Route(8080)
CANARY = Rollout(
    Strategy.CANARY,
    progress_deadline=timedelta(minutes=5),
    stages=(Stage(5, timedelta(seconds=10)), Stage(50, timedelta(seconds=10))),
)
BLUE_GREEN = Rollout(Strategy.BLUE_GREEN, progress_deadline=timedelta(minutes=5), hold=timedelta(minutes=5))
GATED = replace(CANARY, gate=Gate())
ROLLING = Rollout(progress_deadline=timedelta(minutes=5))
SLOW = replace(CANARY, soak=timedelta(seconds=60))
HELD = replace(CANARY, hold=timedelta(minutes=5))
WARM = WarmUp((WarmRequest("/"),), relative=2.0)
FAIL = GateFinding(Verdict.FAIL, "errors 9% > 1%", {"errors": {"verdict": "fail"}})
HOLD = GateFinding(Verdict.HOLD, "too few requests", {"errors": {"verdict": "hold"}})
PASS = GateFinding(Verdict.PASS, "no difference", {"errors": {"verdict": "pass"}})


@dataclass
class Fronted(Scene):
    """A scene whose service has a route. `cold`: versions whose warm-up fails; `common`: what all commits declare."""

    proxies: int = 1
    has_proxies: bool = True
    finding: GateFinding | None = None
    demand: Decision | None = None
    held: Held | None = None
    cold: set[str] = field(default_factory=set)
    shifts: list[str] = field(default_factory=list)
    common: dict[str, object] = field(default_factory=dict)
    failures: list[ReconcilerError] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.traffic = FakeTraffic(proxies=self.proxies, alive=self._answers)
        self._addresses = 0

    def commit(self, letter: str, **changes: object) -> str:
        """A commit of this image's letter; what is given here holds for the commits after it, too. The version."""
        self.common |= changes
        self.want(letter, **self.common)
        assert self.wanted is not None
        return self.wanted.version

    def step(self) -> bool:
        """One round, as the loop does it: what fails ends the steps of the environment or of the service."""
        found = self.look()
        mine = found.services["web"].steps if "web" in found.services else ()
        for service, steps in (("", found.steps), ("web", mine)):
            for step in steps:
                try:
                    self.do(step, service)
                except ReconcilerError as error:
                    self.failures.append(error)
                    break
                self.watch(self)
        self.live()
        return bool(found.steps or mine)

    def until(self, word: str) -> None:
        """One step after the other up to the first one that does or records `word`."""
        self.log.clear()
        for _ in range(200):
            steps = (*self.look().steps, *self.service.steps)
            if steps:
                self.do(steps[0], "web" if steps[0] in self.service.steps else "")
            else:
                self.live()
            if word in self.log:
                return
        raise AssertionError(f"no {word}: " + " ".join(self.log[-30:]))

    def rounds(self, number: int, *, each: float = 0.0) -> None:
        """So many rounds, `each` seconds apart."""
        for _ in range(number):
            self.step()
            self.later(each)

    def later(self, seconds: float) -> None:
        """Time passes, and nothing else happens."""
        self.now += timedelta(seconds=seconds)

    def rest(self) -> None:
        """Rounds at this very moment, until nothing is left to do now."""
        for _ in range(50):
            if not self.step():
                return
        raise AssertionError("it does not come to rest: " + " ".join(self.log[-30:]))

    @property
    def path(self) -> list[str]:
        """The shares that were given one after the other, each change once."""
        return [share for before, share in zip(["", *self.shifts], self.shifts, strict=False) if share != before]

    def of(self, letter: str, *, baseline: bool = False) -> list[Instance]:
        """The instances of an image's letter."""
        found = [i for i in self.instances.values() if i.image.endswith(letter)]
        return [i for i in found if (i.ordinal >= names.BASELINE) is baseline]

    def sessions(self, instance: Instance, number: int) -> None:
        """So many requests or websockets are open at an instance."""
        self.traffic.set_sessions(ENVIRONMENT, BACKEND, self.at(instance), number)

    def returning(self, instance: Instance, number: int) -> None:
        """So many clients of older workers may still come to an instance."""
        self.traffic.set_returning(ENVIRONMENT, BACKEND, self.at(instance), number)

    def place(self, instance: Instance) -> str:
        """How the first proxy treats an instance: `ready 100`, `drain 100`, `maint 0`, `no place`."""
        held = self.traffic.proxies(ENVIRONMENT)[0].backends[BACKEND].held.get(self.at(instance))
        return f"{held.mode} {held.weight}" if held is not None else "no place"

    def die(self, instance: Instance, code: int = 1) -> None:
        """An instance ends by itself, and with it its address."""
        self.change(instance.name, phase=Phase.EXITED, exit_code=code, serving=False, address="")

    def joined(self) -> LiveState:
        """The instances with what the proxies show of them."""
        live = LiveState(ENVIRONMENT, self.now, tuple(self.instances.values()))
        return joined(live, self.traffic.observe(ENVIRONMENT), {"web"})

    @property
    def web(self) -> ServiceMemory:
        """What the journal knows of the service."""
        return self.memory.services["web"]

    def _answers(self, address: str, port: int) -> bool:
        return any(i.address == address and i.phase is Phase.RUNNING for i in self.instances.values())

    def question(self, wishes: dict[str, Wish], live: LiveState) -> Question:
        known = self.memory.services.get("web")
        if not wishes and known is not None and known.stable is not None:
            wishes = {"web": Wish("web", fallback=self.known[known.stable.version])}
        routes = {
            name: RouteWish(name, chosen.spec.route, 8)
            for name, wish in wishes.items()
            if (chosen := wish.desired or wish.fallback) is not None and chosen.spec.route is not None
        }
        config = proxy_config.render(ENVIRONMENT, proxy_config.Front(), routes)
        return replace(
            super().question(
                wishes, joined(live, self.traffic.observe(ENVIRONMENT) if self.has_proxies else None, routes.keys())
            ),
            front=ProxyWish(config.digest, config.text) if self.has_proxies else None,
            findings={} if self.finding is None else {"web": self.finding},
            demands={} if self.demand is None else {"web": self.demand},
            changes_held=self.held,
        )

    def effect(self, step: Step) -> None:
        match step:
            case ShiftTraffic():
                for share in step.shares:
                    known = self.instances[share.name]
                    sick = known.health is HealthStatus.UNHEALTHY and known not in self.taking()
                    assert share.mode is not ServerMode.READY or not sick, "traffic to a sick instance"
                self.log.append("ShiftTraffic")
                self.traffic.apply(ENVIRONMENT, step)
                if not step.name.endswith(".preview"):
                    self.shifts.append(self.split())
                self.check()
            case EnsureProxy() | CutSessions() | FreePlace():
                self.log.append(type(step).__name__)
                self.traffic.apply(ENVIRONMENT, step)
            case TerminateInstance(name):
                self.check_stop(name)
                super().effect(step)
            case WarmInstance(name):
                self.log.append("WarmInstance")
                self.change(name, warmth=Warmth(WarmthStatus.RUNNING))
            case StartInstance(name):
                super().effect(step)
                self._addresses += 1
                self.change(name, address=f"10.0.0.{self._addresses}", warmth=None)
            case _:
                super().effect(step)
        for name, instance in self.instances.items():
            if instance.phase is Phase.EXITED and instance.address:
                self.change(name, address="")

    def live(self) -> None:
        super().live()
        for name, instance in list(self.instances.items()):
            if instance.phase is Phase.EXITED and instance.address:
                self.change(name, address="")
            if instance.warmth is not None and instance.warmth.status is WarmthStatus.RUNNING:
                failed = instance.version in self.cold
                status = WarmthStatus.FAILED if failed else WarmthStatus.WARM
                self.change(name, warmth=Warmth(status, 20, 0.01, "too slow" if failed else "warm"))

    def at(self, instance: Instance) -> tuple[str, int]:
        return instance.address, 8080

    def taking(self) -> list[Instance]:
        """The instances that get new requests."""
        held = self.traffic.proxies(ENVIRONMENT)[0].backends.get(BACKEND)
        if held is None or not self.has_proxies:
            return []
        return [
            i
            for i in self.instances.values()
            if i.address
            and (place := held.held.get(self.at(i))) is not None
            and place.mode is ServerMode.READY
            and place.weight > 0
        ]

    def split(self) -> str:
        """The share of each image's letter in per cent: `a 95 b 5`."""
        held = self.traffic.proxies(ENVIRONMENT)[0].backends[BACKEND].held
        weights: dict[str, int] = {}
        for instance in self.taking():
            letter = instance.image[-1]
            weights[letter] = weights.get(letter, 0) + held[self.at(instance)].weight
        total = sum(weights.values())
        return " ".join(f"{letter} {round(100 * weights[letter] / total)}" for letter in sorted(weights))

    def check(self) -> None:
        """Requests never go to nobody's address once there was traffic: what all these tests are about."""
        for instance in self.taking():
            assert instance.phase is Phase.RUNNING

    def check_stop(self, name: str) -> None:
        """What is told to stop has no requests, and gets none."""
        instance = self.instances[name]
        assert instance.name not in [i.name for i in self.taking()], "stopped in traffic"
        assert not instance.serving, "stopped while it is found by name"
        known = self.memory.services["web"]
        since = known.detached.get(name)
        drain = self.known[instance.version].spec.drain if self.wanted is None else self.wanted.spec.drain
        if since is not None and self.now >= since + drain.deadline + drain.tail:
            return
        for proxy in self.traffic.proxies(ENVIRONMENT):
            assert not proxy.sessions.get((BACKEND, self.at(instance)), 0), "stopped with open requests"

    def serving(self) -> list[str]:
        return sorted(i.image[-1] for i in self.taking() if i.health is HealthStatus.HEALTHY)


def fronted(letter: str = "a", **changes: object) -> Fronted:
    """A world in which the version of this letter is stable behind a proxy."""
    scene = Fronted(None, common={"route": ROUTE, "replicas": 2})
    scene.commit(letter, **changes)
    scene.settle()
    assert scene.service.sync.value == "Synced", scene.service
    scene.log.clear()
    scene.shifts.clear()
    return scene


def released(weight: int, rollout: Rollout = SLOW, **changes: object) -> Fronted:
    """A release of b that has this share of the traffic now, and soaks."""
    scene = fronted(rollout=rollout, **changes)
    scene.finding = PASS if rollout.gate else None
    scene.commit("b")
    for _ in range(6):
        scene.rest()
        if f"b {weight}" in scene.split():
            scene.shifts.clear()
            scene.log.clear()
            return scene
        scene.later(10)
    raise AssertionError(scene.shifts)


def fewest(number: int) -> Callable[[Fronted], None]:
    """A watch: so many healthy instances have traffic at any time."""

    def look(scene: Fronted) -> None:
        assert len(scene.serving()) >= number, " ".join(scene.log[-20:])

    return look

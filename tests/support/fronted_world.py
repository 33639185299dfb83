"""A whole fleet behind proxies in memory: the real loop and planner, on proxies that outlive it as they do in truth.

Requests are modelled as numbers: whoever has traffic has sessions, and they end some seconds after it lost it. What has
to hold at every moment stands in `fronted_laws.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from reconciler.core import names
from reconciler.core.live import HealthStatus, Phase, Served, ServerMode
from reconciler.core.manifest import Fleet, parse
from reconciler.core.model import DesiredState, Health, ServiceSpec
from reconciler.core.policy import Allow
from reconciler.core.record import Entry
from reconciler.core.steps import Effect, ShiftTraffic, TrafficEffect
from reconciler.desire import ENTRIES_KEPT, Recent
from reconciler.loop import Cycle
from reconciler.ports import Cause
from reconciler.settings import EnvironmentSettings, ProxySettings, Settings
from tests.support.fake_engine import AFTER, BEFORE, FakeContainer, FakeEngine
from tests.support.fake_runtime import FakeRuntime
from tests.support.fake_traffic import At, FakeProxy, FakeTraffic
from tests.support.fronted_laws import Laws
from tests.support.world import DIRECTORY, ENVIRONMENT, SCHEMAS, World, settings

ROLLING = "{strategy: rolling, progressDeadline: 5m}"
CANARY = """{strategy: canary, progressDeadline: 5m, hold: 4s,
    steps: [{weight: 20, soak: 3s}, {weight: 50, soak: 3s}]}"""
GATED = """{strategy: canary, progressDeadline: 5m, hold: 4s, gate: {against: baseline, minimumRequests: 50},
    steps: [{weight: 25, soak: 3s}]}"""
BLUE_GREEN = "{strategy: blueGreen, progressDeadline: 5m, preview: {soak: 2s}, soak: 2s, hold: 12s}"
RECREATE = "{strategy: recreate, progressDeadline: 5m}"
WEB = names.backend(ENVIRONMENT, "web")
POOL = 40
PARSED = Recent(ENTRIES_KEPT)
ALLOW = Allow(host_ports=((8000, 9000),), proxy=True, volumes=True)


def manifest(name: str, letter: str, replicas: int = 2, rollout: str = ROLLING, extra: str = "") -> bytes:
    """A service behind the proxy, whose image is told by one hexadecimal letter. `replicas` -1: `extra` scales it."""
    shown = f"  preview: next.{name}.test\n" if "blueGreen" in rollout else ""
    return f"""apiVersion: reconciler.dev/v1
kind: Service
metadata:
  name: {name}
spec:
  image: registry.test/app:1@sha256:{letter * 64}
{f"  replicas: {replicas}" if replicas >= 0 else ""}
  health:
    http: {{port: 8080, path: /healthz}}
    interval: 1s
    startup: 6s
  drain: {{deadline: 4s, grace: 4s, tail: 4s}}
  rollout: {rollout}
  traffic:
    port: 8080
    hosts: [{name}.test]
  {shown}
{extra}""".encode()


def fronted_settings() -> Settings:
    """The settings of `world.py` with a proxy in front of the environment."""
    plain = settings(concurrency=1)
    found: dict[str, EnvironmentSettings] = {
        name: replace(each, allow=ALLOW, proxy=ProxySettings(http=("127.0.0.1", 8080)))
        for name, each in plain.environments.items()
    }
    return replace(plain, environments=found)


class FreshRuntime(FakeRuntime):
    """A runtime that knows no health yet when its daemon starts: its checks have to be made first."""

    def __init__(self, engine: FakeEngine) -> None:
        super().__init__(engine)
        self._began = engine.clock.monotonic()

    def _health(self, container: FakeContainer, health: Health) -> tuple[HealthStatus, str]:
        status, said = super()._health(container, health)
        known = self.engine.clock.monotonic() - self._began >= health.interval.total_seconds()
        return (status, said) if known or status is HealthStatus.STARTING else (HealthStatus.STARTING, "")


class WatchedTraffic(FakeTraffic):
    """Proxies at which every effect can be met by the fault of the world, as those on the engine are."""

    def __init__(self, proxies: int, alive: Callable[[str, int], bool], fault: Callable[[str, Effect], None]) -> None:
        super().__init__(proxies=proxies, alive=alive)
        self._fault = fault

    def apply(self, environment: str, effect: TrafficEffect) -> None:
        self._fault(BEFORE, effect)
        super().apply(environment, effect)
        self._fault(AFTER, effect)


@dataclass
class FrontedWorld(World):
    """What outlives the daemon, and the daemon. `lingers`: for how many seconds the last requests at an instance go
    on after it lost its traffic. `failing`: the images, by letter, half of whose answers are errors. `asleep`: nobody
    wants anything. `fault` is asked before and after each effect of the daemon, once the laws were looked at.
    """

    proxies: int = 1
    lingers: int = 2
    failing: set[str] = field(default_factory=set)
    asleep: bool = False
    fault: Callable[[str, object], None] = lambda moment, what: None

    def __post_init__(self) -> None:
        self.traffic = WatchedTraffic(self.proxies, self._answers, self._met)
        self.laws = Laws(self)
        self._ending: dict[tuple[int, str, At], float] = {}
        self._states: dict[str, DesiredState] = {}
        super().__post_init__()
        self.engine.fault = self._met
        self.disk.fault = self._written
        self.engine.address = self._address  # type: ignore[method-assign]

    def around(self) -> dict[str, Any]:
        runtimes = {"local": FreshRuntime(self.engine)}
        return {"settings": fronted_settings(), "runtimes": runtimes, "traffic": self.traffic}

    def boot(self) -> None:
        """A new daemon; the proxies go on meanwhile."""
        super().boot()
        # What was parsed once is the same in every world: that saves most of the time of a new daemon.
        self.reconciler._desire._files = PARSED

    def _address(self) -> str:
        """The next free one of a few: an address that one had is soon another's, as in an engine."""
        taken = {c.address for c in self.engine.containers.values() if c.phase in (Phase.RUNNING, Phase.PAUSED)}
        while True:
            self.engine.addresses += 1
            found = f"10.0.0.{2 + self.engine.addresses % POOL}"
            if found not in taken:
                return found

    def at(self, address: str) -> FakeContainer | None:
        """The container that has an address."""
        alive = (Phase.RUNNING, Phase.PAUSED)
        return next((c for c in self.engine.containers.values() if c.phase in alive and c.address == address), None)

    def _answers(self, address: str, port: int) -> bool:
        found = self.at(address)
        return found is not None and found.phase is Phase.RUNNING

    def _written(self, moment: str, entries: tuple[Entry, ...]) -> None:
        self.fault(moment, entries)

    def _met(self, moment: str, effect: Effect) -> None:
        (self.laws.before if moment == BEFORE else self.laws.after)(effect)
        self.fault(moment, effect)

    def declared(self, service: str) -> ServiceSpec | None:
        """What the revision in use, or the last good one, says of a service; None when it is not declared."""
        memory = self.journal.memory(ENVIRONMENT)
        sha = memory.good.get(service, memory.admitted)
        if sha and sha not in self._states:
            _, tree = self.repository.commits[sha]
            files = {path: f"{hash(body)}" for path, body in tree.items() if path.startswith(DIRECTORY)}
            fleet = Fleet(DIRECTORY, files, lambda path: tree[path])  # type: ignore[return-value, arg-type]
            revision = self.repository.commits[sha][0]
            state = parse(ENVIRONMENT, revision, fleet, schemas=SCHEMAS, allow=ALLOW, cache=PARSED)
            assert isinstance(state, DesiredState), state
            self._states[sha] = state
        return self._states[sha].services.get(service) if sha else None

    def tables(self) -> list[FakeProxy]:
        """The proxies of the environment."""
        return self.traffic.proxies(ENVIRONMENT)

    def cycle(self) -> Cycle:
        cycle = super().cycle()
        if cycle.result == "synced":
            self.laws.at_rest()
        return cycle

    def tell(self) -> Cycle:
        """One reconcile that a hint causes: no look at Git."""
        self.clock.advance(timedelta(milliseconds=1))
        return self.reconciler.reconcile(ENVIRONMENT, [Cause("proxy", self.clock.now())])

    def wait(self, seconds: float = 1) -> None:
        """Time passes: requests are made, and old ones end."""
        self.clock.advance(timedelta(seconds=seconds))
        self.engine.settle()
        for index, proxy in enumerate(self.tables()):
            for name, backend in proxy.backends.items():
                for at, held in list(backend.held.items()):
                    takes = held.mode is ServerMode.READY and held.weight > 0 and not name.endswith(".preview")
                    self._serve(index, name, at, held.weight if takes and self._answers(*at) else 0, seconds)
        self.laws.passed()

    def _serve(self, index: int, name: str, at: At, weight: int, seconds: float) -> None:
        proxy, place, now = self.tables()[index], (name, at), self.clock.elapsed
        if not self._answers(*at):
            self.traffic.set_sessions(ENVIRONMENT, name, at, 0, index)
            return
        if not weight or self.asleep:
            if self.asleep or now >= self._ending.get((index, *place), 0):
                self.traffic.set_sessions(ENVIRONMENT, name, at, 0, index)
            return
        self._ending[index, *place] = now + self.lingers
        self.traffic.set_sessions(ENVIRONMENT, name, at, 2, index)
        known, count = proxy.served.get(place, Served()), round(weight * seconds)
        box = self.at(at[0])
        bad = box is not None and box.spec.image.pinned[-1] in self.failing
        self.traffic.count(
            ENVIRONMENT, name, at, Served(known.requests + count, known.errors + (count // 2 if bad else 0)), index
        )

    def settle(self, quiet: float = 25, limit: float = 1800) -> Cycle:
        """Reconcile until nothing was done for so many seconds, all in sync; time goes on by the second."""
        end, still = self.clock.elapsed + limit, 0.0
        while self.clock.elapsed < end:
            cycle = self.cycle()
            calm = not cycle.steps_done and cycle.result == "synced"
            due = (cycle.recheck_at - self.clock.now()).total_seconds() if cycle.recheck_at else 10.0
            step = min(max(due, 1.0), 10.0) if calm else 1.0
            still = still + step if calm else 0.0
            if still > quiet:
                return cycle
            self.wait(step)
        raise AssertionError(f"it does not settle: {cycle.status}")

    def serving(self, service: str = "web") -> list[str]:
        """The images, by letter, of the healthy instances that get requests from every proxy."""
        return sorted(box.spec.image.pinned[-1] for box in self.laws.serving(service))

    def shares(self, index: int = 0, service: str = "web") -> Mapping[str, float]:
        """The share of the traffic in per cent, by the letter of the image."""
        return self.laws.shares(service, index)

    def shifts(self) -> list[ShiftTraffic]:
        """All tables that were made, but for those of previews."""
        return [e for e in self.traffic.applied if isinstance(e, ShiftTraffic) and not e.name.endswith(".preview")]


def fronted(proxies: int = 1, **services: bytes) -> FrontedWorld:
    """A world that is in sync with these services."""
    world = FrontedWorld(proxies=proxies)
    world.commit(**(services or {"web": manifest("web", "a")}))
    world.settle()
    return world

"""The world of `world.py` on an engine with controllers of its own: the real loop over a fake cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from reconciler.core.policy import Allow
from reconciler.loop import Cycle, House, Reconciler
from reconciler.ports import Cause
from reconciler.settings import EnvironmentSettings, GatewaySettings, KubernetesSettings, RepositorySettings, Settings
from tests.support.fake_cluster import FakeCluster, FakeClusterRuntime
from tests.support.fake_engine import HandClock
from tests.support.fake_journal import FakeJournal, JournalDisk
from tests.support.fake_source import FakeRepository, FakeSource
from tests.support.runtime_house import Nothing
from tests.support.world import DIRECTORY, ENVIRONMENT, ENVIRONMENT_FILE, SCHEMAS

ROLLING = "{strategy: rolling, progressDeadline: 5m}"
CANARY = "{strategy: canary, progressDeadline: 5m, steps: [{weight: 20, soak: 5s}, {weight: 50, soak: 5s}]}"
BLUE_GREEN = "{strategy: blueGreen, progressDeadline: 5m, hold: 30s}"
RECREATE = "{strategy: recreate, progressDeadline: 5m}"


def manifest(letter: str, rollout: str, replicas: int = 4, extra: str = "") -> bytes:
    """The service `web`, whose image is told by one hexadecimal letter."""
    return f"""apiVersion: reconciler.dev/v1
kind: Service
metadata:
  name: web
spec:
  image: registry.test/app:1@sha256:{letter * 64}
  replicas: {replicas}
  ports: [{{name: http, container: 8080}}]
  health:
    http: {{port: 8080, path: /healthz}}
    interval: 1s
    startup: 20s
  drain: {{deadline: 3s, grace: 8s}}
  rollout: {rollout}
{extra}""".encode()


def settings(*, gateway: bool) -> Settings:
    """One environment on one cluster."""
    return Settings(
        file=Path("reconciler.yaml"),
        data=Path("data"),
        journal="",
        repositories={"fleet": RepositorySettings("fleet", "https://git.test/fleet.git")},
        environments={
            ENVIRONMENT: EnvironmentSettings(
                ENVIRONMENT,
                "fleet",
                "cluster",
                DIRECTORY,
                allow=Allow(native=True, gateway=gateway, namespace=ENVIRONMENT),
                namespace=ENVIRONMENT,
                gateway=GatewaySettings("front") if gateway else None,
            )
        },
        runtimes={"cluster": KubernetesSettings("cluster")},
        concurrency=1,
    )


@dataclass
class NativeWorld:
    """What outlives the daemon, and the daemon. `fault(moment, what)` is called around each append and each effect."""

    gateway: bool = False
    clock: HandClock = field(default_factory=HandClock)
    repository: FakeRepository = field(default_factory=FakeRepository)
    disk: JournalDisk = field(default_factory=JournalDisk)
    fault: Callable[[str, object], None] = lambda moment, what: None
    law: Callable[[NativeWorld], None] = lambda world: None

    def __post_init__(self) -> None:
        self.cluster = FakeCluster(self.clock, gateway=self.gateway)
        self.cluster.fault = self._around
        self.source = FakeSource(self.clock, "fleet")
        self.source.repositories["fleet"] = self.repository
        self.boot()

    def _around(self, moment: str, what: object) -> None:
        self.law(self)
        self.fault(moment, what)

    def boot(self) -> None:
        """A new daemon."""
        self.disk.crash()
        self.journal = FakeJournal.open(self.disk, self.clock, "test", act=True)
        house = House(
            settings=settings(gateway=self.gateway),
            source=self.source,
            runtimes={"cluster": FakeClusterRuntime(self.cluster)},
            journal=self.journal,
            secrets=Nothing(),
            clock=self.clock,
            schemas=SCHEMAS,
            uniform=lambda low, high: low,
        )
        self.reconciler = Reconciler(house)

    def commit(self, body: bytes | None) -> None:
        """One commit: the service `web`, or none."""
        self.repository.commit({f"{DIRECTORY}/environment.yaml": ENVIRONMENT_FILE, f"{DIRECTORY}/web.yaml": body})

    def cycle(self) -> Cycle:
        """One reconcile, as a poll causes it."""
        self.clock.advance(timedelta(milliseconds=1))
        return self.reconciler.reconcile(ENVIRONMENT, [Cause("poll", self.clock.now(), git=True)])

    def wait(self, seconds: float) -> None:
        """Time passes."""
        for _ in range(int(seconds)):
            self.clock.advance(timedelta(seconds=1))
            self.cluster.work()
            self.law(self)

    def drive(self, seconds: int = 900) -> Cycle:
        """Reconcile until in sync for a while, or until nothing happened for a minute."""
        quiet = 0
        for _ in range(seconds):
            cycle = self.cycle()
            quiet = 0 if cycle.steps_done else quiet + 1
            if quiet > 90 or (quiet > 40 and cycle.result == "synced"):
                return cycle
            self.wait(1)
        raise AssertionError(f"it does not settle: {cycle.status}")

    def split(self) -> dict[str, float]:
        """Who gets which share of the requests, by letter."""
        return self.cluster.receiving("web")

    def letters(self) -> list[str]:
        """What the deployments declare."""
        return sorted(each.effect.spec.image.digest[-1] for each in self.cluster.deployments.values())

    def told(self) -> list[str]:
        """The records, by kind."""
        return [record.entry.what.value for record in self.disk.records]

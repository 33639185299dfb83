"""The world of `world.py` on an engine with controllers of its own: the real loop over a fake cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from reconciler.core.policy import Allow
from reconciler.loop import Cycle
from reconciler.settings import EnvironmentSettings, GatewaySettings, KubernetesSettings, Settings
from tests.support import world
from tests.support.fake_cluster import FakeCluster, FakeClusterRuntime
from tests.support.world import DIRECTORY, ENVIRONMENT, ENVIRONMENT_FILE, Looped

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
    environment = EnvironmentSettings(
        ENVIRONMENT,
        "fleet",
        "cluster",
        DIRECTORY,
        allow=Allow(native=True, gateway=gateway, namespace=ENVIRONMENT),
        namespace=ENVIRONMENT,
        gateway=GatewaySettings("front") if gateway else None,
    )
    runtimes = {"cluster": KubernetesSettings("cluster")}
    return replace(world.settings(concurrency=1), environments={ENVIRONMENT: environment}, runtimes=runtimes)


@dataclass
class NativeWorld(Looped):
    """What outlives the daemon, and the daemon. `fault(moment, what)` is called around each append and each effect."""

    gateway: bool = False
    fault: Callable[[str, object], None] = lambda moment, what: None
    law: Callable[[NativeWorld], None] = lambda world: None

    def __post_init__(self) -> None:
        self.cluster = FakeCluster(self.clock, gateway=self.gateway)
        self.cluster.fault = self._around
        super().__post_init__()

    def _around(self, moment: str, what: object) -> None:
        self.law(self)
        self.fault(moment, what)

    def around(self) -> dict[str, Any]:
        runtimes = {"cluster": FakeClusterRuntime(self.cluster)}
        return {"settings": settings(gateway=self.gateway), "runtimes": runtimes}

    def commit(self, body: bytes | None) -> None:
        """One commit: the service `web`, or none."""
        self.repository.commit({f"{DIRECTORY}/environment.yaml": ENVIRONMENT_FILE, f"{DIRECTORY}/web.yaml": body})

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

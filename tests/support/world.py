"""A whole fleet in memory: the real loop, planner and journal chain over fake Git, engine and disk, on a hand clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from reconciler.core.policy import Allow
from reconciler.loop import Cycle, House, Reconciler
from reconciler.ports import Cause
from reconciler.schemas import load_schemas
from reconciler.settings import DockerSettings, EnvironmentSettings, RepositorySettings, Settings
from tests.support.fake_journal import FakeJournal, JournalDisk
from tests.support.fake_runtime import FakeEngine, FakeRuntime, HandClock
from tests.support.fake_source import FakeRepository, FakeSource
from tests.support.runtime_house import Nothing

ENVIRONMENT = "prod"
DIRECTORY = f"environments/{ENVIRONMENT}"
SCHEMAS = load_schemas()


class DiedError(BaseException):
    """The daemon's end, at a place that a test chose."""


def image(letter: str) -> str:
    return f"registry.test/app@sha256:{letter * 64}"


def manifest(name: str, letter: str, replicas: int = 2, extra: str = "") -> bytes:
    """A service whose image is told by one hexadecimal letter."""
    return f"""apiVersion: reconciler.dev/v1
kind: Service
metadata:
  name: {name}
spec:
  image: registry.test/app:1@sha256:{letter * 64}
  replicas: {replicas}
  health:
    http: {{port: 8080, path: /healthz}}
    interval: 1s
    startup: 20s
  drain: {{deadline: 5s, grace: 8s}}
  rollout: {{strategy: rolling, progressDeadline: 5m}}
{extra}""".encode()


ENVIRONMENT_FILE = f"""apiVersion: reconciler.dev/v1
kind: Environment
metadata:
  name: {ENVIRONMENT}
spec: {{}}
""".encode()


def settings(**changes: object) -> Settings:
    return Settings(
        file=Path("reconciler.yaml"),
        data=Path("data"),
        journal="",
        repositories={"fleet": RepositorySettings("fleet", "https://git.test/fleet.git")},
        environments={
            ENVIRONMENT: EnvironmentSettings(
                ENVIRONMENT, "fleet", "local", DIRECTORY, allow=Allow(host_ports=((8000, 9000),))
            )
        },
        runtimes={"local": DockerSettings("local")},
        **changes,  # type: ignore[arg-type]
    )


@dataclass
class Looped:
    """The real loop over what outlives the daemon: fake Git and a disk. What it acts on is each world's own."""

    clock: HandClock = field(default_factory=HandClock)
    repository: FakeRepository = field(default_factory=FakeRepository)
    disk: JournalDisk = field(default_factory=JournalDisk)
    news: Callable[[], bool] = lambda: False

    def __post_init__(self) -> None:
        self.source = FakeSource(self.clock, "fleet")
        self.source.repositories["fleet"] = self.repository
        self.boot()

    def around(self) -> dict[str, Any]:
        """The settings, the runtimes, and what else is the world's own of a daemon's House."""
        raise NotImplementedError

    def boot(self) -> None:
        """A new daemon."""
        self.disk.crash()
        self.journal = FakeJournal.open(self.disk, self.clock, "test", act=True)
        house = House(
            source=self.source,
            journal=self.journal,
            secrets=Nothing(),
            clock=self.clock,
            schemas=SCHEMAS,
            uniform=lambda low, high: low,
            **self.around(),
        )
        self.reconciler = Reconciler(house, lambda _environment: self.news())

    def cycle(self) -> Cycle:
        """One reconcile, as a poll causes it."""
        self.clock.advance(timedelta(milliseconds=1))
        return self.reconciler.reconcile(ENVIRONMENT, [Cause("poll", self.clock.now(), git=True)])

    def told(self) -> list[str]:
        """The records, by kind."""
        return [record.entry.what.value for record in self.disk.records]


@dataclass
class World(Looped):
    """What outlives the daemon, and the daemon. `drive` lets it work until nothing is left to do."""

    def __post_init__(self) -> None:
        self.engine = FakeEngine(self.clock, registry={image(letter): None for letter in "abcdef"})
        super().__post_init__()

    def around(self) -> dict[str, Any]:
        return {"settings": settings(concurrency=1), "runtimes": {"local": FakeRuntime(self.engine)}}

    def commit(self, **services: bytes | None) -> str:
        """One commit: services by name (None removes it)."""
        files = {f"{DIRECTORY}/{name}.yaml": body for name, body in services.items()}
        return self.repository.commit({f"{DIRECTORY}/environment.yaml": ENVIRONMENT_FILE, **files})

    def drive(self, seconds: int = 900) -> Cycle:
        """Reconcile until in sync, or until nothing happened for a minute; time passes by the second."""
        quiet = 0
        for _ in range(seconds):
            cycle = self.cycle()
            quiet = 0 if cycle.steps_done else quiet + 1
            if quiet > 60 or (quiet > 1 and cycle.result == "synced"):
                return cycle
            self.clock.advance(timedelta(seconds=1))
        raise AssertionError(f"it does not settle: {cycle.status}")

    def serving(self, service: str = "web") -> list[str]:
        """The images, by letter, of the healthy instances in traffic."""
        live = FakeRuntime(self.engine).observe(ENVIRONMENT, {}, ())
        found = [i for i in live.instances if i.service == service and i.serving]
        return sorted(instance.image[-1] for instance in found)

"""The in-memory world of `FakeRuntime`: it outlives the runtimes that look at it, as an engine outlives the daemon.

Time is that of the given clock only. Instances behave as `sample-repo/services/hello` does, by the same environment
variables, set in the spec or for a whole image in `behaviour`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from reconciler.core.errors import Reason
from reconciler.core.live import Difference, Foreign, ImageState, ImageStatus, Phase
from reconciler.core.model import ServiceSpec
from reconciler.core.steps import CreateInstance, RuntimeEffect
from reconciler.ports import Clock

BEFORE, AFTER = "before", "after"
START = datetime(2026, 1, 1, tzinfo=UTC)


class HandClock:
    """A clock that moves only when told."""

    def __init__(self, start: datetime = START) -> None:
        self.at = start
        self.elapsed = 0.0

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.elapsed

    def advance(self, by: timedelta) -> None:
        self.at += by
        self.elapsed += by.total_seconds()


@dataclass
class FakeContainer:
    """One container; `owner` and `environment` are its labels, `asked` the requests it got since it was started."""

    effect: CreateInstance
    owner: str
    serial: int
    created_at: datetime
    env: Mapping[str, str]
    called: str
    phase: Phase = Phase.CREATED
    started_at: datetime | None = None
    finished_at: datetime | None = None
    exit_code: int | None = None
    oom_killed: bool = False
    attached: bool = False
    term_at: datetime | None = None
    differences: list[Difference] = field(default_factory=list)
    address: str = ""
    asked: int = 0

    @property
    def spec(self) -> ServiceSpec:
        return self.effect.spec

    def setting(self, name: str, otherwise: int) -> int:
        return int(self.env.get(name) or otherwise)


@dataclass
class FakeVolume:
    """A volume that outlives instances: whose it is, and what is in it."""

    owner: str
    files: dict[str, bytes] = field(default_factory=dict)


@dataclass
class FakeEngine:
    """The world. `fault(moment, effect)` is called before and after each effect takes hold, and may raise.

    `registry` holds the pinned images that can be pulled, or the reason why one cannot; `pull_takes` how long. `cpu` is
    what each instance of a service uses, in cores. `due` are the hints of times to come.
    """

    clock: Clock
    registry: dict[str, Reason | None] = field(default_factory=dict)
    behaviour: dict[str, Mapping[str, str]] = field(default_factory=dict)
    pull_takes: timedelta = timedelta()
    fault: Callable[[str, RuntimeEffect], None] = lambda moment, effect: None
    reachable: bool = True
    containers: dict[str, FakeContainer] = field(default_factory=dict)
    present: set[str] = field(default_factory=set)
    pulls: dict[str, datetime] = field(default_factory=dict)
    failed: dict[str, ImageState] = field(default_factory=dict)
    networks: dict[str, str] = field(default_factory=dict)
    foreign: dict[str, list[Foreign]] = field(default_factory=dict)
    orphans: dict[str, set[str]] = field(default_factory=dict)
    volumes: dict[str, FakeVolume] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    due: list[tuple[datetime, str, str]] = field(default_factory=list)
    watchers: list[Callable[[str, str], None]] = field(default_factory=list)
    serial: int = 0
    addresses: int = 0

    def tell(self, environment: str, detail: str) -> None:
        """A hint to every watcher."""
        for watcher in list(self.watchers):
            watcher(environment, detail)

    def by_name(self, name: str) -> FakeContainer | None:
        """The container of an instance, also when it was renamed."""
        exact = self.containers.get(name)
        return exact or next((c for c in self.containers.values() if c.effect.name == name), None)

    def address(self) -> str:
        """An address that nobody had before."""
        self.addresses += 1
        return f"10.{self.addresses >> 16 & 255}.{self.addresses >> 8 & 255}.{self.addresses & 255}"

    def end(self, container: FakeContainer, code: int, at: datetime) -> None:
        """The container's program ended."""
        container.phase, container.exit_code, container.finished_at = Phase.EXITED, code, at
        self.tell(container.effect.environment, f"container {container.called} die")

    def settle(self) -> None:
        """Let happen what is due by now."""
        now = self.clock.now()
        for image, due in list(self.pulls.items()):
            if due <= now:
                del self.pulls[image]
                reason = self.registry.get(image, Reason.IMAGE_NOT_FOUND)
                if reason is None:
                    self.present.add(image)
                    self.failed.pop(image, None)
                else:
                    attempts = self.failed[image].attempts if image in self.failed else 0
                    self.failed[image] = ImageState(ImageStatus.FAILED, reason, "the pull failed", due, attempts + 1)
                for environment in self.networks:
                    self.tell(environment, f"pull of {image}")
        for container in self.containers.values():
            self._settle(container, now)
        told = [one for one in self.due if one[0] <= now]
        self.due = [one for one in self.due if one[0] > now]
        for _, environment, detail in told:
            self.tell(environment, detail)

    def _settle(self, container: FakeContainer, now: datetime) -> None:
        if container.phase is not Phase.RUNNING or container.started_at is None:
            return
        life = container.setting("EXIT_AFTER_MS", -1)
        due = container.started_at + timedelta(milliseconds=life)
        if life >= 0 and now >= due:
            self.end(container, container.setting("EXIT_CODE", 1), due)
        elif container.term_at is not None and not container.setting("IGNORE_TERM", 0):
            self.end(container, 0, container.term_at)

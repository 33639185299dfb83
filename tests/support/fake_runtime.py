"""An in-memory, deterministic `ports.Runtime`: for unit speed, and for the simulation.

`FakeEngine` is the world and outlives the runtimes that look at it, as an engine outlives the daemon. Time is that of
the given clock only. Instances behave as `sample-repo/services/hello` does, by the same environment variables, set in
the spec or for a whole image in `behaviour`. tests/contract/test_runtime.py holds it to the real one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import assert_never

from reconciler.core import names
from reconciler.core.errors import Reason, Retryable, Stalled
from reconciler.core.live import (
    Difference,
    Foreign,
    HealthStatus,
    ImageState,
    ImageStatus,
    Instance,
    LiveState,
    Phase,
)
from reconciler.core.model import Health, ServiceSpec
from reconciler.core.steps import (
    AttachTraffic,
    CreateInstance,
    DetachTraffic,
    Effect,
    EnsureNetwork,
    KillInstance,
    PullImage,
    RemoveInstance,
    StartInstance,
    SweepOrphan,
    TerminateInstance,
)
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
    """One container; `owner` and `environment` are its labels."""

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

    @property
    def spec(self) -> ServiceSpec:
        return self.effect.spec

    def setting(self, name: str, otherwise: int) -> int:
        return int(self.env.get(name) or otherwise)


@dataclass
class FakeEngine:
    """The world. `fault(moment, effect)` is called before and after each effect takes hold, and may raise.

    `registry` holds the pinned images that can be pulled, or the reason why one cannot; `pull_takes` how long.
    """

    clock: Clock
    registry: dict[str, Reason | None] = field(default_factory=dict)
    behaviour: dict[str, Mapping[str, str]] = field(default_factory=dict)
    pull_takes: timedelta = timedelta()
    fault: Callable[[str, Effect], None] = lambda moment, effect: None
    reachable: bool = True
    containers: dict[str, FakeContainer] = field(default_factory=dict)
    present: set[str] = field(default_factory=set)
    pulls: dict[str, datetime] = field(default_factory=dict)
    failed: dict[str, ImageState] = field(default_factory=dict)
    networks: dict[str, str] = field(default_factory=dict)
    foreign: dict[str, list[Foreign]] = field(default_factory=dict)
    orphans: dict[str, set[str]] = field(default_factory=dict)
    watchers: list[Callable[[str, str], None]] = field(default_factory=list)
    serial: int = 0

    def tell(self, environment: str, detail: str) -> None:
        """A hint to every watcher."""
        for watcher in list(self.watchers):
            watcher(environment, detail)

    def by_name(self, name: str) -> FakeContainer | None:
        """The container of an instance, also when it was renamed."""
        exact = self.containers.get(name)
        return exact or next((c for c in self.containers.values() if c.effect.name == name), None)

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

    def _settle(self, container: FakeContainer, now: datetime) -> None:
        if container.phase is not Phase.RUNNING or container.started_at is None:
            return
        life = container.setting("EXIT_AFTER_MS", -1)
        due = container.started_at + timedelta(milliseconds=life)
        if life >= 0 and now >= due:
            self.end(container, container.setting("EXIT_CODE", 1), due)
        elif container.term_at is not None and not container.setting("IGNORE_TERM", 0):
            self.end(container, 0, container.term_at)


class FakeRuntime:
    """`ports.Runtime` on a `FakeEngine`."""

    def __init__(self, engine: FakeEngine, owner: str = "default") -> None:
        self.engine = engine
        self.owner = owner
        self._notify: Callable[[str, str], None] | None = None

    def observe(self, environment: str, checks: Mapping[str, Health], images: Sequence[str]) -> LiveState:
        self._reach()
        engine = self.engine
        engine.settle()
        mine = [c for c in engine.containers.values() if self._owns(c) and c.effect.environment == environment]
        return LiveState(
            environment=environment,
            observed_at=engine.clock.now(),
            instances=tuple(
                self._instance(c, checks.get(c.effect.version, Health()))
                for c in sorted(mine, key=lambda c: c.effect.name)
            ),
            images={image: self._image(image) for image in images},
            foreign=(*engine.foreign.get(environment, ()), *self._squatters(environment)),
            orphans=tuple(sorted(engine.orphans.get(environment, ()))),
            network_ready=engine.networks.get(environment) == self.owner,
        )

    def _owns(self, container: FakeContainer) -> bool:
        return container.owner == self.owner

    def _squatters(self, environment: str) -> list[Foreign]:
        return [
            Foreign(c.called, Reason.DRIFT_UNLABELLED, "another owner's")
            for c in self.engine.containers.values()
            if c.effect.environment == environment and not self._owns(c)
        ]

    def _image(self, image: str) -> ImageState:
        engine = self.engine
        if image in engine.pulls:
            return ImageState(ImageStatus.PULLING)
        if image in engine.present:
            return ImageState(ImageStatus.PRESENT)
        return engine.failed.get(image, ImageState(ImageStatus.ABSENT))

    def _instance(self, container: FakeContainer, health: Health) -> Instance:
        effect = container.effect
        differences = list(container.differences)
        if container.called != effect.name:
            differences.append(Difference(Reason.DRIFT_CHANGED, f"name: {effect.name} -> {container.called}"))
        if container.phase is Phase.RUNNING and container.finished_at is not None:
            differences.append(Difference(Reason.DRIFT_RESTARTED, "it was stopped and started again"))
        status, detail = self._health(container, health)
        return Instance(
            id=f"{container.serial:064x}",
            name=effect.name,
            service=effect.spec.name,
            version=effect.version,
            revision=effect.revision,
            ordinal=effect.ordinal,
            image=effect.spec.image.pinned,
            phase=container.phase,
            created_at=container.created_at,
            started_at=container.started_at,
            finished_at=container.finished_at,
            health=status,
            serving=container.attached and container.phase in (Phase.RUNNING, Phase.PAUSED),
            exit_code=container.exit_code if container.phase is Phase.EXITED else None,
            oom_killed=container.oom_killed,
            differences=tuple(differences),
            detail=detail,
        )

    def _health(self, container: FakeContainer, health: Health) -> tuple[HealthStatus, str]:
        if container.phase is Phase.EXITED:
            return HealthStatus.STARTING, f"it ended with exit code {container.exit_code}"
        if container.phase is not Phase.RUNNING or container.started_at is None:
            return HealthStatus.STARTING, ""
        age = self.engine.clock.now() - container.started_at
        if health.check is None:
            due = health.interval * health.healthy_after
            return (HealthStatus.HEALTHY if age >= due else HealthStatus.STARTING), ""
        sick = container.setting("UNHEALTHY_AFTER_MS", -1)
        ready = timedelta(milliseconds=container.setting("START_DELAY_MS", 0))
        if sick >= 0 and age >= timedelta(milliseconds=sick) + health.interval * health.unhealthy_after:
            return HealthStatus.UNHEALTHY, "the check answered 503"
        if not container.setting("UNHEALTHY", 0) and age >= ready:
            return HealthStatus.HEALTHY, ""
        late = age >= health.startup
        return (HealthStatus.UNHEALTHY if late else HealthStatus.STARTING), "the check answered 503"

    def apply(self, effect: Effect) -> None:
        self._reach()
        self.engine.settle()
        self.engine.fault(BEFORE, effect)
        self._do(effect)
        self.engine.settle()
        self.engine.fault(AFTER, effect)

    def _do(self, effect: Effect) -> None:
        engine, now = self.engine, self.engine.clock.now()
        match effect:
            case EnsureNetwork():
                if engine.networks.setdefault(effect.environment, self.owner) != self.owner:
                    raise Stalled(Reason.NAME_TAKEN, "the network is not ours", where=effect.environment)
            case PullImage():
                if effect.image not in engine.present and effect.image not in engine.pulls:
                    engine.pulls[effect.image] = now + engine.pull_takes
            case CreateInstance():
                self._create(effect)
            case SweepOrphan():
                for orphans in engine.orphans.values():
                    orphans.discard(effect.name)
            case _:
                self._do_to_instance(effect, now)
        environment = effect.environment if isinstance(effect, CreateInstance | EnsureNetwork) else ""
        name = getattr(effect, "name", "")
        engine.tell(environment or _environment(name), f"{type(effect).__name__} {name}")

    def _do_to_instance(
        self,
        effect: StartInstance | AttachTraffic | DetachTraffic | TerminateInstance | KillInstance | RemoveInstance,
        now: datetime,
    ) -> None:
        match effect:
            case StartInstance():
                self._start(self._must(effect.name), now)
            case AttachTraffic():
                container = self._must(effect.name)
                if container.phase not in (Phase.RUNNING, Phase.PAUSED):
                    raise Retryable(Reason.INSTANCE_EXITED, "it does not run", where=effect.name)
                container.attached = True
            case DetachTraffic():
                found = self._find(effect.name)
                if found is not None:
                    found.attached = False
            case TerminateInstance() | KillInstance():
                self._signal(self._find(effect.name), now, kill=isinstance(effect, KillInstance))
            case RemoveInstance():
                found = self._find(effect.name)
                if found is not None:
                    del self.engine.containers[found.called]
            case _:
                assert_never(effect)

    def _create(self, effect: CreateInstance) -> None:
        engine = self.engine
        if _environment(effect.name) != effect.environment:
            raise Stalled(Reason.NOT_OWNED, "the name belongs to another environment", where=effect.name)
        known = engine.containers.get(effect.name)
        squats = any(f.name == effect.name for f in engine.foreign.get(effect.environment, ()))
        if squats or (known is not None and (not self._owns(known) or known.effect.version != effect.version)):
            raise Stalled(Reason.NAME_TAKEN, "the name is taken by something that is not ours", where=effect.name)
        if known is not None:
            return
        if effect.spec.image.pinned not in engine.present:
            raise Retryable(Reason.IMAGE_UNAVAILABLE, "the engine does not have the image", where=effect.name)
        engine.serial += 1
        env = {**engine.behaviour.get(effect.spec.image.pinned, {}), **effect.spec.env}
        engine.containers[effect.name] = FakeContainer(
            effect, self.owner, engine.serial, engine.clock.now(), env, effect.name
        )

    def _start(self, container: FakeContainer, now: datetime) -> None:
        if container.phase in (Phase.RUNNING, Phase.PAUSED):
            return
        held = {(p.address, p.host) for p in container.spec.ports if p.host is not None}
        for other in self.engine.containers.values():
            if other.phase is Phase.RUNNING and held & {(p.address, p.host) for p in other.spec.ports}:
                raise Stalled(Reason.PORT_TAKEN, "a host port is in use", where=container.called)
        container.phase, container.started_at, container.attached = Phase.RUNNING, now, False
        container.term_at = container.exit_code = None

    def _signal(self, container: FakeContainer | None, now: datetime, *, kill: bool) -> None:
        if container is None or container.phase not in (Phase.RUNNING, Phase.PAUSED):
            return
        if kill:
            self.engine.end(container, 137, now)
        else:
            container.term_at = now

    def _find(self, name: str) -> FakeContainer | None:
        environment = _environment(name)
        found = self.engine.by_name(name)
        squats = any(f.name == name for f in self.engine.foreign.get(environment, ()))
        mine = found is None or (self._owns(found) and found.effect.environment == environment)
        if not environment or squats or not mine:
            raise Stalled(Reason.NOT_OWNED, f"{name} does not carry our labels", remedy="Rename it by hand")
        return found

    def _must(self, name: str) -> FakeContainer:
        found = self._find(name)
        if found is None:
            raise Retryable(Reason.DRIFT_MISSING, "there is no such instance", where=name)
        return found

    def _reach(self) -> None:
        if not self.engine.reachable:
            raise Retryable(Reason.ENGINE_UNREACHABLE, "the engine does not answer", remedy="Start it")

    def logs(self, name: str, lines: int) -> tuple[str, ...]:
        self._reach()
        container = self._find(name)
        if container is None or container.started_at is None or lines <= 0:
            return ()
        version = container.env.get("VERSION", container.spec.image.tag or "")
        count = container.setting("LOG_LINES", 0)
        said = [f"line {i + 1} of hello {version}" for i in range(count)] + [f"hello {version} listens on 8080"]
        return tuple(said[-lines:])

    def watch(self, notify: Callable[[str, str], None]) -> None:
        self._notify = notify
        self.engine.watchers.append(notify)

    def close(self) -> None:
        if self._notify is not None and self._notify in self.engine.watchers:
            self.engine.watchers.remove(self._notify)


def _environment(name: str) -> str:
    parts = name.split(".")
    return parts[1] if len(parts) == 5 and parts[0] == names.PREFIX else ""

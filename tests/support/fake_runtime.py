"""An in-memory, deterministic `ports.Runtime`: for unit speed, and for the simulation.

It looks at a `FakeEngine`, the world. tests/contract/test_runtime.py holds it to the real one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
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
    Warmth,
    WarmthStatus,
)
from reconciler.core.model import Health
from reconciler.core.steps import (
    AttachTraffic,
    CreateInstance,
    DetachTraffic,
    EnsureGroup,
    EnsureNetwork,
    KillInstance,
    PruneGroup,
    PullImage,
    RemoveGroup,
    RemoveInstance,
    RemoveRoute,
    RouteGroups,
    RuntimeEffect,
    StartInstance,
    SweepOrphan,
    TerminateInstance,
    WarmInstance,
)
from tests.support.fake_engine import AFTER, BEFORE, START, FakeContainer, FakeEngine, FakeVolume, HandClock
from tests.support.fake_warmup import outcome, usual

__all__ = ["START", "FakeEngine", "FakeRuntime", "HandClock"]

HOST = "10.255.255.254"


class FakeRuntime:
    """`ports.Runtime` on a `FakeEngine`."""

    def __init__(self, engine: FakeEngine, owner: str = "default") -> None:
        self.engine = engine
        self.owner = owner
        self._notify: Callable[[str, str], None] | None = None
        self._warmths: dict[tuple[int, datetime | None], tuple[datetime, Warmth]] = {}
        self._metered: set[int] = set()

    def observe(
        self, environment: str, checks: Mapping[str, Health], images: Sequence[str], metered: Collection[str] = ()
    ) -> LiveState:
        self._reach()
        engine = self.engine
        engine.settle()
        mine = [c for c in engine.containers.values() if self._owns(c) and c.effect.environment == environment]
        return LiveState(
            environment=environment,
            observed_at=engine.clock.now(),
            instances=tuple(
                self._instance(c, checks.get(c.effect.version, Health()), metered)
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

    def _instance(self, container: FakeContainer, health: Health, metered: Collection[str]) -> Instance:
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
            address=self._address(container),
            warmth=self._warmth(container),
            cpu=self._cpu(container, metered),
        )

    def _address(self, container: FakeContainer) -> str:
        if container.phase not in (Phase.RUNNING, Phase.PAUSED):
            return ""
        return HOST if container.spec.security.host_network else container.address

    def _warmth(self, container: FakeContainer) -> Warmth | None:
        known = self._warmths.get((container.serial, container.started_at))
        if known is None or container.phase is not Phase.RUNNING:
            return None
        due, warmth = known
        return warmth if due <= self.engine.clock.now() else Warmth(WarmthStatus.RUNNING)

    def _cpu(self, container: FakeContainer, metered: Collection[str]) -> float | None:
        """Not known at the first look, as it is the difference of two."""
        if container.effect.spec.name not in metered or container.phase is not Phase.RUNNING:
            self._metered.discard(container.serial)
            return None
        known = container.serial in self._metered
        self._metered.add(container.serial)
        return self.engine.cpu.get(container.effect.spec.name, 0.0) if known else None

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

    def apply(self, effect: RuntimeEffect) -> None:
        self._reach()
        self.engine.settle()
        self.engine.fault(BEFORE, effect)
        self._do(effect)
        self.engine.settle()
        self.engine.fault(AFTER, effect)

    def _do(self, effect: RuntimeEffect) -> None:
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
            case WarmInstance():
                self._warm(effect, now)
            case EnsureGroup() | PruneGroup() | RemoveGroup() | RouteGroups() | RemoveRoute():
                raise TypeError(f"an engine without controllers knows no groups: {effect}")
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

    def _warm(self, effect: WarmInstance, now: datetime) -> None:
        container = self._must(effect.name)
        if container.phase is not Phase.RUNNING:
            raise Retryable(Reason.INSTANCE_EXITED, "it does not run", where=effect.name)
        key = (container.serial, container.started_at)
        if key in self._warmths:
            return
        beside = self._find(effect.beside) if effect.beside else None
        there = beside is not None and beside.phase is Phase.RUNNING
        seconds, warmth = outcome(container, effect.warm_up, usual(beside) if beside is not None and there else None)
        due = now + timedelta(seconds=seconds)
        self._warmths[key] = due, warmth
        self.engine.due.append((due, container.effect.environment, f"{effect.name} is {warmth.status}"))

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
        for volume in effect.spec.volumes:
            name = names.volume(effect.environment, effect.spec.name, volume.name)
            if engine.volumes.setdefault(name, FakeVolume(self.owner)).owner != self.owner:
                raise Stalled(Reason.NAME_TAKEN, "the volume's name is taken by what is not ours", where=name)
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
        container.address, container.asked = self.engine.address(), 0

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

"""The Docker runtime: `ports.Runtime` on one Docker Engine. The parts are in the modules `docker_*` beside this one.

Nothing is remembered that the engine cannot show: this object can be lost at any time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from reconciler.adapters import docker_observe
from reconciler.adapters.docker_connection import Connection, NotFound, engine_errors
from reconciler.adapters.docker_create import ROLE_FILLER
from reconciler.adapters.docker_effects import Effects
from reconciler.adapters.docker_events import CHANGES, TOUCHES, Event, Events
from reconciler.adapters.docker_filesystem import Filesystems
from reconciler.adapters.docker_images import Images
from reconciler.adapters.docker_meter import Meter
from reconciler.adapters.docker_network import Network
from reconciler.adapters.docker_observe import Inspections, Seen, Told
from reconciler.adapters.docker_ownership import Ownership
from reconciler.adapters.docker_reach import LOOPBACK, Execs, target
from reconciler.adapters.docker_warmth import Warming
from reconciler.adapters.probes import Prober, once
from reconciler.core import names
from reconciler.core.health import HealthState
from reconciler.core.live import Foreign, LiveState, Phase, Warmth
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
from reconciler.ports import Clock, Secrets
from reconciler.settings import DockerSettings

PROBES_AT_ONCE = 16


@dataclass(slots=True)
class _Surroundings:
    """What is beside the instances of an environment; looked up at the start, when doubted, and every `relist`."""

    foreign: tuple[Foreign, ...] = ()
    volumes: tuple[str, ...] = ()
    network_ready: bool = False
    host: str = LOOPBACK
    looked_at: float = 0.0
    doubted: bool = True


class DockerRuntime:
    """`ports.Runtime`. With `single_probe`, `observe` itself checks each running instance once, and one success is
    enough: for commands that do not stay; nothing is warmed up then. `owner` is the installation's name on labels."""

    def __init__(
        self, settings: DockerSettings, owner: str, secrets: Secrets, clock: Clock, *, single_probe: bool = False
    ) -> None:
        self._clock = clock
        self._single_probe = single_probe
        self._relist = settings.relist.total_seconds()
        self._connection = Connection(settings)
        self._owned = Ownership(self._connection, owner)
        self._network = Network(self._owned)
        self._images = Images(self._connection, clock, self._tell_all)
        self._effects = Effects(self._owned, self._network, self._images, secrets)
        self._inspections = Inspections(self._owned)
        self._filesystems = Filesystems(self._connection, self._writable, self._filesystem_changed)
        self._events = Events(self._connection, self._event, self._connected, self._lost)
        self._execs = Execs(self._connection)
        self._prober = Prober(clock, self._execs.check, self._health_changed, PROBES_AT_ONCE)
        self._warming = Warming(self._owned, self._warmed)
        self._meter = Meter(self._connection)
        self._lock = threading.Lock()
        self._surroundings: dict[str, _Surroundings] = {}
        self._creating: set[str] = set()
        self._notify: Callable[[str, str], None] | None = None

    def observe(
        self, environment: str, checks: Mapping[str, Health], images: Sequence[str], metered: Collection[str] = ()
    ) -> LiveState:
        """`ports.Runtime.observe`. While the events flow, an unchanged container costs its line in a list."""
        with self._network.lock(environment):
            around = self._look_around(environment)
            population = self._inspections.population(environment, fresh=not self._events.connected)
        if around.doubted:
            self._survey(environment, around, [seen.base.name for seen in population.seen.values()])
        seen = population.seen
        states = self._healths(environment, seen, checks)
        changed = self._changed(environment, seen)
        warmths = self._warming.warmths(environment, seen)
        running = [i for i, one in seen.items() if one.base.phase is Phase.RUNNING and one.base.service in metered]
        cores = self._meter.cores(environment, running)
        instances = [
            self._inspections.instance(
                identity,
                one,
                Told(
                    states.get(identity, HealthState()),
                    changed[identity],
                    self._images.id_of(one.base.image),
                    around.host,
                    warmths[identity],
                    cores.get(identity),
                ),
            )
            for identity, one in seen.items()
        ]
        return LiveState(
            environment=environment,
            observed_at=self._clock.now(),
            instances=tuple(sorted(instances, key=lambda instance: instance.name)),
            images=self._images.states(images),
            foreign=(*around.foreign, *population.mislabelled),
            orphans=tuple(sorted({*population.orphans, *around.volumes})),
            network_ready=around.network_ready,
        )

    def _look_around(self, environment: str) -> _Surroundings:
        """The surroundings, marked for a new look when they are old; then every container is inspected anew too."""
        with self._lock:
            around = self._surroundings.setdefault(environment, _Surroundings())
        old = time.monotonic() - around.looked_at > self._relist
        if old or not self._events.connected:
            around.doubted = True
        if old:
            self._inspections.doubt()
            self._images.forget()
        return around

    def _survey(self, environment: str, around: _Surroundings, instances: Sequence[str]) -> None:
        around.doubted = False  # first, so that an event in between is not lost
        try:
            around.network_ready = self._network.ready(environment)
            around.host = self._network.gateway(environment) or LOOPBACK
            around.foreign = docker_observe.foreigners(self._owned, environment)
            with self._lock:
                busy = set(self._creating)
            around.volumes = docker_observe.lone_volumes(self._owned, environment, instances, busy)
            around.looked_at = time.monotonic()
        except BaseException:
            around.doubted = True
            raise

    def _healths(
        self, environment: str, seen: Mapping[str, Seen], checks: Mapping[str, Health]
    ) -> Mapping[str, HealthState]:
        host = self._connection.host_address()
        running = {
            identity: target(one.base, one.facts, checks.get(one.base.version, Health()), host)
            for identity, one in seen.items()
            if one.base.phase is Phase.RUNNING
        }
        if self._single_probe:
            if not running:
                return {}
            now = self._clock.now()
            with ThreadPoolExecutor(min(PROBES_AT_ONCE, len(running)), "probe") as pool:
                found = pool.map(lambda target: once(target, self._execs.check, now), running.values())
                return dict(zip(running, found, strict=True))
        self._prober.follow(environment, {followed.key: followed for followed in running.values()})
        return {identity: self._prober.state(environment, followed.key) for identity, followed in running.items()}

    def _changed(self, environment: str, seen: Mapping[str, Seen]) -> Mapping[str, str]:
        """What was changed by hand in the running instances: as watched, or asked now when nothing watches."""
        running = [identity for identity, one in seen.items() if one.base.phase is Phase.RUNNING]
        if self._notify is not None:
            self._filesystems.follow(environment, running)
        elif running:
            with ThreadPoolExecutor(min(PROBES_AT_ONCE, len(running)), "filesystems") as pool:
                list(pool.map(self._filesystems.look, running))
        return {identity: self._filesystems.changed(identity) for identity in seen}

    def apply(self, effect: RuntimeEffect) -> None:
        """`ports.Runtime.apply`."""
        match effect:
            case PullImage():
                self._images.pull(effect.image)
            case EnsureNetwork():
                with self._doubting(effect.environment, ""):
                    self._network.ensure(effect.environment)
                self._doubt_surroundings(effect.environment)
            case CreateInstance():
                with self._doubting(effect.environment, effect.name):
                    self._effects.create(effect)
            case SweepOrphan():
                try:
                    self._effects.sweep(effect.name)
                finally:
                    self._doubt_surroundings()
            case WarmInstance():
                if not self._single_probe:
                    self._warming.begin(effect)
            case EnsureGroup() | PruneGroup() | RemoveGroup() | RouteGroups() | RemoveRoute():
                raise TypeError(f"an engine without controllers knows no groups: {effect}")
            case _:
                self._apply_to_instance(effect)

    def _apply_to_instance(
        self, effect: StartInstance | AttachTraffic | DetachTraffic | TerminateInstance | KillInstance | RemoveInstance
    ) -> None:
        with self._doubting("", effect.name):
            match effect:
                case StartInstance():
                    self._effects.start(effect.name)
                case AttachTraffic():
                    self._effects.attach(effect.name, effect.service)
                case DetachTraffic():
                    self._effects.detach(effect.name, effect.service)
                case TerminateInstance():
                    self._effects.signal(effect.name, kill=False)
                case KillInstance():
                    self._effects.signal(effect.name, kill=True)
                case RemoveInstance():
                    self._effects.remove(effect.name)
                case _:
                    assert_never(effect)

    @contextmanager
    def _doubting(self, environment: str, name: str) -> Iterator[None]:
        """Around a mutation: what was known of its object is old afterwards; after a failure there may be leftovers."""
        with self._lock:
            self._creating.add(name)
        try:
            yield
        except BaseException:
            self._doubt_surroundings(environment)
            raise
        finally:
            with self._lock:
                self._creating.discard(name)
            self._inspections.doubt(name)

    def logs(self, name: str, lines: int) -> tuple[str, ...]:
        """`ports.Runtime.logs`; each line is cut to 2,000 characters."""
        found = self._owned.find(name)
        if found is None or lines <= 0:
            return ()
        with engine_errors(f"{self._connection.where}, instance {name}"):
            try:
                return self._connection.client().log_tail(found["Id"], lines)
            except NotFound:
                return ()

    def watch(self, notify: Callable[[str, str], None]) -> None:
        """`ports.Runtime.watch`."""
        self._notify = notify
        self._events.start()
        self._filesystems.start()

    def close(self) -> None:
        """`ports.Runtime.close`."""
        self._notify = None
        self._events.close()
        self._filesystems.close()
        self._prober.close()
        self._warming.close()
        self._meter.close()
        self._images.close()
        self._connection.close()

    def _tell(self, environment: str, detail: str) -> None:
        notify = self._notify
        if notify is not None:
            notify(environment, detail)

    def _tell_all(self, detail: str) -> None:
        with self._lock:
            known = list(self._surroundings)
        for environment in known:
            self._tell(environment, detail)

    def _doubt_surroundings(self, environment: str = "") -> None:
        with self._lock:
            for name, around in self._surroundings.items():
                if environment in ("", name):
                    around.doubted = True

    def _connected(self, since: datetime | None) -> None:
        self._inspections.doubt()
        self._inspections.trusted_since = since
        self._images.forget()
        self._doubt_surroundings()
        self._tell_all("the engine answers")

    def _lost(self, why: str) -> None:
        self._tell_all(f"the engine was lost: {why}")

    def _event(self, event: Event) -> None:
        if event.kind == "image":
            self._images.forget()
            if event.action in ("delete", "untag", "load", "import"):
                self._tell_all(f"image {event.action}")
        elif event.kind == "network":
            self._network_event(event)
        elif self._owned.owns(event.attributes, event.environment):
            self._instance_event(event)
        elif event.action in CHANGES:
            self._foreign_event(event)

    def _instance_event(self, event: Event) -> None:
        if event.action in TOUCHES and event.attributes.get("execID") not in self._execs.own:
            self._filesystems.suspect(event.subject)
        if event.action not in CHANGES:
            return
        if event.action == "die" and event.attributes.get("exitCode", "").isdigit():
            self._inspections.ended(event.subject, int(event.attributes["exitCode"]))
        self._inspections.doubt(event.subject)
        if event.attributes.get(names.LABEL_ROLE) != ROLE_FILLER:
            self._tell(event.environment, f"container {event.attributes.get('name', '')} {event.action}")

    def _foreign_event(self, event: Event) -> None:
        """Something that is not ours: it matters when it has one of our names, or had one."""
        for name in (event.attributes.get("name", ""), event.attributes.get("oldName", "").lstrip("/")):
            for environment in list(self._surroundings):
                if name.startswith(f"{names.PREFIX}.{environment}."):
                    self._doubt_surroundings(environment)
                    self._tell(environment, f"container {name} {event.action}")

    def _network_event(self, event: Event) -> None:
        environment = event.environment
        if environment not in self._surroundings:
            return
        if event.action in ("create", "destroy") or self._inspections.known(event.container) is None:
            self._doubt_surroundings(environment)
        self._inspections.doubt(event.container or None)
        self._tell(environment, f"network {event.action}")

    def _health_changed(self, environment: str, name: str, state: HealthState) -> None:
        self._tell(environment, f"{name} is {state.status}")

    def _warmed(self, environment: str, name: str, warmth: Warmth) -> None:
        self._tell(environment, f"{name} is {warmth.status}: {warmth.said}")

    def _filesystem_changed(self, container: str) -> None:
        seen = self._inspections.known(container)
        if seen is not None:
            self._tell(seen.environment, f"filesystem of {seen.base.name}")

    def _writable(self, container: str) -> tuple[frozenset[str], tuple[str, ...]] | None:
        seen = self._inspections.known(container)
        if seen is None or seen.base.phase is not Phase.RUNNING:
            return None
        return seen.facts.mounts, seen.facts.writable

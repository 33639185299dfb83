"""What the engine shows: frozen values, observed each time and never stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from reconciler.core.errors import Reason


class Phase(StrEnum):
    """Where an instance stands in the engine."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    EXITED = "exited"


class HealthStatus(StrEnum):
    """What the checks of a running instance say. STARTING: not yet known to be healthy."""

    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True)
class Difference:
    """One way in which a live instance is not what was created: a reason of the Drift family and what differs."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance that carries our ownership labels.

    `serving`: it can be found under its service's name. `differences`: what was changed by hand since it was
    created. `exit_code` 137 with a stop of ours before it means that the grace ran out. `detail` says in words why
    a check fails or an instance ended. `address` is its own in the private network, `server` and `preview` what the
    proxies show of it, `warmth` its warm-up, once asked for, `cpu` the cores it used lately, where asked for.
    `leaving`: the engine itself takes it away, by an eviction or a replacement of its own.
    """

    id: str
    name: str
    service: str
    version: str
    revision: str
    ordinal: int
    image: str
    phase: Phase
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    health: HealthStatus = HealthStatus.STARTING
    serving: bool = False
    exit_code: int | None = None
    oom_killed: bool = False
    differences: tuple[Difference, ...] = ()
    detail: str = ""
    address: str = ""
    server: Server | None = None
    preview: Server | None = None
    warmth: Warmth | None = None
    cpu: float | None = None
    leaving: bool = False


class WarmthStatus(StrEnum):
    """How far the warm-up of an instance is."""

    RUNNING = "running"
    WARM = "warm"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Warmth:
    """What a warm-up came to so far: `requests` made, `p95` of the last ones in seconds, and words for people."""

    status: WarmthStatus
    requests: int = 0
    p95: float | None = None
    said: str = ""


class ServerMode(StrEnum):
    """How a proxy treats an instance: new requests, only those of known clients, or none."""

    READY = "ready"
    DRAIN = "drain"
    MAINT = "maint"


@dataclass(frozen=True, slots=True)
class Served:
    """What a proxy counted of an instance since it came into traffic: `slow` maps a bound in ms to how many answers
    took longer."""

    requests: int = 0
    errors: int = 0
    slow: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Server:
    """An address in a backend, as all proxies of an environment show it together.

    `mode`, `weight` and `up` are those of the least willing proxy; `sessions` is the sum of open and queued ones, None
    when a proxy did not answer; `even` is whether all proxies say the same. `returning`: the clients of older workers
    of a proxy, each of which may make one more request there, which is led here although the newest one would not.
    """

    address: str
    port: int
    mode: ServerMode
    weight: int
    up: bool
    sessions: int | None = 0
    served: Served = Served()
    even: bool = True
    returning: int = 0

    @property
    def idle(self) -> bool:
        """Nothing goes on, and once it is out of the table nothing comes any more."""
        return self.sessions == 0 and not self.returning


@dataclass(frozen=True, slots=True)
class Backend:
    """A service's backend. `waiting`: requests that are kept until an instance is up; `rate`: requests per second."""

    servers: tuple[Server, ...] = ()
    free: int = 0
    waiting: int = 0
    sessions: int = 0
    rate: float = 0.0


class ProxyStatus(StrEnum):
    """How the proxies of an environment are."""

    READY = "ready"
    ABSENT = "absent"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class ProxyState:
    """The proxies of one environment. `config` is the digest of the configuration they run, "" when it is not ours or
    not known; `backends` are by the names of `names.backend`. UNREACHABLE: at least one does not answer."""

    status: ProxyStatus
    config: str = ""
    backends: Mapping[str, Backend] = field(default_factory=dict)
    said: str = ""


class ImageStatus(StrEnum):
    """Whether the engine has an image."""

    PRESENT = "present"
    ABSENT = "absent"
    PULLING = "pulling"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ImageState:
    """An image on the engine; for FAILED, why, when and after how many attempts in a row."""

    status: ImageStatus
    reason: Reason | None = None
    detail: str = ""
    failed_at: datetime | None = None
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Group:
    """Instances of a service that an engine with controllers of its own keeps up and replaces: a Deployment.

    `version`, `image` and `operated` are those it declares now; `operated` is the digest of how it is operated
    (`core/groups.py`). `replicas` is how many the engine was last asked for, `ready` how many of that version take
    traffic by the engine's word, `settled` whether the engine has seen the last declaration and has nothing left to do
    for it: all are of that version and ready, and none of another is left. `reason` and `detail`: what keeps it from
    that (a quota, no node to run on). `differences`: what was changed by hand since it was declared. `inventory`: the
    objects of a bundle of plain manifests, as `group/kind/namespace/name`; `leftovers`: those of them that only older
    versions of it had.
    """

    name: str
    service: str
    version: str
    revision: str
    image: str
    operated: str
    replicas: int
    ready: int
    settled: bool
    created_at: datetime
    reason: Reason | None = None
    detail: str = ""
    differences: tuple[Difference, ...] = ()
    inventory: tuple[str, ...] = ()
    leftovers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GroupRoute:
    """Who of a service's groups gets its requests. `weights` maps their names to shares; None: all instances alike, of
    whatever group. `operated` is the digest of how requests reach it (`core/groups.py`), `preview` the group that the
    preview address shows, "" for none. `refusal`: why whoever leads the requests does not do so as it was declared, ""
    when it does; until then nothing that depends on it is so."""

    service: str
    weights: Mapping[str, int] | None
    operated: str
    preview: str = ""
    differences: tuple[Difference, ...] = ()
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Foreign:
    """Something that is not ours but in our way: it squats one of our names or sits in our private network."""

    name: str
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class LiveState:
    """One environment as the engine shows it. `orphans`: names of leftovers of ours that belong to no instance.

    `groups` and `routes` (by service) are those of an engine with controllers of its own; its instances are shown, and
    only it makes and ends them.
    """

    environment: str
    observed_at: datetime
    instances: tuple[Instance, ...] = ()
    images: Mapping[str, ImageState] = field(default_factory=dict)
    foreign: tuple[Foreign, ...] = ()
    orphans: tuple[str, ...] = ()
    network_ready: bool = False
    proxy: ProxyState | None = None
    groups: tuple[Group, ...] = ()
    routes: Mapping[str, GroupRoute] = field(default_factory=dict)

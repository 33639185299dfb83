"""What a plan is: for each service the next safe steps, and how it stands. `reconciler plan` prints exactly this."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from reconciler.core.delivery import Strategy
from reconciler.core.errors import Reason
from reconciler.core.gate import GateFinding
from reconciler.core.live import Instance
from reconciler.core.model import Revision
from reconciler.core.record import VersionRef
from reconciler.core.steps import Step


class Sync(StrEnum):
    """Whether the live state is what Git declares."""

    SYNCED = "Synced"
    OUT_OF_SYNC = "OutOfSync"


class ServiceHealth(StrEnum):
    """How the service itself is, apart from sync."""

    HEALTHY = "Healthy"
    PROGRESSING = "Progressing"
    DEGRADED = "Degraded"
    SUSPENDED = "Suspended"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class StageProgress:
    """At which stage a release is: `number` (from 1) `of` all, with `weight` per cent of the traffic.

    `since`: when that share was given, None while its instances are still coming; `until`: the end of the soak.
    `paused`: a person is waited for. `gated`: a gate is asked at this stage; `finding` is what it says, None where it
    was not asked: whoever only looks has seen nothing of the requests.
    """

    number: int
    of: int
    weight: int
    since: datetime | None = None
    until: datetime | None = None
    paused: bool = False
    gated: bool = False
    finding: GateFinding | None = None


@dataclass(frozen=True, slots=True)
class VersionTraffic:
    """What a version has of the live traffic by the weights in the proxies.

    `share`: of the new requests, 0..1; `sessions`: open and queued ones, None when a proxy did not answer; `places`:
    how many of its instances the proxies know.
    """

    version: str
    share: float
    sessions: int | None
    places: int


@dataclass(frozen=True, slots=True)
class Scale:
    """How many instances demand asks for, and between which limits."""

    count: int
    minimum: int
    maximum: int


@dataclass(frozen=True, slots=True)
class Kept:
    """An instance of the version before, out of traffic, that is kept for an instant return."""

    name: str
    version: str
    until: datetime


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a release of a service behind a proxy is, and who gets the traffic.

    `started_at`: when the release under way began, None without one; `returning`: when the way back to the stable
    version began. `stage`: None where no stages are gone through. `split`: the stable version first. `queued`: requests
    that the proxy keeps until an instance is up.
    """

    strategy: Strategy
    started_at: datetime | None = None
    returning: datetime | None = None
    stage: StageProgress | None = None
    split: tuple[VersionTraffic, ...] = ()
    scale: Scale | None = None
    kept: tuple[Kept, ...] = ()
    queued: int = 0


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """One service: what to do next, what is waited for, and until when at the latest (`recheck_at`).

    `progress` is None for a service without a proxy in front of it.
    """

    service: str
    sync: Sync
    health: ServiceHealth
    steps: tuple[Step, ...] = ()
    waiting: str = ""
    recheck_at: datetime | None = None
    reason: Reason | None = None
    message: str = ""
    desired: VersionRef | None = None
    stable: VersionRef | None = None
    replicas: int = 0
    instances: tuple[Instance, ...] = ()
    progress: Progress | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """One environment. `steps` come before those of the services (the network, leftovers).

    `bugs`: services for which no plan could be made because of a fault of ours; nothing is done at them.
    """

    environment: str
    revision: Revision | None
    services: Mapping[str, ServicePlan]
    steps: tuple[Step, ...] = ()
    recheck_at: datetime | None = None
    bugs: Mapping[str, Exception] = field(default_factory=dict)

    @property
    def in_sync(self) -> bool:
        """Nothing to do and nothing wrong."""
        return not self.steps and all(service.sync is Sync.SYNCED for service in self.services.values())


@dataclass(frozen=True, slots=True)
class EnvironmentStatus:
    """How an environment stood at the end of its last cycle: for `status`, the HTTP API and the metrics.

    `reason` and `message` speak of the environment as a whole (Git unreachable, revision rejected).
    """

    environment: str
    at: datetime
    revision: str = ""
    rejected: str = ""
    reason: Reason | None = None
    message: str = ""
    plan: Plan | None = None
    last_success_at: datetime | None = None
    problems: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

"""What a plan is: for each service the next safe steps, and how it stands. `reconciler plan` prints exactly this."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from reconciler.core.errors import Reason
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
class ServicePlan:
    """One service: what to do next, what is waited for, and until when at the latest (`recheck_at`)."""

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

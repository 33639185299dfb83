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
    a check fails or an instance ended.
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
class Foreign:
    """Something that is not ours but in our way: it squats one of our names or sits in our private network."""

    name: str
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class LiveState:
    """One environment as the engine shows it. `orphans`: names of leftovers of ours that belong to no instance."""

    environment: str
    observed_at: datetime
    instances: tuple[Instance, ...] = ()
    images: Mapping[str, ImageState] = field(default_factory=dict)
    foreign: tuple[Foreign, ...] = ()
    orphans: tuple[str, ...] = ()
    network_ready: bool = False

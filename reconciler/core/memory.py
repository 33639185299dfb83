"""What cannot be observed, as a fold over the journal: admissions, rollouts, stable versions, quarantines.

Values only; `core/fold.py` is the only way in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from reconciler.core.record import VersionRef


@dataclass(frozen=True, slots=True)
class RolloutMemory:
    """A version on its way to become stable. `progressed_at` moves with each instance that became healthy or warm, with
    each shift and each stage.

    `stage`: how many stages were passed. `shifted`: the last one whose share of traffic was given, at `shifted_at`.
    `paused`: the last one at which a person is waited for, `continued`: the last one at which a person said to go on.
    """

    to: VersionRef
    started_at: datetime
    progressed_at: datetime
    healthy: frozenset[str] = frozenset()
    warm: frozenset[str] = frozenset()
    stage: int = 0
    shifted: int = -1
    shifted_at: datetime | None = None
    paused: int = -1
    continued: int = -1


@dataclass(frozen=True, slots=True)
class Quarantine:
    """A version that failed and is not tried again until Git changes or a person asks."""

    reason: str
    at: datetime
    revision: str


@dataclass(frozen=True, slots=True)
class Suspension:
    """A person said: leave this alone."""

    by: str
    at: datetime
    why: str


@dataclass(frozen=True, slots=True)
class ServiceMemory:
    """What the journal knows of one service.

    `detached` and `terminated` hold when an instance lost its traffic and got SIGTERM; `kept` are instances that we
    stopped but keep as the way back; `losses` are the times at which instances of the stable version were lost,
    `lost` the names of those not yet removed. `served` are the instances that should be in traffic, `exposed` those
    that ever may have been. `drift` is what was reported of each instance, so that it is reported once, and `drifted`
    holds until the repair is recorded; `returning` is when a rollback began; `pull_failed` is the
    reason why the image could not be fetched, `pull_said` the words; `stalled` is why a person is needed,
    until it moves on. `made` are the instances that by our own acts should exist, `intended` those of which a
    creation may or may not have happened: what is in `made` and not observed was removed by hand, what is observed
    and in neither was added by hand. `shares` is the table of the service in the proxies as we last made it, not known
    while an attempt to change it has no outcome; `scale` is how many instances were last decided on by demand.
    """

    stable: VersionRef | None = None
    promoted_at: datetime | None = None
    previous: VersionRef | None = None
    rollout: RolloutMemory | None = None
    quarantine: Mapping[str, Quarantine] = field(default_factory=dict)
    suspension: Suspension | None = None
    detached: Mapping[str, datetime] = field(default_factory=dict)
    terminated: Mapping[str, datetime] = field(default_factory=dict)
    kept: frozenset[str] = frozenset()
    losses: tuple[datetime, ...] = ()
    drift: Mapping[str, str] = field(default_factory=dict)
    drifted: bool = False
    lost: frozenset[str] = frozenset()
    served: frozenset[str] = frozenset()
    exposed: frozenset[str] = frozenset()
    made: frozenset[str] = frozenset()
    intended: frozenset[str] = frozenset()
    returning: datetime | None = None
    pull_failed: str = ""
    pull_said: str = ""
    stalled: str = ""
    shares: Mapping[str, str] | None = None
    scale: int | None = None


@dataclass(frozen=True, slots=True)
class EnvironmentMemory:
    """What the journal knows of one environment.

    `good` maps a service that is not valid in the admitted revision to the last revision in which it was; `foreign` is
    what was reported of things that are not ours but in our way; `stalled` is why a person is needed for the
    environment as a whole.
    """

    admitted: str = ""
    admitted_at: datetime | None = None
    author: str = ""
    committer: str = ""
    rejected: str = ""
    rejected_reason: str = ""
    good: Mapping[str, str] = field(default_factory=dict)
    services: Mapping[str, ServiceMemory] = field(default_factory=dict)
    foreign: Mapping[str, str] = field(default_factory=dict)
    suspension: Suspension | None = None
    stalled: str = ""

"""What cannot be observed, as a fold over the journal: admissions, rollouts, stable versions, quarantines.

`remember` is the only way in. It never fails on a record it does not know: a newer release may have written it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeVar

from reconciler.core.record import Entry, VersionRef, What

LOSSES_KEPT = 20

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class RolloutMemory:
    """A version on its way to become stable. `progressed_at` moves with each instance that became healthy."""

    to: VersionRef
    started_at: datetime
    progressed_at: datetime
    healthy: frozenset[str] = frozenset()


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
    stopped but keep as the way back; `losses` are the times at which instances of the stable version were lost;
    `drift` is what was reported of each instance, so that it is reported once; `returning` is when a rollback began.
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
    returning: datetime | None = None
    stalled: str = ""


@dataclass(frozen=True, slots=True)
class EnvironmentMemory:
    """What the journal knows of one environment. `good` maps a service to the last revision in which it was valid."""

    admitted: str = ""
    admitted_at: datetime | None = None
    author: str = ""
    committer: str = ""
    rejected: str = ""
    rejected_reason: str = ""
    good: Mapping[str, str] = field(default_factory=dict)
    invalid: Mapping[str, str] = field(default_factory=dict)
    services: Mapping[str, ServiceMemory] = field(default_factory=dict)
    suspension: Suspension | None = None


def remember(memory: EnvironmentMemory, entry: Entry) -> EnvironmentMemory:
    """The memory of an environment after one more entry about it."""
    if entry.service:
        return _remember_service(memory, entry)
    match entry.what:
        case What.REVISION_ADMITTED:
            return replace(
                memory,
                admitted=entry.revision,
                admitted_at=entry.at,
                author=entry.author,
                committer=entry.committer,
                rejected="",
                rejected_reason="",
                good={**memory.good, **dict.fromkeys(entry.details.get("services", ()), entry.revision)},
            )
        case What.REVISION_REJECTED:
            return replace(memory, rejected=entry.revision, rejected_reason=entry.reason)
        case What.SUSPENDED:
            return replace(memory, suspension=_suspension(entry))
        case What.RESUMED:
            return replace(memory, suspension=None)
        case _:
            return memory


def _remember_service(memory: EnvironmentMemory, entry: Entry) -> EnvironmentMemory:
    services = dict(memory.services)
    if entry.what is What.SERVICE_INVALID:
        return replace(memory, invalid={**memory.invalid, entry.service: entry.revision})
    if entry.what is What.SERVICE_REMOVED:
        services.pop(entry.service, None)
        good = {name: sha for name, sha in memory.good.items() if name != entry.service}
        return replace(memory, services=services, good=good)
    change = _CHANGES.get(entry.what)
    if change is None:
        return memory
    services[entry.service] = change(services.get(entry.service, ServiceMemory()), entry)
    return replace(memory, services=services)


def _suspension(entry: Entry) -> Suspension:
    return Suspension(by=entry.author, at=entry.at, why=entry.reason)


def _done(service: ServiceMemory, entry: Entry) -> ServiceMemory:
    name = str(entry.details.get("name", ""))
    match entry.details.get("effect"):
        case "DetachTraffic":
            return replace(service, detached={**service.detached, name: entry.at})
        case "AttachTraffic":
            return replace(service, detached=_without(service.detached, name))
        case "TerminateInstance":
            kept = service.kept | {name} if entry.details.get("keep") else service.kept
            return replace(service, terminated={**service.terminated, name: entry.at}, kept=kept)
        case "StartInstance":
            return replace(
                service,
                terminated=_without(service.terminated, name),
                detached=_without(service.detached, name),
            )
        case "RemoveInstance":
            return replace(
                service,
                detached=_without(service.detached, name),
                terminated=_without(service.terminated, name),
                kept=service.kept - {name},
                drift=_without(service.drift, name),
            )
        case _:
            return service


def _without(mapping: Mapping[str, V], name: str) -> Mapping[str, V]:
    return {key: value for key, value in mapping.items() if key != name}


def _rollout_started(service: ServiceMemory, entry: Entry) -> ServiceMemory:
    assert entry.to_version is not None
    rollout = RolloutMemory(to=entry.to_version, started_at=entry.at, progressed_at=entry.at)
    return replace(service, rollout=rollout, returning=None, stalled="")


def _rollout_superseded(service: ServiceMemory, entry: Entry) -> ServiceMemory:
    return replace(service, rollout=None)


def _rollout_failed(service: ServiceMemory, entry: Entry) -> ServiceMemory:
    assert entry.to_version is not None
    quarantine = Quarantine(reason=entry.reason, at=entry.at, revision=entry.revision)
    return replace(
        service,
        rollout=None,
        quarantine={**service.quarantine, entry.to_version.version: quarantine},
        returning=entry.at,
    )


def _instance_healthy(service: ServiceMemory, entry: Entry) -> ServiceMemory:
    if service.rollout is None or entry.to_version != service.rollout.to:
        return service
    name = str(entry.details.get("name", ""))
    rollout = replace(service.rollout, progressed_at=entry.at, healthy=service.rollout.healthy | {name})
    return replace(service, rollout=rollout)


def _instance_lost(service: ServiceMemory, entry: Entry) -> ServiceMemory:
    return replace(service, losses=(*service.losses, entry.at)[-LOSSES_KEPT:])


def _promoted(service: ServiceMemory, entry: Entry) -> ServiceMemory:
    previous = service.previous if service.stable == entry.to_version else service.stable
    return replace(
        service,
        stable=entry.to_version,
        promoted_at=entry.at,
        previous=previous,
        rollout=None,
        returning=None,
        losses=(),
    )


def _rolled_back(service: ServiceMemory, entry: Entry) -> ServiceMemory:
    return replace(service, returning=None)


def _quarantine_lifted(service: ServiceMemory, entry: Entry) -> ServiceMemory:
    return replace(service, quarantine={}, stalled="")


def _adopted(service: ServiceMemory, entry: Entry) -> ServiceMemory:
    return replace(service, stable=entry.to_version, promoted_at=entry.at)


def _drift_found(service: ServiceMemory, entry: Entry) -> ServiceMemory:
    name = str(entry.details.get("name", ""))
    return replace(service, drift={**service.drift, name: str(entry.details.get("differences", ""))})


def _drift_repaired(service: ServiceMemory, entry: Entry) -> ServiceMemory:
    return replace(service, drift={})


def _stalled(service: ServiceMemory, entry: Entry) -> ServiceMemory:
    return replace(service, stalled=entry.reason)


def _suspended(service: ServiceMemory, entry: Entry) -> ServiceMemory:
    return replace(service, suspension=_suspension(entry))


def _resumed(service: ServiceMemory, entry: Entry) -> ServiceMemory:
    return replace(service, suspension=None, quarantine={}, stalled="")


_CHANGES: Mapping[What, Callable[[ServiceMemory, Entry], ServiceMemory]] = {
    What.DONE: _done,
    What.ROLLOUT_STARTED: _rollout_started,
    What.ROLLOUT_SUPERSEDED: _rollout_superseded,
    What.ROLLOUT_FAILED: _rollout_failed,
    What.INSTANCE_HEALTHY: _instance_healthy,
    What.INSTANCE_LOST: _instance_lost,
    What.PROMOTED: _promoted,
    What.ROLLED_BACK: _rolled_back,
    What.QUARANTINE_LIFTED: _quarantine_lifted,
    What.ADOPTED: _adopted,
    What.DRIFT_FOUND: _drift_found,
    What.DRIFT_REPAIRED: _drift_repaired,
    What.STALLED: _stalled,
    What.SUSPENDED: _suspended,
    What.RESUMED: _resumed,
}

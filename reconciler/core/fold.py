"""The fold: what the memory is after one more record.

`remember` never fails: a record it does not know, or one without what it needs, changes nothing, because a newer
release may have written it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from reconciler.core.errors import Reason
from reconciler.core.memory import EnvironmentMemory, Quarantine, RolloutMemory, ServiceMemory, Suspension
from reconciler.core.record import Entry, What

LOSSES_KEPT = 20
QUARANTINES_KEPT = 50
PREVIEW = ".preview"
"""How the names of backends end in which a version is only shown."""

V = TypeVar("V")


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
                good=_good(memory, entry),
                stalled="",
            )
        case What.REVISION_REJECTED:
            return replace(memory, rejected=entry.revision, rejected_reason=entry.reason)
        case What.SUSPENDED:
            return replace(memory, suspension=_suspension(entry))
        case What.RESUMED:
            # After a refusal (unrelated history, say) a person's word lets the head be judged as if it were the first.
            held = memory.rejected_reason in (Reason.HISTORY_REWRITTEN, Reason.HISTORY_UNRELATED)
            admitted = "" if held else memory.admitted
            rejected = "" if held else memory.rejected
            return replace(memory, suspension=None, rejected=rejected, admitted=admitted, stalled="")
        case What.DRIFT_FOUND:
            name, differences = str(entry.details.get("name", "")), str(entry.details.get("differences", ""))
            return replace(memory, foreign={**memory.foreign, name: differences})
        case What.DRIFT_REPAIRED:
            # Without names nothing foreign is left at all.
            gone = _names(entry, "gone") or memory.foreign.keys()
            return replace(memory, foreign={name: said for name, said in memory.foreign.items() if name not in gone})
        case What.STALLED:
            return replace(memory, stalled=entry.reason)
        case What.DONE:
            return replace(memory, stalled="") if memory.stalled else memory
        case _:
            return memory


def _good(memory: EnvironmentMemory, entry: Entry) -> Mapping[str, str]:
    """For each service that is not valid now, the revision to take it from: the one in use so far."""
    return {name: sha for name in _names(entry, "invalid") if (sha := memory.good.get(name, memory.admitted))}


def _remember_service(memory: EnvironmentMemory, entry: Entry) -> EnvironmentMemory:
    services = dict(memory.services)
    if entry.what is What.SERVICE_REMOVED:
        services.pop(entry.service, None)
        return replace(memory, services=services)
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
        case "CreateInstance":
            return replace(
                service,
                made=service.made | {name},
                intended=service.intended - {name},
                drift=_without(service.drift, name),
                pull_failed="",
                pull_said="",
            )
        case "DetachTraffic":
            return replace(service, detached={**service.detached, name: entry.at})
        case "AttachTraffic":
            detached = _without(service.detached, name)
            shares = _without(service.shares, name) if service.shares is not None else None
            return replace(
                service, detached=detached, served=service.served | {name}, shares=shares or None, stalled=""
            )
        case "TerminateInstance":
            kept = service.kept | {name} if entry.details.get("keep") else service.kept
            return replace(service, terminated={**service.terminated, name: entry.at}, kept=kept)
        case "StartInstance":
            return replace(
                service,
                terminated=_without(service.terminated, name),
                detached=_without(service.detached, name),
                stalled="",
            )
        case "RemoveInstance":
            return _vanished(service, frozenset({name}))
        case "ShiftTraffic" | "RouteGroups" if not name.endswith(PREVIEW):
            return _shifted(service, entry)
        case "RemoveGroup":
            return _forgotten(service, name)
        case _:
            return service


def _shares(entry: Entry) -> Mapping[str, str]:
    """What a table of the proxies says of each instance, as `traffic.described` wrote it."""
    found = entry.details.get("shares")
    return {str(name): str(said) for name, said in found.items()} if isinstance(found, Mapping) else {}


def taking(shares: Mapping[str, str]) -> frozenset[str]:
    """Who gets requests by a table in words."""
    return frozenset(name for name, said in shares.items() if said.startswith("ready ") and said != "ready 0")


def _still_out(detached: Mapping[str, datetime], shares: Mapping[str, str]) -> dict[str, datetime]:
    """Who lost its traffic and does not get it back by a table."""
    return {name: at for name, at in detached.items() if not shares.get(name, "").startswith("ready")}


def _shifted(service: ServiceMemory, entry: Entry) -> ServiceMemory:
    shares = _shares(entry)
    detached = _still_out(service.detached, shares)
    draining = {name: entry.at for name, said in shares.items() if said.startswith("drain")}
    rollout, stage = service.rollout, entry.details.get("stage")
    if rollout is not None and isinstance(stage, int):
        rollout = replace(rollout, shifted=stage, shifted_at=entry.at, progressed_at=entry.at)
    return replace(
        service,
        shares=shares,
        served=taking(shares),
        detached=draining | detached,
        rollout=rollout,
        stalled="",
    )


def _forgotten(service: ServiceMemory, name: str) -> ServiceMemory:
    """Without what was known of the life of the instance `name`."""
    return replace(
        service,
        detached=_without(service.detached, name),
        terminated=_without(service.terminated, name),
        kept=service.kept - {name},
        lost=service.lost - {name},
        served=service.served - {name},
        exposed=service.exposed - {name},
    )


def _vanished(service: ServiceMemory, gone: frozenset[str]) -> ServiceMemory:
    """Without all that was known of instances that are no more. The names of removals by hand would pile up else."""
    for name in gone:
        service = _forgotten(service, name)
    return replace(
        service,
        made=service.made - gone,
        intended=service.intended - gone,
        drift={name: said for name, said in service.drift.items() if name not in gone},
    )


def _intent(service: ServiceMemory, entry: Entry) -> ServiceMemory:
    name = str(entry.details.get("name", ""))
    match entry.details.get("effect"):
        case "CreateInstance":
            # A name that is used again: what befell the instance that had it before says nothing about this one.
            return replace(_forgotten(service, name), intended=service.intended | {name})
        case "RemoveInstance":
            return replace(service, made=service.made - {name}, intended=service.intended | {name})
        case "AttachTraffic":
            return replace(service, exposed=service.exposed | {name})
        case "DetachTraffic" | "TerminateInstance":
            return replace(service, served=service.served - {name})
        case "ShiftTraffic" | "RouteGroups" if not name.endswith(PREVIEW):
            shares = _shares(entry)
            # From now on they may have requests anew: what drained before says nothing about these.
            return replace(
                service,
                shares=None,
                exposed=service.exposed | taking(shares),
                served=service.served & shares.keys(),
                detached=_still_out(service.detached, shares),
            )
        case _:
            return service


def _without(mapping: Mapping[str, V], name: str) -> Mapping[str, V]:
    return {key: value for key, value in mapping.items() if key != name}


def _names(entry: Entry, key: str) -> frozenset[str]:
    """The texts that the details list under `key`; empty when there is no list."""
    found = entry.details.get(key)
    if not isinstance(found, list | tuple):
        return frozenset()
    return frozenset(name for name in found if isinstance(name, str))


def _rollout_started(service: ServiceMemory, entry: Entry) -> ServiceMemory:
    if entry.to_version is None:
        return service
    rollout = RolloutMemory(to=entry.to_version, started_at=entry.at, progressed_at=entry.at)
    return replace(service, rollout=rollout, returning=None, pull_failed="", pull_said="", stalled="")


def _rollout_superseded(service: ServiceMemory, entry: Entry) -> ServiceMemory:
    return replace(service, rollout=None)


def _rollout_failed(service: ServiceMemory, entry: Entry) -> ServiceMemory:
    if entry.to_version is None:
        return service
    quarantine = Quarantine(reason=entry.reason, at=entry.at, revision=entry.revision)
    if entry.to_version == service.stable:
        # A promoted version that keeps failing: the way back is the version before it.
        service = replace(service, stable=service.previous, previous=None, losses=())
    return replace(
        service,
        rollout=None,
        quarantine=_newest({**service.quarantine, entry.to_version.version: quarantine}),
        returning=entry.at,
    )


def _newest(quarantine: Mapping[str, Quarantine]) -> Mapping[str, Quarantine]:
    """The youngest QUARANTINES_KEPT of them: by time, not by place, so that it does not matter how they were stored."""
    by_age = sorted(quarantine, key=lambda version: (quarantine[version].at, version))
    return {version: quarantine[version] for version in by_age[-QUARANTINES_KEPT:]}


def _instance_healthy(service: ServiceMemory, entry: Entry) -> ServiceMemory:
    if service.rollout is None or entry.to_version != service.rollout.to:
        return service
    named = _names(entry, "names") or {str(entry.details.get("name", ""))}
    rollout = replace(service.rollout, progressed_at=entry.at, healthy=service.rollout.healthy | named)
    return replace(service, rollout=rollout)


def _instance_warm(service: ServiceMemory, entry: Entry) -> ServiceMemory:
    if service.rollout is None or entry.to_version != service.rollout.to:
        return service
    warm = service.rollout.warm | {str(entry.details.get("name", ""))}
    return replace(service, rollout=replace(service.rollout, warm=warm, progressed_at=entry.at))


def _stage(entry: Entry) -> int | None:
    stage = entry.details.get("stage")
    return stage if isinstance(stage, int) else None


def _stage_passed(service: ServiceMemory, entry: Entry) -> ServiceMemory:
    stage = _stage(entry)
    if service.rollout is None or entry.to_version != service.rollout.to or stage is None:
        return service
    return replace(service, rollout=replace(service.rollout, stage=stage + 1, progressed_at=entry.at))


def _paused(service: ServiceMemory, entry: Entry) -> ServiceMemory:
    stage = _stage(entry)
    if service.rollout is None or entry.to_version != service.rollout.to or stage is None:
        return service
    return replace(service, rollout=replace(service.rollout, paused=stage))


def _continued(service: ServiceMemory, entry: Entry) -> ServiceMemory:
    if service.rollout is None or entry.to_version not in (None, service.rollout.to):
        return service
    return replace(service, rollout=replace(service.rollout, continued=service.rollout.paused, progressed_at=entry.at))


def _scaled(service: ServiceMemory, entry: Entry) -> ServiceMemory:
    count = entry.details.get("to")
    return replace(service, scale=count) if isinstance(count, int) and count >= 0 else service


def _instance_lost(service: ServiceMemory, entry: Entry) -> ServiceMemory:
    name, service = str(entry.details.get("name", "")), _vanished(service, _names(entry, "gone"))
    # Instances that were found lost at one look fell together, as when their host restarts: that is one loss.
    losses = service.losses if "with" in entry.details else (*service.losses, entry.at)[-LOSSES_KEPT:]
    return replace(service, losses=losses, lost=service.lost | {name})


def _instance_expired(service: ServiceMemory, entry: Entry) -> ServiceMemory:
    return replace(service, lost=service.lost | {str(entry.details.get("name", ""))})


def _pull_failed(service: ServiceMemory, entry: Entry) -> ServiceMemory:
    return replace(service, pull_failed=entry.reason, pull_said=str(entry.details.get("said", "")))


def _promoted(service: ServiceMemory, entry: Entry) -> ServiceMemory:
    if entry.to_version is None:
        return service
    previous = service.previous if service.stable == entry.to_version else service.stable
    return replace(
        _vanished(service, _names(entry, "gone")),
        stable=entry.to_version,
        promoted_at=entry.at,
        previous=previous,
        rollout=None,
        returning=None,
        losses=(),
        stalled="",
    )


def _rolled_back(service: ServiceMemory, entry: Entry) -> ServiceMemory:
    return replace(service, returning=None, stalled="")


def _quarantine_lifted(service: ServiceMemory, entry: Entry) -> ServiceMemory:
    return replace(service, quarantine={}, stalled="")


def _adopted(service: ServiceMemory, entry: Entry) -> ServiceMemory:
    if entry.to_version is None:
        return service
    made, served = _names(entry, "names"), _names(entry, "served")
    return replace(
        service,
        stable=entry.to_version,
        promoted_at=entry.at,
        made=service.made | made,
        served=service.served | served,
        exposed=service.exposed | served,
    )


def _drift_found(service: ServiceMemory, entry: Entry) -> ServiceMemory:
    name = str(entry.details.get("name", ""))
    return replace(service, drift={**service.drift, name: str(entry.details.get("differences", ""))}, drifted=True)


def _drift_repaired(service: ServiceMemory, entry: Entry) -> ServiceMemory:
    return replace(_vanished(service, _names(entry, "gone")), drift={}, drifted=False)


def _stalled(service: ServiceMemory, entry: Entry) -> ServiceMemory:
    return replace(service, stalled=entry.reason)


def _suspended(service: ServiceMemory, entry: Entry) -> ServiceMemory:
    return replace(service, suspension=_suspension(entry))


def _resumed(service: ServiceMemory, entry: Entry) -> ServiceMemory:
    return replace(service, suspension=None, quarantine={}, stalled="")


_CHANGES: Mapping[What, Callable[[ServiceMemory, Entry], ServiceMemory]] = {
    What.INTENT: _intent,
    What.DONE: _done,
    What.ROLLOUT_STARTED: _rollout_started,
    What.ROLLOUT_SUPERSEDED: _rollout_superseded,
    What.ROLLOUT_FAILED: _rollout_failed,
    What.INSTANCE_HEALTHY: _instance_healthy,
    What.INSTANCE_WARM: _instance_warm,
    What.STAGE_PASSED: _stage_passed,
    What.PAUSED: _paused,
    What.CONTINUED: _continued,
    What.SCALED: _scaled,
    What.INSTANCE_LOST: _instance_lost,
    What.INSTANCE_EXPIRED: _instance_expired,
    What.PULL_FAILED: _pull_failed,
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

"""Values as plain JSON: what the HTTP API answers and what the command line prints with `--json`.

Keys are camelCase like in the files people write; times are ISO 8601 in UTC; durations are seconds. The values of
environment variables and the contents of files are never shown.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from enum import Enum
from math import isfinite
from typing import Any

from reconciler.core.live import Instance, Server, Warmth
from reconciler.core.model import Revision, ServiceSpec
from reconciler.core.record import Record, VersionRef
from reconciler.core.status import EnvironmentStatus, Plan, Progress, ServicePlan, StageProgress
from reconciler.core.steps import ShiftTraffic, Step, Transition

Json = dict[str, Any]
JsonValue = Json | list[Any] | str | int | float | bool | None


def plain(value: object) -> JsonValue:
    """Any value as JSON: enumerations by value, times as text, durations in seconds, sets sorted, bytes by size."""
    match value:
        case Enum():
            return plain(value.value)
        case float() if not isfinite(value):
            return str(value)
        case None | bool() | int() | float() | str():
            return value
        case datetime():
            return time(value)
        case timedelta():
            return value.total_seconds()
        case bytes():
            return f"({len(value)} bytes)"
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case set() | frozenset():
            return sorted((plain(item) for item in value), key=str)
        case list() | tuple():
            return [plain(item) for item in value]
        case _:
            return str(value)


def time(at: datetime | None) -> str | None:
    """ISO 8601 in UTC with a Z; None stays None."""
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def revision(value: Revision | None) -> Json | None:
    """A commit."""
    if value is None:
        return None
    return {
        "sha": value.sha,
        "parents": list(value.parents),
        "author": value.author,
        "committer": value.committer,
        "committedAt": time(value.committed_at),
        "subject": value.subject,
    }


def version(value: VersionRef | None) -> Json | None:
    """A version as the journal names it."""
    return None if value is None else {"version": value.version, "image": value.image, "revision": value.revision}


def instance(value: Instance) -> Json:
    """One instance as the engine shows it."""
    return {
        "name": value.name,
        "id": value.id,
        "service": value.service,
        "version": value.version,
        "revision": value.revision,
        "ordinal": value.ordinal,
        "image": value.image,
        "phase": value.phase.value,
        "health": value.health.value,
        "serving": value.serving,
        "createdAt": time(value.created_at),
        "startedAt": time(value.started_at),
        "finishedAt": time(value.finished_at),
        "exitCode": value.exit_code,
        "oomKilled": value.oom_killed,
        "differences": [{"reason": found.reason.value, "detail": found.detail} for found in value.differences],
        "detail": value.detail,
        "address": value.address,
        "server": server(value.server),
        "preview": server(value.preview),
        "warmth": warmth(value.warmth),
        "cpu": value.cpu,
        "leaving": value.leaving,
    }


def server(value: Server | None) -> Json | None:
    """The place of an instance in the proxies. `sessions` is null when a proxy did not answer."""
    if value is None:
        return None
    return {
        "address": value.address,
        "port": value.port,
        "mode": value.mode.value,
        "weight": value.weight,
        "up": value.up,
        "sessions": value.sessions,
        "requests": value.served.requests,
        "errors": value.served.errors,
        "even": value.even,
    }


def warmth(value: Warmth | None) -> Json | None:
    """How far a warm-up is; `p95` in seconds."""
    if value is None:
        return None
    return {"status": value.status.value, "requests": value.requests, "p95": value.p95, "said": value.said}


def progress(value: Progress | None) -> Json | None:
    """How far a release is and who gets the traffic; `percent` is 0..100."""
    if value is None:
        return None
    scale = value.scale
    return {
        "strategy": value.strategy.value,
        "startedAt": time(value.started_at),
        "returningSince": time(value.returning),
        "stage": stage(value.stage),
        "split": [
            {
                "version": each.version,
                "percent": round(100 * each.share, 2),
                "sessions": each.sessions,
                "places": each.places,
            }
            for each in value.split
        ],
        "scaling": None if scale is None else {"count": scale.count, "min": scale.minimum, "max": scale.maximum},
        "kept": [{"name": each.name, "version": each.version, "until": time(each.until)} for each in value.kept],
        "queued": value.queued,
    }


def stage(value: StageProgress | None) -> Json | None:
    """A stage of a release. `gate` is null where none is asked, its `verdict` is null while nothing was seen."""
    if value is None:
        return None
    finding = value.finding
    seen: Json = {"verdict": None, "said": "", "seen": {}}
    if finding is not None:
        seen = {"verdict": finding.verdict.value, "said": finding.said, "seen": plain(finding.details)}
    return {
        "number": value.number,
        "of": value.of,
        "weight": value.weight,
        "since": time(value.since),
        "until": time(value.until),
        "paused": value.paused,
        "gate": seen if value.gated else None,
    }


def spec(value: ServiceSpec) -> Json:
    """What of a service's specification may be seen by everyone: names and hashes, no values and no contents."""
    return {
        "image": str(value.image),
        "replicas": value.replicas,
        "env": sorted(value.env),
        "secrets": sorted(use.secret for use in value.secrets),
        "files": [{"path": file.path, "sha256": hashlib.sha256(file.content).hexdigest()} for file in value.files],
        "ports": [plain({part.name: getattr(port, part.name) for part in fields(port)}) for port in value.ports],
    }


def step(value: Step) -> Json:
    """One step: `effect` with its parameters, or `transition` with its reason and details.

    Parameters that do not show (requests of a warm-up, the text of a configuration) are left out.
    """
    if isinstance(value, Transition):
        return {"transition": value.what.value, "reason": value.reason, "details": plain(value.details)}
    found: Json = {"effect": type(value).__name__}
    for part in fields(value):
        content = getattr(value, part.name)
        if isinstance(content, ServiceSpec):
            found[part.name] = spec(content)
        elif part.repr:
            found[part.name] = plain(content)
    if isinstance(value, ShiftTraffic):
        found["shares"] = [
            {part.name: plain(getattr(share, part.name)) for part in fields(share)} for share in value.shares
        ]
    return found


def service_plan(value: ServicePlan) -> Json:
    """One service: how it stands, what comes next and what is waited for."""
    return {
        "service": value.service,
        "sync": value.sync.value,
        "health": value.health.value,
        "reason": plain(value.reason),
        "message": value.message,
        "waiting": value.waiting,
        "recheckAt": time(value.recheck_at),
        "replicas": value.replicas,
        "desired": version(value.desired),
        "stable": version(value.stable),
        "steps": [step(item) for item in value.steps],
        "instances": [instance(item) for item in value.instances],
        "progress": progress(value.progress),
    }


def plan(value: Plan) -> Json:
    """One environment's plan."""
    return {
        "environment": value.environment,
        "revision": revision(value.revision),
        "inSync": value.in_sync,
        "recheckAt": time(value.recheck_at),
        "steps": [step(item) for item in value.steps],
        "services": {name: service_plan(item) for name, item in sorted(value.services.items())},
    }


def environment_status(value: EnvironmentStatus) -> Json:
    """How an environment stood at the end of its last cycle."""
    return {
        "environment": value.environment,
        "at": time(value.at),
        "revision": value.revision,
        "rejected": value.rejected,
        "reason": plain(value.reason),
        "message": value.message,
        "lastSuccessAt": time(value.last_success_at),
        "problems": {name: list(found) for name, found in sorted(value.problems.items())},
        "plan": None if value.plan is None else plan(value.plan),
    }


def record(value: Record) -> Json:
    """One record of the journal with its place in the chain."""
    entry = value.entry
    return {
        "index": value.index,
        "epoch": value.epoch,
        "previous": value.previous,
        "hash": value.hash,
        "at": time(entry.at),
        "what": entry.what.value,
        "environment": entry.environment,
        "service": entry.service,
        "from": version(entry.from_version),
        "to": version(entry.to_version),
        "revision": entry.revision,
        "author": entry.author,
        "committer": entry.committer,
        "trigger": entry.trigger,
        "reason": entry.reason,
        "durationSeconds": None if entry.duration is None else entry.duration.total_seconds(),
        "details": plain(entry.details),
    }

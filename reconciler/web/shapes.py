"""What the HTTP API answers, as JSON Schemas: the objects that `core/render.py` makes. Values only."""

from __future__ import annotations

from typing import Any

from reconciler.core.analysis import Verdict
from reconciler.core.delivery import Strategy
from reconciler.core.live import HealthStatus, Phase, ServerMode, WarmthStatus
from reconciler.core.status import ServiceHealth, Sync

Json = dict[str, Any]

NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"}
TEXT = {"type": "string"}
TIME = {"type": "string", "format": "date-time"}
COUNT = {"type": "integer", "minimum": 0}


def maybe(schema: Json) -> Json:
    """This, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def ref(name: str) -> Json:
    """One of `schemas`, by name."""
    return {"$ref": f"#/components/schemas/{name}"}


def many(schema: Json) -> Json:
    """A list of these."""
    return {"type": "array", "items": schema}


def mapping(schema: Json) -> Json:
    """An object whose keys are names, and whose values are these."""
    return {"type": "object", "additionalProperties": schema}


def record(description: str, optional: tuple[str, ...] = (), /, **properties: Json) -> Json:
    """An object with exactly these properties, of which only the `optional` ones may be missing."""
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def words(*found: str) -> Json:
    """One of these words."""
    return {"type": "string", "enum": list(found)}


def _status_schemas() -> Json:
    """Status and plan; `core/render.py` makes these objects."""
    standing: Json = {
        "sync": words(*Sync),
        "health": words(*ServiceHealth),
        "reason": maybe(TEXT),
        "message": TEXT,
        "waiting": TEXT,
        "replicas": COUNT,
        "progress": maybe(ref("Progress")),
    }
    looked: Json = {
        "environment": TEXT,
        "at": TIME,
        "revision": TEXT,
        "rejected": TEXT,
        "reason": maybe(TEXT),
        "message": TEXT,
        "lastSuccessAt": maybe(TIME),
        "problems": mapping(many(TEXT)),
    }
    return {
        "Summary": record(
            "How an environment stood at the end of its last cycle, one line for each service.",
            **looked,
            inSync=maybe({"type": "boolean"}),
            services=mapping(record("How one service stands.", **standing)),
        ),
        "EnvironmentStatus": record(
            "How an environment stood at the end of its last cycle.", **looked, plan=maybe(ref("Plan"))
        ),
        "Plan": record(
            "The next safe steps, and how each service stands.",
            environment=TEXT,
            revision=maybe(ref("Revision")),
            inSync={"type": "boolean"},
            recheckAt=maybe(TIME),
            steps=many(ref("Step")),
            services=mapping(ref("ServicePlan")),
        ),
        "ServicePlan": record(
            "One service: how it stands, what comes next and what is waited for.",
            service=TEXT,
            **standing,
            recheckAt=maybe(TIME),
            desired=maybe(ref("Version")),
            stable=maybe(ref("Version")),
            steps=many(ref("Step")),
            instances=many(ref("Instance")),
        ),
        "Step": {
            "type": "object",
            "description": "An effect with its parameters, or a transition that is only recorded.",
            "oneOf": [{"required": ["effect"]}, {"required": ["transition"]}],
        },
        "Instance": _instance_schema(),
    }


def _progress_schemas() -> Json:
    """Releases and traffic; `core/render.py` makes these objects."""
    return {
        "Progress": record(
            "How far a release is and who gets the traffic; null for a service without a proxy and without scaling.",
            strategy=words(*Strategy),
            startedAt=maybe(TIME),
            returningSince=maybe(TIME),
            stage=maybe(ref("Stage")),
            split=many(
                record(
                    "A version's part of the live traffic; sessions is null when a proxy did not answer.",
                    version=TEXT,
                    percent={"type": "number", "minimum": 0, "maximum": 100},
                    sessions=maybe(COUNT),
                    places=COUNT,
                )
            ),
            scaling=maybe(
                record("How many instances demand asks for, and its limits.", count=COUNT, min=COUNT, max=COUNT)
            ),
            kept=many(
                record("An instance kept, out of traffic, for an instant return.", name=TEXT, version=TEXT, until=TIME)
            ),
            queued=COUNT,
        ),
        "Stage": record(
            "A stage of a release: since is null while its instances are coming, until is the end of the soak.",
            number=COUNT,
            of=COUNT,
            weight=COUNT,
            since=maybe(TIME),
            until=maybe(TIME),
            paused={"type": "boolean"},
            gate=maybe(
                record(
                    "What the gate says; verdict is null while it has seen nothing.",
                    verdict=maybe(words(*Verdict)),
                    said=TEXT,
                    seen={"type": "object"},
                )
            ),
        ),
        "Server": record(
            "The place of an instance in the proxies, as the least willing of them shows it.",
            address=TEXT,
            port=COUNT,
            mode=words(*ServerMode),
            weight=COUNT,
            up={"type": "boolean"},
            sessions=maybe(COUNT),
            requests=COUNT,
            errors=COUNT,
            even={"type": "boolean"},
        ),
        "Warmth": record(
            "How far a warm-up is; p95 in seconds.",
            status=words(*WarmthStatus),
            requests=COUNT,
            p95=maybe({"type": "number"}),
            said=TEXT,
        ),
    }


def _instance_schema() -> Json:
    return record(
        "One instance as the engine shows it.",
        name=TEXT,
        id=TEXT,
        service=TEXT,
        version=TEXT,
        revision=TEXT,
        ordinal={"type": "integer"},
        image=TEXT,
        phase=words(*Phase),
        health=words(*HealthStatus),
        serving={"type": "boolean"},
        createdAt=TIME,
        startedAt=maybe(TIME),
        finishedAt=maybe(TIME),
        exitCode=maybe({"type": "integer"}),
        oomKilled={"type": "boolean"},
        differences=many(record("What was changed by hand.", reason=TEXT, detail=TEXT)),
        detail=TEXT,
        address=TEXT,
        server=maybe(ref("Server")),
        preview=maybe(ref("Server")),
        warmth=maybe(ref("Warmth")),
        cpu=maybe({"type": "number"}),
        leaving={"type": "boolean"},
    )


def schemas() -> Json:
    """All of them by name."""
    others: Json = {
        "Environment": record(
            "An environment as the operator configured it, and how it stands.",
            name=TEXT,
            repository=TEXT,
            ref=TEXT,
            path=TEXT,
            runtime=TEXT,
            status=maybe(ref("Summary")),
        ),
        "Revision": record(
            "One commit.",
            sha=TEXT,
            parents=many(TEXT),
            author=TEXT,
            committer=TEXT,
            committedAt=TIME,
            subject=TEXT,
        ),
        "Version": record("A version of a service.", version=TEXT, image=TEXT, revision=TEXT),
        "Record": record(
            "One record of the journal, in its place in the hash chain.",
            index=COUNT,
            epoch=COUNT,
            previous=TEXT,
            hash=TEXT,
            at=TIME,
            what=TEXT,
            environment=TEXT,
            service=TEXT,
            **{"from": maybe(ref("Version"))},
            to=maybe(ref("Version")),
            revision=TEXT,
            author=TEXT,
            committer=TEXT,
            trigger=TEXT,
            reason=TEXT,
            durationSeconds=maybe({"type": "number"}),
            details={"type": "object"},
        ),
        "Error": record("What is wrong, and what to do about it.", ("remedy",), error=TEXT, remedy=TEXT),
        "Checks": record(
            "Each check: ok, or its problem. `leader`: whether this daemon acts; one that stands by is well, too.",
            ok={"type": "boolean"},
            leader={"type": "boolean"},
            checks=mapping(TEXT),
        ),
        "Matched": record(
            "What a delivery caused: the environments that will be looked at, and why others will not.",
            matched=many(TEXT),
            ignored=many(TEXT),
        ),
    }
    return _status_schemas() | _progress_schemas() | others

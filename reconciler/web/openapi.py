"""The OpenAPI 3.1 description of the HTTP API. Values only; `tests/web` holds the running server to it."""

from __future__ import annotations

from typing import Any

from reconciler import __version__
from reconciler.core.live import HealthStatus, Phase
from reconciler.core.status import ServiceHealth, Sync

Json = dict[str, Any]

NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"}
TEXT = {"type": "string"}
TIME = {"type": "string", "format": "date-time"}
COUNT = {"type": "integer", "minimum": 0}


def _maybe(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _many(schema: Json) -> Json:
    return {"type": "array", "items": schema}


def _map(schema: Json) -> Json:
    return {"type": "object", "additionalProperties": schema}


def _object(description: str, optional: tuple[str, ...] = (), /, **properties: Json) -> Json:
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def _words(*words: str) -> Json:
    return {"type": "string", "enum": list(words)}


def _status_schemas() -> Json:
    """Status and plan; `core/render.py` makes these objects."""
    standing: Json = {
        "sync": _words(*Sync),
        "health": _words(*ServiceHealth),
        "reason": _maybe(TEXT),
        "message": TEXT,
        "waiting": TEXT,
        "replicas": COUNT,
    }
    looked: Json = {
        "environment": TEXT,
        "at": TIME,
        "revision": TEXT,
        "rejected": TEXT,
        "reason": _maybe(TEXT),
        "message": TEXT,
        "lastSuccessAt": _maybe(TIME),
        "problems": _map(_many(TEXT)),
    }
    return {
        "Summary": _object(
            "How an environment stood at the end of its last cycle, one line for each service.",
            **looked,
            inSync=_maybe({"type": "boolean"}),
            services=_map(_object("How one service stands.", **standing)),
        ),
        "EnvironmentStatus": _object(
            "How an environment stood at the end of its last cycle.", **looked, plan=_maybe(_ref("Plan"))
        ),
        "Plan": _object(
            "The next safe steps, and how each service stands.",
            environment=TEXT,
            revision=_maybe(_ref("Revision")),
            inSync={"type": "boolean"},
            recheckAt=_maybe(TIME),
            steps=_many(_ref("Step")),
            services=_map(_ref("ServicePlan")),
        ),
        "ServicePlan": _object(
            "One service: how it stands, what comes next and what is waited for.",
            service=TEXT,
            **standing,
            recheckAt=_maybe(TIME),
            desired=_maybe(_ref("Version")),
            stable=_maybe(_ref("Version")),
            steps=_many(_ref("Step")),
            instances=_many(_ref("Instance")),
        ),
        "Step": {
            "type": "object",
            "description": "An effect with its parameters, or a transition that is only recorded.",
            "oneOf": [{"required": ["effect"]}, {"required": ["transition"]}],
        },
        "Instance": _instance_schema(),
    }


def _instance_schema() -> Json:
    return _object(
        "One instance as the engine shows it.",
        name=TEXT,
        id=TEXT,
        service=TEXT,
        version=TEXT,
        revision=TEXT,
        ordinal={"type": "integer"},
        image=TEXT,
        phase=_words(*Phase),
        health=_words(*HealthStatus),
        serving={"type": "boolean"},
        createdAt=TIME,
        startedAt=_maybe(TIME),
        finishedAt=_maybe(TIME),
        exitCode=_maybe({"type": "integer"}),
        oomKilled={"type": "boolean"},
        differences=_many(_object("What was changed by hand.", reason=TEXT, detail=TEXT)),
        detail=TEXT,
    )


def _schemas() -> Json:
    return _status_schemas() | {
        "Environment": _object(
            "An environment as the operator configured it, and how it stands.",
            name=TEXT,
            repository=TEXT,
            ref=TEXT,
            path=TEXT,
            runtime=TEXT,
            status=_maybe(_ref("Summary")),
        ),
        "Revision": _object(
            "One commit.",
            sha=TEXT,
            parents=_many(TEXT),
            author=TEXT,
            committer=TEXT,
            committedAt=TIME,
            subject=TEXT,
        ),
        "Version": _object("A version of a service.", version=TEXT, image=TEXT, revision=TEXT),
        "Record": _object(
            "One record of the journal, in its place in the hash chain.",
            index=COUNT,
            epoch=COUNT,
            previous=TEXT,
            hash=TEXT,
            at=TIME,
            what=TEXT,
            environment=TEXT,
            service=TEXT,
            **{"from": _maybe(_ref("Version"))},
            to=_maybe(_ref("Version")),
            revision=TEXT,
            author=TEXT,
            committer=TEXT,
            trigger=TEXT,
            reason=TEXT,
            durationSeconds=_maybe({"type": "number"}),
            details={"type": "object"},
        ),
        "Error": _object("What is wrong, and what to do about it.", ("remedy",), error=TEXT, remedy=TEXT),
        "Checks": _object("Each check: ok, or its problem.", ok={"type": "boolean"}, checks=_map(TEXT)),
        "Matched": _object(
            "What a delivery caused: the environments that will be looked at, and why others will not.",
            matched=_many(TEXT),
            ignored=_many(TEXT),
        ),
    }


def _json(description: str, schema: Json) -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _errors(**meanings: str) -> Json:
    return {status.removeprefix("e"): _json(meaning, _ref("Error")) for status, meaning in meanings.items()}


_DENIED = _errors(
    e400="A parameter is unknown or wrong.",
    e401="The token is missing or wrong.",
    e421="This Host is not served.",
    e503="No token is configured, or the journal cannot be read.",
)
_UNKNOWN = _errors(e404="There is no such thing.")


def _path(name: str, schema: Json) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _filter(name: str, schema: Json, description: str) -> Json:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}


def _guarded(summary: str, responses: Json, *parameters: Json) -> Json:
    return {
        "summary": summary,
        "parameters": list(parameters),
        "security": [{"token": []}],
        "responses": responses | _DENIED,
    }


def _api_paths() -> Json:
    name = _path("name", NAME)
    status = _json("The latest status.", _ref("EnvironmentStatus"))
    listed = _object("All of them.", environments=_many(_ref("Environment")))
    page = _object(
        "One page; `next` is the `after` of the next one.", records=_many(_ref("Record")), next=_maybe(COUNT)
    )
    asked = _object("A look was asked for.", environment=TEXT, requested={"type": "boolean"})
    filters = (
        _filter("after", COUNT | {"maximum": 10**18 - 1}, "Only records with a greater index."),
        _filter("environment", NAME, "Only records of this environment."),
        _filter("service", NAME, "Only records of this service."),
        _filter("limit", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}, "At most so many."),
    )
    one = "/api/v1/environments/{name}"
    return {
        "/api/v1/environments": {"get": _guarded("All environments", {"200": _json("All of them.", listed)})},
        one: {"get": _guarded("One environment's status", {"200": status} | _UNKNOWN, name)},
        f"{one}/plan": {
            "get": _guarded("Its plan", {"200": _json("The last cycle's plan.", _ref("Plan"))} | _UNKNOWN, name)
        },
        f"{one}/reconcile": {
            "post": _guarded("Ask for a look", {"202": _json("It will be looked at.", asked)} | _UNKNOWN, name)
        },
        "/api/v1/records": {"get": _guarded("Records of the journal", {"200": _json("One page.", page)}, *filters)},
        "/api/v1/records/{index}": {
            "get": _guarded(
                "One record",
                {"200": _json("The record.", _ref("Record"))} | _UNKNOWN,
                _path("index", {"type": "integer", "minimum": 1, "maximum": 10**18 - 1}),
            )
        },
        "/api/v1/openapi.json": {"get": _guarded("This document", {"200": _json("OpenAPI 3.1.", {"type": "object"})})},
    }


def _open_paths() -> Json:
    metrics = {"description": "Prometheus' text format.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    matched = _ref("Matched")
    wrong_host = _errors(e421="This Host is not served.")

    def checks(summary: str) -> Json:
        good, bad = _json("All is well.", _ref("Checks")), _json("Something is not.", _ref("Checks"))
        return {"get": {"summary": summary, "security": [], "responses": {"200": good, "503": bad} | wrong_host}}

    hook = {
        "summary": "A delivery of a forge, proved by the repository's webhook secret",
        "security": [],
        "parameters": [_path("repository", TEXT)],
        "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}},
        "responses": {
            "200": _json("Authentic, but nothing to do.", matched),
            "202": _json("These environments will be looked at.", matched),
        }
        | _errors(
            e400="Authentic, but malformed.",
            e401="The proof is missing or wrong.",
            e404="There is no such repository.",
            e408="The body took too long.",
            e413="The body is too large.",
            e503="There is no webhook secret, or too much to do.",
        ),
    }
    denied = _errors(e401="The token is missing or wrong.", e503="No token is configured.")
    return {
        "/livez": {**checks("Whether the daemon moves")},
        "/readyz": {**checks("Whether the daemon can do its work")},
        "/metrics": {
            "get": {
                "summary": "Metrics",
                "security": [{"token": []}],
                "responses": {"200": metrics} | denied | wrong_host,
            }
        },
        "/webhook/{repository}": {"post": hook},
    }


def document() -> Json:
    """The whole document, as plain JSON."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Reconciler",
            "version": __version__,
            "description": "Shows environments, plans and records, and triggers a look. Desired state is Git's alone.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": _open_paths() | _api_paths(),
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }

"""The OpenAPI 3.1 description of the HTTP API. Values only; `tests/web` holds the running server to it."""

from __future__ import annotations

from reconciler import __version__
from reconciler.web.shapes import COUNT, NAME, TEXT, Json, many, maybe, record, ref, schemas


def _json(description: str, schema: Json) -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _errors(**meanings: str) -> Json:
    return {status.removeprefix("e"): _json(meaning, ref("Error")) for status, meaning in meanings.items()}


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
    status = _json("The latest status.", ref("EnvironmentStatus"))
    listed = record("All of them.", environments=many(ref("Environment")))
    page = record("One page; `next` is the `after` of the next one.", records=many(ref("Record")), next=maybe(COUNT))
    asked = record("A look was asked for.", environment=TEXT, requested={"type": "boolean"})
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
            "get": _guarded("Its plan", {"200": _json("The last cycle's plan.", ref("Plan"))} | _UNKNOWN, name)
        },
        f"{one}/reconcile": {
            "post": _guarded("Ask for a look", {"202": _json("It will be looked at.", asked)} | _UNKNOWN, name)
        },
        "/api/v1/records": {"get": _guarded("Records of the journal", {"200": _json("One page.", page)}, *filters)},
        "/api/v1/records/{index}": {
            "get": _guarded(
                "One record",
                {"200": _json("The record.", ref("Record"))} | _UNKNOWN,
                _path("index", {"type": "integer", "minimum": 1, "maximum": 10**18 - 1}),
            )
        },
        "/api/v1/openapi.json": {"get": _guarded("This document", {"200": _json("OpenAPI 3.1.", {"type": "object"})})},
    }


def _open_paths() -> Json:
    metrics = {"description": "Prometheus' text format.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    matched = ref("Matched")
    wrong_host = _errors(e421="This Host is not served.")

    def checks(summary: str) -> Json:
        good, bad = _json("All is well.", ref("Checks")), _json("Something is not.", ref("Checks"))
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
            "schemas": schemas(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }

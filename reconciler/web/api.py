"""The API under `/api/v1`: shows environments, plans and records, and triggers a look. Desired state is Git's alone."""

from __future__ import annotations

import json
import re

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from reconciler.core import render
from reconciler.core.status import EnvironmentStatus
from reconciler.ports import Cause
from reconciler.web.house import WebHouse, answer
from reconciler.web.openapi import document

PAGE = 100
LARGEST_PAGE = 1000
PAGE_BYTES = 4 * 1024 * 1024
_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_NUMBER = re.compile(r"[0-9]{1,18}")


class ApiRoutes:
    """One method for each route. They run in threads, since the journal blocks."""

    def __init__(self, house: WebHouse) -> None:
        self._house = house

    def environments(self, request: Request) -> Response:
        """All configured environments, those that were never looked at included."""
        _query(request, frozenset())
        statuses = self._house.board.all()
        found = [
            {
                "name": name,
                "repository": settings.repository,
                "ref": settings.ref,
                "path": settings.path,
                "runtime": settings.runtime,
                "status": _summary(statuses.get(name)),
            }
            for name, settings in sorted(self._house.settings().environments.items())
        ]
        return answer(self._house, {"environments": found})

    def environment(self, request: Request) -> Response:
        """The latest status, whole."""
        _query(request, frozenset())
        return answer(self._house, render.environment_status(self._status(request)))

    def plan(self, request: Request) -> Response:
        """The plan of the last cycle. 404 while there is none."""
        _query(request, frozenset())
        status = self._status(request)
        if status.plan is None:
            why = status.message or "see its status"
            raise HTTPException(404, f"environment {status.environment} has no plan: {why}")
        return answer(self._house, render.plan(status.plan))

    def reconcile(self, request: Request) -> Response:
        """Ask for a look, with a fetch. What comes of it is up to Git."""
        _query(request, frozenset())
        name = self._name(request)
        self._house.look(name, Cause(kind="api", at=self._house.clock.now(), git=True))
        return answer(self._house, {"environment": name, "requested": True}, 202)

    def records(self, request: Request) -> Response:
        """Records after an index, at most `limit` and PAGE_BYTES of them; `next` is the `after` of the next page."""
        asked = _query(request, frozenset({"after", "environment", "service", "limit"}))
        limit = _number(asked, "limit", PAGE, 1, LARGEST_PAGE)
        journal = self._house.journal.records(
            after=_number(asked, "after", 0, 0, 10**18 - 1),
            environment=_named(asked, "environment"),
            service=_named(asked, "service"),
            limit=limit + 1,  # one more than asked for tells whether there is a next page
        )
        found: list[render.Json] = []
        size, more = 0, False
        for record in journal:
            shown = render.record(record)
            size += len(json.dumps(shown))
            more = bool(found) and (len(found) == limit or size > PAGE_BYTES)
            if more:
                break
            found.append(shown)
        return answer(self._house, {"records": found, "next": found[-1]["index"] if more else None})

    def record(self, request: Request) -> Response:
        """One record by its index."""
        _query(request, frozenset())
        index = str(request.path_params["index"])
        if _NUMBER.fullmatch(index) and int(index) > 0:
            for record in self._house.journal.records(after=int(index) - 1, limit=1):
                if record.index == int(index):
                    return answer(self._house, render.record(record))
        raise HTTPException(404, f"there is no record {index[:64]}")

    def openapi(self, request: Request) -> Response:
        """The description of this API."""
        _query(request, frozenset())
        return answer(self._house, document())

    def _name(self, request: Request) -> str:
        name = str(request.path_params["name"])
        if name not in self._house.settings().environments:
            raise HTTPException(404, f"there is no environment {name[:64]}")
        return name

    def _status(self, request: Request) -> EnvironmentStatus:
        name = self._name(request)
        status = self._house.board.get(name)
        if status is None:
            raise HTTPException(404, f"environment {name} has no status yet: its first look is not over")
        return status


def _summary(status: EnvironmentStatus | None) -> render.Json | None:
    """A status without its plan: one line for each service."""
    if status is None:
        return None
    whole = render.environment_status(status)
    plan = whole.pop("plan")
    services = plan["services"] if plan else {}
    kept = ("sync", "health", "reason", "message", "waiting", "replicas", "progress")
    whole["inSync"] = plan["inSync"] if plan else None
    whole["services"] = {name: {key: service[key] for key in kept} for name, service in services.items()}
    return whole


def _query(request: Request, allowed: frozenset[str]) -> dict[str, str]:
    """The query's parameters. A misspelt filter must not silently widen an answer, so it is an error."""
    pairs = request.query_params.multi_items()
    for name, _value in pairs:
        if name not in allowed:
            known = ", ".join(sorted(allowed)) or "none"
            raise HTTPException(400, f"unknown parameter {name[:64]}; known: {known}")
    if len(dict(pairs)) != len(pairs):
        raise HTTPException(400, "a parameter is given twice")
    return dict(pairs)


def _number(asked: dict[str, str], name: str, default: int, least: int, most: int) -> int:
    text = asked.get(name)
    if text is None:
        return default
    if not _NUMBER.fullmatch(text) or not least <= int(text) <= most:
        raise HTTPException(400, f"{name} must be a number from {least} to {most}")
    return int(text)


def _named(asked: dict[str, str], name: str) -> str:
    text = asked.get(name)
    if text is not None and not _NAME.fullmatch(text):
        raise HTTPException(400, f"{name} must be a name: small letters, digits and hyphens")
    return text or ""

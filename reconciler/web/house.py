"""What the HTTP side needs of the rest of the program, and how it answers. Holds no request logic."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from reconciler.board import Board
from reconciler.ports import Cause, Clock, Journal
from reconciler.redact import Redactor
from reconciler.settings import Settings
from reconciler.telemetry import Metrics

Checks = Callable[[], Mapping[str, str]]
"""The name of each check and its problem, empty when there is none. Called in a thread; must return soon."""


@dataclass(frozen=True, slots=True)
class WebHouse:
    """Values and callables; those of `settings` and `token` are asked at each request, so that a reload counts at once.

    `look` is `Inbox.request`, `webhook` the endpoint `triggers.webhook.Webhook.respond`. `token` is empty when none is
    configured. Of `journal` only `records` is used.
    """

    settings: Callable[[], Settings]
    token: Callable[[], bytes]
    board: Board
    journal: Journal
    look: Callable[[str, Cause], None]
    webhook: Callable[[Request], Awaitable[Response]]
    clock: Clock
    metrics: Metrics
    redactor: Redactor
    live: Checks
    ready: Checks
    leads: Callable[[], bool] = lambda: True


def answer(
    house: WebHouse, content: Mapping[str, object], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """`content` as JSON, without secrets. Pure ASCII, because a lone surrogate cannot be sent in any other way."""
    body = json.dumps(house.redactor.data(content), separators=(",", ":"), allow_nan=False).encode("ascii")
    return Response(body, status, headers=headers, media_type="application/json")


def problem(
    house: WebHouse, status: int, error: str, remedy: str = "", headers: Mapping[str, str] | None = None
) -> Response:
    """An error, and what to do about it where that is known."""
    return answer(house, {"error": error} | ({"remedy": remedy} if remedy else {}), status, headers)

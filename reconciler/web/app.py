"""The application: which path leads where, and how errors leave. Exact paths only; nothing is redirected."""

from __future__ import annotations

import structlog
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from reconciler.core.errors import ReconcilerError
from reconciler.web.api import ApiRoutes
from reconciler.web.auth import Guard, seal
from reconciler.web.health import HealthRoutes
from reconciler.web.house import WebHouse, problem

_log = structlog.get_logger(__name__)


def create_app(house: WebHouse) -> Starlette:
    """The ASGI application of all routes behind the guard."""
    api, health = ApiRoutes(house), HealthRoutes(house)
    routes = [
        Route("/livez", health.livez),
        Route("/readyz", health.readyz),
        Route("/metrics", health.metrics),
        Route("/webhook/{repository}", house.webhook, methods=["POST"]),
        Route("/api/v1/environments", api.environments),
        Route("/api/v1/environments/{name}", api.environment),
        Route("/api/v1/environments/{name}/plan", api.plan),
        Route("/api/v1/environments/{name}/reconcile", api.reconcile, methods=["POST"]),
        Route("/api/v1/records", api.records),
        Route("/api/v1/records/{index}", api.record),
        Route("/api/v1/openapi.json", api.openapi),
    ]

    def known(_request: Request, error: Exception) -> Response:
        """Our own errors: the journal cannot be read now, say. A person may read them."""
        return problem(house, 503, str(error))

    def refused(_request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 400
        detail = error.detail if isinstance(error, HTTPException) else ""
        words = {404: "not found", 405: "this method is not allowed here"}
        text = words[status] if status in words and detail in ("Not Found", "Method Not Allowed") else detail
        return problem(house, status, text, headers=getattr(error, "headers", None))

    def bug(request: Request, error: Exception) -> Response:
        """Our bug: the log has the traceback, the answer only says so."""
        _log.error("http_failed", path=request.url.path[:200], error=house.redactor.exception(error))
        # The server hangs up after an error like this one: the client must know not to ask again on this connection.
        response = problem(house, 500, "an internal error", "the daemon's log says more", {"connection": "close"})
        seal(MutableHeaders(raw=response.raw_headers))
        return response

    app = Starlette(
        routes=routes,
        middleware=[Middleware(Guard, house=house)],
        exception_handlers={HTTPException: refused, ReconcilerError: known, Exception: bug},
    )
    app.router.redirect_slashes = False
    return app

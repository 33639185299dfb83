"""Health and metrics endpoints, open to whoever runs the daemon. They report what they are told and check nothing."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from reconciler.web.house import Checks, WebHouse, answer


class HealthRoutes:
    """`/livez`: the loop moves. `/readyz`: it can do its work. `/metrics`: for Prometheus."""

    def __init__(self, house: WebHouse) -> None:
        self._house = house

    def livez(self, _request: Request) -> Response:
        """200 or 503, with each check."""
        return self._checked(self._house.live)

    def readyz(self, _request: Request) -> Response:
        """200 or 503, with each check. A daemon that stands by is ready: to take over is its work."""
        return self._checked(self._house.ready)

    def metrics(self, _request: Request) -> Response:
        """The registry in Prometheus' text format."""
        return Response(generate_latest(self._house.metrics.registry), headers={"content-type": CONTENT_TYPE_LATEST})

    def _checked(self, checks: Checks) -> Response:
        found = {name: problem or "ok" for name, problem in checks().items()}
        good = all(result == "ok" for result in found.values())
        return answer(self._house, {"ok": good, "leader": self._house.leads(), "checks": found}, 200 if good else 503)

"""The parts of a valid manifest that say how a version takes over and is reached, as values of `core/delivery.py`.

It judges nothing: the schema and `core/rules_delivery.py` have done so.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from reconciler.core import quantity
from reconciler.core.delivery import (
    Against,
    Gate,
    Query,
    Rollout,
    Route,
    RouteMode,
    Scaling,
    Stage,
    Strategy,
    Undecided,
    Volume,
    WarmRequest,
    WarmUp,
)
from reconciler.core.fields import Table, given
from reconciler.core.model import Port

STEP_SOAK = timedelta(minutes=1)
"""How long a step of canary lasts when it does not say so itself."""
BLUE_GREEN_HOLD = timedelta(minutes=5)
"""How long blueGreen keeps the version before when the manifest does not say so."""


def _cores(text: str) -> float:
    return quantity.nano_cpus(text) / 10**9


_ROLLOUT: Table = {
    "strategy": ("strategy", Strategy),
    "surge": ("surge", int),
    "unavailable": ("unavailable", int),
    "progressDeadline": ("progress_deadline", quantity.duration),
    "soak": ("soak", quantity.duration),
    "hold": ("hold", quantity.duration),
}
_PREVIEW: Table = {"soak": ("preview_soak", quantity.duration), "pause": ("preview_pause", bool)}
_STEP: Table = {"weight": ("weight", int), "soak": ("soak", quantity.duration), "pause": ("pause", bool)}
_GATE: Table = {
    "against": ("against", Against),
    "alpha": ("alpha", float),
    "minimumRequests": ("minimum", int),
    "undecided": ("undecided", Undecided),
}
_ROUTE: Table = {
    "mode": ("mode", RouteMode),
    "hosts": ("hosts", tuple),
    "paths": ("paths", tuple),
    "listen": ("listen", int),
    "preview": ("preview", str),
    "sticky": ("sticky", bool),
    "maxConnections": ("max_connections", int),
    "timeout": ("timeout", quantity.duration),
}
_WARM_UP: Table = {
    "count": ("count", int),
    "p95": ("p95", quantity.duration),
    "relativeToStable": ("relative", float),
    "deadline": ("deadline", quantity.duration),
}
_SCALING: Table = {
    "min": ("minimum", int),
    "max": ("maximum", int),
    "sessionsPerInstance": ("sessions", float),
    "requestsPerSecondPerInstance": ("rate", float),
    "cpu": ("cpu", _cores),
    "stabilization": ("stabilization", quantity.duration),
    "wake": ("wake", quantity.duration),
}


def port_number(reference: str | int, ports: Mapping[str, Port]) -> int:
    """The port of the instance that a name in `ports`, or a number, means."""
    return reference if isinstance(reference, int) else ports[reference].container


def rollout(section: Mapping[str, Any], *, native: bool = False) -> Rollout:
    """`spec.rollout`, with the defaults that depend on the strategy, and on the engine: `native` is Kubernetes."""
    strategy = Strategy(section.get("strategy", Strategy.ROLLING))
    found: dict[str, Any] = {"hold": BLUE_GREEN_HOLD} if strategy is Strategy.BLUE_GREEN else {}
    found |= given(section, _ROLLOUT)
    found |= given(section.get("preview", {}), _PREVIEW)
    stages = tuple(Stage(**({"soak": STEP_SOAK} | given(step, _STEP))) for step in section.get("steps", ()))
    gate = _gate(section["gate"], strategy, native=native) if "gate" in section else None
    return Rollout(**found, stages=stages, gate=gate)


def _gate(section: Mapping[str, Any], strategy: Strategy, *, native: bool) -> Gate:
    """A gate. After the switch of blueGreen there is nobody to compare with: errors are looked at for a limit only.

    On Kubernetes nobody counts requests for Reconciler: a gate is made of queries alone.
    """
    errors, latency = section.get("errors", not native), section.get("latency", {})
    limit = _share(errors) if isinstance(errors, dict) else None
    alone = strategy is Strategy.BLUE_GREEN
    defaults: dict[str, Any] = {"against": Against.STABLE} if native else {}
    return Gate(
        **(defaults | given(section, _GATE)),
        errors=limit is not None if alone else errors is not False,
        max_errors=limit,
        slow=quantity.duration(latency["slowerThan"]) if latency else None,
        max_slow=_share(latency),
        queries=tuple(_query(item) for item in section.get("queries", ())),
    )


def _share(section: Mapping[str, Any]) -> float | None:
    return float(section["max"]) if "max" in section else None


def _query(item: Mapping[str, Any]) -> Query:
    low = float(item["min"]) if "min" in item else None
    return Query(item["name"], item["promql"], maximum=_share(item), minimum=low)


def route(section: Mapping[str, Any], ports: Mapping[str, Port]) -> Route:
    """`spec.traffic`."""
    return Route(port=port_number(section["port"], ports), **given(section, _ROUTE))


def warm_up(section: Mapping[str, Any]) -> WarmUp:
    """`spec.warmUp`."""
    requests = tuple(
        WarmRequest(
            path=item["path"],
            method=item.get("method", "GET"),
            headers=tuple(item.get("headers", {}).items()),
            body=item.get("body", ""),
        )
        for item in section["requests"]
    )
    return WarmUp(requests=requests, **given(section, _WARM_UP))


def scaling(section: Mapping[str, Any]) -> Scaling:
    """`spec.scaling`."""
    return Scaling(**given(section, _SCALING))


def volume(item: Mapping[str, Any]) -> Volume:
    """One of `spec.volumes`."""
    return Volume(item["name"], item["path"], shared=item.get("shared", False), read_only=item.get("readOnly", False))

"""How requests reach the groups of a service: Services, and the routes of a Gateway (Gateway API). Pure.

All default values that the API server would put into a list of a route are written out: the whole list is owned.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from reconciler.core import names
from reconciler.core.delivery import Route, RouteMode
from reconciler.core.kubernetes_json import Json
from reconciler.core.kubernetes_labels import COMPANIONS, GROUP, OPERATED, Place, Ref, orphan_name, ownership, rendered
from reconciler.core.model import ServiceSpec
from reconciler.core.quantity import duration_text
from reconciler.core.steps import GroupShare, RouteGroups

NOBODY = "0"
"""No group is called so: a Service that selects it leads nowhere."""
PREVIEW = ".preview"
"""Behind a service's name: the route of its preview address. No service has a dot in its name."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """The Gateway to which routes are attached. An empty `namespace` is the environment's, an empty `section` all."""

    name: str
    namespace: str = ""
    section: str = ""


def service_of(service: str, share: GroupShare) -> str:
    """The Service that leads to one group only: called as the group, whose version is in its name.

    That of the one group for all versions cannot be called so, as the whole service is.
    """
    return names.group(service, "0" * 12) if share.name == service else share.name


def routed(effect: RouteGroups, place: Place, gateway: Gateway | None) -> Iterator[Json]:
    """All that leads requests to a service, in the order of making: nothing is referred to before it is there."""
    spec = effect.spec
    route = spec.route if gateway is not None else None
    if route is not None and route.mode is not RouteMode.HTTP:
        route = None
    exact = route is not None and not effect.mixed
    own = [_service(effect, place, service_of(spec.name, share), share.name) for share in effect.shares if exact]
    routes = list(_routes(effect, place, gateway, route)) if gateway is not None and route is not None else []
    notes = {COMPANIONS: ",".join(orphan_name(Ref(each["kind"], each["metadata"]["name"])) for each in (*own, *routes))}
    yield from own
    yield _service(effect, place, spec.name, None if effect.mixed else _main(effect), notes)
    yield from routes


def _main(effect: RouteGroups) -> str:
    """The group that gets what comes past the Gateway, inside the cluster: the one with the largest share."""
    largest = max(effect.shares, key=lambda share: share.weight, default=None)
    return largest.name if largest is not None and largest.weight else NOBODY


def _service(
    effect: RouteGroups, place: Place, name: str, group: str | None, notes: dict[str, str] | None = None
) -> Json:
    """A Service for one group, or for all instances of the service."""
    spec = effect.spec
    chosen = {**ownership(place.owner, effect.environment), names.LABEL_SERVICE: spec.name}
    if group is not None:
        chosen[GROUP] = group
    ports = _ports(spec)
    # Without a port it is only a name for the addresses of the instances.
    body: Json = {"ports": ports} if ports else {"clusterIP": "None"}
    return rendered(
        Ref("Service", name),
        place,
        effect.environment,
        spec.name,
        {},
        {OPERATED: effect.operated, **(notes or {})},
        {"spec": {"type": "ClusterIP", "selector": chosen, **body}},
    )


def _ports(spec: ServiceSpec) -> list[Json]:
    found = [_port(port.name, port.container, port.protocol.upper()) for port in spec.ports]
    route = spec.route
    if route is not None and not any(p.container == route.port and p.protocol == "tcp" for p in spec.ports):
        # No port of a service has a name that begins with a digit.
        found.append(_port(f"{route.port}-traffic", route.port, "TCP"))
    return found


def _port(name: str, number: int, protocol: str) -> Json:
    return {"name": name, "port": number, "targetPort": number, "protocol": protocol}


def _routes(effect: RouteGroups, place: Place, gateway: Gateway, route: Route) -> Iterator[Json]:
    service = effect.spec.name
    shares = [(service_of(service, share), share.weight) for share in effect.shares]
    if effect.mixed:
        shares = [(service, 1)]
    yield _route(effect, place, gateway, service, route, list(route.hosts), shares)
    shown = next((share for share in effect.shares if share.name == effect.preview), None)
    if route.preview and shown is not None and not effect.mixed:
        name = service_of(service, shown)
        yield _route(effect, place, gateway, f"{service}{PREVIEW}", route, [route.preview], [(name, 1)])


def _route(
    effect: RouteGroups,
    place: Place,
    gateway: Gateway,
    name: str,
    route: Route,
    hosts: list[str],
    shares: list[tuple[str, int]],
) -> Json:
    parent = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": gateway.name}
    parent |= {"namespace": gateway.namespace} if gateway.namespace else {}
    parent |= {"sectionName": gateway.section} if gateway.section else {}
    rule = {
        "matches": [{"path": {"type": "PathPrefix", "value": path}} for path in route.paths],
        "backendRefs": [
            {"group": "", "kind": "Service", "name": backend, "port": route.port, "weight": weight}
            for backend, weight in shares
        ],
        "timeouts": {"request": duration_text(route.timeout)},
    }
    spec: Json = {"parentRefs": [parent], "rules": [rule]}
    return rendered(
        Ref("HTTPRoute", name),
        place,
        effect.environment,
        effect.spec.name,
        {},
        {OPERATED: effect.operated},
        {"spec": {**({"hostnames": hosts} if hosts else {}), **spec}},
    )

"""What must hold between the services of one environment: dependencies exist and form no circle, places differ.

Places are host ports, what services claim at the proxy (a host name with a path, a preview host, a port), and on
Kubernetes the objects of plain manifests.
"""

from __future__ import annotations

import graphlib
import itertools
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from reconciler.core import bundle
from reconciler.core.delivery import Route, RouteMode
from reconciler.core.kubernetes_identity import Identity
from reconciler.core.kubernetes_labels import API
from reconciler.core.model import Port, Problem, ServiceSpec
from reconciler.core.names import inventory
from reconciler.core.overlay import Manifest
from reconciler.core.rules import collide
from reconciler.core.words import nearest
from reconciler.core.yaml_reader import Path

_NAMED = 5
"""How many of those who want the same place are named."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A service that is right by itself, and where its parts are written."""

    spec: ServiceSpec
    manifest: Manifest


def disagreements(
    services: Mapping[str, Neighbour], names: Collection[str], namespace: str = ""
) -> Iterator[tuple[str, Problem]]:
    """(service, problem) for each. `names` are all services that have a file, those that are wrong by themselves too;
    `namespace` is that of the environment.

    All services of a circle, or at the same place, get a problem: nothing tells which of them is the wrong one.
    """
    yield from _unknown(services, names)
    yield from _circles(services)
    yield from _host_ports(services)
    yield from _traffic(services)
    yield from _objects(services, names, namespace)


def _unknown(services: Mapping[str, Neighbour], names: Collection[str]) -> Iterator[tuple[str, Problem]]:
    for name, service in services.items():
        for index, other in enumerate(service.spec.depends_on):
            if other not in names:
                message = f"there is no service {other} in this environment{nearest(other, names)}"
                yield name, service.manifest.problem(("spec", "dependsOn", index), message)


def _circles(services: Mapping[str, Neighbour]) -> Iterator[tuple[str, Problem]]:
    graph = {
        name: {other for other in service.spec.depends_on if other in services}
        for name, service in services.items()
        if service.spec.depends_on
    }
    while circle := _circle(graph):
        path = " -> ".join(circle)
        for name, after in itertools.pairwise(circle):
            service = services[name]
            place = ("spec", "dependsOn", service.spec.depends_on.index(after))
            yield name, service.manifest.problem(place, f"dependsOn goes in a circle: {path}; remove one of these")
            del graph[name]


def _circle(graph: Mapping[str, set[str]]) -> list[str]:
    """One circle as first -> … -> first, each depending on the next, or an empty list."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        found: list[str] = error.args[1]
        return found[::-1]
    return []


def _host_ports(services: Mapping[str, Neighbour]) -> Iterator[tuple[str, Problem]]:
    taken: dict[int, list[tuple[str, int, Port]]] = defaultdict(list)
    for name, service in services.items():
        for index, port in enumerate(service.spec.ports):
            if port.host is not None:
                taken[port.host].append((name, index, port))
    for holders in taken.values():
        for name, index, port in holders:
            others = [other for other, _, theirs in holders if other != name and collide(port, theirs)]
            if others:
                message = f"host port {port.host} is also wanted by {', '.join(others[:_NAMED])}; give each its own"
                yield name, services[name].manifest.problem(("spec", "ports", index, "host"), message)


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a service claims at the proxy, in words, and where it does so. `host`: of which host it is a path."""

    service: str
    what: str
    place: Path
    host: str = ""


def _claims(name: str, route: Route) -> Iterator[_Claim]:
    if route.mode is RouteMode.TCP:
        yield _Claim(name, f"port {route.listen} of the proxy", ("spec", "traffic", "listen"))
        return
    for index, host in enumerate(route.hosts or ("",)):
        for number, path in enumerate(route.paths):
            place: Path = ("spec", "traffic", *(("hosts", index) if host else ("paths", number)))
            where = f"host {host}" if host else "any host"
            yield _Claim(name, f"{where} with path {path}", place, host=where)
    if route.preview:
        yield _Claim(name, f"host {route.preview}", ("spec", "traffic", "preview"))


def _traffic(services: Mapping[str, Neighbour]) -> Iterator[tuple[str, Problem]]:
    """A place at the proxy belongs to one service. A preview host is a whole one: nobody else has a path of it."""
    claims = [
        claim
        for name, service in services.items()
        if service.spec.route is not None
        for claim in _claims(name, service.spec.route)
    ]
    same: dict[str, list[_Claim]] = defaultdict(list)
    below: dict[str, list[_Claim]] = defaultdict(list)
    for claim in claims:
        same[claim.what].append(claim)
        below[claim.host].append(claim)
    said: set[tuple[str, Path]] = set()
    for claim in claims:
        rivals = itertools.chain(same[claim.what], same.get(claim.host, ()), below.get(claim.what, ()))
        others = itertools.islice((rival for rival in rivals if rival.service != claim.service), _NAMED)
        found = {rival.service: rival for rival in others}
        if found and (claim.service, claim.place) not in said:
            said.add((claim.service, claim.place))
            yield claim.service, _contested(services, claim, found.values())


def _contested(services: Mapping[str, Neighbour], claim: _Claim, others: Iterable[_Claim]) -> Problem:
    """The problem of one service with a place that others claim, with the places where they say so."""
    named = []
    for other in others:
        there = services[other.service].manifest.problem(other.place, "")
        named.append(f"{other.service} ({there.file}:{there.line}:{there.column})")
    message = f"{claim.what} is also wanted by {', '.join(named)}; give each its own"
    return services[claim.service].manifest.problem(claim.place, message)


_VERSIONED = re.compile(r"(.+)-[0-9a-f]{12}")


def _objects(
    services: Mapping[str, Neighbour], names: Collection[str], namespace: str
) -> Iterator[tuple[str, Problem]]:
    """An object belongs to one bundle, or is made for one service."""
    holders: dict[Identity, list[str]] = defaultdict(list)
    for name, service in services.items():
        if service.spec.bundle is not None:
            for identity in bundle.identities(service.spec.bundle, namespace):
                holders[identity].append(name)
    bundles = {name for name, service in services.items() if service.spec.bundle is not None}
    inventories = {Identity("", "ConfigMap", namespace, inventory(name)): name for name in bundles}
    said: set[tuple[str, str]] = set()
    for identity, mine in holders.items():
        maker = _maker(identity, namespace)
        for name in mine:
            others = [other for other in mine if other != name]
            if maker in names and maker not in bundles:
                message = f"{identity.shown} is made for service {maker}; rename one of them"
            elif identity in inventories:
                message = f"{identity.shown} is where it is kept what {inventories[identity]} consists of; rename it"
            elif others:
                message = (
                    f"{identity.shown} is also declared by {', '.join(others[:_NAMED])}; remove it from all but one"
                )
            else:
                continue
            rival = maker if not others else others[0]
            if (name, rival) not in said:
                said.add((name, rival))
                yield name, services[name].manifest.problem(("spec",), message, key=True)


def _maker(identity: Identity, namespace: str) -> str:
    """The service that would have an object so called made for it; "" when none would."""
    group, kind, where, name = identity
    known = API.get(kind)
    if known is None or where != namespace or known[0].rpartition("/")[0] != group:
        return ""
    versioned = _VERSIONED.fullmatch(name)
    return versioned[1] if versioned else name

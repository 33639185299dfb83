"""What must hold between the services of one environment: dependencies exist and form no circle, host ports differ."""

from __future__ import annotations

import graphlib
import itertools
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from reconciler.core.model import Port, Problem, ServiceSpec
from reconciler.core.overlay import Manifest
from reconciler.core.rules import collide
from reconciler.core.words import nearest


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A service that is right by itself, and where its parts are written."""

    spec: ServiceSpec
    manifest: Manifest


def disagreements(services: Mapping[str, Neighbour], names: Collection[str]) -> Iterator[tuple[str, Problem]]:
    """(service, problem) for each. `names` are all services that have a file, those that are wrong by themselves too.

    All services of a circle, or at the same host port, get a problem: nothing tells which of them is the wrong one.
    """
    yield from _unknown(services, names)
    yield from _circles(services)
    yield from _host_ports(services)


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
                message = f"host port {port.host} is also wanted by {', '.join(others[:5])}; give each its own"
                yield name, services[name].manifest.problem(("spec", "ports", index, "host"), message)

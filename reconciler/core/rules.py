"""What a schema cannot say about one service: names used twice, things that exclude each other, references inside it.

Each rule reads some fields of `spec` that the schema found right, and yields problems. Rules between services are in
`core/neighbours.py`; what the operator allows is in `core/policy.py`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.core import image
from reconciler.core.model import Port, Problem
from reconciler.core.overlay import Manifest
from reconciler.core.words import nearest, shown

_KERNEL = ("/proc", "/sys", "/dev")
_MEMORY = "/dev/shm"  # noqa: S108 - a mount point in the instance, not a file of ours


@dataclass(frozen=True, slots=True)
class View:
    """The `spec` of a service and its places."""

    manifest: Manifest
    spec: Mapping[str, Any]

    def at(self, *path: str | int, say: str) -> Problem:
        """A problem at a path below `spec`."""
        return self.manifest.problem(("spec", *path), say)

    def items(self, field: str) -> list[dict[str, Any]]:
        """A list of mappings in `spec`."""
        found: list[dict[str, Any]] = self.spec.get(field, [])
        return found


def port(item: Mapping[str, Any]) -> Port:
    """A port out of its valid mapping."""
    return Port(**item)


def collide(one: Port, other: Port) -> bool:
    """Whether two published ports want the same place on the host."""
    if one.host is None or (one.host, one.protocol) != (other.host, other.protocol):
        return False
    everywhere = {"0.0.0.0", "::"}  # noqa: S104 - compared with, not listened on
    return one.address == other.address or bool(everywhere & {one.address, other.address})


def _image(view: View) -> Iterator[Problem]:
    found = image.parse(view.spec["image"])
    if isinstance(found, str):
        yield view.at("image", say=found)


def _ports(view: View) -> Iterator[Problem]:
    seen: list[Port] = []
    for index, item in enumerate(view.items("ports")):
        one = port(item)
        for other in seen:
            if one.name == other.name:
                yield view.at("ports", index, "name", say=f"two ports are named {one.name}; rename one")
            if (one.container, one.protocol) == (other.container, other.protocol):
                yield view.at("ports", index, "container", say=f"port {one.container} is here twice; remove one")
            if collide(one, other):
                yield view.at("ports", index, "host", say=f"host port {one.host} is here twice; remove one")
        try:
            ipaddress.ip_address(one.address)
        except ValueError:
            yield view.at("ports", index, "address", say=f"{shown(one.address)} is not an IP address; write one")
        seen.append(one)


def _published(view: View) -> Iterator[Problem]:
    replicas = view.spec.get("replicas", 1)
    for index, item in enumerate(view.items("ports")):
        if "host" in item and replicas > 1:
            message = f"host port {item['host']} can be held by one instance only, but replicas is {replicas}"
            yield view.at("ports", index, "host", say=f"{message}; remove host or set replicas to 1")


def _surge(view: View) -> Iterator[Problem]:
    surge = view.spec.get("rollout", {}).get("surge", 1)
    if surge == 0 and not any("host" in item for item in view.items("ports")):
        message = "surge 0 would stop an instance before its successor is healthy; write 1 or more"
        yield view.at("rollout", "surge", say=message)


def _environment(view: View) -> Iterator[Problem]:
    taken = set(view.spec.get("env", {}))
    for index, item in enumerate(view.items("secrets")):
        name = item.get("env")
        if name in taken:
            yield view.at("secrets", index, "env", say=f"variable {name} is set twice; remove it here or in env")
        if name is not None:
            taken.add(name)


def _paths(view: View) -> Iterator[Problem]:
    """Every path in the instance has one origin, and a file is not hidden by a directory in memory."""
    memory = [item["path"] for item in view.items("tmpfs")]
    taken: set[str] = set()
    for field, key in (("tmpfs", "path"), ("files", "path"), ("secrets", "file")):
        for index, item in enumerate(view.items(field)):
            path = item.get(key)
            if path is None:
                continue
            if path in taken:
                yield view.at(field, index, key, say=f"{path} is given twice; remove one")
            taken.add(path)
            if any(_inside(path, kernel) for kernel in _KERNEL) and not _inside(path, _MEMORY):
                yield view.at(field, index, key, say=f"{path} belongs to the kernel; choose another path")
            hidden = [each for each in memory if path != each and _inside(path, each)]
            if field != "tmpfs" and hidden:
                yield view.at(field, index, key, say=f"{path} would be hidden by tmpfs {hidden[0]}; move one of them")


def _inside(path: str, directory: str) -> bool:
    return path == directory or path.startswith(f"{directory}/")


def _health(view: View) -> Iterator[Problem]:
    ports = {item["name"]: item.get("protocol", "tcp") for item in view.items("ports")}
    health = view.spec.get("health", {})
    for kind in ("http", "tcp"):
        name = health.get(kind, {}).get("port")
        if isinstance(name, str) and name not in ports:
            message = f"there is no port {shown(name)} in spec.ports{nearest(name, ports)}"
            yield view.at("health", kind, "port", say=message)
        elif isinstance(name, str) and ports[name] != "tcp":
            yield view.at("health", kind, "port", say=f"port {name} is a udp port; check a tcp port")


def _security(view: View) -> Iterator[Problem]:
    security = view.spec.get("security", {})
    if security.get("writablePaths") and not security.get("writableRoot"):
        message = "writablePaths needs writableRoot: true; without it, declare the directory in tmpfs"
        yield view.at("security", "writablePaths", say=message)


Rule = Callable[[View], Iterator[Problem]]

RULES: tuple[tuple[frozenset[str], Rule], ...] = (
    (frozenset({"image"}), _image),
    (frozenset({"ports"}), _ports),
    (frozenset({"ports", "replicas"}), _published),
    (frozenset({"ports", "rollout"}), _surge),
    (frozenset({"env", "secrets"}), _environment),
    (frozenset({"tmpfs", "files", "secrets"}), _paths),
    (frozenset({"ports", "health"}), _health),
    (frozenset({"security"}), _security),
)
"""The rules with the fields of `spec` that they read: a rule is asked only when the schema found those right."""

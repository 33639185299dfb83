"""What a schema cannot say about one service: names used twice, things that exclude each other, references inside it.

Each rule reads some fields of `spec` that the schema found right, and yields problems. Rules about taking
over, traffic and scaling are in `core/rules_delivery.py`, what Kubernetes cannot do is in `core/rules_native.py`, those
between services are in `core/neighbours.py`; what the operator allows is in `core/policy.py`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.core import image
from reconciler.core.delivery import Strategy
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

    def section(self, field: str) -> Mapping[str, Any]:
        """A mapping in `spec`, empty where it is not given."""
        found: Mapping[str, Any] = self.spec.get(field, {})
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
    rollout = view.section("rollout")
    lossy = rollout.get("unavailable", 0) > 0 or rollout.get("strategy") == Strategy.RECREATE
    if rollout.get("surge", 1) == 0 and not lossy and not any("host" in item for item in view.items("ports")):
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
    """Every path in the instance has one origin, and no directory hides what belongs below it."""
    mounts = [("tmpfs", item["path"]) for item in view.items("tmpfs")]
    mounts += [("volume", item["path"]) for item in view.items("volumes")]
    taken: set[str] = set()
    for field, key in (("tmpfs", "path"), ("volumes", "path"), ("files", "path"), ("secrets", "file")):
        for index, item in enumerate(view.items(field)):
            path = item.get(key)
            if path is None:
                continue
            if path in taken:
                yield view.at(field, index, key, say=f"{path} is given twice; remove one")
            taken.add(path)
            if any(_inside(path, kernel) for kernel in _KERNEL) and not _inside(path, _MEMORY):
                yield view.at(field, index, key, say=f"{path} belongs to the kernel; choose another path")
            hiding = [f"{kind} {each}" for kind, each in mounts if path != each and _inside(path, each)]
            if field != "tmpfs" and hiding:
                yield view.at(field, index, key, say=f"{path} would be hidden by {hiding[0]}; move one of them")


def _inside(path: str, directory: str) -> bool:
    return path == directory or path.startswith(f"{directory}/")


def _health(view: View) -> Iterator[Problem]:
    for kind in ("http", "tcp"):
        if kind in view.section("health"):
            yield from wrong_port(view, "health", kind, verb="check")


def wrong_port(view: View, *path: str, verb: str) -> Iterator[Problem]:
    """What is wrong with the reference to a port in the section at `path`, where it is a name."""
    section: Mapping[str, Any] = view.spec
    for key in path:
        section = section[key]
    name = section["port"]
    ports = {item["name"]: item.get("protocol", "tcp") for item in view.items("ports")}
    if isinstance(name, str) and name not in ports:
        yield view.at(*path, "port", say=f"there is no port {shown(name)} in spec.ports{nearest(name, ports)}")
    elif isinstance(name, str) and ports[name] != "tcp":
        yield view.at(*path, "port", say=f"port {name} is a udp port; {verb} a tcp port")


def _security(view: View) -> Iterator[Problem]:
    security = view.section("security")
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
    (frozenset({"tmpfs", "volumes", "files", "secrets"}), _paths),
    (frozenset({"ports", "health"}), _health),
    (frozenset({"security"}), _security),
)
"""The rules with the fields of `spec` that they read: a rule is asked only when the schema found those right."""

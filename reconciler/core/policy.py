"""What the operator allows beyond the immutable defaults: facts and rules in, problems out.

Git sets only schema fields; a field that loosens isolation is accepted only where the operator's settings say so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from reconciler.core.model import ServiceSpec

PROXY_ALIAS = "proxy"
"""The name of an environment's proxy in its private network."""


@dataclass(frozen=True, slots=True)
class Allow:
    """The operator's permissions for one environment. `host_ports` and `listen` are inclusive ranges.

    `proxy` and `prometheus`: there is one. `listen`: at which of the proxy's ports services may take TCP connections.
    `emergency`: a commit that says so passes a freeze. `native`: the engine is a Kubernetes cluster; `gateway`: it
    has a Gateway for routes. `namespace`: the environment's own one there, "" where it is not known; plain manifests
    may declare objects in it, in `namespaces`, and, with `cluster_scoped`, in none.
    """

    writable_root: bool = False
    root_user: bool = False
    privileged: bool = False
    host_network: bool = False
    capabilities: tuple[str, ...] = ()
    host_ports: tuple[tuple[int, int], ...] = ()
    proxy: bool = False
    listen: tuple[tuple[int, int], ...] = ()
    prometheus: bool = False
    volumes: bool = False
    emergency: bool = False
    native: bool = False
    gateway: bool = False
    namespace: str = ""
    namespaces: tuple[str, ...] = ()
    cluster_scoped: bool = False


class Denial(NamedTuple):
    """A field below `spec` that asks for what is not permitted, and a sentence that names the setting to permit it."""

    field: tuple[str | int, ...]
    message: str


def denials(spec: ServiceSpec, allow: Allow) -> tuple[Denial, ...]:
    """One denial for each thing that `spec` asks and `allow` does not permit."""
    wants = spec.security
    switches = (
        ("writableRoot", wants.writable_root, allow.writable_root, "writableRoot"),
        ("privileged", wants.privileged, allow.privileged, "privileged"),
        ("hostNetwork", wants.host_network, allow.host_network, "hostNetwork"),
        ("user", _is_root(wants.user), allow.root_user, "rootUser"),
    )
    found = [
        Denial(("security", field), f"security.{field} is not allowed here{_remedy(f'set allow.{setting}')}")
        for field, asked, allowed, setting in switches
        if asked and not allowed
    ]
    if spec.name == PROXY_ALIAS and allow.proxy:
        found.append(Denial((), f"the environment's proxy is called {PROXY_ALIAS}; give the service another name"))
    found += [
        Denial(
            ("security", "capabilities", index),
            f"capability {name} is not allowed here{_remedy('add it to allow.capabilities')}",
        )
        for index, name in enumerate(wants.capabilities)
        if name not in allow.capabilities
    ]
    found += [
        Denial(
            ("ports", index, "host"),
            f"host port {port.host} is not allowed here{_remedy('add it to allow.hostPorts')}",
        )
        for index, port in enumerate(spec.ports)
        if port.host is not None and not _within(port.host, allow.host_ports)
    ]
    return (*found, *_surroundings(spec, allow))


def _surroundings(spec: ServiceSpec, allow: Allow) -> Iterator[Denial]:
    """What needs something beside the instances that this environment does not have."""
    if spec.volumes and not allow.volumes:
        yield Denial(("volumes",), f"volumes are not allowed here{_remedy('set allow.volumes')}")
    route, gate = spec.route, spec.rollout.gate
    if route is not None and allow.native:
        if not allow.gateway:
            yield Denial(("traffic",), f"this environment has no Gateway{_remedy('set gateway')}")
    elif route is not None and not allow.proxy:
        yield Denial(("traffic",), f"this environment has no proxy{_remedy('set proxy')}")
    elif route is not None and route.listen is not None and not _within(route.listen, allow.listen):
        message = f"the proxy may not listen at port {route.listen}{_remedy('add it to proxy.tcp.ports')}"
        yield Denial(("traffic", "listen"), message)
    if gate is not None and gate.queries and not allow.prometheus:
        yield Denial(("rollout", "gate", "queries"), f"this environment has no Prometheus{_remedy('set prometheus')}")


def _within(port: int, ranges: Sequence[tuple[int, int]]) -> bool:
    return any(low <= port <= high for low, high in ranges)


def _is_root(user: str | None) -> bool:
    """Whether a user is root by name or number; engines read 00 and +0 as 0."""
    name = (user if user is not None else "-").partition(":")[0]
    return name == "root" or not name.lstrip("+0")


def _remedy(what: str) -> str:
    return f"; the operator can {what}"

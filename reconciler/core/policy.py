"""What the operator allows beyond the immutable defaults: facts and rules in, problems out.

Git sets only schema fields; a field that loosens isolation is accepted only where the operator's settings say so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from reconciler.core.model import ServiceSpec


@dataclass(frozen=True, slots=True)
class Allow:
    """The operator's permissions for one environment. `host_ports` are inclusive ranges."""

    writable_root: bool = False
    root_user: bool = False
    privileged: bool = False
    host_network: bool = False
    capabilities: tuple[str, ...] = ()
    host_ports: tuple[tuple[int, int], ...] = ()


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
        if port.host is not None and not any(low <= port.host <= high for low, high in allow.host_ports)
    ]
    return tuple(found)


def _is_root(user: str | None) -> bool:
    """Whether a user is root by name or number; engines read 00 and +0 as 0."""
    name = (user if user is not None else "-").partition(":")[0]
    return name == "root" or not name.lstrip("+0")


def _remedy(what: str) -> str:
    return f"; the operator can {what}"

"""What the operator allows beyond the immutable defaults: facts and rules in, problems out.

Git sets only schema fields; a field that loosens isolation is accepted only where the operator's settings say so.
"""

from __future__ import annotations

from dataclasses import dataclass

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


def denials(spec: ServiceSpec, allow: Allow) -> tuple[str, ...]:
    """One sentence for each thing that `spec` asks and `allow` does not permit, with the setting that would permit it."""
    wants = spec.security
    found = []
    if wants.writable_root and not allow.writable_root:
        found.append("security.writableRoot is not allowed here; the operator can set allow.writableRoot")
    if wants.privileged and not allow.privileged:
        found.append("security.privileged is not allowed here; the operator can set allow.privileged")
    if wants.host_network and not allow.host_network:
        found.append("security.hostNetwork is not allowed here; the operator can set allow.hostNetwork")
    if wants.user is not None and wants.user.split(":")[0] in ("0", "root") and not allow.root_user:
        found.append("security.user is root, which is not allowed here; the operator can set allow.rootUser")
    for capability in wants.capabilities:
        if capability not in allow.capabilities:
            found.append(
                f"security.capabilities: {capability} is not allowed here; the operator can add it to allow.capabilities"
            )
    for port in spec.ports:
        if port.host is not None and not any(low <= port.host <= high for low, high in allow.host_ports):
            found.append(
                f"ports: host port {port.host} is not allowed here; the operator can add it to allow.hostPorts"
            )
    return tuple(found)

"""What an instance is to the engine, as a flat value: projected from what was asked, and from what the engine shows.

Pure. The asked one is written on the container at creation (`names.LABEL_SHAPE`); a later difference between the two
was made by hand. Only keys in the label are compared, so that a newer release can add keys without replacing anything.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from reconciler.core import names
from reconciler.core.errors import Reason
from reconciler.core.live import Difference

Json = dict[str, Any]

ABSENT = "none"
MAX_DETAIL = 120


def projection(config: Mapping[str, Any], image_id: str, secret_env: Iterable[str], writable: Iterable[str]) -> Json:
    """Everything that matters of a container, from its create request or (`flattened`) its inspect result.

    Limits are in bytes, billionths of a core and counts, as the engine has them. The environment is hashed without
    the variables that hold secrets; their names are kept so that the same hash can be made later.
    """
    host = config["HostConfig"]
    hidden = sorted(secret_env)
    return {
        "image_id": image_id,
        "user": config.get("User") or "",
        "command": [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())],
        "env": _env_hash(config.get("Env") or (), hidden),
        "secret_env": hidden,
        "read_only_root": bool(host.get("ReadonlyRootfs")),
        "writable_paths": list(writable),
        "privileged": bool(host.get("Privileged")),
        "capabilities_added": _capabilities(host.get("CapAdd")),
        "capabilities_dropped": _capabilities(host.get("CapDrop")),
        "security_options": sorted(option.removesuffix(":true") for option in host.get("SecurityOpt") or ()),
        "network_mode": host.get("NetworkMode") or "",
        "tmpfs": dict(sorted((host.get("Tmpfs") or {}).items())),
        "memory": host.get("Memory") or 0,
        "memory_and_swap": host.get("MemorySwap") or 0,
        "memory_reservation": host.get("MemoryReservation") or 0,
        "nano_cpus": host.get("NanoCpus") or 0,
        "cpu_quota": host.get("CpuQuota") or 0,
        "cpu_shares": host.get("CpuShares") or 0,
        "cpuset": host.get("CpusetCpus") or "",
        "pids": host.get("PidsLimit") or 0,
        "restart_policy": (host.get("RestartPolicy") or {}).get("Name") or "no",
        "ports": _ports(host.get("PortBindings") or {}),
        "mounts": sorted([m["Target"], m["Source"], bool(m.get("ReadOnly"))] for m in host.get("Mounts") or ()),
        "binds": sorted(host.get("Binds") or ()),
        "devices": sorted(str(d.get("PathOnHost")) for d in host.get("Devices") or ()),
        "pid_mode": host.get("PidMode") or "",
    }


def flattened(inspected: Mapping[str, Any]) -> Json:
    """An inspect result in the form of a create request."""
    return {**inspected["Config"], "HostConfig": inspected["HostConfig"]}


def label(shape: Mapping[str, Any]) -> str:
    """The shape as the text of a label: canonical JSON."""
    return json.dumps(shape, sort_keys=True, separators=(",", ":"))


def asked(labels: Mapping[str, str]) -> Json | None:
    """The shape written at creation, or None when there is none that can be read."""
    try:
        found = json.loads(labels.get(names.LABEL_SHAPE, ""))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def differences(inspected: Mapping[str, Any], derived: str, network: str) -> tuple[Difference, ...]:
    """Each way in which a container is not what its shape label says, in a stable order."""
    labels = inspected["Config"].get("Labels") or {}
    found = []
    wanted = asked(labels)
    if wanted is None:
        found.append(Difference(Reason.DRIFT_CHANGED, "the label that describes the instance is missing or damaged"))
    else:
        secret_env = _texts(wanted.get("secret_env"))
        seen = projection(flattened(inspected), inspected["Image"], secret_env, _texts(wanted.get("writable_paths")))
        for key in sorted(wanted.keys() & seen.keys()):
            if wanted[key] != seen[key]:
                reason = Reason.DRIFT_WRONG_IMAGE if key == "image_id" else Reason.DRIFT_CHANGED
                found.append(Difference(reason, f"{_word(key)}: {_show(wanted[key])} -> {_show(seen[key])}"))
    name = inspected["Name"].lstrip("/")
    if name != derived:
        found.append(Difference(Reason.DRIFT_CHANGED, f"name: {derived} -> {name}"))
    found.extend(_network_differences(inspected, network))
    state = inspected["State"]
    if state.get("Running") and not str(state.get("FinishedAt", "0001")).startswith("0001"):
        found.append(Difference(Reason.DRIFT_RESTARTED, "it was stopped and started again"))
    return tuple(found)


def _network_differences(inspected: Mapping[str, Any], network: str) -> list[Difference]:
    if inspected["HostConfig"].get("NetworkMode") == "host":
        return []
    joined = sorted((inspected.get("NetworkSettings") or {}).get("Networks") or {})
    if joined == [network]:
        return []
    return [Difference(Reason.DRIFT_CHANGED, f"networks: {network} -> {', '.join(joined) or ABSENT}")]


def _texts(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _capabilities(value: Iterable[str] | None) -> list[str]:
    return sorted(name.upper().removeprefix("CAP_") for name in value or ())


def _env_hash(env: Iterable[str], hidden: Iterable[str]) -> str:
    without = set(hidden)
    plain = sorted(item for item in env if item.split("=", 1)[0] not in without)
    return hashlib.sha256("\0".join(plain).encode()).hexdigest()[:16]


def _ports(bindings: Mapping[str, Any]) -> list[list[str]]:
    found: list[list[str]] = []
    for container, hosts in bindings.items():
        found.extend([container, item.get("HostIp") or "", str(item.get("HostPort") or "")] for item in hosts or ())
    return sorted(found)


def _word(key: str) -> str:
    return key.replace("_", " ")


def _show(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return (text or ABSENT)[:MAX_DETAIL]

"""What is asked of the engine for an environment's proxy: the create request, and whether a container is that one.

Pure: settings in, requests out. Nothing here talks to an engine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reconciler.adapters.docker_create import DEFAULT_PIDS, ROLE_PROXY, STOPPED_LOGS, ownership
from reconciler.adapters.docker_network import endpoint_of
from reconciler.core import names
from reconciler.core.proxy_config import (
    CERTIFICATES,
    DIRECTORY,
    ENTRY,
    HTTP_PORT,
    HTTPS_PORT,
    METRICS_PORT,
)
from reconciler.settings import ProxySettings

Json = dict[str, Any]

CONFIG, STATE, WAKE, ADMIN, MASTER = "haproxy.cfg", "server.state", "wake.lua", "admin.sock", "master.sock"
"""What stands in the directory that the daemon and the proxy share."""


def request(environment: str, settings: ProxySettings, owner: str, directory: Path, user: str) -> Json:
    """The body of POST /containers/create. `directory` is on the engine's host, `user` (`uid:gid`) may write there.

    It is the one container that the engine itself starts again: a killed proxy comes back while the daemon is away.
    """
    bindings = dict(_bindings(settings))
    mounts = [_bind(directory, DIRECTORY, read_only=False)]
    if settings.certificates is not None:
        mounts.append(_bind(settings.certificates, CERTIFICATES, read_only=True))
    body: Json = {
        "Image": settings.image,
        "Entrypoint": ["haproxy"],
        "Cmd": ["-W", "-db", "-S", f"{DIRECTORY}/{MASTER},mode,600", "-f", f"{DIRECTORY}/{CONFIG}"],
        "User": user,
        "StopSignal": "SIGUSR1",  # listeners close at once, what is under way goes on until the time to stop is over
        "ExposedPorts": {port: {} for port in bindings},
        "HostConfig": {
            "NetworkMode": names.network(environment),
            "PortBindings": bindings,
            "Mounts": mounts,
            "ReadonlyRootfs": True,
            "Privileged": False,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "UsernsMode": "host",  # the directory belongs to that user of the host
            "Sysctls": {"net.ipv4.ip_unprivileged_port_start": "0"},
            "PidsLimit": DEFAULT_PIDS,
            "RestartPolicy": {"Name": "always"},
            "LogConfig": STOPPED_LOGS,
            "Init": False,
        },
        "NetworkingConfig": {"EndpointsConfig": {names.network(environment): {"Aliases": [ENTRY]}}},
    }
    shape = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    body["Labels"] = {**ownership(owner, environment, ROLE_PROXY), names.LABEL_SHAPE: shape}
    return body


def matches(container: Json, wanted: Json, environment: str) -> bool:
    """Whether a container of ours is the one that `wanted` asks for, and still where it was put."""
    labels = container["Config"].get("Labels") or {}
    endpoint = endpoint_of(container, environment)
    return (
        container["Name"].lstrip("/") == names.proxy(environment)
        and labels.get(names.LABEL_SHAPE) == wanted["Labels"][names.LABEL_SHAPE]
        and endpoint is not None
        and ENTRY in (endpoint.get("Aliases") or ())
    )


def _bindings(settings: ProxySettings) -> Iterator[tuple[str, list[Json]]]:
    fixed = ((HTTP_PORT, settings.http), (HTTPS_PORT, settings.https), (METRICS_PORT, settings.metrics))
    for port, address in fixed:
        if address is not None:
            yield f"{port}/tcp", [{"HostIp": address[0], "HostPort": str(address[1])}]
    taken = {port for port, address in fixed if address is not None}
    for first, last in settings.tcp:
        for port in range(first, last + 1):
            if port not in taken:
                yield f"{port}/tcp", [{"HostIp": settings.tcp_address, "HostPort": str(port)}]


def _bind(source: Path, target: str, *, read_only: bool) -> Json:
    return {"Type": "bind", "Source": str(source), "Target": target, "ReadOnly": read_only}

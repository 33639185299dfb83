"""How an instance is reached from here: by its address, by a published port, or by a program run inside it.

Nothing here decides whether it is healthy or warm.
"""

from __future__ import annotations

import time
from collections import deque
from datetime import datetime

from reconciler.adapters.docker_connection import APIError, Connection, engine_errors, message_of
from reconciler.adapters.docker_observe import Facts
from reconciler.adapters.probes import Target
from reconciler.core.health import CheckResult
from reconciler.core.live import Instance
from reconciler.core.model import ExecCheck, Health

EXEC_LOOK_FIRST, EXEC_LOOK_LONGEST = 0.005, 0.1
LOOPBACK = "127.0.0.1"


def reach(facts: Facts, host: str | None, port: int) -> tuple[str, int] | None:
    """Where a port of an instance is reached, None when it is not.

    `host` is where published ports are reached, None when the instances' own addresses are in reach.
    """
    if facts.host_network:
        return host or LOOPBACK, port
    if host is None:
        return (facts.address, port) if facts.address else None
    for address, published in facts.published.get(f"{port}/tcp", ()):
        if address in ("", "0.0.0.0", "::"):  # noqa: S104 - compared with, not listened on
            return host, published
        if host in (LOOPBACK, "localhost") or not address.startswith("127."):
            return address, published
    return None


def obstacle(host: str | None) -> str:
    """Why a port is not reached, in words."""
    if host is None:
        return "it has no address in the private network"
    return "instances of a remote engine are reached by published host ports only, and this port has none in reach"


def target(instance: Instance, facts: Facts, health: Health, host: str | None) -> Target:
    """What to check of a running instance, and how it is reached for that."""
    key: tuple[str, datetime | None] = (instance.id, instance.started_at)
    return Target(
        key,
        instance.name,
        instance.id,
        health,
        instance.started_at,
        lambda port: reach(facts, host, port),
        obstacle(host),
    )


class Execs:
    """Programs run inside instances for their checks; `own` are the ids of the latest of them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.own: deque[str] = deque(maxlen=4096)

    def check(self, target: Target, check: ExecCheck, timeout: float) -> CheckResult:
        """Run a check's command inside an instance. The engine cannot end an exec: one that hangs stays."""
        words = " ".join(check.command)[:100]
        client, end = self._connection.client(), time.monotonic() + timeout
        with engine_errors(f"{self._connection.where}, instance {target.name}"):
            try:
                identity = client.exec_create(target.container, list(check.command))["Id"]
                self.own.append(identity)
                client.exec_start(identity, detach=True)
                pause = EXEC_LOOK_FIRST
                while (found := client.exec_inspect(identity))["Running"] and time.monotonic() < end:
                    time.sleep(pause)
                    pause = min(pause * 2, EXEC_LOOK_LONGEST)
            except APIError as error:
                return CheckResult(ok=False, detail=f"{words}: {message_of(error)}")
        if found["Running"]:
            return CheckResult(ok=False, detail=f"{words}: no end in time")
        return CheckResult(ok=found["ExitCode"] == 0, detail=f"{words} ended with exit code {found['ExitCode']}")

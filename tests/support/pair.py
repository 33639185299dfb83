"""Several replicas of the daemon on one Lease, one journal, one repository and one engine, each a real program."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any

import docker
import httpx

from reconciler.daemon import EXIT_NOT_LEADER
from tests.e2e.running import Daemon, House
from tests.support.cluster import eventually

DURATION = 10
"""Of the Lease, in seconds: long enough for a busy machine, short enough to wait for its end."""


class Pair(House):
    """A house in which each replica has settings and data of its own."""

    def __init__(self, root: Path, engine: str, kubeconfig: Path, journal: str, *, namespace: str) -> None:
        self.kubeconfig = kubeconfig
        self.journal = journal
        self.namespace = namespace
        self.shard = ""
        self.duration = DURATION
        self.environ: dict[str, str] = {}
        super().__init__(root, engine)

    def write_settings(self, extra: str = "") -> None:
        """As `House.write_settings`, with the candidacy."""
        leader = f"runtime: here, namespace: {self.namespace}, lease: {self.owner}"
        times = f"duration: {self.duration}s, renew: {self.duration * 4 // 5}s, retry: 300ms"
        lines = [
            f"name: {self.owner}",
            f"data: {self.settings.stem}-data",
            *([f"journal: {self.journal}"] if self.journal else []),
            'http: {listen: "127.0.0.1:0", tokenFile: token}',
            f'repositories: {{fleet: {{url: "file://{self.upstream.path}", allowFile: true, poll: 30s}}}}',
            "runtimes:",
            f'  local: {{docker: {{host: "{self.engine}"}}}}',
            f'  here: {{kubernetes: {{kubeconfig: "{self.kubeconfig}"}}}}',
            "log: {level: debug}",
            f"leader: {{{leader}, {times}}}",
            *([f"shard: {{{self.shard}}}"] if self.shard else []),
            "environments:",
            *(f"  {name}: {{repository: fleet, runtime: local}}" for name in self.environments),
            extra,
        ]
        self.settings.write_text("\n".join(lines) + "\n")
        token = self.root / "token"
        token.write_text("t" * 40)
        token.chmod(0o600)

    def variables(self, **more: str) -> dict[str, str]:
        return super().variables(**more) | self.environ

    def replica(self, name: str, shard: str = "", **environ: str) -> Pair:
        """The same house with other settings and data."""
        found = copy.copy(self)
        found.settings, found.shard, found.environ = self.root / f"{name}.yaml", shard, environ
        found.write_settings()
        return found

    def instances(self, raw: docker.APIClient, environment: str = "") -> set[str]:
        """The ids of all instances, whatever became of them."""
        label = f"dev.reconciler.environment={environment or self.environment}"
        return {str(one["Id"]) for one in raw.containers(all=True, filters={"label": [label]})}

    def events(self, raw: docker.APIClient, since: float) -> list[str]:
        """What was done to instances from a time of day until now."""
        wanted = {"type": "container", "label": [f"dev.reconciler.environment={self.environment}"]}
        exact: Any = f"{since:.9f}"
        until: Any = f"{time.time():.9f}"
        found = raw.events(since=exact, until=until, filters=wanted, decode=True)
        return [f"{one['Action']} {one['Actor']['Attributes'].get('name')}" for one in found]


def ask(daemon: Daemon, path: str, method: str = "GET") -> dict[str, Any]:
    """What the HTTP API of a daemon answers."""
    port = daemon.log("ready")["port"]
    headers = {"authorization": "Bearer " + "t" * 40}
    found: dict[str, Any] = httpx.request(method, f"http://127.0.0.1:{port}{path}", headers=headers, timeout=60).json()
    return found


def apart(one: Daemon, other: Daemon) -> tuple[Daemon, Daemon]:
    """The one that leads and the one that does not, once one does: who is ready may still be about to win the lease."""

    def leading() -> list[Daemon]:
        return [each for each in (one, other) if ask(each, "/readyz")["leader"]]

    (leader,) = eventually(leading)
    return leader, other if leader is one else one


def gave_up(daemon: Daemon, after: int = 0) -> bool:
    """Wait until one that lost its lease acts no more; whether it stands by.

    Its steps and its threads may end in what is left of the lease, which is nothing. Where they do not, the program
    does, and whatever supervises it starts it again.
    """

    def over() -> bool:
        ended = daemon.process.poll() is not None
        return ended or any(line["event"] == "acting no more" for line in daemon.logs[after:])

    eventually(over)
    assert daemon.process.poll() in (None, EXIT_NOT_LEADER)
    return daemon.process.poll() is None


def leads(daemon: Daemon, after: int = 0) -> int:
    """Wait until a daemon acts; the epoch it opened."""
    return int(daemon.log("leading", after=after)["epoch"])

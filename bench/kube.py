"""A thousand services, and ten thousand objects, on a real cluster: start, idle, and one push that changes some or all.

The services have no instances: what is measured is the daemon, the API and the cluster's controllers on this machine,
not how fast its kubelet starts pods.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.figure import Figure
from reconciler.adapters.kubernetes_client import Api
from reconciler.settings import KubernetesSettings
from tests.support.fleet_house import FleetHouse
from tools import cluster

SIZES = (1000, 2500)
"""Services; each is a Deployment, its ReplicaSet, a Service and a ConfigMap."""
OBJECTS = 4
IDLE = 120.0
SETTLED = 10.0
"""Seconds after the start, for what it leaves to do."""
POLL = "60s"
PUSH_GOAL, IDLE_GOAL, MEMORY_GOAL = 25.0, 0.5, 250.0
PATIENCE = 900.0
_TICK = os.sysconf("SC_CLK_TCK")


def _manifest(number: int, letter: str) -> str:
    return f"""apiVersion: reconciler.dev/v1
kind: Service
metadata: {{name: s{number:04}}}
spec:
  image: registry.test/app@sha256:{letter * 64}
  replicas: 0
  ports: [{{name: http, container: 8080}}]
  files: [{{path: /etc/app.conf, content: "number {number}"}}]
"""


class Daemon:
    """`reconciler run` as a program; what it said is read from its log."""

    def __init__(self, root: Path) -> None:
        self._log = root / "daemon.log"
        self._seen = self._log.stat().st_size if self._log.exists() else 0
        self.began = time.monotonic()
        with self._log.open("ab") as log:
            command = [sys.executable, "-m", "reconciler", "run", "--settings", str(root / "reconciler.yaml")]
            self._program = subprocess.Popen(command, stdout=log, stderr=log)

    def synced(self, revision: str) -> float:
        """The moment at which this revision was in sync."""
        end = time.monotonic() + PATIENCE
        with self._log.open("rb") as log:
            log.seek(self._seen)
            while time.monotonic() < end:
                line = log.readline()
                if not line.endswith(b"\n"):
                    log.seek(-len(line), os.SEEK_CUR)
                    time.sleep(0.02)
                    continue
                said = json.loads(line) if line.startswith(b"{") else {}
                if said.get("result") == "synced" and said.get("revision") == revision[:12]:
                    return time.monotonic()
        raise SystemExit(f"{revision} was not in sync after {PATIENCE:g} s; see {self._log}")

    def cpu(self) -> float:
        """Seconds of CPU so far, those of its children included."""
        fields = Path(f"/proc/{self._program.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / _TICK

    def memory(self) -> float:
        """Resident MiB."""
        status = Path(f"/proc/{self._program.pid}/status").read_text()
        return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS:"))

    def end(self) -> None:
        self._program.terminate()
        self._program.wait(60)


def run() -> list[Figure]:
    """All figures for each size, on a cluster that is started for it and ended afterwards."""
    if why := cluster.missing():
        raise SystemExit(f"bench kube needs a cluster: {why}")
    with tempfile.TemporaryDirectory(prefix="rk-") as directory:
        place = Path(directory) / "cluster"
        running = cluster.up(place)
        try:
            return [
                figure
                for count in SIZES
                for figure in _measured(running, Path(directory) / str(count), count, f"bench-{count}")
            ]
        finally:
            cluster.down(place)


@contextmanager
def _namespace(kubeconfig: Path, name: str) -> Iterator[None]:
    api, path = Api(KubernetesSettings("bench", kubeconfig=kubeconfig)), "/api/v1/namespaces"
    api.call("POST", path, body={"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    try:
        yield
    finally:
        api.call("DELETE", f"{path}/{name}")
        api.close()


def _measured(running: cluster.Cluster, root: Path, count: int, namespace: str) -> list[Figure]:
    house = _house(root, running.kubeconfig, namespace)
    found: list[Figure] = []
    objects = count * OBJECTS
    how = f"{count:,} services, {objects:,} objects, no pods; API server, etcd and controllers on the same cores"

    def note(name: str, value: float, unit: str, goal: str = "", holds: bool | None = None, extra: str = "") -> None:  # noqa: FBT001
        found.append(
            Figure(f"kube {count:,}: {name}", value, unit, goal, holds, f"{extra}{'; ' if extra else ''}{how}")
        )

    with _namespace(running.kubeconfig, namespace):
        revision = _commit(house, range(count), "a")
        first = Daemon(root)
        note("first release of all", first.synced(revision) - first.began, "s", extra="start of the daemon -> in sync")
        first.end()
        daemon = Daemon(root)
        note("start", daemon.synced(revision) - daemon.began, "s", extra="a daemon that finds all in sync")
        time.sleep(SETTLED)
        before, cpu, at = _calls(running), daemon.cpu(), time.monotonic()
        time.sleep(IDLE)
        share = 100 * (daemon.cpu() - cpu) / (time.monotonic() - at)
        calls = sum((_calls(running) - before).values())
        when = f"{IDLE:g} s from {SETTLED:g} s after the start on, Git polled each {POLL}"
        note("idle", share, "% of a core", f"<= {IDLE_GOAL}", share <= IDLE_GOAL, when)
        note("idle, API calls", calls, "", extra=f"in {IDLE:g} s, watches that are renewed included")
        for changed, letter in ((1, "b"), (100, "c"), (min(count, 1000), "d")):
            before, cpu, at = _calls(running), daemon.cpu(), time.monotonic()
            revision = _commit(house, range(changed), letter)
            taken = daemon.synced(revision) - at
            goal, holds = (f"<= {PUSH_GOAL:g}", taken <= PUSH_GOAL) if changed == SIZES[0] else ("", None)
            way = "commit -> every service promoted, and its controllers done"
            note(f"push that changes {changed}", taken, "s", goal, holds, way)
            spent = f"{daemon.cpu() - cpu:.1f} s of the daemon's CPU"
            calls = sum((_calls(running) - before).values())
            note(f"push that changes {changed}, API calls", calls, "", extra=spent)
        memory = daemon.memory()
        note("memory", memory, "MiB", f"<= {MEMORY_GOAL:g}", memory <= MEMORY_GOAL, "resident after all of it")
        daemon.end()
    return found


def _commit(house: FleetHouse, numbers: Iterable[int], letter: str) -> str:
    """These services get the image that is told by a letter; the revision."""
    for number in numbers:
        house.write(f"s{number:04}", _manifest(number, letter))
    return house.push()


def _house(root: Path, kubeconfig: Path, namespace: str) -> FleetHouse:
    house = FleetHouse(root, "bench", "")
    house.prepare()
    house.settings.write_text(f"""name: bench
data: data
http: {{listen: "127.0.0.1:0"}}
repositories: {{fleet: {{url: "file://{house.origin}", allowFile: true, poll: {POLL}}}}}
runtimes: {{cluster: {{kubernetes: {{kubeconfig: "{kubeconfig}", requests: 1000}}}}}}
environments: {{bench: {{repository: fleet, runtime: cluster, namespace: {namespace}}}}}
""")
    return house


def _calls(running: cluster.Cluster) -> Counter[str]:
    """The calls that were not made by the cluster's own parts, by verb, as its audit log has them."""
    found: Counter[str] = Counter()
    with running.audit.open() as log:
        for line in log:
            event = json.loads(line)
            if "python" in event.get("userAgent", "").lower() or "reconciler" in event.get("userAgent", ""):
                found[event.get("verb", "")] += 1
    return found

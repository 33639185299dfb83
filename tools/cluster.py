"""A one-node Kubernetes cluster for the tests: start, and stop without leaving anything.

`python -m tools.cluster up|down --dir DIR [--registry HOST:PORT]`, and `build` for its binary alone. All can be
repeated. The cluster lives in a room of its own (tools/cluster_room.py): it shares no packet filter, no mount and no
containerd with this machine, pods have no way out of it, and this machine reaches it by addresses of its own. What
runs in it is built from tests/kube/node. It must be root's: namespaces, control groups and a link are made. Only what
this module started is ever stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from ipaddress import IPv4Network
from pathlib import Path

import requests

from tools import cluster_build, cluster_files, cluster_pause, cluster_room, engine
from tools.cluster_room import RoomError

DEADLINE = 240.0
COMPONENTS = ("etcd", "containerd", "apiserver", "controllers", "scheduler", "kubelet", "proxy", "dns")
PLUGINS = ("/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni")
SYSTEM_PATH = ":/usr/sbin:/sbin:/usr/local/sbin"


@dataclass(frozen=True)
class Cluster:
    """What is running for `directory`.

    `machine` is this machine's address as pods reach it, `services` and `pods` are networks that this machine reaches.
    `registry` is the last one it was given, host:port on this machine's loopback; empty when none was.
    """

    directory: Path
    kubeconfig: Path
    server: str
    node: str
    address: str
    machine: str
    services: str
    pods: str
    base: str
    registry: str = ""

    @property
    def plan(self) -> cluster_files.Plan:
        """Its addresses and files."""
        return cluster_files.Plan(self.directory, self.base)

    @property
    def audit(self) -> Path:
        """One line of JSON for each call to the API but those of the cluster's own parts."""
        return self.directory / "audit.log"

    def states(self) -> dict[str, str]:
        """Each component with "runs", "paused" or how it ended."""
        found = cluster_room.ask(self.directory, do="list")
        return {name: found.get(name, "never started") for name in COMPONENTS}


def missing() -> str:
    """Why no cluster can be started here; empty when one can."""
    if os.geteuid() != 0:
        return "a cluster of the tests' own can be started by root only"
    for name, package in (("containerd", "containerd"), ("runc", "runc"), ("ctr", "containerd"), ("iptables",) * 2):
        if _found(name) is None:
            return f"{name} was not found; install the package {package}"
    if _plugins() is None:
        return "no network plugins were found; install the package containernetworking-plugins"
    return cluster_build.missing()


def build() -> Path:
    """The binary, from its cache or built. Raises SystemExit."""
    return cluster_build.binary()


def up(directory: Path, *, registry: str = "") -> Cluster:
    """Start what is missing; the same answer again while it runs. Raises SystemExit with what to do.

    `registry` is host:port on this machine's loopback; pods can then pull from it under just that name.
    """
    directory = directory.resolve()
    reason = missing()
    if reason:
        raise SystemExit(reason)
    binary = build()
    directory.mkdir(parents=True, exist_ok=True)
    known = read(directory)
    if known is None or not _complete(known, "certificates"):
        down(directory)
        known = _open(directory, binary)
    try:
        _start_all(known, binary)
        return mirror(known, registry) if registry else known
    except RoomError as error:
        raise SystemExit(f"the cluster did not start: {error}") from error


def read(directory: Path) -> Cluster | None:
    """The cluster of `directory`, if its room is still there."""
    directory = directory.resolve()
    try:
        found = json.loads((directory / "cluster.json").read_text())
    except (OSError, ValueError):
        return None
    held = cluster_room.holder(directory)
    if held is None or not engine.alive(held):
        return None
    return Cluster(**{**found, "directory": directory, "kubeconfig": Path(found["kubeconfig"])})


def down(directory: Path) -> None:
    """End what `up` started and remove its files."""
    directory = directory.resolve()
    with contextlib.suppress(OSError, ValueError):
        base = json.loads((directory / "cluster.json").read_text())["base"]
        cluster_room.close_room(cluster_files.Plan(directory, base), cluster_room.holder(directory))
    _clean(directory)


def stop(cluster: Cluster, component: str, *, patience: float = 10.0) -> None:
    """SIGTERM, and SIGKILL after `patience` seconds; pods keep running. Returns when it is gone."""
    cluster_room.ask(cluster.directory, do="end", name=component, patience=patience)


def kill(cluster: Cluster, component: str) -> None:
    """SIGKILL without a warning, as a crash. Returns when it is gone."""
    stop(cluster, component, patience=0.0)


def start(cluster: Cluster, component: str, *more: str) -> None:
    """Start a stopped component; the API is ready again when this returns. Nothing is done where it runs.

    `more` are further arguments of its command line: the last of the same name counts.
    """
    command = [*cluster_files.commands(cluster.plan, build(), _program("containerd"))[component], *more]
    cluster_room.ask(
        cluster.directory,
        do="start",
        name=component,
        argv=command,
        log=cluster.plan.file(f"{component}.log"),
    )
    if component in ("etcd", "apiserver"):
        _wait(cluster, lambda: _get(cluster, "/readyz") is not None, "the API server is not ready")


def pause(cluster: Cluster, component: str) -> None:
    """SIGSTOP: it keeps its connections and answers nothing."""
    cluster_room.ask(cluster.directory, do="signal", name=component, signal=signal.SIGSTOP.value)


def resume(cluster: Cluster, component: str) -> None:
    """SIGCONT after `pause`."""
    cluster_room.ask(cluster.directory, do="signal", name=component, signal=signal.SIGCONT.value)


def mirror(cluster: Cluster, registry: str) -> Cluster:
    """Let pods pull from `registry`, host:port on this machine's loopback, by that very name; more than one can be."""
    cluster_files.mirror(cluster.plan, registry)
    cluster_room.ask(cluster.directory, do="forward", address=registry)
    return _note(replace(cluster, registry=registry))


def _open(directory: Path, binary: Path) -> Cluster:
    plan = cluster_files.Plan(directory, engine.free_subnet())
    cluster = Cluster(
        directory=directory,
        kubeconfig=directory / "pki" / "admin.kubeconfig",
        server=plan.server,
        node=cluster_files.NODE,
        address=plan.address,
        machine=plan.machine,
        services=plan.services,
        pods=plan.pods,
        base=plan.base,
    )
    _note(cluster)
    plugins = _plugins()
    assert plugins is not None, "missing() was asked before"
    cluster_files.write(plan, _snapshotter(directory), plugins)
    cluster_room.open_room(plan, binary)
    service = str(next(IPv4Network(plan.services).hosts()))
    cluster_room.run(
        directory,
        "certificates",
        [
            *(str(binary), "certificates", f"--dir={plan.file('pki')}", f"--address={plan.address}"),
            *(f"--service={service}", f"--node={cluster_files.NODE}", f"--server={plan.server}"),
        ],
    )
    return cluster


def _note(cluster: Cluster) -> Cluster:
    text = json.dumps({key: str(value) for key, value in asdict(cluster).items()})
    (cluster.directory / "cluster.json").write_text(text)
    return cluster


def _start_all(cluster: Cluster, binary: Path) -> None:
    directory, plan = cluster.directory, cluster.plan
    running = cluster_room.ask(directory, do="list")
    if all(running.get(name) == "runs" for name in COMPONENTS):
        return
    for name, command in cluster_files.commands(plan, binary, _program("containerd")).items():
        if running.get(name) == "paused":
            resume(cluster, name)
        if name == "controllers":  # it and the scheduler give up when they find no API server
            _wait(cluster, lambda: _get(cluster, "/readyz") is not None, "the API server is not ready")
        if name == "kubelet" and not _complete(cluster, "pause"):
            _import_pause(plan, binary.parent / "pause")
        cluster_room.ask(directory, do="start", name=name, argv=command, log=plan.file(f"{name}.log"))
    _wait(cluster, lambda: _node_is_ready(cluster), "the node is not ready")


def _complete(cluster: Cluster, step: str) -> bool:
    """Whether a step of the start was done to its end; the one who started it may have been killed."""
    return cluster_room.ask(cluster.directory, do="list").get(step) == "ended: code 0"


def _import_pause(plan: cluster_files.Plan, program: Path) -> None:
    file = Path(plan.file("pause.tar"))
    file.write_bytes(cluster_pause.archive(program, cluster_files.PAUSE))
    socket = Path("/run/containerd/containerd.sock")
    command = [_program("ctr"), f"--address={socket}", "--namespace=k8s.io", "--connect-timeout=60s"]
    cluster_room.run(plan.directory, "pause", [*command, "images", "import", str(file)])


def _node_is_ready(cluster: Cluster) -> bool:
    """The node is Ready, pods can be made, and the proxy leads to the API server."""
    node = _get(cluster, f"/api/v1/nodes/{cluster.node}")
    account = _get(cluster, "/api/v1/namespaces/default/serviceaccounts/default")
    if node is None or account is None:
        return False
    conditions = {one["type"]: one["status"] for one in json.loads(node)["status"].get("conditions", [])}
    service = IPv4Network(cluster.services)[1]
    return conditions.get("Ready") == "True" and _get(cluster, "/readyz", f"https://{service}") is not None


def _get(cluster: Cluster, path: str, server: str = "") -> str | None:
    """What the API answers to the administrator; nothing when it does not, or with an error."""
    pki = cluster.directory / "pki"
    try:
        with requests.Session() as session:
            session.trust_env = False
            answer = session.get(
                f"{server or cluster.server}{path}",
                timeout=5,
                verify=str(pki / "ca.crt"),
                cert=(str(pki / "admin.crt"), str(pki / "admin.key")),
            )
    except (OSError, requests.RequestException):
        return None
    return answer.text if answer.ok else None


def _wait(cluster: Cluster, ready: Callable[[], bool], otherwise: str) -> None:
    end = time.monotonic() + DEADLINE
    while not ready():
        ended = [name for name, state in cluster.states().items() if state.startswith("ended")]
        if ended or time.monotonic() > end:
            name = (ended or ["apiserver"])[0]
            log = (cluster.directory / f"{name}.log").read_text(errors="replace")
            last = "\n".join(log.splitlines()[-8:])
            raise SystemExit(f"{otherwise}; components that ended: {ended}. The end of {name}.log says:\n{last}")
        time.sleep(0.1)


def _snapshotter(directory: Path) -> str:
    """Layers are laid over each other by the kernel, but not on a file system that is itself made so."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    over = [words for words in mounts if f"{directory}/".startswith(words[1].rstrip("/") + "/")]
    return "native" if max(over, key=lambda words: len(words[1]))[2] == "overlay" else "overlayfs"


def _plugins() -> str | None:
    return next((path for path in PLUGINS if (Path(path) / "ptp").exists()), None)


def _found(name: str) -> str | None:
    return shutil.which(name, path=os.environ.get("PATH", "") + SYSTEM_PATH)


def _program(name: str) -> str:
    found = _found(name)
    assert found is not None, "missing() was asked before"
    return found


def _clean(directory: Path) -> None:
    for name in ("containerd", "etcd", "kubelet", "pods", "pki", "cni", "certs.d"):
        shutil.rmtree(directory / name, ignore_errors=True)
    for pattern in ("*.log", "*.json", "*.lock", "*.toml", "hold.pid", "control.sock", "resolv.conf", "pause.tar"):
        for path in directory.glob(pattern):
            path.unlink(missing_ok=True)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tools.cluster", description=__doc__)
    parser.add_argument("command", choices=("up", "down", "build"))
    parser.add_argument("--dir", type=Path, help="where its files live")
    parser.add_argument("--registry", default="", help="host:port of a registry on this machine's loopback")
    chosen = parser.parse_args()
    if chosen.command == "build":
        reason = missing()
        if reason and os.environ.get("RECONCILER_CI") == "1":
            raise SystemExit(f"cluster  {reason}")
        print(f"cluster  skipped: {reason}" if reason else build())
        return
    if chosen.dir is None:
        parser.error("--dir is needed")
    if chosen.command == "down":
        down(chosen.dir)
        return
    cluster = up(chosen.dir, registry=chosen.registry)
    print(f"KUBECONFIG={cluster.kubeconfig}\nREGISTRY={cluster.registry}")
    print(f"node {cluster.node} at {cluster.address}", file=sys.stderr)


if __name__ == "__main__":
    main()

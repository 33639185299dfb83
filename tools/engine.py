"""A Docker Engine and a registry for the tests and the demo: start, and stop without leaving anything.

`python -m tools.engine up|down --dir DIR [--private]`. An engine that already answers at DOCKER_HOST or at the usual
socket is used as it is, unless `--private` asks for one on its own socket and data root. Both commands can be repeated.
A private engine changes nothing that another engine uses: it has no docker0, leaves the packet filter alone and has its
own pool of addresses; published ports go through its proxies, and nothing is forwarded to other machines.
Only what this module started is ever stopped, and only by the pid and start time that it wrote down.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import docker
import requests
from docker.errors import DockerException

from tools import packet_filter
from tools.ports import free_port

DEADLINE = 180.0
USUAL_SOCKET = "unix:///var/run/docker.sock"


@dataclass(frozen=True)
class Started:
    """One program of ours: its pid and its start time in clock ticks, so that a reused pid is never taken for it."""

    pid: int
    born: str


@dataclass(frozen=True)
class Engine:
    """What is running for `directory`. `dockerd` is None when the engine is somebody else's.

    `pool` is the subnet of a private engine, `options` what it was started with beside what all are.
    """

    host: str
    registry: str
    dockerd: Started | None
    distribution: Started
    pool: str = ""
    options: tuple[str, ...] = ()


def up(directory: Path, *, private: bool, options: Sequence[str] = ()) -> Engine:
    """Start what is missing; the same answer again while it runs. Raises SystemExit with what to do.

    `options` are further ones for a private dockerd.
    """
    directory = directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    known = read(directory)
    if known is not None and alive(known.distribution) and _still_answers(known):
        if known.pool:
            packet_filter.accept(known.pool)  # what is filtered here may have changed since
        return known
    down(directory)
    host, dockerd, pool = ("", None, "") if private else (_adopted(), None, "")
    try:
        if not host:
            host, pool = f"unix://{directory / 'docker.sock'}", free_subnet()
            dockerd = _start_dockerd(directory, pool, options)
        registry, distribution = _start_registry(directory)
    except BaseException:
        if dockerd is not None:
            stop(dockerd)
        packet_filter.withdraw(pool)
        _clean(directory)
        raise
    return _note(directory, Engine(host, registry, dockerd, distribution, pool, tuple(options)))


def revive(directory: Path) -> Engine:
    """Start the private engine of `directory` again on its data, after it was killed."""
    directory = directory.resolve()
    known = read(directory)
    if known is None or known.dockerd is None:
        raise SystemExit(f"no private engine was started in {directory}. Start one: tools.engine up --private")
    if alive(known.dockerd):
        return known
    return _note(directory, replace(known, dockerd=_start_dockerd(directory, known.pool, known.options)))


def _note(directory: Path, engine: Engine) -> Engine:
    (directory / "engine.json").write_text(json.dumps(asdict(engine)))
    return engine


def read(directory: Path) -> Engine | None:
    """What `up` wrote down, if anything."""
    try:
        found = json.loads((directory / "engine.json").read_text())
    except (OSError, ValueError):
        return None
    dockerd = Started(**found["dockerd"]) if found["dockerd"] else None
    distribution = Started(**found["distribution"])
    pool, options = found.get("pool", ""), tuple(found.get("options", ()))
    return Engine(found["host"], found["registry"], dockerd, distribution, pool, options)


def down(directory: Path) -> None:
    """Stop what `up` started and remove its files. An engine that was there before keeps running."""
    directory = directory.resolve()
    known = read(directory)
    if known is not None:
        stop(known.distribution)
        if known.dockerd is not None:
            _end(directory, known)
    _clean(directory)


def _end(directory: Path, engine: Engine) -> None:
    """End a private engine with all that runs in it. A killed one is started once more: its containers still run."""
    dockerd = engine.dockerd
    if dockerd is not None and not alive(dockerd) and _left_running(directory):
        with contextlib.suppress(SystemExit):
            dockerd = _start_dockerd(directory, engine.pool, engine.options)
    _empty(engine)
    if dockerd is not None:
        stop(dockerd)
    packet_filter.withdraw(engine.pool)


def _left_running(directory: Path) -> bool:
    """Whether anything still runs that a killed dockerd started."""
    wanted = os.fsencode(directory / "exec")
    return any(wanted in words for words in command_lines())


def command_lines() -> Iterator[bytes]:
    """The command line of everything that runs here, its words apart by zero bytes."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield file.read_bytes()


def answers(host: str) -> bool:
    """Whether an engine can be used there by this user."""
    try:
        client = docker.APIClient(host, version="auto", timeout=5)
        with contextlib.closing(client):
            return bool(client.ping())
    except (DockerException, requests.RequestException, OSError):
        return False


def _still_answers(known: Engine) -> bool:
    """One of our own that is alive is waited for, however slow it is: others may be using it."""
    if known.dockerd is None:
        return answers(known.host)
    return _comes(lambda: answers(known.host), known.dockerd)


def _adopted() -> str:
    for host in (os.environ.get("DOCKER_HOST", ""), USUAL_SOCKET):
        if host and answers(host):
            return host
    return ""


def _program(name: str, package: str) -> str:
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/local/sbin")
    if found is None:
        raise SystemExit(f"{name} was not found. Install the package {package}, or start a Docker Engine yourself")
    return found


def _start_dockerd(directory: Path, pool: str, options: Sequence[str]) -> Started:
    program = _program("dockerd", "docker.io")
    if os.geteuid() != 0:
        raise SystemExit("no Docker Engine answers, and a private one can be started by root only. Start Docker first")
    path = directory / "docker.sock"
    if len(os.fsencode(path)) > 100:
        raise SystemExit(f"{path} is too long for a socket's name. Choose a shorter directory")
    config = directory / "daemon.json"
    config.write_text("{}")  # not the host's own /etc/docker/daemon.json
    command = [
        *(program, "--host", f"unix://{path}", "--config-file", str(config)),
        *("--pidfile", str(directory / "dockerd.pid"), "--insecure-registry", "127.0.0.0/8"),
        *("--data-root", str(directory / "data"), "--exec-root", str(directory / "exec")),
        # No docker0: a second engine on a host would fight for it. Containers use networks of their own.
        *("--bridge", "none", "--default-address-pool", f"base={pool},size=26"),
        # Nor the packet filter, where it would replace the chains of the first.
        *("--iptables=false", "--ip6tables=false", "--ip-forward=false", "--userland-proxy=true"),
        # Nobody waits for resolvers, which are out of reach: names without a dot are not passed on to them.
        *("--dns-opt", "ndots:0"),
        *options,
    ]
    _forget_containerd(directory)
    packet_filter.accept(pool)
    started = spawn(command, directory / "dockerd.log")
    _wait(lambda: answers(f"unix://{path}"), started, directory / "dockerd.log", "dockerd")
    return started


def _forget_containerd(directory: Path) -> None:
    """Remove the pid of the containerd that died with a killed dockerd: its zombie would be taken for a running one."""
    file = directory / "exec" / "containerd" / "containerd.pid"
    if file.exists():
        pid, end = int(file.read_text()), time.monotonic() + 2.0
        while born(pid) and time.monotonic() < end:
            time.sleep(0.02)
        if not born(pid):
            file.unlink()


def free_subnet() -> str:
    """A /18 below 10.192.0.0/10 that no route of this host touches and no other engine was given."""
    taken = set()
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        number = int(line.split()[1], 16).to_bytes(4, "little")
        taken.add((number[0], number[1], number[2] // 64))
    for words in command_lines():
        for second, third in re.findall(rb"base=10\.(\d+)\.(\d+)\.0/18", words):
            taken.add((10, int(second), int(third) // 64))
    for step in range(256):
        # Two engines that start at the same time see the same: each begins to look elsewhere.
        second, quarter = divmod((step + os.getpid()) % 256, 4)
        if (10, 192 + second, quarter) not in taken:
            return f"10.{192 + second}.{quarter * 64}.0/18"
    raise SystemExit("no free private subnet was found for the engine. Remove unused networks")


def _start_registry(directory: Path) -> tuple[str, Started]:
    program = _program("docker-registry", "docker-registry")
    address = f"127.0.0.1:{free_port()}"
    config = directory / "registry.yml"
    config.write_text(
        "version: 0.1\nlog: {level: warn}\n"
        f"storage: {{filesystem: {{rootdirectory: {json.dumps(str(directory / 'images'))}}}}}\n"
        f"http: {{addr: {json.dumps(address)}}}\n"
    )
    started = spawn([program, "serve", str(config)], directory / "registry.log")
    _wait(lambda: _registry_answers(address), started, directory / "registry.log", "docker-registry")
    return address, started


def _registry_answers(address: str) -> bool:
    try:
        with requests.Session() as session:
            session.trust_env = False
            return session.get(f"http://{address}/v2/", timeout=5).ok
    except requests.RequestException:
        return False


def spawn(command: list[str], log: Path, variables: Mapping[str, str] | None = None) -> Started:
    """Start a program that outlives this one; what it says goes to `log`. `variables` replace the environment."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd="/",
            env=variables,
        )
    return Started(child.pid, born(child.pid))


def born(pid: int) -> str:
    """The start time of a running program; empty when there is none, or only its zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def alive(started: Started) -> bool:
    """Whether this very program still runs."""
    return bool(started.born) and born(started.pid) == started.born


def _comes(ready: Callable[[], bool], started: Started) -> bool:
    """Whether it is ready in time, and before its program ends."""
    end = time.monotonic() + DEADLINE
    while not ready():
        if not alive(started) or time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def _wait(ready: Callable[[], bool], started: Started, log: Path, name: str) -> None:
    if not _comes(ready, started):
        stop(started)
        last = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
        raise SystemExit(f"{name} did not start. The end of {log.name} says:\n{last}")


def stop(started: Started) -> None:
    """SIGTERM, and SIGKILL when that was not heard."""
    for number, patience in ((signal.SIGTERM, 20.0), (signal.SIGKILL, 10.0)):
        end = time.monotonic() + patience
        if alive(started):
            with contextlib.suppress(ProcessLookupError):
                os.kill(started.pid, signal.SIGCONT)
                os.kill(started.pid, number)
        while alive(started) and time.monotonic() < end:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(started.pid, os.WNOHANG)
            time.sleep(0.05)


def _empty(engine: Engine) -> None:
    """Remove containers and networks of a private engine, so that no bridge and no mount stays."""
    with contextlib.suppress(DockerException, requests.RequestException, OSError):
        client = docker.APIClient(engine.host, version="auto", timeout=30)
        for container in client.containers(all=True):
            client.remove_container(container["Id"], force=True, v=True)
        for network in client.networks():
            if network["Name"] not in ("bridge", "host", "none"):
                client.remove_network(network["Id"])


def _clean(directory: Path) -> None:
    """Unmount what a killed engine left mounted, then remove our files."""
    for mount in _mounts_below(directory):
        subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)
    for name in ("data", "exec", "images"):
        shutil.rmtree(directory / name, ignore_errors=True)
    for name in (
        "engine.json",
        "daemon.json",
        "registry.yml",
        "docker.sock",
        "dockerd.pid",
        "dockerd.log",
        "registry.log",
        "hello.json",
        "hello.lock",
    ):
        (directory / name).unlink(missing_ok=True)


def _mounts_below(directory: Path) -> Iterator[str]:
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    yield from sorted((p for p in points if p.startswith(f"{directory}/")), key=len, reverse=True)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tools.engine", description=__doc__)
    parser.add_argument("command", choices=("up", "down"))
    parser.add_argument("--dir", type=Path, required=True, help="where its files live")
    parser.add_argument("--private", action="store_true", help="start an engine even where one answers already")
    chosen = parser.parse_args()
    if chosen.command == "down":
        down(chosen.dir)
        return
    engine = up(chosen.dir, private=chosen.private)
    print(f"DOCKER_HOST={engine.host}\nREGISTRY={engine.registry}")
    print("private engine" if engine.dockerd else "engine that was already there", file=sys.stderr)


if __name__ == "__main__":
    main()

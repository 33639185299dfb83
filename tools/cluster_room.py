"""The room the tests' own cluster runs in: namespaces of its own, held by one program, told what to start by a socket.

Whatever happens in there, ending that one program ends everything: components, pods, mounts, addresses and packet
filter. Only directories of control groups are left by the kernel, and they are removed here.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from tools import engine
from tools.cluster_files import Plan

GROUPS = Path("/sys/fs/cgroup")
HIDDEN = ("/run", "/var/run", "/var/lib", "/var/log")
"""What the room has of its own, so that nothing of this machine is seen or changed there."""


class RoomError(Exception):
    """The room refused what it was asked, or does not answer."""


def open_room(plan: Plan, node: Path) -> engine.Started:
    """Make the room and wait until it listens. Raises SystemExit with what to do."""
    if any(str(plan.directory).startswith(f"{path}/") for path in HIDDEN):
        raise SystemExit(f"{plan.directory} cannot be seen by the cluster. Choose one not below {', '.join(HIDDEN)}")
    if len(os.fsencode(plan.file("control.sock"))) > 100:
        raise SystemExit(f"{plan.directory} is too long for the name of a socket. Choose a shorter directory")
    try:
        _make_group(plan.name)
    except OSError as error:
        raise SystemExit(f"the cluster needs a control group of its own: {error}. Let root write there") from error
    command = [
        *(str(node), "open", f"--dir={plan.directory}", f"--link={plan.name}"),
        *(f"--host={plan.machine}/30", f"--node={plan.address}/30", f"--route={plan.services},{plan.pods}"),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        close_room(plan, holder(plan.directory))
        raise SystemExit(f"the cluster needs namespaces of its own, and they were refused:\n{done.stderr.strip()}")
    held = holder(plan.directory)
    end = time.monotonic() + 60.0
    while held is not None and engine.alive(held):
        with contextlib.suppress(RoomError):
            ask(plan.directory, do="list")
            return held
        if time.monotonic() > end:
            break
        time.sleep(0.02)
    said = Path(plan.file("hold.log")).read_text(errors="replace")
    close_room(plan, held)
    raise SystemExit(f"the room of the cluster did not open. hold.log says:\n{said}")


def holder(directory: Path) -> engine.Started | None:
    """The program that holds the room of `directory`, if it runs; never another that was given its pid since."""
    try:
        pid = int((directory / "hold.pid").read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    mine = [b"hold", b"--dir", os.fsencode(directory)]
    return engine.Started(pid, engine.born(pid)) if words[1:4] == mine else None


def ask(directory: Path, **request: object) -> dict[str, str]:
    """Send one request to the room: the state of each program, by name. Raises RoomError."""
    try:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(120.0)
            link.connect(str(directory / "control.sock"))
            link.sendall(json.dumps(request).encode() + b"\n")
            with link.makefile() as answer:
                said = json.loads(answer.readline(1_000_000))
    except (OSError, ValueError) as error:
        raise RoomError(f"the room of {directory} does not answer: {error}") from error
    if said["error"]:
        raise RoomError(f"{request['do']} {request.get('name', '')}: {said['error']}")
    found: dict[str, str] = said["programs"]
    return found


def run(directory: Path, name: str, command: list[str]) -> None:
    """Run a program in the room to its end. Raises RoomError with what it said."""
    log = directory / f"{name}.log"
    ask(directory, do="start", name=name, argv=command, log=str(log))
    end = time.monotonic() + 120.0
    while (state := ask(directory, do="list")[name]) == "runs" and time.monotonic() < end:
        time.sleep(0.02)
    if state != "ended: code 0":
        raise RoomError(f"{' '.join(command)} {state}:\n{log.read_text(errors='replace')[-1000:]}")


def close_room(plan: Plan, held: engine.Started | None) -> None:
    """End everything in the room, and wait until the kernel has taken it away."""
    if held is not None and engine.alive(held):
        with contextlib.suppress(ProcessLookupError):
            os.kill(held.pid, signal.SIGKILL)
    end = time.monotonic() + 60.0
    link = Path("/sys/class/net") / plan.name
    while ((held is not None and engine.alive(held)) or link.exists()) and time.monotonic() < end:
        time.sleep(0.02)
    _remove_groups(plan.name)


def _make_group(name: str) -> None:
    """The control group below which all pods are; with version 2 it can limit what the root can."""
    controllers = GROUPS / "cgroup.controllers"
    if controllers.exists():
        for controller in controllers.read_text().split():
            with contextlib.suppress(OSError):  # some cannot be passed on, and are not needed
                (GROUPS / "cgroup.subtree_control").write_text(f"+{controller}")
        (GROUPS / name).mkdir(exist_ok=True)
        return
    for mount in _version_one_mounts():
        with contextlib.suppress(FileExistsError):
            (mount / name).mkdir()


def _version_one_mounts() -> list[Path]:
    lines = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [Path(words[1]) for words in lines if words[2] == "cgroup"]


def _remove_groups(name: str) -> None:
    for top in {*GROUPS.glob(name), *GROUPS.glob(f"*/{name}")}:
        for _ in range(600):  # what was killed a moment ago is still counted in them
            for path, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    Path(path).rmdir()
            if not top.exists():
                break
            time.sleep(0.05)

"""A real systemd starts the unit's program again when it ended because it had lost its lease.

A manager of a user's services runs in namespaces and a control group of its own. It gets what the unit says of starting
and ending; the sandbox, for which it has no right, is tested beside this.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reconciler.daemon import EXIT_NOT_LEADER
from tests.deploy.test_systemd import UNIT

PATIENCE = 120.0
KEPT = ("StartLimitIntervalSec", "StartLimitBurst", "Type", "NotifyAccess", "Restart", "RestartSec", "KillMode")
GROUPS = Path("/sys/fs/cgroup")
PROGRAM = """
import os, socket, sys, time
with open(sys.argv[1], "a") as log:
    log.write("started\\n")
with open(sys.argv[1]) as log:
    times = len(log.readlines())
told = os.environ["NOTIFY_SOCKET"].replace("@", "\\0", 1)
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"READY=1", told)
if times == 1:
    os._exit(int(sys.argv[2]))
time.sleep(600)
"""


def unit(command: str) -> str:
    """The unit with another command, and only that of it which says when it is started."""
    lines = UNIT.read_text().splitlines()
    kept = [line for line in lines if re.match(r"\[(Unit|Service)\]$", line) or line.partition("=")[0] in KEPT]
    assert {line.partition("=")[0] for line in kept if "=" in line} == set(KEPT)
    return "\n".join([*kept, f"ExecStart={command}", ""])


@contextmanager
def manager(root: Path) -> Iterator[None]:
    """systemd with the units of `root`/units. With it ends all that it started."""
    version_1 = (GROUPS / "systemd").is_dir()
    top = GROUPS / "systemd" if version_1 else GROUPS
    kind = "cgroup -o none,name=systemd" if version_1 else "cgroup2"
    group = top / f"rec-{uuid.uuid4().hex[:12]}"
    program = next(path for path in ("/lib/systemd/systemd", "/usr/lib/systemd/systemd") if Path(path).exists())
    steps = (
        "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system",
        f"umount {top} && mount -t {kind} groups {top}",
        # Not by `exec`: as the first program of its namespace it would take itself for the system's.
        f"{program} --user --unit=default.target --log-target=console; exit",
    )
    inside = " && ".join(steps)
    begin = f"echo $$ > {group}/cgroup.procs && exec unshare --mount --pid --fork --kill-child --mount-proc --cgroup "
    variables = {
        "PATH": os.environ["PATH"],
        "HOME": str(root),
        "XDG_RUNTIME_DIR": str(root),
        "SYSTEMD_UNIT_PATH": str(root / "units"),
    }
    group.mkdir()
    with (root / "systemd.log").open("wb") as log:
        running = subprocess.Popen(["sh", "-c", f"{begin} sh -c '{inside}'"], env=variables, stdout=log, stderr=log)
    try:
        yield
    finally:
        running.kill()
        running.wait(PATIENCE)
        end = time.monotonic() + PATIENCE
        while group.exists() and time.monotonic() < end:
            for folder, _, _ in os.walk(group, topdown=False):
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()


def test_it_is_started_again_after_the_loss_of_its_lease(tmp_path: Path) -> None:
    assert shutil.which("systemd-analyze"), "systemd was not found; install the package systemd"
    units, log = tmp_path / "units", tmp_path / "log"
    units.mkdir()
    (tmp_path / "program.py").write_text(PROGRAM)
    command = f"{sys.executable} -I {tmp_path}/program.py {log} {EXIT_NOT_LEADER}"
    (units / UNIT.name).write_text(unit(command))
    (units / "default.target").write_text(f"[Unit]\nWants={UNIT.name}\n")
    for name in ("basic.target", "shutdown.target", "sysinit.target"):
        (units / name).write_text("[Unit]\nDescription=A place to hang things\n")
    with manager(tmp_path):
        end = time.monotonic() + PATIENCE
        while not log.exists() or log.read_text() != "started\nstarted\n":
            assert time.monotonic() < end, (tmp_path / "systemd.log").read_text()
            time.sleep(0.1)

"""The unit: systemd accepts it, and in its sandbox the program starts, reconciles, reloads and stops as it says.

There is no systemd to start it in the tests: its sandbox is made by the same means of the kernel, in the file system of
the daemon's image, which is a small Debian.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.e2e.running import House
from tests.support.daemon_image import give
from tools import daemon_image

UNIT = Path(__file__).resolve().parents[2] / "deploy" / "systemd" / "reconciler.service"
SANDBOX = Path(__file__).resolve().parents[1] / "support" / "unit_sandbox.py"
EXPOSURE = 16
"""Of 100, as `systemd-analyze security` counts."""


def values(key: str) -> list[str]:
    """What the unit says of `key`, each time."""
    return re.findall(rf"^{key}=(.*)$", UNIT.read_text(), re.MULTILINE)


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    assert shutil.which("systemd-analyze"), "systemd-analyze was not found; install the package systemd"
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, check=False, timeout=60)


def system_calls(name: str) -> set[str]:
    """What a group of systemd's (`@name`) allows, down to single calls."""
    found: set[str] = set()
    for line in analyze("--no-pager", "syscall-filter", name).stdout.splitlines()[1:]:
        word = line.strip()
        if word.startswith("@"):
            found |= system_calls(word)
        elif word and not word.startswith("#"):
            found.add(word)
    assert found, name
    return found


def test_systemd_accepts_it(tmp_path: Path) -> None:
    """In a root of its own: with the programs it names, and nothing else of this machine."""
    units = tmp_path / "etc" / "systemd" / "system"
    units.mkdir(parents=True)
    shutil.copy(UNIT, units)
    for name in ("sysinit.target", "basic.target", "shutdown.target", "network-online.target", "multi-user.target"):
        (units / name).write_text("[Unit]\nDescription=A place to hang things\n")
    for key in ("ExecStart", "ExecReload"):
        program = tmp_path / values(key)[0].split()[0].lstrip("/")
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    found = analyze(f"--root={tmp_path}", "verify", "reconciler.service")
    assert (found.returncode, found.stderr) == (0, "")
    (units / UNIT.name).write_text(UNIT.read_text().replace("KillMode=mixed", "KillMode=mix"))
    assert "kill mode" in analyze(f"--root={tmp_path}", "verify", "reconciler.service").stderr, "the check can fail"


def test_little_is_left_open() -> None:
    found = analyze("--no-pager", "security", "--offline=true", f"--threshold={EXPOSURE}", str(UNIT))
    assert found.returncode == 0, found.stdout


class Service(House):
    """The program as the unit starts it: user, directories, command and sandbox are those it says."""

    def __init__(self, root: Path, engine: str, system: Path) -> None:
        super().__init__(root, engine)
        self.system = system
        self.state, self.etc = root / "state", root / "etc"
        for path in (self.state, self.etc):
            path.mkdir()
        self.state.chmod(int(values("StateDirectoryMode")[0], 8))
        self.settings = self.etc / "reconciler.yaml"
        self.write_inside()

    def write_inside(self, extra: str = "") -> None:
        self.write_settings(extra)
        text = self.settings.read_text().replace("data: data", "data: /var/lib/reconciler")
        text = text.replace(str(self.upstream.path), "/run/fleet/fleet.git").replace(
            self.engine, "unix:///run/docker.sock"
        )
        self.settings.write_text(text)
        for path in (self.state, self.upstream.path):
            give(path)

    def line(self, *arguments: str) -> list[str]:
        words = shlex.split(values("ExecStart")[0])
        assert arguments == ("run",)
        engine = Path(self.engine.removeprefix("unix://"))
        binds = {
            f"/etc/{values('ConfigurationDirectory')[0]}": [str(self.etc), False],
            f"/var/lib/{values('StateDirectory')[0]}": [str(self.state), True],
            "/run/docker.sock": [str(engine), True],
            "/run/fleet": [str(self.root), False],
        }
        allowed = system_calls("@system-service")
        for word in values("SystemCallFilter"):
            allowed = allowed - system_calls(word[1:]) if word.startswith("~") else allowed & system_calls(word)
        families = [int(getattr(socket, name)) for name in values("RestrictAddressFamilies")[0].split()]
        plan = {
            "root": str(self.system),
            "binds": binds,
            "uid": daemon_image.USER,
            "groups": [engine.stat().st_gid],
            "umask": int(values("UMask")[0], 8),
            "allow": sorted(allowed),
            "families": families,
            "command": words,
        }
        file = self.root / "plan.json"
        file.write_text(json.dumps(plan))
        return ["unshare", "--mount", sys.executable, "-I", str(SANDBOX), str(file)]

    def variables(self, **more: str) -> dict[str, str]:
        watchdog = str(int(values("WatchdogSec")[0]) * 1_000_000)
        told = Path(more.pop("NOTIFY_SOCKET"))
        told.chmod(0o777)
        return {"PATH": "/usr/bin:/usr/sbin", "NOTIFY_SOCKET": f"/run/fleet/{told.name}", "WATCHDOG_USEC": watchdog}


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, daemon_image_files: daemon_image.Image) -> Path:
    """The image's file system, with the program where the unit expects it."""
    root = tmp_path_factory.mktemp("system")
    with tarfile.open(daemon_image_files.archive) as tar:
        manifest = json.load(tar.extractfile(f"blobs/{daemon_image_files.manifest.replace(':', '/')}") or sys.stdin)
        for layer in manifest["layers"]:
            with tarfile.open(fileobj=tar.extractfile(f"blobs/{layer['digest'].replace(':', '/')}")) as inner:
                inner.extractall(root, filter="tar")
    program = root / shlex.split(values("ExecStart")[0])[0].lstrip("/")
    program.parent.mkdir(parents=True)
    program.symlink_to("/usr/local/bin/reconciler")
    for name in ("dev", "proc", "run/fleet"):
        (root / name).mkdir(parents=True)
    (root / "run" / "docker.sock").touch()
    root.chmod(0o755)
    return root


@pytest.fixture
def service(tmp_path: Path, engine: str, system: Path, raw: docker.APIClient) -> Iterator[Service]:
    tmp_path.chmod(0o755)
    found = Service(tmp_path, engine, system)
    yield found
    found.clean(raw)


def test_in_its_sandbox_it_starts_reconciles_reloads_and_stops(service: Service, hello: dict[str, str]) -> None:
    first = service.release(hello["1.0"])
    give(service.upstream.path)
    with service.daemon() as daemon:
        daemon.synced(first)
        daemon.told("WATCHDOG=1", "READY=1")
        status = Path(f"/proc/{daemon.process.pid}/status").read_text()
        assert re.search(r"^Seccomp:\t2$", status, re.MULTILINE)
        assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE)
        assert set(re.findall(r"^Cap\w+:\t(\w+)$", status, re.MULTILINE)) == {"0" * 16}
        assert f"Uid:\t{daemon_image.USER}\t" in status
        service.write_inside("log: {level: debug}")
        assert shlex.split(values("ExecReload")[0])[1:] == ["-HUP", "$MAINPID"]
        daemon.process.send_signal(signal.SIGHUP)
        daemon.told("RELOADING=1")
        daemon.told("READY=1")
        daemon.log("reloaded")
        assert daemon.stop() == 0
        daemon.told("STOPPING=1")
    assert (service.state / "journal.db").stat().st_mode & 0o777 == 0o600

"""The compose file starts the daemon's container, which reconciles a repository and stops when it is told to."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import docker
import pytest
import yaml

from reconciler.settings import read
from tests.e2e.running import House
from tests.support.daemon_image import give
from tests.support.database import Place
from tools import daemon_image
from tools import database as server
from tools.ports import free_port

COMPOSE = Path(__file__).resolve().parents[2] / "deploy" / "compose"
PATIENCE = 120.0


@cache
def compose() -> tuple[str, ...]:
    """The command: the plugin of the docker command, or the program of its own."""
    known = subprocess.run(["docker", "compose", "version"], check=False, capture_output=True).returncode == 0
    if known:
        return "docker", "compose"
    found = shutil.which("docker-compose")
    assert found, "neither `docker compose` nor docker-compose was found; install the package docker-compose"
    return (found,)


class Stage:
    """One project: directories for the container, the variables of the file, and the commands."""

    def __init__(self, root: Path, engine: str, image: str, raw: docker.APIClient) -> None:
        self.raw = raw
        self.house = House(root / "fleet", engine)
        self.settings, self.data = root / "settings", root / "data"
        self.port = free_port()
        for path in (self.settings, self.data):
            path.mkdir()
        self.data.chmod(0o700)
        self.files = [COMPOSE / "compose.yaml", root / "fleet.yaml"]
        self.mount(self.house.upstream.path, "/srv/fleet.git")
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        socket_path = Path(engine.removeprefix("unix://"))
        self.variables = kept | {
            "DOCKER_HOST": engine,
            "COMPOSE_PROJECT_NAME": self.house.owner,
            "RECONCILER_IMAGE": image,
            "DOCKER_GID": str(socket_path.stat().st_gid),
            "DOCKER_SOCKET": str(socket_path),
            "RECONCILER_SETTINGS_DIR": str(self.settings),
            "RECONCILER_DATA": str(self.data),
            "RECONCILER_PORT": str(self.port),
        }

    def mount(self, source: Path, target: str) -> None:
        """What only this test mounts: the fleet's repository."""
        volume = {"type": "bind", "source": str(source), "target": target, "read_only": True}
        self.files[-1].write_text(yaml.safe_dump({"services": {"reconciler": {"volumes": [volume]}}}))

    def write_settings(self, **changes: Any) -> None:
        """The sample's settings, changed where a test has to."""
        found = yaml.safe_load((COMPOSE / "reconciler.yaml").read_text())
        found["name"] = self.house.owner
        found["data"] = str(self.data)
        found["http"]["listen"] = f"127.0.0.1:{self.port}"
        found["repositories"]["fleet"] = {"url": "file:///srv/fleet.git", "allowFile": True, "poll": "1s"}
        found["environments"] = {self.house.environment: {"repository": "fleet", "runtime": "local"}}
        (self.settings / "reconciler.yaml").write_text(yaml.safe_dump(found | changes))
        give(self.data)
        give(self.house.upstream.path)

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        files = [word for file in self.files for word in ("--file", str(file))]
        line = [*compose(), *files, *words]
        return subprocess.run(line, capture_output=True, text=True, env=self.variables, check=False, timeout=300)

    def run(self, *words: str) -> str:
        done = self.command(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def container(self) -> str:
        mine = {"label": [f"com.docker.compose.project={self.house.owner}"]}
        (found,) = self.raw.containers(all=True, filters=mine)
        return str(found["Id"])

    def healthy(self) -> None:
        """Wait until the file's own health check says so."""
        end = time.monotonic() + PATIENCE
        while (state := self.raw.inspect_container(self.container)["State"])["Health"]["Status"] != "healthy":
            assert state["Running"] and time.monotonic() < end, self.raw.logs(self.container).decode()
            time.sleep(0.2)

    def lines(self) -> list[dict[str, Any]]:
        text = self.raw.logs(self.container).decode()
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def synced(self, revision: str) -> None:
        end = time.monotonic() + PATIENCE
        wanted = {"event": "reconciled", "result": "synced", "revision": revision[:12]}
        while not any(wanted.items() <= line.items() for line in self.lines()):
            assert time.monotonic() < end, self.raw.logs(self.container).decode()
            time.sleep(0.2)


@pytest.fixture
def stage(tmp_path: Path, engine: str, daemon_image: str, raw: docker.APIClient) -> Iterator[Stage]:
    (tmp_path / "fleet").mkdir()
    tmp_path.chmod(0o755)
    found = Stage(tmp_path, engine, daemon_image, raw)
    yield found
    for container in raw.containers(all=True, filters={"label": [f"com.docker.compose.project={found.house.owner}"]}):
        raw.remove_container(container["Id"], force=True)
    found.house.clean(raw)


def test_it_reconciles_and_ends_well(stage: Stage, hello: dict[str, str], raw: docker.APIClient) -> None:
    first = stage.house.release(hello["1.0"])
    stage.write_settings()
    stage.run("up", "--detach")
    stage.healthy()
    stage.synced(first)
    assert [image.partition("@")[2] for image in stage.house.images(raw)] == [hello["1.0"].partition("@")[2]] * 2
    second = stage.house.release(hello["2.0"])
    give(stage.house.upstream.path)
    stage.synced(second)
    asked = stage.run("exec", "-T", "reconciler", "reconciler", "status", "--json")
    status = json.loads(asked)[0]
    assert (status["environment"], status["plan"]["services"]["web"]["sync"]) == (stage.house.environment, "Synced")
    container = stage.container
    stage.run("stop")
    assert raw.inspect_container(container)["State"]["ExitCode"] == 0
    assert stage.lines()[-1]["event"] == "stopped"
    assert len(stage.house.images(raw)) == 2, "the instances run on"
    stage.run("down")


def test_it_may_do_nothing_but_use_the_engine(stage: Stage, hello: dict[str, str], raw: docker.APIClient) -> None:
    stage.house.release(hello["1.0"])
    stage.write_settings()
    stage.run("up", "--no-start")
    found = raw.inspect_container(stage.container)
    host = found["HostConfig"]
    assert found["Config"]["User"] == "65532:65532"
    assert (host["ReadonlyRootfs"], host["Privileged"], host["CapDrop"]) == (True, False, ["ALL"])
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["CapAdd"] in (None, [])
    writable = {mount["Destination"] for mount in found["Mounts"] if mount["RW"]}
    assert writable == {"/var/run/docker.sock", str(stage.data)}
    assert set(host["Tmpfs"]) == {"/tmp"}
    assert "noexec" in host["Tmpfs"]["/tmp"]


def test_with_the_overlay_its_journal_is_in_postgresql(
    stage: Stage, hello: dict[str, str], raw: docker.APIClient, database: Place, tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text(server.PASSWORD)
    os.chown(password, daemon_image.USER, daemon_image.USER)
    password.chmod(0o400)
    stage.files.insert(1, COMPOSE / "postgresql.yaml")
    stage.variables["JOURNAL_PASSWORD_FILE"] = str(password)
    first = stage.house.release(hello["1.0"])
    stage.write_settings(journal=database.remote(), journalPasswordFile="/run/secrets/journal-password")
    stage.run("up", "--detach")
    stage.synced(first)
    stage.run("stop")
    assert raw.inspect_container(stage.container)["State"]["ExitCode"] == 0
    assert database.sql("SELECT count(*) FROM records")[0][0] > 5
    assert not list(stage.data.glob("*.db"))


def test_the_sample_settings_are_good(tmp_path: Path) -> None:
    found = read(COMPOSE / "reconciler.yaml")
    assert (found.data, found.http.host, found.warnings) == (Path("/var/lib/reconciler"), "127.0.0.1", ())

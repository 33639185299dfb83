"""What the demo stands on: an engine, a registry, images, the operator's settings and the daemon, in one directory.

Everything it starts is written down in that directory before it is used, so that `clear` finds it again after any end
of the demo. It must not touch what it did not start: an engine that was there before keeps everything of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import docker
import requests
from docker.errors import APIError, DockerException

from reconciler.core import names
from tools import engine as engines
from tools import images, proxy_image
from tools.demo_fleet import ENVIRONMENT
from tools.ports import free_port

ROOT = Path(__file__).resolve().parent.parent
DIRECTORY_VARIABLE = "RECONCILER_DEMO_DIR"
MARK = "demo.json"
VERSIONS = {
    "1.0": "",
    "1.1": "",
    "1.2": "ENV UNHEALTHY=1\n",
    "2.0": "",
    "2.1": "",
    "2.2": "ENV FAIL_PERCENT=20\n",
}
"""The versions of the sample service, and what else stands in their Dockerfile. 1.2 and 2.2 are broken."""
FAULTS = {"1.2": "it never becomes healthy", "2.2": "every fifth answer is an error"}
LONGEST = 72
START_SECONDS = 120.0
SETTINGS = """\
# The operator's settings of the demo. Check them with: reconciler settings check
name: {owner}
data: data
http:
  listen: 127.0.0.1:{port}
  tokenFile: token
repositories:
  fleet:
    url: "file://{forge}"
    allowFile: true
runtimes:
  local:
    docker:
      host: "{host}"
environments:
  {environment}:
    repository: fleet
    runtime: local
    allow:
      writableRoot: true
    proxy:
      image: {proxy}
      http: "127.0.0.1:{front}"
"""


def chosen_directory() -> Path:
    """Where everything of the demo lives."""
    return Path(os.environ.get(DIRECTORY_VARIABLE) or ROOT / ".cache" / "demo").absolute()


@dataclass
class Stage:
    """The demo's directory and what runs for it. `front`: where the proxy takes requests."""

    directory: Path
    engine: engines.Engine | None = None
    daemon: engines.Started | None = None
    images: dict[str, str] = field(default_factory=dict)
    front: tuple[str, int] = ("127.0.0.1", 0)

    @property
    def owner(self) -> str:
        """The name of this installation: two demos on one engine never take each other's containers for theirs."""
        return f"demo-{hashlib.sha256(str(self.directory).encode()).hexdigest()[:8]}"

    @property
    def proxy(self) -> str:
        """The tag of the proxy's image."""
        return f"reconciler-haproxy:{self.owner}"

    @property
    def settings(self) -> Path:
        """The operator's settings."""
        return self.directory / "reconciler.yaml"

    @property
    def journal(self) -> Path:
        """The journal's file."""
        return self.directory / "data" / "journal.db"

    @property
    def log(self) -> Path:
        """What the daemon logs."""
        return self.directory / "reconciler.log"

    def environment(self) -> dict[str, str]:
        """The variables with which commands find the settings and the engine."""
        found = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "RECONCILER_"))}
        host = {"DOCKER_HOST": self.engine.host} if self.engine is not None else {}
        return found | host | {"RECONCILER_SETTINGS": str(self.settings), "PYTHONPATH": str(ROOT)}

    def open(self) -> None:
        """Make the directory. Raises SystemExit when it holds something else, or when sockets in it get no name."""
        if len(os.fsencode(self.directory)) > LONGEST:
            raise SystemExit(
                f"{self.directory} is too long for a socket's name. Name a short one: {DIRECTORY_VARIABLE}"
            )
        if self.directory.exists() and any(self.directory.iterdir()):
            raise SystemExit(f"{self.directory} is not empty and not of the demo. Name another: {DIRECTORY_VARIABLE}")
        self.directory.mkdir(parents=True, exist_ok=True)
        self._note()

    def start_engine(self, *, private: bool) -> str:
        """Use the engine that answers, or start one; what it is, in words."""
        self.engine = engines.up(self.directory / "engine", private=private)
        self._note()
        if not self.engine.host.startswith("unix://"):
            raise SystemExit(
                f"the engine at {self.engine.host} is not on this machine. Unset DOCKER_HOST, then try again"
            )
        with contextlib.closing(self.client()) as client:
            version = str(client.version()["Version"])
            if client.networks(names=[f"^{names.network(ENVIRONMENT)}$"]):
                raise SystemExit(
                    f"the engine has a network {names.network(ENVIRONMENT)} already: another demo runs there. "
                    "Stop that one first: make demo-stop in its folder"
                )
        return (
            f"Docker Engine {version}, {'started for the demo' if self.engine.dockerd else 'which was running already'}"
        )

    def publish(self, version: str) -> str:
        """Build an image and push it; the pinned reference. The engine's own copy goes, so that it is really pulled."""
        assert self.engine is not None
        try:
            found = images.publish(self.engine.host, self.engine.registry, version, more=VERSIONS[version])
        except SystemExit as error:
            raise SystemExit(
                f"{error}\nIf this engine cannot reach 127.0.0.1 of this machine, run: make demo ARGS=--private"
            ) from error
        self.images[version] = found
        with contextlib.closing(self.client()) as client:
            client.remove_image(found.partition("@")[0], force=True)
        self._note()
        return found

    def build_proxy(self) -> None:
        """Build the image of the proxy under a tag of our own."""
        assert self.engine is not None
        command = ["bash", str(proxy_image.SCRIPT), self.proxy, self.engine.host]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"the image of the proxy could not be built:\n{done.stderr.strip()}")

    def version_of(self, image: str) -> str:
        """The tag of a pinned image."""
        digest = image.rpartition("@")[2]
        return next((version for version, pinned in self.images.items() if pinned.endswith(digest)), "?")

    def configure(self, forge: Path) -> None:
        """Write the operator's settings."""
        assert self.engine is not None
        port, self.front = free_port(), ("127.0.0.1", free_port())
        token = self.directory / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        values = {"owner": self.owner, "port": port, "forge": forge, "host": self.engine.host}
        values |= {"proxy": self.proxy, "front": self.front[1]}
        self.settings.write_text(SETTINGS.format(environment=ENVIRONMENT, **values))

    def start_daemon(self) -> None:
        """`reconciler run`, which goes on when the demo ends; returns when it has opened its journal."""
        self.daemon = engines.spawn([sys.executable, "-m", "reconciler", "run"], self.log, self.environment())
        self._note()
        end = time.monotonic() + START_SECONDS
        while not self.journal.exists():
            if not engines.alive(self.daemon) or time.monotonic() > end:
                raise SystemExit(f"the daemon did not start. The end of its log says:\n{self.log_end()}")
            time.sleep(0.02)

    def log_end(self, lines: int = 8) -> str:
        """The last lines of the daemon's log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def client(self) -> docker.APIClient:
        """The engine, as a person with the docker command has it. Close it."""
        assert self.engine is not None
        return docker.APIClient(self.engine.host, version="auto", timeout=60)

    def clear(self) -> bool:
        """Stop and remove everything of an earlier demo in this directory; whether there was one."""
        if not (self.directory / MARK).exists():
            return False
        self._remember()
        if self.daemon is not None:
            engines.stop(self.daemon)
        self.engine = engines.read(self.directory / "engine") or self.engine
        if self.engine is not None and self.engine.dockerd is None and engines.answers(self.engine.host):
            with contextlib.closing(self.client()) as client:
                self._empty(client)
        engines.down(self.directory / "engine")
        for path in self.directory.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != MARK:
                path.unlink()
        (self.directory / MARK).unlink()  # last, so that an interrupted removal can be taken up again
        self.directory.rmdir()
        self.engine = self.daemon = None
        self.images = {}
        return True

    def _empty(self, client: docker.APIClient) -> None:
        """Remove what carries our name from an engine that is somebody else's."""
        ours = {"label": [f"{names.LABEL_OWNER}={self.owner}"]}
        for container in client.containers(all=True, filters=ours):
            client.remove_container(container["Id"], force=True, v=True)
        for network in client.networks(filters=ours):
            client.remove_network(network["Id"])
        for volume in client.volumes(filters=ours).get("Volumes") or ():
            client.remove_volume(volume["Name"])
        for pinned in self.images.values():
            repository = pinned.partition("@")[0].rpartition(":")[0]
            for reference in (pinned.partition("@")[0], f"{repository}@{pinned.rpartition('@')[2]}"):
                with contextlib.suppress(APIError):
                    client.remove_image(reference, force=True)
        with contextlib.suppress(APIError):
            client.remove_image(self.proxy)

    def _note(self) -> None:
        daemon = asdict(self.daemon) if self.daemon is not None else None
        (self.directory / MARK).write_text(json.dumps({"daemon": daemon, "images": self.images}))

    def _remember(self) -> None:
        try:
            known = json.loads((self.directory / MARK).read_text())
        except ValueError:
            return
        self.daemon = engines.Started(**known["daemon"]) if known["daemon"] else None
        self.images = known["images"]


def fault(error: Exception) -> str:
    """What an error of the engine says, for a person."""
    if isinstance(error, APIError) and error.explanation:
        return str(error.explanation)
    if isinstance(error, DockerException | requests.RequestException):
        return f"the engine: {error}"
    return str(error)

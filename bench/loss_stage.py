"""The stage of `bench loss`: a private engine, a fleet of one service behind a proxy, and the daemon as a program.

It steers and waits; it counts nothing and judges nothing.
"""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker

from bench import load
from bench.fleet import VERSIONS, pinned
from reconciler.adapters.clock import SystemClock
from reconciler.adapters.journal import SqlJournal
from reconciler.core import names
from reconciler.core.record import What
from tests.support.fleet_house import ROOT, FleetHouse
from tests.support.runtime_house import demolish
from tools import engine, images, proxy_image
from tools.certificate import self_signed
from tools.ports import free_port

ENVIRONMENT = "bench"
HOST = "web.example"
LOOK = 0.01
PATIENCE = 90.0
"""Seconds within which everything that is waited for has to happen."""


@dataclass(frozen=True)
class Shape:
    """How the one service is declared. `version` names an image; the texts are YAML of one line."""

    version: str
    replicas: int = 2
    rollout: str = "{surge: 2}"
    drain: str = "{deadline: 1s, tail: 2500ms, grace: 3s}"
    env: Mapping[str, str] = field(default_factory=lambda: {"WS_GRACE_MS": "400"})
    hosts: str = f"[{HOST}]"
    more: str = ""

    def manifest(self, image: str) -> str:
        """The file of the service."""
        return f"""apiVersion: reconciler.dev/v1
kind: Service
metadata: {{name: web}}
spec:
  image: {image}
  replicas: {self.replicas}
  env: {json.dumps(dict(self.env))}
  files: [{{path: /etc/hello/banner.txt, content: "hello"}}]
  ports: [{{name: http, container: 8080}}]
  health: {{http: {{port: http, path: /healthz}}, interval: 500ms, healthyAfter: 1}}
  drain: {self.drain}
  traffic: {{port: http, hosts: {self.hosts}}}
  rollout: {self.rollout}
{self.more}"""


class Stage:
    """One environment with one proxy. `images` are the references by version; at `http` the proxy is published."""

    def __init__(self, host: str, found: Mapping[str, str], directory: Path) -> None:
        self.images = found
        self.client = docker.APIClient(host, version="auto", timeout=60)
        self.house = FleetHouse(directory, ENVIRONMENT, host)
        self.http, self._https = ("127.0.0.1", free_port()), free_port()
        self.engine_directory = directory / "engine"
        self._certificates = directory / "certificates"
        self._log = directory / "daemon.log"
        self._daemon: subprocess.Popen[bytes] | None = None
        _make_certificate(self._certificates)
        proxy = (
            f"    proxy:\n      image: {proxy_image.build(host)}\n      http: 127.0.0.1:{self.http[1]}\n"
            f"      https: 127.0.0.1:{self._https}\n      certificates: {self._certificates}\n"
        )
        self.house.prepare(environment_extra=proxy)

    # The daemon

    def begin(self, failpoint: str = "") -> None:
        """Start `reconciler run`."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.house.directory), "PYTHONPATH": str(ROOT)}
        if failpoint:
            environment["RECONCILER_FAILPOINT"] = failpoint
        command = [sys.executable, "-m", "reconciler", "run", "--settings", str(self.house.settings)]
        with self._log.open("ab") as log:
            self._daemon = subprocess.Popen(
                command, env=environment, cwd=self.house.directory, stdout=log, stderr=subprocess.STDOUT
            )

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the daemon, if it runs, and wait for its end."""
        if self._daemon is not None and self._daemon.poll() is None:
            self._daemon.send_signal(number)
            self._daemon.wait(PATIENCE)

    def died(self) -> bool:
        """Whether the daemon is dead by SIGKILL. Raises SystemExit when it ended otherwise."""
        assert self._daemon is not None
        code = self._daemon.poll()
        if code not in (None, -signal.SIGKILL):
            raise self.lost(f"the daemon ended with {code}")
        return code is not None

    def lines(self, since: int = 0) -> Iterator[dict[str, Any]]:
        """What the daemon logged from the byte `since` on."""
        with self._log.open("rb") as log:
            log.seek(since)
            for line in log:
                if line.startswith(b"{") and line.endswith(b"\n"):
                    yield json.loads(line)

    def said(self) -> int:
        """The length of the log."""
        return self._log.stat().st_size if self._log.exists() else 0

    def synced(self, revision: str, since: int = 0) -> bool:
        """Whether the daemon said after the byte `since` that this revision is in sync."""
        wanted = ("reconciled", "synced", revision[:12])
        return any(
            (line.get("event"), line.get("result"), line.get("revision")) == wanted for line in self.lines(since)
        )

    def promoted(self, revision: str) -> float:
        """When the journal says that the version of this revision became the stable one, in seconds since 1970."""
        with closing(SqlJournal.open(self.house.journal, SystemClock(), "bench", act=False)) as journal:
            for record in journal.records(environment=ENVIRONMENT):
                if record.entry.what is What.PROMOTED and record.entry.revision == revision:
                    return record.entry.at.timestamp()
        raise self.lost(f"revision {revision[:12]} was never promoted")

    # The fleet

    def release(self, shape: Shape, message: str = "release") -> str:
        """Commit and push; the revision."""
        self.house.write("web", shape.manifest(self.images[shape.version]))
        return self.house.push(message)

    def revert(self) -> str:
        """`git revert` of the last commit, pushed; the revision."""
        self.house.git("revert", "--no-edit", "HEAD")
        self.house.git("push", "-q", "origin", "main")
        return self.house.git("rev-parse", "HEAD")

    def instances(self) -> list[dict[str, Any]]:
        """The containers of the service, running or not."""
        wanted = [f"{names.LABEL_ENVIRONMENT}={ENVIRONMENT}", f"{names.LABEL_SERVICE}=web"]
        found: list[dict[str, Any]] = self.client.containers(all=True, filters={"label": wanted})
        return found

    def alone(self, shape: Shape) -> bool:
        """Whether as many instances as declared are there, of this version alone."""
        found = self.instances()
        image = pinned(self.images[shape.version])
        same = all(box["Labels"].get(names.LABEL_IMAGE) == image and box["State"] == "running" for box in found)
        return same and len(found) == shape.replicas

    def settle(self, shape: Shape, revision: str, since: int = 0) -> None:
        """Wait until the revision is in sync and nothing of another version is left."""
        self.until(lambda: self.synced(revision, since), f"revision {revision[:12]} in sync")
        self.until(lambda: self.alone(shape), f"{shape.replicas} instances of {shape.version} alone")

    def forget(self, version: str) -> None:
        """Remove an image, so that it has to be pulled."""
        wanted = pinned(self.images[version])
        for known in self.client.images():
            if wanted in (known["RepoDigests"] or ()):
                self.client.remove_image(known["Id"], force=True)

    def proxy(self) -> dict[str, Any]:
        """The proxy's container."""
        found: dict[str, Any] = self.client.inspect_container(names.proxy(ENVIRONMENT))
        return found

    def inside(self) -> str:
        """The proxy's address in the private network."""
        return str(self.proxy()["NetworkSettings"]["Networks"][names.network(ENVIRONMENT)]["IPAddress"])

    # The load

    def load(self, *kinds: load.Kind, inside: bool = False) -> load.LoadThread:
        """Clients of these kinds at the proxy: where it is published, or at its address in the private network."""
        target, https = ((self.inside(), 80), 443) if inside else (self.http, self._https)
        tls = load.Tls(https, _trusting(self._certificates.parent / "cert"), HOST)
        return load.LoadThread(load.Load(target, HOST, *kinds, tls=tls))

    # Waiting

    def until(self, condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
        """Wait for it. Raises SystemExit with the end of the daemon's log."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise self.lost(f"in vain for {seconds:g} s: {what}")
            time.sleep(LOOK)

    def lost(self, what: str) -> SystemExit:
        """The end of the benchmark, with the end of the daemon's log."""
        return SystemExit(f"{what}\n{self._log.read_text(errors='replace')[-3000:]}")


@contextmanager
def stage() -> Iterator[Stage]:
    """An engine whose containers outlive it (live-restore), the sample images, and a daemon that runs; then nothing."""
    with tempfile.TemporaryDirectory(prefix="rb-") as place:
        directory = Path(place)
        running = engine.up(directory / "engine", private=True, options=["--live-restore"])
        try:
            found = {version: images.publish(running.host, running.registry, version) for version in VERSIONS}
            made = Stage(running.host, found, directory)
            try:
                yield made
            finally:
                made.end()
                demolish(made.client, ENVIRONMENT)
                made.client.close()
        finally:
            engine.down(directory / "engine")


def _make_certificate(directory: Path) -> None:
    directory.mkdir()
    key, certificate = directory.parent / "key", directory.parent / "cert"
    self_signed(f"DNS:{HOST}", key, certificate)
    (directory / "site.pem").write_bytes(certificate.read_bytes() + key.read_bytes())
    for path in (directory, directory / "site.pem"):
        path.chmod(0o755)  # the proxy runs as another user


def _trusting(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(certificate))
    context.set_alpn_protocols(["h2"])
    return context

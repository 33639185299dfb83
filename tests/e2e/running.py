"""The real program in a process of its own, on a real repository and a real engine, for tests from end to end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker

from reconciler.core.names import LABEL_ENVIRONMENT, LABEL_OWNER
from tests.support.git_server import Upstream

PATIENCE = 180.0
Log = Mapping[str, Any]


class House:
    """Settings, repository and engine for one test. The names are its own, so that tests can share the engine."""

    def __init__(self, root: Path, engine: str) -> None:
        self.root = root
        self.engine = engine
        self.owner = f"t{uuid.uuid4().hex[:10]}"
        self.environments = [f"{self.owner}-a"]
        self.upstream = Upstream(root / "fleet.git")
        self.settings = root / "reconciler.yaml"
        self.write_settings()

    @property
    def environment(self) -> str:
        return self.environments[0]

    def write_settings(self, extra: str = "") -> None:
        """Follow all of `environments`. HTTP listens on any free port."""
        lines = [
            f"name: {self.owner}",
            "data: data",
            'http: {listen: "127.0.0.1:0"}',
            f'repositories: {{fleet: {{url: "file://{self.upstream.path}", allowFile: true, poll: 30s}}}}',
            f'runtimes: {{local: {{docker: {{host: "{self.engine}"}}}}}}',
            "environments:",
            *(f"  {name}: {{repository: fleet, runtime: local}}" for name in self.environments),
            extra,
        ]
        self.settings.write_text("\n".join(lines) + "\n")

    def release(self, image: str, environment: str = "", **spec: object) -> str:
        """Merge a version of the service `web`; the revision."""
        name = environment or self.environment
        head = {"apiVersion": "reconciler.dev/v1", "kind": "Environment", "metadata": {"name": name}}
        web = {
            "apiVersion": "reconciler.dev/v1",
            "kind": "Service",
            "metadata": {"name": "web"},
            "spec": {
                "image": image,
                **({} if "scaling" in spec else {"replicas": 2}),
                "ports": [{"name": "http", "container": 8080}],
                "health": {"http": {"port": "http", "path": "/healthz"}, "interval": "200ms", "healthyAfter": 1},
                "drain": {"deadline": "200ms", "grace": "5s"},
                **spec,
            },
        }
        return self.upstream.commit(
            {
                f"environments/{name}/environment.yaml": json.dumps(head).encode(),
                f"environments/{name}/web.yaml": json.dumps(web).encode(),
            }
        )

    def images(self, raw: docker.APIClient, environment: str = "") -> list[str]:
        """The image of each running instance."""
        found = raw.containers(filters={"label": [f"{LABEL_ENVIRONMENT}={environment or self.environment}"]})
        return sorted(container["Image"] for container in found)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            self.line(*arguments), capture_output=True, text=True, timeout=PATIENCE, env=self.variables(), check=False
        )

    def line(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "reconciler", *arguments, "--settings", str(self.settings)]

    def variables(self, **more: str) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME", "LANG") if name in os.environ}
        return kept | more

    @contextmanager
    def daemon(self, *arguments: str) -> Iterator[Daemon]:
        """`reconciler run` while the block runs; killed at its end if it is still there."""
        found = Daemon(self, arguments)
        try:
            yield found
        finally:
            found.end()

    def clean(self, raw: docker.APIClient) -> None:
        """Remove everything of this owner from the engine."""
        label = {"label": [f"{LABEL_OWNER}={self.owner}"]}
        for container in raw.containers(all=True, filters=label):
            raw.remove_container(container["Id"], force=True, v=True)
        for network in raw.networks(filters=label):
            raw.remove_network(network["Id"])


class Daemon:
    """One running daemon: its log lines and what it tells systemd can be awaited."""

    def __init__(self, house: House, arguments: tuple[str, ...]) -> None:
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        path = house.root / f"notify-{uuid.uuid4().hex[:8]}"
        self._notify.bind(str(path))
        self._notify.settimeout(PATIENCE)
        self.process = subprocess.Popen(
            house.line("run", *arguments),
            stderr=subprocess.PIPE,
            text=True,
            env=house.variables(NOTIFY_SOCKET=str(path)),
        )
        self.logs: list[Log] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def told(self, *beginnings: str) -> None:
        """Wait until systemd was told all of these, in whatever order; what else comes by then is passed over."""
        left = set(beginnings)
        while left:
            said = self._notify.recv(4096).decode()
            left = {each for each in left if not said.startswith(each)}

    def log(self, event: str, wanted: Callable[[Log], bool] = lambda _: True, *, after: int = 0) -> Log:
        """Wait for a log line `event` that is `wanted`, `after` so many lines."""
        end = time.monotonic() + PATIENCE
        with self._news:
            while True:
                for line in self.logs[after:]:
                    if line.get("event") == event and wanted(line):
                        return line
                if not self._news.wait(end - time.monotonic()):
                    raise AssertionError(f"no {event} in:\n" + "\n".join(json.dumps(line) for line in self.logs))

    def synced(self, revision: str) -> None:
        """Wait until this revision is in sync."""
        self.log("reconciled", lambda line: line["result"] == "synced" and line["revision"] == revision[:12])

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join()
        self._notify.close()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            parsed = json.loads(line) if line.startswith("{") else {"event": line.strip()}
            with self._news:
                self.logs.append(parsed)
                self._news.notify_all()
        self.process.stderr.close()

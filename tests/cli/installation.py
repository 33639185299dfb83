"""A small installation on disk for tests of the command line: settings, a real Git repository, a real journal."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

from typer.testing import CliRunner, Result

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.journal import SqlJournal
from reconciler.cli.app import app
from reconciler.core.record import Entry, VersionRef, What

DIGEST = "sha256:" + "a" * 64
WEB = VersionRef("f" * 64, f"registry.example/web@{DIGEST}", "1" * 40)
START = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)

SETTINGS = """\
data: data
repositories:
  fleet: {{url: "file://{fleet}", allowFile: true}}
runtimes:
  local: {{docker: {{host: "unix://{socket}"}}}}
environments:
  staging: {{repository: fleet, runtime: local}}
"""
ENVIRONMENT = "apiVersion: reconciler.dev/v1\nkind: Environment\nmetadata:\n  name: staging\n"
SERVICE = f"""\
apiVersion: reconciler.dev/v1
kind: Service
metadata:
  name: web
spec:
  image: registry.example/web:1.0@{DIGEST}
"""


def call(*arguments: str | Path, env: dict[str, str] | None = None) -> Result:
    """Run the command line in this program."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=env or {})


class Installation:
    """Settings, fleet and journal below `root`; nothing listens at the engine's socket."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.fleet = root / "fleet"
        self.settings = root / "reconciler.yaml"
        self.settings.write_text(SETTINGS.format(fleet=self.fleet, socket=root / "none.sock"))
        self.write("environment.yaml", ENVIRONMENT)
        self.write("web.yaml", SERVICE)

    def write(self, name: str, text: str) -> Path:
        """A file of the environment."""
        path = self.fleet / "environments" / "staging" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def commit(self) -> None:
        """Commit the fleet as it is."""
        identity = {
            f"GIT_{who}_{what}": "ada@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        env = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"} | identity
        for command in (("init", "-q", "-b", "main"), ("add", "."), ("commit", "-q", "-m", "Begin")):
            subprocess.run(("git", "-C", str(self.fleet), *command), env=env, check=True)

    def journal(self, *entries: Entry) -> None:
        """Let a daemon of the past have written `entries`."""
        (self.root / "data").mkdir(exist_ok=True)
        journal = SqlJournal.open(f"sqlite:///{self.root}/data/journal.db", SystemClock(), "a test", act=True)
        journal.append(*entries)
        journal.close()

    def __call__(self, *arguments: str) -> Result:
        """Run a command with these settings."""
        return call(*arguments, "--settings", self.settings)


def entry(what: What, minutes: int = 0, **fields: object) -> Entry:
    """An entry about staging/web, so many minutes after START."""
    known: dict[str, object] = {"environment": "staging", "service": "web", "author": "Ada <ada@example.org>"}
    return Entry(at=START + timedelta(minutes=minutes), what=what, **(known | fields))  # type: ignore[arg-type]

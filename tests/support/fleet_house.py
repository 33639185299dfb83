"""A real fleet for whole-program tests: a bare Git repository, settings, and `python -m reconciler` as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import docker

from reconciler.core import names

GIT_ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Grace",
    "GIT_COMMITTER_EMAIL": "grace@example.org",
}
ROOT = Path(__file__).parents[2]
PATIENCE = 180.0


@dataclass(frozen=True)
class FleetHouse:
    """One environment in one repository on one engine, under `directory`."""

    directory: Path
    environment: str
    host: str

    @property
    def settings(self) -> Path:
        return self.directory / "reconciler.yaml"

    @property
    def origin(self) -> Path:
        return self.directory / "fleet.git"

    @property
    def journal(self) -> str:
        """The URL of the journal."""
        return f"sqlite:///{self.directory / 'data' / 'journal.db'}"

    def git(self, *arguments: str) -> str:
        command = ["git", *arguments]
        done = subprocess.run(
            command, cwd=self.directory / "clone", env=GIT_ENVIRONMENT, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def prepare(self, extra: str = "", environment_extra: str = "") -> None:
        """The repository with an empty environment, and the operator's settings."""
        clone = self.directory / "clone"
        clone.mkdir(parents=True)
        self.git("init", "-q", "-b", "main")
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", self.origin], check=True, env=GIT_ENVIRONMENT)
        self.git("remote", "add", "origin", str(self.origin))
        self.write(
            "environment",
            f"apiVersion: reconciler.dev/v1\nkind: Environment\nmetadata: {{name: {self.environment}}}\nspec: {{}}\n",
        )
        self.settings.write_text(f"""name: test
data: data
http: {{listen: "127.0.0.1:0"}}
repositories:
  fleet: {{url: "file://{self.origin}", allowFile: true, poll: 1h}}
runtimes:
  local: {{docker: {{host: "{self.host}"}}}}
environments:
  {self.environment}:
    repository: fleet
    runtime: local
{environment_extra}{extra}""")

    def write(self, name: str, text: str) -> None:
        path = self.directory / "clone" / "environments" / self.environment / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def push(self, message: str = "change", remote: str = "origin", branch: str = "main") -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)
        self.git("push", "-q", remote, branch)
        return self.git("rev-parse", "HEAD")

    def run(self, *arguments: str, failpoint: str = "", timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
        """`python -m reconciler …` to its end."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.directory), "PYTHONPATH": str(ROOT)}
        if failpoint:
            environment["RECONCILER_FAILPOINT"] = failpoint
        command = [sys.executable, "-m", "reconciler", *arguments, "--settings", str(self.settings)]
        return subprocess.run(
            command, env=environment, cwd=self.directory, check=False, capture_output=True, text=True, timeout=timeout
        )

    def containers(self, client: docker.APIClient) -> list[dict[str, object]]:
        label = f"{names.LABEL_ENVIRONMENT}={self.environment}"
        found: list[dict[str, object]] = client.containers(all=True, filters={"label": label})
        return found

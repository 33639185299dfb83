"""The people's side of the demo: a bare repository as the forge, a clone to work in, and real git commands.

Nothing here knows Reconciler or an engine.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from tools.demo_screen import Screen

ENVIRONMENT = "demo"
SAMPLE = Path(__file__).resolve().parent.parent / "sample-repo"
AUTHOR = "Grace Hopper"
MAINTAINER = "Ada Lovelace"
FORGE = "Forge"
FASTER = {
    "replicas: 3": "replicas: 2",
    "startup: 20s": "startup: 3s",
    "count: 20": "count: 4",
    "deadline: 1s": "deadline: 500ms",
    "interval: 1s": "interval: 300ms",
    "interval: 500ms": "interval: 200ms",
}
IMAGE = re.compile(r"(image: )\S+")
ROLLOUT = re.compile(r"^(?:  #[^\n]*\n)*  rollout:\n(?: {4}[^\n]*\n)*", re.MULTILINE)
ROLLING = """\
  rollout:
    strategy: rolling
"""
BLUE_GREEN = """\
  rollout:
    strategy: blueGreen
    preview:
      pause: true
    hold: 2m
"""
CANARY = """\
  rollout:
    strategy: canary
    steps:
      - weight: 5
        soak: 4s
      - weight: 50
        soak: 2s
    soak: 1s
    gate:
      against: baseline
      minimumRequests: 50
"""
WRITABLE = """\
  # Old software that wants to write beside itself. The operator's settings allow it in this environment.
  security:
    writableRoot: true
"""


class Fleet:
    """The forge and the working clone below `directory`. `images` are the pinned references by version."""

    def __init__(self, directory: Path, images: Mapping[str, str], screen: Screen) -> None:
        self.forge = directory / "forge" / "fleet.git"
        self.work = directory / "fleet"
        self._images = images
        self._screen = screen

    def create(self) -> str:
        """Fill the forge with the first commit; its SHA."""
        self.forge.parent.mkdir()
        self._git("init", "--quiet", "--bare", "--initial-branch=main", str(self.forge), where=self.forge.parent)
        self._git("clone", "--quiet", str(self.forge), str(self.work), where=self.forge.parent)
        self._git("checkout", "--quiet", "-b", "main")
        self._copy_sample()
        self._git("add", "--all")
        self._git("commit", "--quiet", "--message", "The fleet: web, api, worker, shout")
        self._git("push", "--quiet", "--set-upstream", "origin", "main")
        return self.head()

    def _copy_sample(self) -> None:
        """The sample repository's production, under the name of the demo's environment and with a shorter patience."""
        place = self.work / "environments" / ENVIRONMENT
        shutil.copytree(SAMPLE / "base", self.work / "base")
        shutil.copytree(SAMPLE / "environments" / "production", place)
        for file in self.work.glob("**/*.yaml"):
            text = IMAGE.sub(rf"\g<1>{self._images['1.0']}", file.read_text())
            text = text.replace("name: production", f"name: {ENVIRONMENT}")
            for slow, fast in FASTER.items():
                text = text.replace(slow, fast)
            file.write_text(text)
        self._write("web", rollout=ROLLING)
        with (self.work / "base" / "worker.yaml").open("a") as worker:
            worker.write(WRITABLE)

    def propose(self, branch: str, service: str, version: str) -> str:
        """A branch with one commit that changes the image of `service`, pushed; its SHA."""
        file = f"environments/{ENVIRONMENT}/{service}.yaml"
        self.typed(f"git checkout -b {branch}", AUTHOR)
        self._write(service, version)
        name = self._images[version].partition("@")[0].rpartition("/")[2]
        self._screen.command(f"$EDITOR {file}    # image: {name}@sha256:{self._images[version][-64:-56]}…")
        self.typed(f'git commit -am "{service} {version}"', AUTHOR)
        self.typed(f"git push origin {branch}", AUTHOR)
        return self.head()

    def change(self, service: str, version: str, rollout: str = "") -> str:
        """A commit on the main branch that changes the image of `service`, and its rollout if given; its SHA."""
        self._write(service, version, rollout)
        strategy = re.search(r"strategy: (\w+)", rollout)
        more = f", {strategy[1]}" if strategy else ""
        name = self._images[version].partition("@")[0].rpartition("/")[2]
        self._screen.command(f"$EDITOR environments/{ENVIRONMENT}/{service}.yaml    # image: {name}{more}")
        self.typed(f'git commit -am "{service} {version}"', MAINTAINER)
        self.typed("git push origin main", MAINTAINER)
        return self.head()

    def _write(self, service: str, version: str = "", rollout: str = "") -> None:
        """Change what is given in the file of a service."""
        path = self.work / "environments" / ENVIRONMENT / f"{service}.yaml"
        text = path.read_text()
        if version:
            text = IMAGE.sub(rf"\g<1>{self._images[version]}", text)
        if rollout:
            text = ROLLOUT.sub(rollout, text)
        path.write_text(text)

    def arrived(self) -> float:
        """When the forge had the newest commit of the main branch, on the monotonic clock."""
        ago = time.time() - (self.forge / "refs" / "heads" / "main").stat().st_mtime
        return time.monotonic() - ago

    def merge(self, branch: str, number: int) -> str:
        """Merge the pull request on the forge's main branch and push; the SHA of the merge."""
        self.typed("git checkout main", MAINTAINER)
        self.typed(f'git merge --no-ff -m "Merge #{number}: {branch}" {branch}', MAINTAINER)
        self.typed("git push origin main", MAINTAINER)
        return self.head()

    def revert(self, sha: str, *, merge: bool = True) -> str:
        """Revert a merge, or a plain commit, and push; the SHA of the revert."""
        self.typed(f"git revert --no-edit {'-m 1 ' if merge else ''}{sha[:12]}", MAINTAINER)
        self.typed("git push origin main", MAINTAINER)
        return self.head()

    def head(self) -> str:
        """The SHA of the commit that is checked out."""
        return self._git("rev-parse", "HEAD").strip()

    def typed(self, line: str, who: str) -> None:
        """Show a git command and run it, as `who`."""
        self._screen.command(line, who)
        words = [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', line)]
        self._git(*words[1:], who=who)

    def _git(self, *arguments: str, who: str = MAINTAINER, where: Path | None = None) -> str:
        """Run git with nobody's configuration. A merge is committed by the forge, as its button would do it."""
        committer = FORGE if who == MAINTAINER else who
        surroundings = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        surroundings |= {
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_AUTHOR_NAME": who,
            "GIT_AUTHOR_EMAIL": _address(who),
            "GIT_COMMITTER_NAME": committer,
            "GIT_COMMITTER_EMAIL": _address(committer),
        }
        command = ["git", *arguments]
        done = subprocess.run(
            command, cwd=where or self.work, env=surroundings, check=False, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed: {done.stderr.strip()}")
        return done.stdout


def _address(name: str) -> str:
    return f"{name.split(maxsplit=1)[0].lower()}@example.org"

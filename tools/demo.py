"""The demo: `make demo`, `make demo-stop`. From a merged pull request to replaced containers, with a record of it all.

    python -m tools.demo [--private]     tell the story; the engine and the daemon go on running afterwards
    python -m tools.demo stop            remove everything that it started

Exit code 0: everything was seen; 1: something was not, or could not be set up.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import requests
from docker.errors import DockerException
from rich.table import Table
from rich.text import Text

from reconciler.core.errors import ReconcilerError
from tools import demo_stage as stages
from tools import demo_story as story
from tools.demo_fleet import Fleet
from tools.demo_screen import Screen
from tools.demo_stage import Stage
from tools.demo_watch import Missed, Watch

INTERRUPTED = 130


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tools.demo", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("command", nargs="?", choices=("stop",), help="remove everything that the demo started")
    parser.add_argument("--private", action="store_true", help="start an engine even where one answers already")
    chosen = parser.parse_args(arguments)
    stage = Stage(stages.chosen_directory())
    if chosen.command == "stop":
        print("the demo is gone: nothing of it is left" if stage.clear() else "nothing to stop: no demo is here")
        return 0
    return perform(stage, Screen(), private=chosen.private)


def perform(stage: Stage, screen: Screen, *, private: bool) -> int:
    """Tell the whole story on `screen`; the exit code."""
    began = time.monotonic()
    told: story.Story | None = None
    problem = ""
    try:
        told = _set_up(stage, screen, private=private)
        _tell(told)
    except KeyboardInterrupt:
        screen.say(f"\ninterrupted; `{_stop_command()}` removes what was started", "bold")
        return INTERRUPTED
    except (Missed, ReconcilerError, DockerException, requests.RequestException, OSError) as error:
        problem = f"{stages.fault(error)}\nThe end of the daemon's log ({_near(stage.log)}):\n{stage.log_end()}"
    except SystemExit as error:
        problem = str(error)
    finally:
        if told is not None:
            told.watch.close()
    checks = told.checks if told is not None else []
    _summary(screen, checks, time.monotonic() - began)
    if problem:
        screen.say(f"\nThe demo stopped: {problem}", "bold red")
        screen.say(f"`{_stop_command()}` removes what was started.")
        return 1
    _what_next(stage, screen)
    return 0 if all(check.holds for check in checks) else 1


def _set_up(stage: Stage, screen: Screen, *, private: bool) -> story.Story:
    """Chapter 1, up to a daemon that begins."""
    screen.chapter(1, "Set-up", "An engine, a registry, three images of a small service, and a Git repository.")
    steps = _Steps(screen)
    if stage.clear():
        steps.done("an earlier demo stopped and removed")
    stage.open()
    with screen.waiting("starting what is missing"):
        steps.done(stage.start_engine(private=private))
        assert stage.engine is not None
        steps.done(f"a registry at {stage.engine.registry}")
        for version in stages.VERSIONS:
            pinned = stage.publish(version)
            broken = ", which is broken: it never becomes healthy" if stages.VERSIONS[version] else ""
            steps.done(f"image hello:{version}@sha256:{pinned[-64:-52]}… pushed{broken}")
    fleet = Fleet(stage.directory, stage.images, screen)
    sha = fleet.create()
    steps.done(f"the fleet repository, a bare one as on a forge; first commit {sha[:7]}")
    stage.configure(fleet.forge)
    screen.chapter(2, "The daemon starts", "It reads the repository and makes the engine equal to it.")
    screen.command("reconciler run", "a daemon: it goes on by itself")
    stage.start_daemon()
    return story.Story(stage, screen, fleet, Watch(stage, screen))


def _tell(told: story.Story) -> None:
    """All chapters after the set-up."""
    screen = told.screen
    story.begins(told)
    screen.chapter(
        3,
        "A pull request is merged",
        "One by one: a fresh container proves itself healthy and takes requests, then an old one goes.",
        "On the right: what the visitor's requests got so far.",
    )
    good = story.release(told)
    screen.chapter(
        4,
        "A broken release is merged",
        "Web 1.2 starts, but never becomes healthy. It gets no traffic, and nobody has to do anything.",
    )
    bad = story.broken(told)
    screen.chapter(
        5, "git revert", "Rolling back is a commit like any other. The image is still there: nothing is pulled."
    )
    story.reverts(told, bad, good)
    screen.chapter(
        6,
        "Somebody changes the engine by hand",
        "Only Git says what runs. The rest is found from the engine's events and replaced.",
    )
    story.drifts(told)
    screen.chapter(7, "The record", "Every decision and every step stands in an append-only, hash-chained journal.")
    story.audit(told)
    story.visits(told)


def _summary(screen: Screen, checks: Sequence[story.Check], seconds: float) -> None:
    if not checks:
        return
    good = sum(check.holds for check in checks)
    screen.chapter(8, f"Summary: {good} of {len(checks)} seen as expected, in {seconds:.0f} s")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("", "what", "expected", "seen"):
        table.add_column(head, overflow="fold")
    for check in checks:
        mark = Text("✓", "bold green") if check.holds else Text("✗", "bold red")
        table.add_row(mark, check.what, check.expected, Text(check.seen, "" if check.holds else "bold red"))
    screen.table(table)


def _what_next(stage: Stage, screen: Screen) -> None:
    assert stage.engine is not None
    screen.console.print()
    screen.say("The engine and the daemon go on running. Look further, or change something and push it:", "bold")
    reconciler = "reconciler" if stages.ROOT.joinpath(".venv/bin/reconciler").exists() else "python -m reconciler"
    fleet = _near(stage.directory / "fleet")
    for line in (
        f"export PATH=$PWD/.venv/bin:$PATH RECONCILER_SETTINGS={_near(stage.settings)} DOCKER_HOST={stage.engine.host}",
        f"{reconciler} status --watch",
        f"{reconciler} audit list --since 10m",
        f"$EDITOR {fleet}/environments/demo/web.yaml && git -C {fleet} commit -a && git -C {fleet} push",
        _stop_command(),
    ):
        screen.console.print(Text.assemble(("  $ ", "bold green"), line), soft_wrap=True)


def _stop_command() -> str:
    """How this very demo is removed."""
    elsewhere = os.environ.get(stages.DIRECTORY_VARIABLE)
    return f"{stages.DIRECTORY_VARIABLE}={elsewhere} make demo-stop" if elsewhere else "make demo-stop"


def _near(path: Path) -> str:
    """A path as it is typed from where the demo was started."""
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


class _Steps:
    """Lines with the time that each step took."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._began = time.monotonic()

    def done(self, what: str) -> None:
        now = time.monotonic()
        self._screen.event(now - self._began, Text.assemble(("✓ ", "green"), what))
        self._began = now


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

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
from itertools import count
from pathlib import Path

import requests
from docker.errors import DockerException
from rich.table import Table
from rich.text import Text

from reconciler.core.errors import ReconcilerError
from tools import demo_releases as releases
from tools import demo_stage as stages
from tools import demo_story as story
from tools.demo_fleet import Fleet
from tools.demo_load import HOST, Visitors
from tools.demo_screen import Screen
from tools.demo_stage import Stage
from tools.demo_watch import Missed, Watch

INTERRUPTED = 130
SUMMARY = 12


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
    told: story.Story | None = None
    problem, began = "", time.monotonic()
    try:
        told = _set_up(stage, screen, private=private)
        began = time.monotonic()
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
            told.visitors.end(0.0)
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
    screen.chapter(
        1, "Set-up", "An engine, a registry, images of a small service and of a proxy, and a Git repository."
    )
    steps = _Steps(screen)
    if stage.clear():
        steps.done("an earlier demo stopped and removed")
    stage.open()
    with screen.waiting("starting what is missing"):
        steps.done(stage.start_engine(private=private))
        assert stage.engine is not None
        steps.done(f"a registry at {stage.engine.registry}")
        stage.build_proxy()
        steps.done("an image of the proxy, built of this machine's haproxy")
        for version in stages.VERSIONS:
            stage.publish(version)
            broken = f": {stages.FAULTS[version]}" if version in stages.FAULTS else ""
            steps.done(f"image hello:{version} pushed{broken}")
    fleet = Fleet(stage.directory, stage.images, screen)
    sha = fleet.create()
    steps.done(f"a bare Git repository, as on a forge; first commit {sha[:7]}")
    stage.configure(fleet.forge)
    screen.chapter(2, "The daemon starts", "It reads the repository and makes the engine equal to it.")
    screen.command("reconciler run", "a daemon: it goes on by itself")
    stage.start_daemon()
    visitors = Visitors(stage.front)
    return story.Story(stage, screen, fleet, visitors, Watch(stage, screen, visitors))


def _tell(told: story.Story) -> None:
    """All chapters after the set-up."""
    screen = told.screen
    chapters = count(3)

    def chapter(title: str, *sentences: str) -> None:
        screen.chapter(next(chapters), title, *sentences)

    story.begins(told)
    chapter(
        "A pull request is merged",
        "One by one: a fresh container proves itself and gets requests, then an old one goes.",
    )
    good = story.release(told)
    chapter("A broken release is merged", "Web 1.2 never becomes healthy. It gets no traffic; nobody has to act.")
    bad = story.broken(told)
    chapter("git revert", "Rolling back is a commit like any other. Nothing is pulled.")
    story.reverts(told, bad, good)
    chapter(
        "A blue-green release, and an instant return",
        "A whole second set: first at the preview address only, then all requests at once.",
    )
    releases.blue_green(told)
    chapter(
        "A canary release",
        "5 % of the requests, then 50 %, then all. At each step a gate compares the new version with fresh "
        "containers of the old one. The bars are what the visitors were answered, each second.",
    )
    releases.canary(told)
    chapter("A canary that is stopped by its gate", "Web 2.2 is healthy, but every fifth of its answers is an error.")
    releases.stopped(told)
    chapter("A function wakes up", "Shout has no container until somebody asks. The proxy keeps the request.")
    releases.function(told)
    chapter("Somebody changes the engine by hand", "Only Git says what runs. The rest is found and replaced.")
    story.drifts(told)
    chapter("The record", "Every decision and step stands in an append-only, hash-chained journal.")
    story.audit(told)
    releases.visits(told)


def _summary(screen: Screen, checks: Sequence[story.Check], seconds: float) -> None:
    if not checks:
        return
    good = sum(check.holds for check in checks)
    screen.chapter(SUMMARY, f"Summary: {good} of {len(checks)} seen as expected, {seconds:.0f} s after the set-up")
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
        f"curl --header 'Host: {HOST}' http://{stage.front[0]}:{stage.front[1]}/",
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

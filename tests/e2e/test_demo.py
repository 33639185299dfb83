"""`make demo` as a new user meets it: the whole story once, without a terminal, on somebody else's engine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.journal import SqlJournal
from reconciler.core.record import Record, What
from tools.demo_stage import DIRECTORY_VARIABLE, MARK, Stage

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def directory() -> Iterator[Path]:
    """Where the demo lives: not there yet, and short, because sockets are in it."""
    with tempfile.TemporaryDirectory(prefix="rec-demo-") as parent:
        yield Path(parent) / "d"


def demo(directory: Path, *arguments: str, host: str = "") -> subprocess.CompletedProcess[str]:
    """`python -m tools.demo`, as the Makefile calls it."""
    variables = {**os.environ, DIRECTORY_VARIABLE: str(directory)} | ({"DOCKER_HOST": host} if host else {})
    return subprocess.run(
        [sys.executable, "-m", "tools.demo", *arguments],
        cwd=ROOT,
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def recorded(stage: Stage) -> list[Record]:
    """The demo's journal."""
    journal = SqlJournal.open(f"sqlite:///{stage.journal}", SystemClock(), "test", act=False)
    try:
        assert not journal.verify().problem
        return list(journal.records())
    finally:
        journal.close()


def running_for(directory: Path) -> list[str]:
    """The programs whose command line or environment names the directory, or that have their place in it."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes() + (place / "environ").read_bytes()
            words += os.fsencode((place / "cwd").readlink())
        except OSError:
            continue
        if os.fsencode(directory) in words:
            found.append(f"{place.name} {(place / 'cmdline').read_bytes()!r}")
    return found


def images(client: docker.APIClient, pinned: str) -> list[object]:
    """What the engine has of a published image, by tag and by digest."""
    repository, _, digest = pinned.partition("@")
    return [*client.images(repository), *client.images(f"{repository.rpartition(':')[0]}@{digest}")]


def test_the_whole_story(directory: Path, engine: str, raw: docker.APIClient) -> None:
    stage = Stage(directory)
    try:
        told = demo(directory, host=engine)
        assert told.returncode == 0, told.stdout + told.stderr
        assert "\x1b" not in told.stdout
        assert max(len(line) for line in told.stdout.split("The engine and the daemon go on")[0].splitlines()) <= 80
        assert "Summary: 18 of 18 seen as expected" in told.stdout
        assert "✗" not in told.stdout
        bars(told.stdout)
        seen_in_the_record(recorded(stage))
        known = json.loads((directory / MARK).read_text())
        assert any(line.startswith(f"{known['daemon']['pid']} ") for line in running_for(directory))
        assert all(images(raw, pinned) for pinned in known["images"].values())
    finally:
        stopped = demo(directory, "stop")
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    assert not directory.exists()
    assert running_for(directory) == []
    assert str(directory) not in Path("/proc/self/mountinfo").read_text()
    ours = {"label": [f"dev.reconciler.owner={stage.owner}"]}
    assert raw.containers(all=True, filters=ours) == []
    assert raw.networks(filters=ours) == []
    assert not raw.volumes(filters=ours).get("Volumes")
    assert not any(images(raw, pinned) for pinned in known["images"].values())
    assert not raw.images(stage.proxy)


def bars(printed: str) -> None:
    """The live split was drawn: no longer all of it, some of it, and all of it at the new version."""
    found = re.findall(r"[░█]{36}  1\.0 +(\d+) %  2\.1 +(\d+) %", printed)
    old = [int(first) for first, _ in found]
    assert old[0] == 100
    assert old[-1] == 0
    assert any(0 < share < 100 for share in old)


def seen_in_the_record(records: list[Record]) -> None:
    """What the summary says, found again in the journal without it."""
    web = [record.entry for record in records if record.entry.service == "web"]
    assert [entry.what for entry in web if entry.what in {What.PROMOTED, What.ROLLED_BACK, What.QUARANTINE_LIFTED}] == [
        What.PROMOTED,  # the first revision
        What.PROMOTED,  # the pull request
        What.ROLLED_BACK,  # the broken release
        What.QUARANTINE_LIFTED,  # its revert
        What.PROMOTED,  # the other revert
        What.PROMOTED,  # blue-green
        What.PROMOTED,  # its revert
        What.PROMOTED,  # the canary
        What.ROLLED_BACK,  # the canary that answers errors
        What.QUARANTINE_LIFTED,  # its revert
    ]
    promoted = [entry for entry in web if entry.what is What.PROMOTED]
    assert promoted[2].to_version is not None and promoted[0].to_version is not None
    assert promoted[2].to_version.version == promoted[0].to_version.version
    assert (promoted[1].author, promoted[1].committer) == (
        "Ada Lovelace <ada@example.org>",
        "Forge <forge@example.org>",
    )
    assert promoted[3].from_version is not None and promoted[4].to_version is not None
    assert promoted[4].to_version.version == promoted[3].from_version.version
    failed, stopped = (entry for entry in web if entry.what is What.ROLLOUT_FAILED)
    assert failed.reason == "StartupDeadline"
    assert "hello 1.2 listens on 8080" in failed.details["log"]
    assert stopped.reason == "GateFailed"
    assert stopped.details["seen"]["errors"]["verdict"] == "fail"
    steps = [entry.details["weight"] for entry in web if entry.what is What.STAGE_PASSED]
    assert steps == [0, 5, 50]  # the preview of blue-green, then the canary
    woken = [record.entry for record in records if record.entry.service == "shout"]
    assert What.SCALED in [entry.what for entry in woken]
    drift = {record.entry.reason for record in records if record.entry.what is What.DRIFT_FOUND}
    assert drift >= {"DriftFilesystem", "DriftChanged"}
    repaired = {record.entry.service for record in records if record.entry.what is What.DRIFT_REPAIRED}
    assert repaired >= {"worker", "web"}
    # A container that is removed with force first ends: it depends on the moment which of the two is recorded.
    api = [record.entry.what for record in records if record.entry.service == "api"]
    assert What.DRIFT_FOUND in api or What.INSTANCE_LOST in api


def test_a_stop_without_a_demo_says_so(directory: Path) -> None:
    stopped = demo(directory, "stop")
    assert (stopped.returncode, stopped.stdout) == (0, "nothing to stop: no demo is here\n")


def test_a_directory_of_somebody_else_is_left_alone(directory: Path) -> None:
    directory.mkdir()
    (directory / "thesis.txt").write_text("years of work")
    told = demo(directory)
    assert told.returncode == 1
    assert "is not empty and not of the demo" in told.stdout
    demo(directory, "stop")
    assert (directory / "thesis.txt").read_text() == "years of work"


def test_a_name_too_long_for_sockets_is_refused(directory: Path) -> None:
    told = demo(directory / ("long" * 20))
    assert told.returncode == 1
    assert "too long" in told.stdout
    assert not directory.exists()

"""Resident memory over 10,000 polls of a repository that changes now and then (GitPython warns of leaks in daemons)."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench.figure import Figure
from reconciler.adapters.clock import SystemClock
from reconciler.adapters.git_source import GitSource
from reconciler.settings import RepositorySettings
from tests.support.fleet_house import FleetHouse

POLLS = 10_000
SETTLED = 1_000
CHANGE_EVERY = 50
GROWTH = 5.0


def run() -> list[Figure]:
    """Poll, read what changed, and compare the memory at the end with that after the first thousand polls."""
    with tempfile.TemporaryDirectory(prefix="rb-") as directory:
        house = FleetHouse(Path(directory), "bench", "")
        house.prepare()
        house.push()
        clock = SystemClock()
        repository = RepositorySettings("fleet", f"file://{house.origin}", allow_file=True)
        source = GitSource({"fleet": repository}, Path(directory) / "mirrors", clock)
        begin_memory, begin_files = 0.0, 0
        for number in range(POLLS):
            if number % CHANGE_EVERY == 0:
                house.write("web", f"# {number}\n")
                house.push()
            snapshot = source.snapshot("fleet", "main", since=clock.now())
            for path in snapshot.tree.files("environments"):
                snapshot.tree.read(path)
            if number == SETTLED:
                begin_memory, begin_files = _resident(), _open_files()
        memory, files = _resident(), _open_files()
        source.close()
    growth = (memory / begin_memory - 1) * 100
    how = f"{POLLS} polls by file, a commit every {CHANGE_EVERY}; compared with poll {SETTLED}"
    return [
        Figure("memory after 10,000 polls", memory, "MiB", "", None, how),
        Figure("memory growth", growth, "%", f"<= {GROWTH:g}", growth <= GROWTH, how),
        Figure("growth of open files", files - begin_files, "", "<= 0", files <= begin_files, how),
    ]


def _resident() -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))

"""Journal appends beside what bare fsync allows on the same disk, in the same run."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

from bench.figure import Figure
from reconciler.adapters.journal import SqlJournal
from reconciler.core.record import Entry, VersionRef, What

ROUNDS = 5
SECONDS = 0.6
RECORD = b"x" * 300
SHARE = 0.8

VERSION = VersionRef("a" * 64, "registry.example/web@sha256:" + "b" * 64, "c" * 40)


class _Clock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


def _entry(number: int) -> Entry:
    """An ordinary record, of about 700 bytes."""
    return Entry(
        at=datetime.now(UTC),
        what=What.DONE,
        environment="prod",
        service=f"service-{number % 100}",
        to_version=VERSION,
        revision="c" * 40,
        author="Ann Author <ann@example.org>",
        committer="Carl Committer <carl@example.org>",
        trigger="webhook",
        duration=timedelta(milliseconds=120),
        details={"effect": "CreateInstance", "name": "rec.prod.service.aaaaaaaaaaaa.1"},
    )


def _bare(directory: Path) -> float:
    """300 bytes appended and fdatasync, again and again, to a file that grows: syncs a second."""
    file = directory / "bare"
    descriptor = os.open(file, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    try:
        count, begin = 0, time.perf_counter()
        while (taken := time.perf_counter() - begin) < SECONDS:
            os.write(descriptor, RECORD)
            os.fdatasync(descriptor)
            count += 1
        return count / taken
    finally:
        os.close(descriptor)
        file.unlink()


def _bare_in_place(directory: Path) -> float:
    """The same over bytes that are there already: the file system has no new size to write down."""
    file = directory / "bare"
    file.write_bytes(b"\0" * 16 * 1024 * 1024)
    descriptor = os.open(file, os.O_WRONLY)
    try:
        os.fsync(descriptor)
        count, begin = 0, time.perf_counter()
        while (taken := time.perf_counter() - begin) < SECONDS:
            os.pwrite(descriptor, RECORD, count * len(RECORD) % (15 * 1024 * 1024))
            os.fdatasync(descriptor)
            count += 1
        return count / taken
    finally:
        os.close(descriptor)
        file.unlink()


def _appends(journal: SqlJournal, threads: int) -> float:
    """Appends a second by so many threads, each waiting for each of its records to be durable."""
    counts = [0] * threads
    end = time.perf_counter() + SECONDS

    def work(number: int) -> None:
        while time.perf_counter() < end:
            journal.append(_entry(number))
            counts[number] += 1

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    begin = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(counts) / (time.perf_counter() - begin)


def run() -> list[Figure]:
    """The figures. Each is the median of rounds in which all of them were measured one after the other."""
    found: dict[str, list[float]] = {name: [] for name in ("bare", "place", "1", "8", "32")}
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as name:
        directory = Path(name)
        journal = SqlJournal.open(f"sqlite:///{directory}/journal.db", _Clock(), "bench", act=True)
        try:
            for _ in range(ROUNDS):
                found["bare"].append(_bare(directory))
                found["place"].append(_bare_in_place(directory))
                for threads in (1, 8, 32):
                    found[str(threads)].append(_appends(journal, threads))
        finally:
            journal.close()
    return _figures({name: median(values) for name, values in found.items()})


def _figures(rate: dict[str, float]) -> list[Figure]:
    how = f"median of {ROUNDS} rounds of {SECONDS} s on the disk of the working directory"
    figures = [
        Figure("journal.bare_fsync", rate["bare"], "1/s", "", None, f"300 bytes appended, then fdatasync; {how}"),
        Figure("journal.bare_fsync_in_place", rate["place"], "1/s", "", None, f"the same over existing bytes; {how}"),
    ]
    for threads in ("1", "8", "32"):
        method = f"{threads} threads, each append durable before the next of that thread; {how}"
        figures.append(Figure(f"journal.appends_{threads}", rate[threads], "1/s", "", None, method))
    for threads, goal in (("1", ""), ("32", f">= {SHARE:.0%} of the bare fsync rate, with group commit")):
        for bare, called in (("bare", "journal.bare_fsync"), ("place", "journal.bare_fsync_in_place")):
            share = 100 * rate[threads] / rate[bare]
            holds = share >= 100 * SHARE if goal else None
            name = f"journal.share_{threads}" + ("_in_place" if bare == "place" else "")
            figures.append(Figure(name, share, "%", goal, holds, f"journal.appends_{threads} / {called}"))
    return figures

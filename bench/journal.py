"""Journal appends beside what bare fsync allows on the same disk, in the same run."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

from bench.figure import Figure
from reconciler.adapters.journal import SqlJournal
from reconciler.core.record import Entry, VersionRef, What
from tools import database

ROUNDS = 5
SECONDS = 0.6
RECORD = b"x" * 300
SHARE = 0.8
THREADS = (1, 8, 16, 32)
PUSH = 4000
PUSH_SECONDS = 5.0
"""A fifth of the time in which such a push has to be applied."""

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
    found: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # PostgreSQL runs as another user
        server = database.up(directory)
        try:
            with ExitStack() as stack:
                journals = {
                    kind: stack.enter_context(closing(SqlJournal.open(url, _Clock(), "bench", act=True)))
                    for kind, url in (("", f"sqlite:///{directory}/journal.db"), ("postgres_", server.url))
                }
                for _ in range(ROUNDS):
                    found["bare"].append(_bare(directory))
                    found["place"].append(_bare_in_place(directory))
                    for kind, journal in journals.items():
                        for threads in THREADS:
                            found[f"{kind}{threads}"].append(_appends(journal, threads))
        finally:
            database.down(directory)
    return _figures({name: median(values) for name, values in found.items()})


def _figures(rate: dict[str, float]) -> list[Figure]:
    how = f"median of {ROUNDS} rounds of {SECONDS} s on the disk of the working directory"
    figures = [
        Figure("journal.bare_fsync", rate["bare"], "1/s", "", None, f"300 bytes appended, then fdatasync; {how}"),
        Figure("journal.bare_fsync_in_place", rate["place"], "1/s", "", None, f"the same over existing bytes; {how}"),
    ]
    for kind, called in (("", "SQLite"), ("postgres_", "PostgreSQL at a socket, its server on the same machine")):
        for threads in THREADS:
            method = f"{called}; {threads} threads, each append durable before the next of that thread; {how}"
            figures.append(
                Figure(f"journal.{kind}appends_{threads}", rate[f"{kind}{threads}"], "1/s", "", None, method)
            )
    for number, goal in (("1", ""), ("32", f">= {SHARE:.0%} of the bare fsync rate, with group commit")):
        for bare, called in (("bare", "journal.bare_fsync"), ("place", "journal.bare_fsync_in_place")):
            share = 100 * rate[number] / rate[bare]
            holds = share >= 100 * SHARE if goal else None
            name = f"journal.share_{number}" + ("_in_place" if bare == "place" else "")
            figures.append(Figure(name, share, "%", goal, holds, f"journal.appends_{number} / {called}"))
    for kind in ("", "postgres_"):
        seconds = PUSH / rate[f"{kind}16"]
        method = f"{PUSH} / journal.{kind}appends_16: what one push that changes 1,000 services records"
        figures.append(
            Figure(f"journal.{kind}push", seconds, "s", f"<= {PUSH_SECONDS:.0f} s", seconds <= PUSH_SECONDS, method)
        )
    return figures

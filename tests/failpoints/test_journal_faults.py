"""The journal when its disk, its writer or its lock fails: real programs, real files, real signals."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from reconciler.adapters import journal_sqlite, journal_writer
from reconciler.adapters.journal import SqlJournal
from reconciler.core.errors import Reason, Retryable, Stalled
from tests.support.journal_child import Clock, entry

ROOT = Path(__file__).parents[2]
# The child sees a disk of 1 MiB there; the mount ends with it.
SMALL_DISK = 'mount -t tmpfs -o size=1m none "$1" && exec "$2" -m tests.support.journal_child "$1/journal.db" serve'


class Child:
    """A `tests.support.journal_child`."""

    def __init__(self, command: list[str]) -> None:
        self.program = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.greeting = self.read()

    def read(self) -> str:
        assert self.program.stdout is not None
        return self.program.stdout.readline().strip()

    def ask(self, command: str) -> str:
        assert self.program.stdin is not None
        self.program.stdin.write(command + "\n")
        self.program.stdin.flush()
        return self.read()

    def signal(self, number: int) -> None:
        os.kill(self.program.pid, number)

    def end(self) -> None:
        """The end of its input is its order to close."""
        self.program.communicate(timeout=60)


@contextmanager
def child(file: Path, mode: str = "serve") -> Iterator[Child]:
    with running([sys.executable, "-m", "tests.support.journal_child", str(file), mode]) as found:
        yield found


@contextmanager
def running(command: list[str]) -> Iterator[Child]:
    found = Child(command)
    try:
        yield found
    finally:
        found.program.kill()
        found.program.communicate()


def open_to_act(file: Path) -> SqlJournal:
    return SqlJournal.open(f"sqlite:///{file}", Clock(), "test", act=True)


def test_two_daemons_never_both_write_although_the_lock_is_lost(tmp_path: Path) -> None:
    file = tmp_path / "journal.db"
    with child(file) as old:
        assert old.greeting == "open 1"
        assert old.ask("append") == "ok 3"
        with pytest.raises(Stalled) as locked:
            open_to_act(file)
        assert locked.value.reason is Reason.JOURNAL_LOCKED
        assert f"pid {old.program.pid}" in str(locked.value)
        old.signal(signal.SIGSTOP)
        (tmp_path / "journal.db.lock").unlink()
        new = open_to_act(file)
        assert new.epoch == 2
        assert new.append(entry())[0].index == 5
        old.signal(signal.SIGCONT)
        assert old.ask("append") == "Fenced Fenced"
        assert new.append(entry())[0].index == 6
        assert old.ask("append") == "Fenced Fenced"
        assert new.verify().problem == ""
        old.end()
        new.close()


def test_what_was_acknowledged_outlives_sigkill(tmp_path: Path) -> None:
    file = tmp_path / "journal.db"
    for epoch, acknowledged in enumerate((1, 7, 40, 3, 150), start=1):
        with child(file, "flood") as writer:
            assert writer.greeting == f"open {2 * epoch - 1}"
            found = [int(writer.read()) for _ in range(acknowledged)]
            writer.signal(signal.SIGKILL)
            rest = writer.program.communicate()[0]
            found += [int(line) for line in rest.splitlines(keepends=True) if line.endswith("\n")]
        journal = open_to_act(file)
        kept = {record.index for record in journal.records()}
        assert set(found) <= kept
        assert journal.verify().problem == ""
        assert journal.verify().epochs == 2 * epoch
        journal.close()


@pytest.mark.parametrize("fault", ["break sync", "break write"])
def test_a_failed_write_or_sync_is_said_and_the_next_append_starts_anew(tmp_path: Path, fault: str) -> None:
    with child(tmp_path / "journal.db") as writer:
        assert writer.ask("append") == "ok 3"
        assert writer.ask(fault) != "ok 0"
        assert writer.ask("append") == "Retryable JournalUnavailable"
        index = int(writer.ask("append").removeprefix("ok "))
        assert index >= 4
        writer.ask("memory")  # whatever it says: readers had the broken file too, and drop it now
        assert writer.ask("memory") in ("ok 0", "ok 1")
        assert writer.ask("verify") == f"ok {index}"
        writer.end()
    journal = open_to_act(tmp_path / "journal.db")
    assert journal.verify().problem == ""
    assert journal.verify().records == index + 1
    journal.close()


def test_a_full_disk_stops_the_journal_and_room_lets_it_go_on(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    with running([*unshare, "sh", "-c", SMALL_DISK, "sh", str(disk), sys.executable]) as writer:
        assert writer.greeting == "open 1"
        assert writer.ask("append") == "ok 3"
        for _ in range(2):
            assert writer.ask("fill").startswith("ok")
            last = 0
            while (answer := writer.ask("append")).startswith("ok"):
                last = int(answer.removeprefix("ok "))
                assert last < 2000, "the disk never gets full"
            assert answer == "Retryable JournalUnavailable"
            assert writer.ask("append") == "Retryable JournalUnavailable"
            assert writer.ask("free") == "ok"
            assert writer.ask("append").startswith("ok")
        assert writer.ask("verify").startswith("ok")
        writer.end()
        assert writer.program.returncode == 0


@contextmanager
def held(file: Path) -> Iterator[None]:
    """Another program keeps the database's write lock."""
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.close()


def test_a_database_held_by_another_program_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_sqlite, "BUSY_SECONDS", 0.1)
    journal = open_to_act(tmp_path / "journal.db")
    with held(tmp_path / "journal.db"), pytest.raises(Retryable, match="database is locked"):
        journal.append(entry())
    assert journal.append(entry())[0].index == 3
    journal.close()


def test_a_disk_that_does_not_answer_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_sqlite, "BUSY_SECONDS", 60)
    journal = open_to_act(tmp_path / "journal.db")
    with held(tmp_path / "journal.db"), monkeypatch.context() as hurry:
        hurry.setattr(journal_writer, "DEADLINE_SECONDS", 1.0)
        for _ in range(2):
            with pytest.raises(Retryable, match="did not answer"):
                journal.append(entry())
    # The first was under way and may turn up, as its error says; the second was still in the queue, and does not.
    assert journal.append(entry())[0].index == 4
    assert journal.verify().problem == ""
    journal.close()


def test_a_torn_wal_is_cut_at_its_last_whole_commit(tmp_path: Path) -> None:
    """Observed with SQLite 3.40: what was committed before the cut remains, and nothing of what is behind it."""
    file = tmp_path / "journal.db"
    open_to_act(file).close()
    journal = open_to_act(file)
    wal = tmp_path / "journal.db-wal"
    sizes = {record.index: wal.stat().st_size for _ in range(12) for record in journal.append(entry())}
    copied = tmp_path / "copy"
    copied.mkdir()
    for name in ("journal.db", "journal.db-wal"):
        shutil.copy(tmp_path / name, copied / name)
    journal.close()
    edges = sorted(sizes.values())
    for cut in sorted({max(0, edge + step) for edge in edges for step in (-4120, -1, 0, 1, 2000)} | {0, 1, 32, 33}):
        torn = tmp_path / f"torn-{cut}"
        shutil.copytree(copied, torn)
        os.truncate(torn / "journal.db-wal", min(cut, edges[-1]))
        found = open_to_act(torn / "journal.db")
        kept = [record.index for record in found.records() if record.entry.environment]
        assert kept == [index for index, size in sizes.items() if size <= cut]
        assert found.verify().problem == ""
        found.close()
        shutil.rmtree(torn)


def test_a_person_cannot_begin_a_journal_by_mistake(tmp_path: Path) -> None:
    missing = tmp_path / "no" / "journal.db"
    with pytest.raises(Stalled, match="no journal here yet"):
        SqlJournal.open(f"sqlite:///{missing}", Clock(), "person", act=False)
    assert list(tmp_path.iterdir()) == []


def test_the_time_of_a_record_is_that_of_its_entry(tmp_path: Path) -> None:
    before = datetime.now(UTC)
    journal = open_to_act(tmp_path / "journal.db")
    assert all(before <= record.entry.at <= datetime.now(UTC) for record in journal.records())
    journal.close()

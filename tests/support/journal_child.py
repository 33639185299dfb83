"""A daemon's writer as a program of its own, for tests that stop it, kill it or take its disk away.

python -m tests.support.journal_child FILE serve    commands on stdin, one answer a line
python -m tests.support.journal_child FILE flood    appends as fast as it can, each durable index on stdout
"""

from __future__ import annotations

import os
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

from reconciler.adapters.journal import SqlJournal
from reconciler.core.errors import ReconcilerError
from reconciler.core.record import Entry, What

CHUNK = b"\0" * 4096


class Clock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return 0.0


def entry() -> Entry:
    return Entry(at=datetime.now(UTC), what=What.INTENT, environment="prod", service="web", details={"log": "x" * 900})


def break_wal(file: Path, substitute: str) -> str:
    """Put `substitute` under every descriptor of the write-ahead log."""
    wal, broken = f"{file}-wal", 0
    for link in list(Path("/proc/self/fd").iterdir()):
        if link.is_symlink() and str(link.readlink()) == wal:
            other = os.open(substitute, os.O_RDWR)
            os.dup2(other, int(link.name))
            os.close(other)
            broken += 1
    return f"ok {broken}"


def fill(directory: Path) -> str:
    """Use up all room on the disk of `directory`."""
    with (directory / "ballast").open("ab", buffering=0) as ballast:
        try:
            while True:
                ballast.write(CHUNK)
        except OSError as error:
            return f"ok {error.errno}"


def obey(journal: SqlJournal, file: Path, command: str) -> str:
    try:
        match command:
            case "append":
                return f"ok {journal.append(entry())[0].index}"
            case "memory":
                return f"ok {len(journal.memory('prod').services)}"
            case "verify":
                found = journal.verify()
                return f"{found.problem or 'ok'} {found.records}"
            case "break sync":
                return break_wal(file, "/dev/null")  # takes every write, and fdatasync fails
            case "break write":
                return break_wal(file, "/dev/full")
            case "fill":
                return fill(file.parent)
            case "free":
                (file.parent / "ballast").unlink()
                return "ok"
            case _:
                return f"unknown {command}"
    except ReconcilerError as error:
        return f"{type(error).__name__} {error.reason}"


def serve(journal: SqlJournal, file: Path) -> None:
    for line in sys.stdin:
        print(obey(journal, file, line.strip()), flush=True)
    journal.close()


def flood(journal: SqlJournal) -> None:
    def work() -> None:
        while True:
            os.write(1, b"%d\n" % journal.append(entry())[0].index)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()


def main() -> None:
    file, mode = Path(sys.argv[1]), sys.argv[2]
    journal = SqlJournal.open(f"sqlite:///{file}", Clock(), "child", act=True)
    print(f"open {journal.epoch}", flush=True)
    if mode == "serve":
        serve(journal, file)
    else:
        flood(journal)


if __name__ == "__main__":
    main()

"""The auditor's verifier: checks every record of a journal, with Python's standard library alone.

    python3 verify_journal.py FILE [--anchor INDEX:HASH]...

FILE is the journal itself (SQLite; a copy with its -wal file is enough) or its export in JSON Lines. Nothing of
Reconciler is imported: this file can be read, kept and run apart from it. The rules it checks:

- the body of a record is a JSON object {"entry", "epoch", "index", "previous"} (and maybe more), sorted by key and
  without spaces (RFC 8785); its hash is SHA-256 over the line DOMAIN and the body;
- "index" counts from 1 without gaps; "previous" is the hash of the record before, 64 zeros for the first;
- "epoch" begins at 1 and rises by one, only at a record whose entry is "EpochOpened";
- an anchor, noted down earlier and kept elsewhere, is still the hash of that record: records cut off at the end, or a
  history written anew as a whole, show only against an anchor.

Exit code: 0 when all holds, 1 when something does not, 2 when the file cannot be read.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

DOMAIN = b"reconciler.dev/journal/v1\n"
SHOWN = 20
COPIES = ("at", "environment", "service", "what")


@dataclass
class Look:
    """How far the check is, and what it found."""

    anchors: dict[int, str]
    count: int = 0
    index: int = 0
    epoch: int = 0
    hash: str = "0" * 64
    first: str = ""
    last: str = ""
    problems: list[str] = field(default_factory=list)

    def say(self, index: object, what: str) -> None:
        self.problems.append(f"record {index}: {what}")


def canonical(value: object) -> bytes:
    """RFC 8785 for text, whole numbers, true, false, null, lists and objects: all that a record can hold."""
    if isinstance(value, dict):
        by_utf16 = sorted(value, key=lambda key: str(key).encode("utf-16-be"))
        return b"{" + b",".join(canonical(key) + b":" + canonical(value[key]) for key in by_utf16) + b"}"
    if isinstance(value, list):
        return b"[" + b",".join(canonical(item) for item in value) + b"]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


def check(look: Look, body: bytes, claimed: str, columns: dict[str, Any]) -> None:
    """One more record. After a problem the check goes on from what the record says of itself."""
    look.count += 1
    place = columns.get("index", look.index + 1)
    if hashlib.sha256(DOMAIN + body).hexdigest() != claimed:
        look.say(place, "its content does not have the hash recorded")
    try:
        found = json.loads(body)
        entry = found["entry"]
        index, epoch, previous = int(found["index"]), int(found["epoch"]), str(found["previous"])
        what, at = str(entry["what"]), str(entry["at"])
        if canonical(found) != body:
            look.say(place, "its content is not in canonical form")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        look.say(place, f"it cannot be read: {type(error).__name__} {error}")
        look.index, look.hash = place, claimed
        return
    if index != look.index + 1:
        look.say(look.index + 1, f"it is missing; record {index} stands in its place")
    elif previous != look.hash:
        look.say(index, "it does not follow the record before")
    begins = look.index == 0 and epoch == 1
    if epoch != look.epoch and not begins and not (epoch == look.epoch + 1 and what == "EpochOpened"):
        look.say(index, f"epoch {epoch} does not follow epoch {look.epoch}")
    copies = {"index": index, "epoch": epoch, "previous": previous} | {key: entry.get(key, "") for key in COPIES}
    for key, value in columns.items():
        if value != copies[key]:
            look.say(place, f"its column {key} is not what its content says")
    if look.anchors.get(index, claimed) != claimed:
        look.say(index, "it is not the record of the anchor")
    look.index, look.epoch, look.hash = index, epoch, claimed
    look.first, look.last = look.first or at, at


def from_lines(path: Path, look: Look) -> None:
    """An export: each line is the record's object with its hash added."""
    with path.open("rb") as lines:
        for line in lines:
            try:
                found = json.loads(line)
                claimed = str(found.pop("hash"))
                body = canonical(found)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                look.count += 1
                look.say(look.index + 1, f"its line cannot be read: {type(error).__name__} {error}")
                look.index += 1
                continue
            check(look, body, claimed, {})


def rows(connection: sqlite3.Connection) -> Iterator[sqlite3.Row]:
    """The records of the database, in order."""
    connection.row_factory = sqlite3.Row
    yield from connection.execute('SELECT * FROM records ORDER BY "index"')


def from_database(path: Path, look: Look) -> None:
    """The journal itself: what stands in the columns for queries must be what stands in the content."""
    connection = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)
    try:
        for row in rows(connection):
            columns = {key: row[key] for key in ("index", "epoch", "previous", *COPIES)}
            check(look, bytes(row["body"]), row["hash"], columns)
    finally:
        connection.close()


def anchor(text: str) -> tuple[int, str]:
    """INDEX:HASH as typed."""
    index, _, value = text.partition(":")
    if len(value) != 64:
        raise ValueError(text)
    return int(index), value.lower()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Check every record of a Reconciler journal.")
    parser.add_argument("file", type=Path, help="the journal (SQLite) or its export (JSON Lines)")
    parser.add_argument("--anchor", type=anchor, action="append", default=[], metavar="INDEX:HASH")
    options = parser.parse_args(arguments)
    look = Look(anchors=dict(options.anchor))
    try:
        with options.file.open("rb") as start:
            database = start.read(16) == b"SQLite format 3\0"
        (from_database if database else from_lines)(options.file, look)
    except (OSError, sqlite3.Error) as error:
        print(f"{options.file}: cannot be read: {error}", file=sys.stderr)
        return 2
    for index in sorted(look.anchors):
        if index > look.index:
            look.say(index, "it is missing, and an anchor names it")
    if look.count == 0:
        look.problems.append("there is no record at all")
    for problem in look.problems[:SHOWN]:
        print(problem)
    if len(look.problems) > SHOWN:
        print(f"and {len(look.problems) - SHOWN} more")
    print(f"{look.count} records, {look.epoch} epochs, from {look.first or '-'} to {look.last or '-'}")
    print(f"head {look.index}:{look.hash}")
    print("NOT VERIFIED" if look.problems else "verified")
    return 1 if look.problems else 0


if __name__ == "__main__":
    sys.exit(main())

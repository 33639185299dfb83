"""The journal's format: an entry as canonical bytes, and the chain of hashes that makes a change to it visible.

The body of a record is the RFC 8785 form of {"entry", "epoch", "index", "previous"}; its hash is SHA-256 over `DOMAIN`
and the body; `previous` is the hash of the record before. The body is what is stored, so a record written by a newer
release verifies here although parts of it are not understood. No I/O here, and no memory of what records mean.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import rfc8785

from reconciler.core.entry_codec import UnreadableError, UnrecordableError, entry_of, object_of
from reconciler.core.record import Entry, Record, What

DOMAIN = b"reconciler.dev/journal/v1\n"
ENTRY_BYTES = 48 * 1024

_PLAIN_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True, check_circular=False)


@dataclass(frozen=True, slots=True)
class Head:
    """The place of a record in the chain: all that the next one has to know of it."""

    index: int
    epoch: int
    hash: str


GENESIS = Head(index=0, epoch=0, hash="0" * 64)


@dataclass(frozen=True, slots=True)
class Prepared:
    """An entry that can be recorded: as it will be read again, and its canonical bytes."""

    entry: Entry
    canonical: bytes = field(repr=False)


def prepare(entry: Entry) -> Prepared:
    """The entry in the form in which it is read again, with its canonical bytes.

    Raises UnrecordableError: a time without a zone, a float, a value that is not JSON, or more than ENTRY_BYTES.
    """
    found = object_of(entry)
    canonical = _canonical(found)
    if len(canonical) > ENTRY_BYTES:
        raise UnrecordableError(
            f"{entry.what}: the entry has {len(canonical)} bytes, and at most {ENTRY_BYTES} can be recorded; "
            "shorten its details first"
        )
    return Prepared(entry=entry_of(found), canonical=canonical)


def _canonical(found: dict[str, Any]) -> bytes:
    """RFC 8785 of what `object_of` made: text and whole numbers only.

    For such values the encoder in C gives the same bytes, three times as fast, as long as all of it is ASCII: then
    sorting by code points is sorting by UTF-16 units. The append rate depends on it (`bench/journal.py`).
    """
    text = _PLAIN_JSON.encode(found)
    return text.encode() if text.isascii() else rfc8785.dumps(found)


def chain(after: Head, epoch: int, entry: Entry | Prepared) -> Record:
    """The record that puts `entry` after the record `after` (or GENESIS). Raises UnrecordableError, see `prepare`."""
    ready = entry if isinstance(entry, Prepared) else prepare(entry)
    index = after.index + 1
    # The keys of the outer object are in canonical order and its other values are plain, so this is RFC 8785 too.
    body = b'{"entry":%b,"epoch":%d,"index":%d,"previous":"%b"}' % (ready.canonical, epoch, index, after.hash.encode())
    return Record(index=index, epoch=epoch, previous=after.hash, hash=digest(body), entry=ready.entry, body=body)


def digest(body: bytes) -> str:
    """The hash of a record with this body: 64 hex digits."""
    return hashlib.sha256(DOMAIN + body).hexdigest()


def head_of(record: Record) -> Head:
    """Where the next record follows."""
    return Head(index=record.index, epoch=record.epoch, hash=record.hash)


def read(body: bytes, recorded_hash: str) -> Record:
    """The record of a stored body. Raises UnreadableError when it is none. Whether the hash fits is for `problem`."""
    found = _document(body)
    index, epoch, previous = found.get("index"), found.get("epoch"), found.get("previous")
    if type(index) is not int or type(epoch) is not int or not isinstance(previous, str):
        raise UnreadableError("index, epoch or previous is missing or of another type")
    return Record(
        index=index,
        epoch=epoch,
        previous=previous,
        hash=recorded_hash,
        entry=entry_of(found.get("entry")),
        body=body,
    )


def _document(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"it is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise UnreadableError("it is not a JSON object")
    return found


def document(record: Record) -> dict[str, Any]:
    """The record as plain JSON values with all that was recorded, also what this release does not understand."""
    return _document(record.body) | {"hash": record.hash}


def export(record: Record) -> str:
    """The record as one line of JSON Lines, without the line end.

    The line is the RFC 8785 form of the body's object with the member "hash" added: without that member and in
    canonical form again it is the body, so the hash can be recomputed from the line alone.
    """
    return rfc8785.dumps(document(record)).decode()


def problem(after: Head, record: Record) -> str:
    """What is wrong with `record` as the one after `after`, in one sentence that names its index; "" when it holds."""
    if record.index == after.index + 1:
        if digest(record.body) != record.hash:
            return f"record {record.index} was changed: its content does not have the hash recorded"
        try:
            if read(record.body, record.hash) != record:
                return f"record {record.index} was changed: what is shown of it is not what is in its body"
        except UnreadableError as error:
            return f"record {record.index} cannot be read: {error}"
    return link_problem(after, record)


def link_problem(after: Head, record: Record) -> str:
    """As `problem`, for a record just read from a body that has the hash recorded: only its place in the chain.

    Epochs start at 1 and rise by one, only with the record that opens one: a fenced writer cannot come back.
    """
    if record.index != after.index + 1:
        return f"record {after.index + 1} is missing: record {record.index} stands in its place"
    if record.previous != after.hash:
        return f"record {record.index} does not follow record {after.index}: it names another hash as the one before"
    opens = record.entry.what is What.EPOCH_OPENED and record.epoch == after.epoch + 1
    begins = after == GENESIS and record.epoch == 1
    if record.epoch == after.epoch or opens or begins:
        return ""
    return f"record {record.index} has epoch {record.epoch}, which does not follow epoch {after.epoch}"


def check(records: Iterable[Record], after: Head = GENESIS) -> str:
    """The first problem in a run of records that follows `after`; "" when the chain holds."""
    for record in records:
        found = problem(after, record)
        if found:
            return found
        after = head_of(record)
    return ""

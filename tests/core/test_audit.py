"""The journal's format: canonical bytes, the chain, and that no change to a record stays unseen."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core import audit
from reconciler.core.audit import ENTRY_BYTES, GENESIS, Head
from reconciler.core.entry_codec import UnreadableError, UnrecordableError, entry_of, moment, object_of
from reconciler.core.record import Entry, Record, VersionRef, What

AT = datetime(2026, 1, 1, tzinfo=UTC)
text = st.text(st.characters(), max_size=20)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
versions = st.builds(VersionRef, version=text, image=text, revision=text)
entries = st.builds(
    Entry,
    at=st.datetimes(
        min_value=datetime(1, 1, 2),  # noqa: DTZ001 -- Hypothesis adds the zone
        max_value=datetime(9999, 12, 30),  # noqa: DTZ001
        timezones=st.timezones(),
    ),
    what=st.sampled_from([what for what in What if what is not What.EPOCH_OPENED]),
    environment=text,
    service=text,
    from_version=st.none() | versions,
    to_version=st.none() | versions,
    revision=text,
    author=text,
    committer=text,
    trigger=text,
    reason=text,
    duration=st.none() | st.timedeltas(timedelta(), timedelta(days=36_000)),
    details=st.dictionaries(text, plain, max_size=4),
)


def run_of(count: int) -> list[Record]:
    records: list[Record] = []
    head = GENESIS
    for number in range(count):
        records.append(audit.chain(head, 1, Entry(at=AT, what=What.DONE, service="web", details={"number": number})))
        head = audit.head_of(records[-1])
    return records


@given(entries)
def test_an_entry_is_read_again_as_it_was_recorded(entry: Entry) -> None:
    record = audit.chain(GENESIS, 1, entry)
    assert audit.read(record.body, record.hash) == record
    assert audit.prepare(record.entry).canonical == audit.prepare(entry).canonical
    assert record.entry.at == entry.at.astimezone(UTC), "also in the hour that comes twice"


@given(entries)
def test_the_bytes_are_rfc_8785_and_an_exported_line_holds_its_own_proof(entry: Entry) -> None:
    record = audit.chain(Head(7, 2, "f" * 64), 2, entry)
    assert record.body == rfc8785.dumps(json.loads(record.body))
    assert record.body == rfc8785.dumps(
        {"entry": object_of(entry), "epoch": 2, "index": 8, "previous": "f" * 64}  # type: ignore[dict-item]
    )
    line = json.loads(audit.export(record))
    assert rfc8785.dumps(line).decode() == audit.export(record)
    claimed = line.pop("hash")
    assert hashlib.sha256(audit.DOMAIN + rfc8785.dumps(line)).hexdigest() == claimed == record.hash


def test_the_format_does_not_change() -> None:
    entry = Entry(
        at=datetime(2026, 1, 2, 3, 4, 5, 6, timezone(timedelta(hours=2))),
        what=What.PROMOTED,
        environment="prod",
        service="web",
        to_version=VersionRef("v", "i", "r"),
        duration=timedelta(milliseconds=1),
        details={"é": ["\u2028", "\n", True, None, -1]},
    )
    record = audit.chain(GENESIS, 1, entry)
    assert record.body.decode() == (
        '{"entry":{"at":"2026-01-02T01:04:05.000006Z","details":{"é":["\u2028","\\n",true,null,-1]},'
        '"durationMicroseconds":1000,"environment":"prod","service":"web",'
        '"to":{"image":"i","revision":"r","version":"v"},"what":"Promoted"},"epoch":1,"index":1,"previous":"'
        + "0" * 64
        + '"}'
    )
    assert record.hash == "b7ed4bb4f6923098946f0e333c761d99c86eab00dccdbd94f8f05ea597739402"


def test_lone_surrogates_become_the_replacement_character() -> None:
    entry = Entry(at=AT, what=What.DONE, author="caf\udce9", details={"\ud800": "a\udfff"})
    read = audit.prepare(entry).entry
    assert (read.author, read.details) == ("caf\ufffd", {"\ufffd": "a\ufffd"})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"at": datetime(2026, 1, 1)}, "no zone"),  # noqa: DTZ001
        ({"details": {"a": {"b": [1, 0.5]}}}, r"details\.a\.b\[1\]: 0.5 is a float"),
        ({"details": {"a": float("nan")}}, "float"),
        ({"details": {"a": 2**53}}, "beyond what every JSON reader"),
        ({"details": {"a": b"raw"}}, "a bytes is not a JSON value"),
        ({"details": {"a": {"b"}}}, "a set is not a JSON value"),
        ({"details": {"a": {1: "b"}}}, "the key 1 is not text"),
        ({"duration": timedelta(days=999_999)}, "duration: "),
        ({"details": {"log": "x" * ENTRY_BYTES}}, f"at most {ENTRY_BYTES} can be recorded"),
    ],
)
def test_what_has_no_canonical_form_is_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(UnrecordableError, match=says):
        audit.prepare(replace(Entry(at=AT, what=What.DONE), **changes))


def test_nesting_has_a_bound() -> None:
    deep: object = "leaf"
    for _ in range(100):
        deep = [deep]
    with pytest.raises(UnrecordableError, match="nested deeper"):
        audit.prepare(Entry(at=AT, what=What.DONE, details={"deep": deep}))


def test_an_entry_of_the_greatest_size_is_recorded() -> None:
    empty = len(audit.prepare(Entry(at=AT, what=What.DONE, details={"log": ""})).canonical)
    entry = Entry(at=AT, what=What.DONE, details={"log": "x" * (ENTRY_BYTES - empty)})
    assert len(audit.prepare(entry).canonical) == ENTRY_BYTES


def test_a_record_of_a_newer_release_verifies_and_keeps_what_is_not_understood() -> None:
    body = rfc8785.dumps(
        {
            "entry": {"at": "2026-01-01T00:00:00.000000Z", "what": "Teleported", "approvedBy": ["Ann"]},
            "epoch": 1,
            "index": 1,
            "previous": GENESIS.hash,
            "witness": "w",
        }
    )
    record = audit.read(body, audit.digest(body))
    assert record.entry.what is What.UNKNOWN
    assert audit.check([record]) == ""
    assert audit.document(record)["entry"]["approvedBy"] == ["Ann"]
    assert '"witness":"w"' in audit.export(record)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b"[" * 100_000,
        b'{"epoch":1,"index":1}',
        b'{"entry":{},"epoch":1,"index":true,"previous":""}',
        b'{"entry":{},"epoch":"1","index":1,"previous":""}',
        b'{"epoch":1,"index":1,"previous":""}',
        b'{"entry":{"at":"2026-01-01T00:00:00Z"},"epoch":1,"index":1,"previous":""}',
    ],
)
def test_bytes_that_are_no_record_are_refused(body: bytes) -> None:
    with pytest.raises(UnreadableError):
        audit.read(body, "")


@pytest.mark.parametrize(
    "changes",
    [
        {"at": None},
        {"at": 5},
        {"at": "yesterday"},
        {"at": "2026-01-01T00:00:00"},
        {"what": 5},
        {"service": 5},
        {"to": "v"},
        {"from": {"version": 5}},
        {"details": []},
        {"durationMicroseconds": 0.5},
        {"durationMicroseconds": True},
        {"durationMicroseconds": 10**30},
    ],
)
def test_an_object_that_is_no_entry_is_refused(changes: dict[str, object]) -> None:
    found = {"at": "2026-01-01T00:00:00.000000Z", "what": "Done"}
    assert entry_of(found) == Entry(at=AT, what=What.DONE)
    with pytest.raises(UnreadableError):
        entry_of(found | changes)


def test_a_moment_is_the_same_in_every_zone() -> None:
    assert moment("2026-01-01T02:00:00+02:00") == AT


@given(st.integers(1, 12), st.data())
def test_a_removed_record_is_named(count: int, data: st.DataObject) -> None:
    records = run_of(count + 1)
    gone = data.draw(st.integers(1, count))
    del records[gone - 1]
    assert audit.check(records).startswith(f"record {gone} is missing")


@given(st.integers(2, 12), st.data())
def test_a_changed_record_is_named(count: int, data: st.DataObject) -> None:
    records = run_of(count)
    place = data.draw(st.integers(0, count - 1))
    old = records[place]
    flipped = bytearray(old.body)
    flipped[data.draw(st.integers(0, len(flipped) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    for changed in (
        replace(old, body=bytes(flipped)),
        replace(old, hash="f" * 64),
        replace(old, entry=replace(old.entry, reason="forged")),
        replace(old, previous="f" * 64),
        replace(old, epoch=old.epoch + 1),
    ):
        forged = [*records[:place], changed, *records[place + 1 :]]
        assert audit.check(forged).startswith(f"record {old.index} ")


@given(st.integers(2, 10), st.data())
def test_a_forged_record_with_a_right_hash_breaks_the_chain_behind_it(count: int, data: st.DataObject) -> None:
    records = run_of(count)
    place = data.draw(st.integers(0, count - 2))
    after = audit.head_of(records[place - 1]) if place else GENESIS
    records[place] = audit.chain(after, 1, Entry(at=AT, what=What.DONE, author="Mallory"))
    assert audit.check(records).startswith(f"record {place + 2} does not follow record {place + 1}")


@given(st.integers(3, 10), st.integers(0, 2**32))
def test_records_in_another_order_are_named(count: int, seed: int) -> None:
    records = run_of(count)
    mixed = random.Random(seed).sample(records, count)
    first = next((i + 1 for i in range(count) if mixed[i] is not records[i]), None)
    found = audit.check(mixed)
    assert found.startswith(f"record {first} ") if first else found == ""


def test_a_record_put_in_between_is_named() -> None:
    records = run_of(3)
    extra = audit.chain(audit.head_of(records[0]), 1, Entry(at=AT, what=What.DONE, author="Mallory"))
    assert audit.check([records[0], extra, *records[1:]]).startswith("record 3 is missing: record 2")


def test_a_body_that_is_no_record_is_named_although_its_hash_fits() -> None:
    body = b"{}"
    record = Record(1, 1, GENESIS.hash, audit.digest(body), Entry(at=AT, what=What.DONE), body)
    assert audit.check([record]).startswith("record 1 cannot be read")


@pytest.mark.parametrize(
    ("epochs", "holds"),
    [([1, 1, 2], True), ([1, 2, 3], True), ([2], False), ([0], True), ([1, 3], False), ([1, 2, 1], False)],
)
def test_an_epoch_only_rises_and_by_one(epochs: list[int], holds: bool) -> None:
    head, records = GENESIS, []
    for epoch in epochs:
        records.append(audit.chain(head, epoch, Entry(at=AT, what=What.EPOCH_OPENED)))
        head = audit.head_of(records[-1])
    assert (audit.check(records) == "") is holds


def test_an_epoch_needs_the_record_that_opens_it() -> None:
    first = audit.chain(GENESIS, 1, Entry(at=AT, what=What.JOURNAL_BEGAN))
    second = audit.chain(audit.head_of(first), 2, Entry(at=AT, what=What.INTENT))
    assert audit.check([first, second]) == "record 2 has epoch 2, which does not follow epoch 1"

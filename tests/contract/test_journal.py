"""What every journal does: the in-memory one of the simulation, SQLite and PostgreSQL, by the same tests."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

import pytest

from reconciler.adapters.journal import SqlJournal
from reconciler.core import audit
from reconciler.core.entry_codec import UnrecordableError
from reconciler.core.errors import Fenced, Reason, Stalled
from reconciler.core.fold import remember
from reconciler.core.memory import EnvironmentMemory
from reconciler.core.record import Entry, VersionRef, What
from reconciler.ports import Journal
from tests.support.database import Place
from tests.support.fake_journal import FakeJournal, JournalDisk

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
A = VersionRef("a" * 64, "registry.test/web@sha256:" + "a" * 64, "1" * 40)


class FixedClock:
    def now(self) -> datetime:
        return START

    def monotonic(self) -> float:
        return 0.0


class World(Protocol):
    """A place for journals. `steal`: the lock is lost although its holder lives on."""

    def open(self, writer: str, *, act: bool) -> Journal: ...

    def steal(self) -> None: ...


@dataclass
class FakeWorld:
    disk: JournalDisk = field(default_factory=JournalDisk)

    def open(self, writer: str, *, act: bool) -> Journal:
        return FakeJournal.open(self.disk, FixedClock(), writer, act=act)

    def steal(self) -> None:
        self.disk.crash()


@dataclass
class SqliteWorld:
    file: Path

    def open(self, writer: str, *, act: bool) -> Journal:
        return SqlJournal.open(f"sqlite:///{quote(str(self.file))}", FixedClock(), writer, act=act)

    def steal(self) -> None:
        self.file.with_name(self.file.name + ".lock").unlink()


@dataclass
class PostgresWorld:
    place: Place

    def open(self, writer: str, *, act: bool) -> Journal:
        return SqlJournal.open(self.place.url, FixedClock(), writer, act=act)

    def steal(self) -> None:
        assert self.place.end_sessions() == 1


@pytest.fixture(params=["fake", "sqlite", "postgres"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    if request.param == "fake":
        return FakeWorld()
    if request.param == "sqlite":
        return SqliteWorld(tmp_path / "a dir? 100% #1" / "journal.db")
    return PostgresWorld(request.getfixturevalue("database"))


@pytest.fixture
def journal(world: World) -> Iterator[Journal]:
    opened = world.open("first", act=True)
    yield opened
    opened.close()


def note(what: What = What.INSTANCE_LOST, environment: str = "prod", service: str = "web", **more: object) -> Entry:
    return Entry(at=START, what=what, environment=environment, service=service, **more)


def test_a_new_journal_says_that_it_begins_anew_and_opens_epoch_1(journal: Journal) -> None:
    assert [r.entry.what for r in journal.records()] == [What.JOURNAL_BEGAN, What.EPOCH_OPENED]
    assert journal.epoch == 1
    assert [r.index for r in journal.records()] == [1, 2]


def test_each_opening_to_act_is_a_new_epoch(world: World) -> None:
    for epoch in (1, 2, 3):
        journal = world.open(f"daemon {epoch}", act=True)
        assert journal.epoch == epoch
        assert journal.append(note())[0].epoch == epoch
        journal.close()
    reader = world.open("reader", act=False)
    assert reader.verify().problem == ""
    assert (reader.verify().records, reader.verify().epochs) == (7, 3)
    reader.close()


def test_what_is_appended_is_read_again_as_returned(journal: Journal) -> None:
    full = Entry(
        at=START + timedelta(microseconds=7),
        what=What.PROMOTED,
        environment="prod",
        service="wéb",
        from_version=A,
        to_version=A,
        revision="r" * 40,
        author="Zoë <z@example.org>",
        committer="C",
        trigger="webhook",
        reason="Unhealthy",
        duration=timedelta(seconds=1, microseconds=1),
        details={"names": ["a", "b"], "n": 3, "yes": True, "none": None, "deep": {"x": [1]}},
    )
    returned = journal.append(full, note())
    assert [r.index for r in returned] == [3, 4]
    assert returned[0].entry == full
    assert tuple(journal.records(after=2)) == returned
    assert [r.body for r in journal.records(after=2)] == [r.body for r in returned]
    assert audit.check(journal.records()) == ""


def test_nothing_of_a_group_with_an_unrecordable_entry_is_kept(journal: Journal) -> None:
    with pytest.raises(UnrecordableError, match="float"):
        journal.append(note(), note(details={"share": 0.5}))
    assert journal.verify().records == 2
    assert journal.append() == ()


def test_the_memory_is_the_fold_of_the_records_of_that_environment(journal: Journal) -> None:
    journal.append(note(What.PROMOTED, to_version=A), note(environment="test"), note())
    memory = EnvironmentMemory()
    for record in journal.records(environment="prod"):
        memory = remember(memory, record.entry)
    assert journal.memory("prod") == memory
    assert memory.services["web"].stable == A
    assert journal.memory("nowhere") == EnvironmentMemory()
    assert journal.environments() == ("prod", "test")


def test_the_memory_holds_what_others_appended(world: World, journal: Journal) -> None:
    assert journal.memory("prod").suspension is None
    person = world.open("person", act=False)
    assert person.epoch == 1
    (record,) = person.append(note(What.SUSPENDED, service="", author="Ann", reason="fire drill"))
    assert (record.epoch, record.index) == (1, 3)
    found = journal.memory("prod").suspension
    assert found is not None
    assert (found.by, found.why) == ("Ann", "fire drill")
    journal.append(note(What.RESUMED, service=""))
    assert person.memory("prod").suspension is None
    assert journal.verify().problem == ""
    person.close()


def test_records_are_chosen_by_environment_service_place_and_number(journal: Journal) -> None:
    for environment in ("prod", "test"):
        for service in ("web", "api"):
            journal.append(*[note(environment=environment, service=service) for _ in range(3)])

    def indexes(**wanted: object) -> list[int]:
        return [r.index for r in journal.records(**wanted)]

    assert indexes() == list(range(1, 15))
    assert indexes(limit=2) == [1, 2]
    assert indexes(limit=0) == []
    assert indexes(limit=0, newest=True) == []
    assert indexes(limit=2, newest=True) == [13, 14]
    assert indexes(newest=True) == list(range(1, 15))
    assert indexes(environment="test") == [9, 10, 11, 12, 13, 14]
    assert indexes(environment="test", service="web", limit=2, newest=True) == [10, 11]
    assert indexes(service="api", after=7) == [8, 12, 13, 14]
    assert indexes(after=13, limit=5, newest=True) == [14]


def test_more_records_than_fit_on_a_page_come_in_order(journal: Journal) -> None:
    journal.append(*[note() for _ in range(1203)])
    assert [r.index for r in journal.records()] == list(range(1, 1206))
    assert [r.index for r in journal.records(after=100, limit=600)] == list(range(101, 701))


def test_the_lock_keeps_a_second_daemon_out_and_ends_with_the_first(world: World) -> None:
    first = world.open("first", act=True)
    with pytest.raises(Stalled) as refused:
        world.open("second", act=True)
    assert refused.value.reason is Reason.JOURNAL_LOCKED
    first.close()
    second = world.open("second", act=True)
    assert second.epoch == 2
    second.close()


def test_a_writer_of_an_older_epoch_is_fenced_for_good(world: World) -> None:
    old = world.open("old", act=True)
    old.append(note(What.INTENT))
    world.steal()
    new = world.open("new", act=True)
    for _ in range(2):
        with pytest.raises(Fenced) as fenced:
            old.append(note(What.INTENT))
        assert fenced.value.reason is Reason.FENCED
    assert new.append(note(What.INTENT))[0].epoch == 2
    assert new.verify().problem == ""
    old.close()
    new.close()


def test_a_person_adds_to_the_newest_epoch_also_after_a_new_one_was_opened(world: World) -> None:
    first = world.open("first", act=True)
    person = world.open("person", act=False)
    first.close()
    second = world.open("second", act=True)
    assert person.append(note(What.SUSPENDED))[0].epoch == 2
    second.append(note())
    person.close()
    second.close()


def test_without_a_journal_only_a_daemon_begins_one(world: World) -> None:
    with pytest.raises(Stalled) as refused:
        world.open("person", act=False)
    assert refused.value.reason is Reason.JOURNAL_UNAVAILABLE
    world.open("daemon", act=True).close()
    world.open("person", act=False).close()


def test_appends_side_by_side_form_one_chain_without_gaps(journal: Journal) -> None:
    def work(number: int) -> list[int]:
        return [r.index for _ in range(10) for r in journal.append(note(service=f"s{number}"), note())]

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(work, range(16)))
    assert sorted(index for indexes in found for index in indexes) == list(range(3, 323))
    for indexes in found:
        pairs = list(zip(indexes[::2], indexes[1::2], strict=True))
        assert all(second == first + 1 for first, second in pairs), "the entries of one append stay together"
    assert journal.verify().problem == ""
    assert journal.verify().records == 322


def test_a_daemon_and_persons_append_side_by_side_and_none_is_refused(world: World, journal: Journal) -> None:
    writers = [journal, *[world.open(f"person {number}", act=False) for number in range(2)]]

    def work(writer: Journal) -> list[int]:
        return [writer.append(note())[0].index for _ in range(40)]

    with ThreadPoolExecutor(len(writers)) as pool:
        found = [index for indexes in pool.map(work, writers) for index in indexes]
    assert sorted(found) == list(range(3, 123))
    for writer in writers:
        assert writer.verify().problem == ""
    for person in writers[1:]:
        person.close()


def test_a_closed_journal_takes_nothing_more(world: World) -> None:
    journal = world.open("first", act=True)
    journal.close()
    journal.close()
    with pytest.raises(Exception, match="closed"):
        journal.append(note())

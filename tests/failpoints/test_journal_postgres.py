"""The journal in PostgreSQL when its connection, its server or its writer fails: a real server, a wire that breaks."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from reconciler.adapters import journal_postgres_url, journal_writer
from reconciler.adapters.journal import SqlJournal
from reconciler.adapters.journal_postgres_lock import key_of
from reconciler.core.errors import Fenced, Reason, Retryable, Stalled
from reconciler.core.record import Entry, Record, What
from reconciler.settings import JournalSettings
from tests.support.cluster import eventually
from tests.support.database import Place, Wire
from tests.support.journal_child import Clock, entry
from tools import database as tool

FENCE = ("client", b"FOR UPDATE")
HELD = ("server", b"SELECT 1\0")
INSERT = ("client", b"json_to_recordset")
COMMIT = ("client", b"commit")
ANSWER = ("server", b"COMMIT\0")
Point = tuple[str, bytes]


@contextmanager
def daemon(url: str, *, take_over: bool = False, login: JournalSettings | None = None) -> Iterator[SqlJournal]:
    journal = SqlJournal.open(url, Clock(), "a daemon", act=True, take_over=take_over, login=login)
    try:
        yield journal
    finally:
        journal.close()


def numbered(number: int) -> Entry:
    return Entry(at=Clock().now(), what=What.INTENT, environment="prod", service="web", details={"number": number})


def numbers(journal: SqlJournal) -> Counter[int]:
    return Counter(record.entry.details["number"] for record in journal.records(environment="prod"))


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server ends a transaction that stands still soon, and with it the lock: what is seen before is luck."""
    monkeypatch.setattr(journal_postgres_url, "IDLE_SECONDS", 3.0)


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server lets a transaction stand still for as long as a test looks at it."""
    monkeypatch.setattr(journal_postgres_url, "IDLE_SECONDS", 600.0)
    monkeypatch.setattr(journal_postgres_url, "ANSWER_SECONDS", 600.0)


def locked(url: str) -> bool:
    """Whether another daemon is refused there for the lock."""
    with pytest.raises(Stalled) as said:
        SqlJournal.open(url, Clock(), "another", act=True)
    return said.value.reason is Reason.JOURNAL_LOCKED


@contextmanager
def standing_still(journal: SqlJournal, wire: Wire, point: Point, number: int) -> Iterator[Future[Sequence[Record]]]:
    """An append of `number` that stands still at `point` until the wire is released; what it comes to."""
    with ThreadPoolExecutor(1) as pool:
        wire.at(*point, "hold")
        pending = pool.submit(journal.append, numbered(number))
        assert wire.reached.wait(60)
        yield pending


@pytest.mark.parametrize("point", [FENCE, HELD, INSERT, COMMIT])
@pytest.mark.usefixtures("hurry")
def test_a_daemon_that_stands_still_in_an_append_is_fenced_by_the_next(
    database: Place, wire: Wire, point: Point
) -> None:
    """As one that is stopped past its lease and goes on later, at each place where it can stand."""
    with daemon(database.remote(wire.port), login=database.login) as old:
        old.append(numbered(1))
        with standing_still(old, wire, point, 2) as pending, daemon(database.url, take_over=True) as new:
            assert new.epoch == 2
            new.append(numbered(3))
            wire.release()
            with pytest.raises(Fenced):
                pending.result(timeout=120)
            with pytest.raises(Fenced):
                old.append(numbered(4))
            assert numbers(new) == {1: 1, 3: 1}
            assert new.verify().problem == ""


@pytest.mark.parametrize("point", [FENCE, HELD, INSERT, COMMIT, ANSWER])
@pytest.mark.usefixtures("patience")
def test_a_daemon_that_stands_still_in_an_append_keeps_its_lock_as_long_as_its_session(
    database: Place, wire: Wire, point: Point
) -> None:
    with daemon(database.remote(wire.port), login=database.login) as journal:
        journal.append(numbered(1))
        with standing_still(journal, wire, point, 2) as pending:
            assert locked(database.url)
            wire.release()
            assert pending.result(timeout=120)[0].epoch == 1
        assert numbers(journal) == {1: 1, 2: 1}


@pytest.mark.usefixtures("hurry")
def test_what_was_committed_before_the_next_epoch_is_confirmed_also_late(database: Place, wire: Wire) -> None:
    with (
        daemon(database.remote(wire.port), login=database.login) as old,
        standing_still(old, wire, ANSWER, 1) as pending,
        daemon(database.url, take_over=True) as new,
    ):
        wire.release()
        (record,) = pending.result(timeout=120)
        assert record.epoch == 1
        with pytest.raises(Fenced):
            old.append(numbered(2))
        assert numbers(new) == {1: 1}
        assert new.verify().problem == ""


@pytest.mark.parametrize("point", [FENCE, HELD, INSERT, COMMIT, ANSWER])
def test_a_connection_lost_in_an_append_loses_nothing_and_writes_nothing_twice(
    database: Place, wire: Wire, point: Point
) -> None:
    with daemon(database.remote(wire.port), login=database.login) as journal:
        journal.append(numbered(1))
        lost = database.holders()
        wire.at(*point, "cut")
        (record,) = journal.append(numbered(2))
        assert wire.reached.is_set()
        eventually(lambda: database.holders() != lost)  # the server knows that this session is gone
        assert journal.append(numbered(3))[0].index == record.index + 1
        assert numbers(journal) == {1: 1, 2: 1, 3: 1}
        assert next(journal.records(after=record.index - 1, limit=1)) == record
        assert journal.verify().problem == ""
        assert locked(database.url), "the new session took the lock again"


def test_a_commit_whose_outcome_stays_unknown_is_said_and_may_turn_up(
    database: Place, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_writer, "SETTLE_SECONDS", 0.3)
    with (
        daemon(database.remote(wire.port), login=database.login) as journal,
        standing_still(journal, wire, ANSWER, 1) as pending,
    ):
        wire.close()
        with pytest.raises(Retryable) as said:
            pending.result(timeout=120)
        assert said.value.reason is Reason.JOURNAL_UNAVAILABLE
        with daemon(database.url) as other:
            assert numbers(other) == {1: 1}


def test_a_session_that_was_ended_is_replaced(database: Place) -> None:
    with daemon(database.url) as journal:
        for number in range(3):
            assert database.end_sessions() == 1
            journal.append(numbered(number))
        assert numbers(journal) == {0: 1, 1: 1, 2: 1}


def test_the_lock_is_taken_again_also_where_the_server_kept_a_lost_session_for_long(database: Place) -> None:
    """It hears of a client that is gone after half a minute only. Here somebody else's session is what it keeps."""
    key = key_of(database.schema)
    with daemon(database.url) as journal:
        assert database.end_sessions() == 1
        with database.owner() as kept:
            kept.run("SELECT pg_advisory_lock(:key)", key=key)
            before = database.holders()
            journal.append(numbered(1))
            assert database.holders() == before
            kept.run("SELECT pg_advisory_unlock(:key)", key=key)
            journal.append(numbered(2))
        assert locked(database.url)
        assert numbers(journal) == {1: 1, 2: 1}
    with daemon(database.url) as after:
        assert after.epoch == 2, "and it is let go once"


def test_another_writers_transaction_is_not_waited_for_without_end(
    database: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_postgres_url, "LOCK_SECONDS", 0.2)
    with daemon(database.url) as journal:
        with database.owner() as other:
            other.run("BEGIN")
            other.run("SELECT FROM fence FOR UPDATE")
            with pytest.raises(Retryable, match="55P03"):
                journal.append(numbered(1))
        journal.append(numbered(2))
        assert numbers(journal) == {2: 1}


@pytest.mark.parametrize(("code", "advice"), [("53100", "disk"), ("25006", "primary"), ("42501", "Grant")])
def test_what_the_server_refuses_is_said_with_a_remedy_and_later_tried_again(
    database: Place, code: str, advice: str
) -> None:
    with daemon(database.url) as journal:
        with database.owner() as owner:
            body = f"BEGIN RAISE EXCEPTION 'as if' USING ERRCODE = '{code}', DETAIL = 'hunter2'; END"
            owner.run(f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$")
            owner.run("CREATE TRIGGER a_refusal BEFORE INSERT ON records EXECUTE FUNCTION refuse()")
            with pytest.raises(Retryable, match=advice) as said:
                journal.append(numbered(1))
            assert said.value.reason is Reason.JOURNAL_UNAVAILABLE
            assert "hunter2" not in str(said.value)
            owner.run("DROP TRIGGER a_refusal ON records")
        journal.append(numbered(2))
        assert numbers(journal) == {2: 1}


def test_a_server_that_was_set_back_is_not_written_to(database: Place) -> None:
    """As by a backup that was restored, or a standby that lagged when it took over."""
    with daemon(database.url) as journal:
        journal.append(*[numbered(number) for number in range(5)])
        database.sql('DELETE FROM records WHERE "index" > 4')
        for _ in range(2):
            with pytest.raises(Stalled, match="record 7 was confirmed here") as refused:
                journal.append(numbered(6))
            assert refused.value.reason is Reason.JOURNAL_DAMAGED
        assert numbers(journal) == {0: 1, 1: 1}


def test_without_the_server_nothing_is_recorded_and_with_it_all_goes_on(own_postgres: tool.Server) -> None:
    place = Place(own_postgres, "gone")
    with daemon(place.url) as journal:
        journal.append(numbered(1))
        memory = journal.memory("prod")
        tool.stop(own_postgres, "immediate")
        calls: list[Callable[[], object]] = [
            lambda: journal.append(numbered(2)),
            lambda: journal.append(numbered(3)),
            lambda: journal.memory("prod"),
            lambda: list(journal.records()),
            lambda: SqlJournal.open(place.url, Clock(), "person", act=False),
            lambda: SqlJournal.open(place.url, Clock(), "daemon", act=True),
        ]
        for call in calls:
            with pytest.raises(Retryable) as said:
                call()
            assert said.value.reason is Reason.JOURNAL_UNAVAILABLE
        tool.start(own_postgres)
        assert journal.memory("prod") == memory
        assert numbers(journal) == {1: 1}
        journal.append(numbered(4))
        assert journal.verify().problem == ""
        with pytest.raises(Stalled, match="another daemon"):
            SqlJournal.open(place.url, Clock(), "another", act=True)


def test_a_server_that_does_not_sync_is_refused(own_postgres: tool.Server) -> None:
    place = Place(own_postgres, "loose")
    for value in ("off", "on"):
        with place.owner() as owner:
            owner.run(f"ALTER SYSTEM SET fsync = {value}")
        tool.stop(own_postgres)
        tool.start(own_postgres)
        if value == "off":
            with pytest.raises(Stalled, match="fsync off") as refused:
                SqlJournal.open(place.url, Clock(), "daemon", act=True)
            assert refused.value.reason is Reason.JOURNAL_UNAVAILABLE
        else:
            SqlJournal.open(place.url, Clock(), "daemon", act=True).close()


def test_a_server_killed_under_load_keeps_what_was_confirmed_and_nothing_twice(own_postgres: tool.Server) -> None:
    place = Place(own_postgres, "killed")
    confirmed: list[int] = []
    tried = iter(range(10**9))
    enough, stop = threading.Event(), threading.Event()
    lock = threading.Lock()

    def work(journal: SqlJournal, wanted: int) -> None:
        while not stop.is_set():
            with lock:
                number = next(tried)
            try:
                journal.append(numbered(number))
            except Retryable:
                stop.wait(0.05)
            else:
                confirmed.append(number)
                if len(confirmed) >= wanted:
                    enough.set()

    with daemon(place.url) as journal, ThreadPoolExecutor(8) as pool:
        for wanted in (50, 150, 250):
            stop.clear()
            enough.clear()
            futures = [pool.submit(work, journal, wanted) for _ in range(8)]
            assert enough.wait(120)
            tool.stop(own_postgres, "immediate")
            tool.start(own_postgres)
            stop.set()
            for future in futures:
                future.result(timeout=120)
        found = numbers(journal)
        assert set(confirmed) <= set(found)
        assert set(found.values()) == {1}
        assert journal.verify().problem == ""


def test_the_log_of_an_entry_goes_in_and_out_as_it_is(database: Place) -> None:
    with daemon(database.url) as journal:
        awkward = "nul \0 quote ' \" back \\ \\u0000 %s {} $1 é \U0001f600 \u2028"
        made = Entry(at=Clock().now(), what=What.FAILED, environment="é'\"\\", reason=awkward, details={"l": [awkward]})
        (record, _) = journal.append(made, entry())
        assert next(journal.records(after=record.index - 1, limit=1)).entry == made
        assert journal.verify().problem == ""

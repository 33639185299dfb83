"""A journal in PostgreSQL that its owner changed: it is seen, named, and not acted on. As `test_journal_damage.py`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pg8000.native
import pytest

from reconciler.adapters import journal_check, journal_memory
from reconciler.adapters.journal import SqlJournal
from reconciler.adapters.journal_memory import Fold
from reconciler.core import audit
from reconciler.core.errors import Reason, Stalled
from tests.failpoints.test_journal_damage import COUNT, note
from tests.support.database import Place
from tests.support.journal_child import Clock
from tools import verify_journal


def open_to_act(place: Place) -> SqlJournal:
    return SqlJournal.open(place.url, Clock(), "test", act=True)


def open_beside(place: Place) -> SqlJournal:
    return SqlJournal.open(place.url, Clock(), "person", act=False)


@pytest.fixture
def place(database: Place) -> Place:
    """Where there is a closed journal of COUNT records, its projections saved."""
    journal = open_to_act(database)
    journal.append(*[note(number) for number in range(3, COUNT + 1)])
    journal.close()
    return database


def forge(place: Place) -> None:
    """A changed record with a hash that fits it."""
    ((body,),) = place.sql('SELECT body FROM records WHERE "index" = 17')
    body = body.replace(b"the log of 17", b"nothing seen!")
    place.sql(f"UPDATE records SET body = '\\x{body.hex()}', hash = '{audit.digest(body)}' WHERE \"index\" = 17")


DAMAGE: dict[str, tuple[Callable[[Place], object], int]] = {
    "an edited body": (lambda p: p.sql("UPDATE records SET body = '\\x7b7d' WHERE \"index\" = 17"), 17),
    "a forged record": (forge, 18),
    "an edited column": (lambda p: p.sql("UPDATE records SET environment = 'x' WHERE \"index\" = 17"), 17),
    "an edited hash": (lambda p: p.sql('UPDATE records SET hash = previous WHERE "index" = 17'), 17),
    "a removed record": (lambda p: p.sql('DELETE FROM records WHERE "index" = 17'), 17),
    "a removed beginning": (lambda p: p.sql('DELETE FROM records WHERE "index" < 17'), 1),
    "a removed end": (lambda p: p.sql(f'DELETE FROM records WHERE "index" > {COUNT - 3}'), COUNT - 2),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named_and_not_acted_on(place: Place, name: str) -> None:
    damage, index = DAMAGE[name]
    reader = open_beside(place)
    assert reader.verify().problem == ""
    damage(place)
    found = reader.verify()
    assert f"record {index} " in found.problem
    assert found.records == index - 1
    reader.close()
    before = place.sql('SELECT * FROM records ORDER BY "index"')
    for _ in range(2):
        with pytest.raises(Stalled) as refused:
            open_to_act(place)
        assert refused.value.reason is Reason.JOURNAL_DAMAGED
        assert f"record {index} " in str(refused.value)
    assert place.sql('SELECT * FROM records ORDER BY "index"') == before, "what cannot be trusted is not written to"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE records SET body = '\\x7b7d'",
        'UPDATE records SET "index" = 99 WHERE "index" = 3',
        "DELETE FROM records",
        'DELETE FROM records WHERE "index" = 40',
        "TRUNCATE records",
        "TRUNCATE records, projections CASCADE",
        'INSERT INTO records SELECT * FROM records WHERE "index" = 3 ON CONFLICT ("index") DO UPDATE SET epoch = 7',
        "INSERT INTO records SELECT 99, epoch, previous, hash, at, environment, service, what, revision, body "
        'FROM records WHERE "index" = 3',
    ],
)
@pytest.mark.parametrize("role", ["origin", "replica"])
def test_the_database_itself_refuses_to_change_what_is_recorded(place: Place, statement: str, role: str) -> None:
    with place.owner() as owner:
        owner.run(f"SET session_replication_role = {role}")
        with pytest.raises(pg8000.native.DatabaseError, match="append-only"):
            owner.run(statement)
    reader = open_beside(place)
    assert reader.verify().records == COUNT
    assert reader.verify().problem == ""
    reader.close()


@pytest.mark.parametrize(
    "loss",
    [
        "DROP TRIGGER records_no_truncate ON records",
        "ALTER TABLE records DISABLE TRIGGER records_no_change",
        "DROP FUNCTION records_go_to_the_end() CASCADE",
    ],
)
def test_what_was_taken_from_the_database_is_put_back_at_the_next_start(place: Place, loss: str) -> None:
    with place.owner() as owner:
        owner.run(loss)
        open_to_act(place).close()
        for statement in ("TRUNCATE records", "DELETE FROM records", "INSERT INTO records SELECT * FROM records"):
            with pytest.raises(pg8000.native.DatabaseError, match="append-only"):
                owner.run(statement)


def test_a_start_uses_the_projections_and_checks_only_the_newest_records(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_check, "TAIL", 10)
    place.sql("UPDATE records SET body = '\\x7b7d' WHERE \"index\" = 17")
    journal = open_to_act(place)
    assert journal.memory("prod").services["s1"].stable is not None
    assert journal.verify().problem.startswith("record 17 ")
    journal.close()


def saved(place: Place) -> Fold | None:
    journal = open_beside(place)
    with journal._reading.connect() as connection:
        found = journal_memory.load(connection, place.schema)
    journal.close()
    return found


@pytest.mark.parametrize(
    "statement",
    [
        "TRUNCATE projections",
        "DELETE FROM projections WHERE environment = 'test'",
        "UPDATE projections SET memory = '\\x7b7d' WHERE environment = 'test'",
        "UPDATE projections SET upto = 7",
        "UPDATE projections SET digest = head",
        "UPDATE projections SET program = '0.0.0'",
    ],
)
def test_a_projection_that_is_missing_or_wrong_is_made_anew(place: Place, statement: str) -> None:
    before = saved(place)
    assert before is not None
    place.sql(statement)
    assert saved(place) is None
    journal = open_to_act(place)
    assert {name: journal.memory(name) for name in ("prod", "test")} == before.memories
    assert journal.verify().problem == ""
    journal.close()
    after = saved(place)
    assert after is not None
    assert after.memories == before.memories
    assert after.head.index == COUNT + 1


def test_projections_are_saved_now_and_then_without_being_asked(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_memory, "SAVE_EVERY", 5)
    journal = open_to_act(place)
    journal.append(*[note(number) for number in range(5)])
    journal.memory("prod")
    last = journal.append(note(1))[0].index  # behind the saving in the same queue
    found = saved(place)
    assert found is not None
    assert found.head.index == last - 1
    journal.close()


def test_a_journal_of_a_newer_layout_is_left_alone(place: Place) -> None:
    place.sql("UPDATE fence SET layout = 99")
    for act in (open_to_act, open_beside):
        with pytest.raises(Stalled, match="layout 99"):
            act(place)


def test_tables_that_went_missing_are_damage(place: Place) -> None:
    journal = open_to_act(place)
    place.sql("DROP TABLE records")
    for look in (lambda: journal.memory("prod"), lambda: journal.append(note(1)), lambda: list(journal.records())):
        with pytest.raises(Stalled) as refused:
            look()
        assert refused.value.reason is Reason.JOURNAL_DAMAGED
    journal.close()


def test_the_standalone_verifier_agrees_on_the_export(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = open_beside(place)
    head = journal.verify().head
    lines = tmp_path / "export.jsonl"
    lines.write_text("".join(audit.export(record) + "\n" for record in journal.records()), encoding="utf-8")
    journal.close()
    assert verify_journal.main([str(lines), "--anchor", f"{COUNT}:{head}"]) == 0
    assert f"{COUNT} records, 1 epochs" in capsys.readouterr().out

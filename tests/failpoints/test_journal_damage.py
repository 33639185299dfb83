"""A journal that someone or something changed: it is seen, named, and not acted on. Projections are only a cache."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.adapters import journal_check, journal_memory
from reconciler.adapters.journal import SqlJournal
from reconciler.adapters.journal_memory import Fold
from reconciler.core import audit
from reconciler.core.errors import Reason, Stalled
from reconciler.core.memory import EnvironmentMemory
from reconciler.core.record import Entry, VersionRef, What
from tests.support.journal_child import Clock
from tools import verify_journal

VERSION = VersionRef("a" * 64, "registry.test/web@sha256:" + "a" * 64, "1" * 40)
COUNT = 40


def open_to_act(file: Path) -> SqlJournal:
    return SqlJournal.open(f"sqlite:///{file}", Clock(), "test", act=True)


def open_beside(file: Path) -> SqlJournal:
    return SqlJournal.open(f"sqlite:///{file}", Clock(), "person", act=False)


def note(number: int) -> Entry:
    what = What.PROMOTED if number % 2 else What.INSTANCE_LOST
    return Entry(
        at=Clock().now(),
        what=what,
        environment="prod" if number % 3 else "test",
        service=f"s{number % 4}",
        to_version=replace(VERSION, version=f"{number:064}"),
        details={"name": f"i{number}", "log": f"the log of {number}"},
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A closed journal of COUNT records, its projections saved."""
    path = tmp_path / "journal.db"
    journal = open_to_act(path)
    journal.append(*[note(number) for number in range(3, COUNT + 1)])
    journal.close()
    return path


def sql(file: Path, *statements: str) -> None:
    """What the owner of the file can do, and nobody else."""
    connection = sqlite3.connect(file)
    for name in ("update", "delete", "in_order"):
        prefix = "records_no_" if name != "in_order" else "records_"
        connection.execute(f"DROP TRIGGER {prefix}{name}")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    place = content.index(b"the log of 17")
    content[place] ^= 1
    file.write_bytes(content)


def forge(file: Path) -> None:
    """A changed record with a hash that fits it."""
    connection = sqlite3.connect(file)
    body, previous = connection.execute('SELECT body, previous FROM records WHERE "index" = 17').fetchone()
    connection.close()
    body = body.replace(b"the log of 17", b"nothing seen!")
    assert previous.encode() in body
    sql(file, f"UPDATE records SET body = x'{body.hex()}', hash = '{audit.digest(body)}' WHERE \"index\" = 17")


DAMAGE: dict[str, tuple[Callable[[Path], None], int]] = {
    "a flipped byte": (flip_a_byte, 17),
    "an edited body": (lambda f: sql(f, "UPDATE records SET body = x'7b7d' WHERE \"index\" = 17"), 17),
    "a forged record": (forge, 18),
    "an edited column": (lambda f: sql(f, "UPDATE records SET environment = 'x' WHERE \"index\" = 17"), 17),
    "an edited hash": (lambda f: sql(f, 'UPDATE records SET hash = previous WHERE "index" = 17'), 17),
    "a removed record": (lambda f: sql(f, 'DELETE FROM records WHERE "index" = 17'), 17),
    "a removed beginning": (lambda f: sql(f, 'DELETE FROM records WHERE "index" < 17'), 1),
    "a removed end": (lambda f: sql(f, f'DELETE FROM records WHERE "index" > {COUNT - 3}'), COUNT - 2),
    "two records changed over": (
        lambda f: sql(
            f,
            'UPDATE records SET "index" = -1 WHERE "index" = 17',
            'UPDATE records SET "index" = 17 WHERE "index" = 18',
            'UPDATE records SET "index" = 18 WHERE "index" = -1',
        ),
        17,
    ),
    "a record put in": (
        lambda f: sql(
            f,
            'UPDATE records SET "index" = -"index" WHERE "index" > 16',
            'UPDATE records SET "index" = 1 - "index" WHERE "index" < 0',
            "INSERT INTO records SELECT 17, epoch, previous, hash, at, environment, service, what, revision, body "
            'FROM records WHERE "index" = 5',
        ),
        17,
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named_and_not_acted_on(file: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    reader = open_beside(file)
    anchor = reader.verify().head
    reader.close()
    damage, index = DAMAGE[name]
    damage(file)
    before = file.read_bytes()
    with pytest.raises(Stalled) as refused:
        open_to_act(file)
    assert refused.value.reason is Reason.JOURNAL_DAMAGED
    assert f"record {index} " in str(refused.value)
    assert verify_journal.main([str(file), "--anchor", f"{COUNT}:{anchor}"]) == 1
    said = capsys.readouterr().out
    assert said.startswith(f"record {index}:") or name == "a removed end"
    assert "NOT VERIFIED" in said
    assert file.read_bytes() == before, "what cannot be trusted is not written to"


@pytest.mark.parametrize("name", [name for name in DAMAGE if name != "a removed end"])
def test_verify_names_damage_done_while_it_is_open(file: Path, name: str) -> None:
    journal = open_beside(file)
    assert journal.verify().problem == ""
    damage, index = DAMAGE[name]
    damage(file)
    found = journal.verify()
    assert f"record {index} " in found.problem
    assert found.records == index - 1
    journal.close()


def test_records_that_go_missing_at_the_end_while_it_is_open_are_named(file: Path) -> None:
    journal = open_beside(file)
    assert len(journal.environments()) == 2
    sql(file, f'DELETE FROM records WHERE "index" > {COUNT - 3}', "DELETE FROM projections")
    assert journal.verify().problem == f"record {COUNT - 2} is missing: there were {COUNT} records"
    journal.close()


def test_a_history_written_anew_as_a_whole_shows_against_the_fold(file: Path) -> None:
    journal = open_beside(file)
    assert journal.memory("prod") != EnvironmentMemory()
    sql(file, "DELETE FROM records", "DELETE FROM projections")
    other = open_to_act(file)
    other.append(*[note(number) for number in range(3, COUNT + 1)])
    assert other.verify().problem == ""
    assert journal.verify().problem.startswith(f"record {COUNT} was changed")
    other.close()
    journal.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE records SET body = x'7b7d'",
        'UPDATE records SET "index" = 99 WHERE "index" = 3',
        "DELETE FROM records",
        'DELETE FROM records WHERE "index" = 40',
        'INSERT OR REPLACE INTO records SELECT * FROM records WHERE "index" = 3',
        "INSERT INTO records SELECT 99, epoch, previous, hash, at, environment, service, what, revision, body "
        'FROM records WHERE "index" = 3',
    ],
)
def test_the_database_itself_refuses_to_change_what_is_recorded(file: Path, statement: str) -> None:
    connection = sqlite3.connect(file)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(statement)
    connection.close()
    assert open_beside(file).verify().records == COUNT


def test_a_start_uses_the_projections_and_checks_only_the_newest_records(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_check, "TAIL", 10)
    sql(file, "UPDATE records SET body = x'7b7d' WHERE \"index\" = 17")
    journal = open_to_act(file)
    assert journal.memory("prod").services["s1"].stable is not None
    assert journal.verify().problem.startswith("record 17 ")
    journal.close()


def test_a_damaged_record_is_not_folded(file: Path) -> None:
    reader = open_beside(file)
    reader.append(note(1), note(2))
    sql(file, f"UPDATE records SET body = x'7b7d' WHERE \"index\" = {COUNT + 2}")
    for look in (lambda: reader.memory("prod"), lambda: list(reader.records(after=COUNT)), lambda: open_to_act(file)):
        with pytest.raises(Stalled, match=f"record {COUNT + 2} ") as refused:
            look()
        assert refused.value.reason is Reason.JOURNAL_DAMAGED
    reader.close()


def saved(file: Path) -> Fold | None:
    journal = open_beside(file)
    with journal._reading.begin() as connection:
        found = journal_memory.load(connection, str(file))
    journal.close()
    return found


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM projections",
        "DELETE FROM projections WHERE environment = 'test'",
        "UPDATE projections SET memory = x'7b7d' WHERE environment = 'test'",
        "UPDATE projections SET upto = 7",
        "UPDATE projections SET digest = head",
        "UPDATE projections SET program = '0.0.0'",
    ],
)
def test_a_projection_that_is_missing_or_wrong_is_made_anew(file: Path, statement: str) -> None:
    before = saved(file)
    assert before is not None
    sql(file, statement)
    assert saved(file) is None
    journal = open_to_act(file)
    assert {name: journal.memory(name) for name in ("prod", "test")} == before.memories
    assert journal.verify().problem == ""
    journal.close()
    after = saved(file)
    assert after is not None
    assert after.memories == before.memories
    assert after.head.index == COUNT + 1


def test_what_was_taken_from_the_database_is_put_back_at_the_next_start(file: Path) -> None:
    sql(file)
    open_to_act(file).close()
    connection = sqlite3.connect(file)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute("DELETE FROM records")
    connection.close()


@pytest.mark.parametrize("memory", [{"newField": 1}, []])
def test_a_projection_of_another_form_is_made_anew(file: Path, memory: object, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved(file)
    assert before is not None
    monkeypatch.setattr("reconciler.core.memory_codec.dump", lambda _: memory)
    rewrite(file, before)
    monkeypatch.undo()
    assert saved(file) is None
    assert open_beside(file).memory("prod") == before.memories["prod"]


def rewrite(file: Path, fold: Fold) -> None:
    journal = open_to_act(file)
    journal._writer.soon(lambda connection: journal_memory.save(connection, fold)).result()
    journal._memory._saved = 10**6  # nothing more to save at its end
    journal.close()


def test_a_forged_projection_is_found_by_verify(file: Path) -> None:
    before = saved(file)
    assert before is not None
    rewrite(file, replace(before, memories={**before.memories, "prod": EnvironmentMemory(admitted="forged")}))
    journal = open_beside(file)
    assert journal.memory("prod").admitted == "forged"
    assert "projections are not the fold of the first 40 records" in journal.verify().problem
    journal.close()


def test_projections_are_saved_now_and_then_without_being_asked(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_memory, "SAVE_EVERY", 5)
    journal = open_to_act(file)
    journal.append(*[note(number) for number in range(5)])
    journal.memory("prod")
    last = journal.append(note(1))[0].index  # behind the saving in the same queue
    found = saved(file)
    assert found is not None
    assert found.head.index == last - 1
    journal.close()


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", Reason.JOURNAL_UNAVAILABLE), (b"not a database, but long enough " * 200, Reason.JOURNAL_DAMAGED)],
)
def test_a_file_that_is_no_journal_is_not_read_as_one(tmp_path: Path, content: bytes, reason: Reason) -> None:
    file = tmp_path / "journal.db"
    file.write_bytes(content)
    with pytest.raises(Stalled) as refused:
        open_beside(file)
    assert refused.value.reason is reason


def test_a_journal_of_a_newer_layout_is_left_alone(file: Path) -> None:
    sql(file, "PRAGMA user_version = 99")
    for act in (open_to_act, open_beside):
        with pytest.raises(Stalled, match="layout 99"):
            act(file)


@pytest.mark.parametrize(
    "url",
    ["postgresql://me:hunter2@db/journal", "sqlite://", "sqlite:///:memory:", "sqlite:///a.db?mode=ro", "nothing"],
)
def test_an_address_that_cannot_be_a_journal_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(Stalled) as refused:
        SqlJournal.open(url, Clock(), "test", act=True)
    assert refused.value.reason is Reason.SETTINGS_INVALID
    assert "hunter2" not in str(refused.value)


def test_the_standalone_verifier_agrees_on_the_file_and_on_its_export(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = open_beside(file)
    head = journal.verify().head
    lines = tmp_path / "export.jsonl"
    lines.write_text("".join(audit.export(record) + "\n" for record in journal.records()), encoding="utf-8")
    journal.close()
    for source in (file, lines):
        assert verify_journal.main([str(source), "--anchor", f"{COUNT}:{head}"]) == 0
        said = capsys.readouterr().out
        assert f"{COUNT} records, 1 epochs" in said
        assert f"head {COUNT}:{head}" in said
        assert verify_journal.main([str(source), "--anchor", f"7:{'f' * 64}"]) == 1
        assert verify_journal.main([str(source), "--anchor", f"{COUNT + 1}:{head}"]) == 1
        capsys.readouterr()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b"the log of 17", b"the log of 18", "record 17: its content does not have the hash"),
        (b'"previous"', b'"previoux"', "record 1: "),
        (b"{", b"", "record 1: its line cannot be read"),
    ],
)
def test_the_standalone_verifier_names_a_changed_line(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], old: bytes, new: bytes, says: str
) -> None:
    lines = tmp_path / "export.jsonl"
    whole = "".join(audit.export(record) + "\n" for record in open_beside(file).records())
    lines.write_bytes(whole.encode().replace(old, new, 1))
    assert verify_journal.main([str(lines)]) == 1
    assert says in capsys.readouterr().out


def test_the_standalone_verifier_tells_what_it_cannot_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify_journal.main([str(tmp_path / "missing")]) == 2
    (tmp_path / "empty").write_bytes(b"")
    assert verify_journal.main([str(tmp_path / "empty")]) == 1
    assert "no record at all" in capsys.readouterr().out

"""`audit` on a real journal: what was recorded is listed, shown, verified and exported, and stays as it is."""

import json
import sqlite3
from datetime import UTC, datetime

import pytest

from reconciler.cli.audit import moment
from reconciler.cli.common import RefusedError
from reconciler.core.record import What
from tests.cli.installation import WEB, Installation, entry


@pytest.fixture
def journal(installation: Installation) -> Installation:
    installation.journal(
        entry(What.REVISION_ADMITTED, 0, service="", revision="1" * 40),
        entry(What.PROMOTED, 1, to_version=WEB, revision="1" * 40),
        entry(What.INTENT, 2, service="db", details={"effect": "StartInstance", "name": "rec.staging.db.1.0"}),
        entry(What.ROLLOUT_FAILED, 3, from_version=WEB, reason="Unhealthy", author="Eve \x1b[31m"),
        entry(What.SUSPENDED, -60, environment="closed"),
    )
    return installation


def test_list_shows_what_happened_to_whom_and_why(journal: Installation) -> None:
    result = journal("audit", "list")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert len(lines) == 8  # the head, and the two records of the beginning before ours
    assert lines[4].split() == [
        *("4", "2026-01-01", "12:01:00", "staging/web", "Promoted", "-", "->", "ffffffffffff", "111111111111"),
        *("Ada", "<ada@example.org>"),
    ]
    assert "Intent StartInstance" in lines[5]
    assert "Unhealthy" in lines[6]
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize(
    ("options", "indices"),
    [
        (("--limit", "2"), [6, 7]),
        (("--service", "web"), [4, 6, 7]),
        (("--environment", "staging", "--limit", "1"), [6]),
        (("--environment", "closed"), [7]),
        (("--since", "2026-01-01T12:02", "--service", "web"), [6]),
        (("--since", "2026-01-01T12:01:00Z", "--environment", "staging"), [4, 5, 6]),
        (("--since", "2026-01-01", "--environment", "staging", "--limit", "2"), [5, 6]),
    ],
)
def test_list_filters(journal: Installation, options: tuple[str, ...], indices: list[int]) -> None:
    result = journal("audit", "list", "--json", *options)
    assert [record["index"] for record in json.loads(result.stdout)] == indices


def test_a_misspelt_environment_is_no_history_without_records(journal: Installation) -> None:
    near = journal("audit", "list", "--environment", "stagng")
    assert near.exit_code == 1
    assert "there is no environment 'stagng' in the settings or in the journal. Did you mean staging?" in near.stderr
    far = journal("audit", "list", "-e", "x", "--json")
    assert (far.exit_code, far.stdout) == (1, "")
    assert "Known: closed, staging" in far.stderr


def test_an_environment_without_records_is_told_so(journal: Installation) -> None:
    text = journal.settings.read_text()
    journal.settings.write_text(text + "  fresh: {repository: fleet, runtime: local}\n")
    result = journal("audit", "list", "-e", "fresh")
    assert (result.exit_code, result.stdout) == (0, "no records\n")


def test_since_can_be_an_age() -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    assert moment("2h", now) == datetime(2026, 1, 1, 22, tzinfo=UTC)
    assert moment("1d", now) == datetime(2026, 1, 1, tzinfo=UTC)
    assert moment("2026-01-01T12:00+02:00", now) == datetime(2026, 1, 1, 10, tzinfo=UTC)
    with pytest.raises(RefusedError, match="is not a time"):
        moment("yesterday", now)
    with pytest.raises(RefusedError, match="is not a time"):
        moment("999999d", now)


def test_show_one_record(journal: Installation) -> None:
    result = journal("audit", "show", "4")
    assert result.exit_code == 0
    shown = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert shown["what"].strip() == "Promoted"
    assert shown["to.image"].strip() == WEB.image
    assert json.loads(journal("audit", "show", "4", "--json").stdout)["index"] == 4
    missing = journal("audit", "show", "99")
    assert missing.exit_code == 1
    assert "no record 99" in missing.stderr


def test_verify_and_its_opposite(journal: Installation) -> None:
    good = journal("audit", "verify")
    assert good.exit_code == 0
    assert good.stdout.startswith("verified: 7 records in 1 epoch, all")
    with sqlite3.connect(journal.root / "data" / "journal.db") as database:
        for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            database.execute(f"DROP TRIGGER {name}")
        (body,) = database.execute('SELECT body FROM records WHERE "index" = 4').fetchone()
        forged = type(body)(body.replace(b"Ada", b"Eve") if isinstance(body, bytes) else body.replace("Ada", "Eve"))
        database.execute('UPDATE records SET body = ? WHERE "index" = 4', (forged,))
    bad = journal("audit", "verify")
    assert bad.exit_code == 1
    assert "4" in bad.stderr
    assert json.loads(journal("audit", "verify", "--json").stdout)["problem"]


def test_export_to_a_new_file_only(journal: Installation) -> None:
    lines = journal("audit", "export").stdout.splitlines()
    assert [json.loads(line)["index"] for line in lines] == [1, 2, 3, 4, 5, 6, 7]
    output = journal.root / "log.jsonl"
    result = journal("audit", "export", "--output", str(output))
    assert result.exit_code == 0
    assert output.read_text().splitlines() == lines
    again = journal("audit", "export", "--output", str(output))
    assert again.exit_code == 1
    assert "exists already" in again.stderr


def test_before_the_first_start_there_is_nothing_to_read(installation: Installation) -> None:
    result = installation("audit", "list")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert not (installation.root / "data").exists()

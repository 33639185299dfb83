"""`promote` lets a paused release go on, by a record of the person; else it refuses and says how the release stands."""

import json

import pytest

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.journal import SqlJournal
from reconciler.core.memory import RolloutMemory
from reconciler.core.record import Entry, VersionRef, What
from tests.cli.installation import DIGEST, WEB, Installation, entry

NEXT = VersionRef("e" * 64, f"registry.example/web@{DIGEST}", "2" * 40)
SHIFT = {"effect": "ShiftTraffic", "name": "rec.staging.web", "shares": {}}
STABLE = (entry(What.PROMOTED, 0, to_version=WEB, revision="1" * 40),)
BEGUN = (*STABLE, entry(What.ROLLOUT_STARTED, 1, from_version=WEB, to_version=NEXT))
SHIFTED = (*BEGUN, entry(What.DONE, 2, details={**SHIFT, "stage": 0}))
PAUSED = (*SHIFTED, entry(What.PAUSED, 3, to_version=NEXT, details={"stage": 0, "weight": 5}))


@pytest.fixture
def grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setenv("LOGNAME", "grace")


def written(installation: Installation, *entries: Entry) -> Installation:
    installation.journal(*entries)
    return installation


def newest(journal: Installation) -> dict[str, object]:
    """The last record."""
    found: list[dict[str, object]] = json.loads(journal("audit", "list", "--json", "--limit", "1").stdout)
    return found[0]


def rollout(journal: Installation) -> RolloutMemory:
    """What a daemon knows of the release."""
    opened = SqlJournal.open(f"sqlite:///{journal.root}/data/journal.db", SystemClock(), "a test", act=False)
    try:
        found = opened.memory("staging").services["web"].rollout
    finally:
        opened.close()
    assert found is not None
    return found


@pytest.mark.usefixtures("grace")
def test_a_paused_release_goes_on_by_a_person_s_word(installation: Installation) -> None:
    journal = written(installation, *PAUSED)
    assert (rollout(journal).paused, rollout(journal).continued) == (0, -1)
    result = journal("promote", "staging/web", "--why", "the figures are \x1b good")
    assert result.exit_code == 0, result.output
    record = newest(journal)
    assert result.stdout == f"staging/web: {'e' * 12} goes on from stage 1 (record {record['index']}).\n"
    assert (record["what"], record["environment"], record["service"]) == ("Continued", "staging", "web")
    assert (record["author"], record["reason"]) == ("grace", "the figures are \\x1b good")
    assert (record["trigger"], record["details"], record["revision"]) == ("command line", {"stage": 0}, NEXT.revision)
    assert record["to"] == {"version": NEXT.version, "image": NEXT.image, "revision": NEXT.revision}
    assert (rollout(journal).paused, rollout(journal).continued) == (0, 0)
    assert journal("audit", "verify").exit_code == 0
    again = journal("promote", "staging/web")
    assert again.exit_code == 1
    assert "a person said already to go on" in again.stderr
    assert newest(journal) == record


def test_while_it_is_suspended_the_word_counts_and_nothing_moves(installation: Installation) -> None:
    journal = written(installation, *PAUSED, entry(What.SUSPENDED, 4, service="", reason="a fair"))
    result = journal("promote", "staging/web")
    assert result.exit_code == 0
    assert "nothing moves before `reconciler resume`" in result.stdout


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        (STABLE, f"nothing is under way; {'f' * 12} is stable since 2026-01-01 12:00:00 UTC"),
        ((entry(What.STALLED, 0),), "nothing is under way."),
        (BEGUN, f"{'e' * 12} is on its way since 2026-01-01 12:01:00 UTC and has no traffic yet; it is not paused"),
        (SHIFTED, f"{'e' * 12} is at stage 1 and has its traffic since 2026-01-01 12:02:00 UTC; it is not paused."),
        ((*PAUSED, entry(What.ROLLOUT_FAILED, 4, to_version=NEXT)), "nothing is under way"),
    ],
)
def test_what_is_not_paused_is_told_and_not_recorded(
    installation: Installation, entries: tuple[Entry, ...], said: str
) -> None:
    journal = written(installation, *entries)
    before = newest(journal)
    result = journal("promote", "staging/web")
    assert result.exit_code == 1
    assert f"error: staging/web: {said}" in result.stderr
    assert newest(journal) == before


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("stagign/web", "Did you mean staging?"),
        ("staging/wbe", "Did you mean staging/web?"),
        ("staging", "names no service. Write ENVIRONMENT/SERVICE"),
        ("staging/", "names no service"),
        ("", "names no service"),
    ],
)
def test_a_wrong_target_is_refused(installation: Installation, target: str, said: str) -> None:
    journal = written(installation, *PAUSED)
    result = journal("promote", target)
    assert result.exit_code == 1
    assert said in result.stderr
    assert rollout(journal).continued == -1


def test_a_reason_is_bounded(installation: Installation) -> None:
    journal = written(installation, *PAUSED)
    assert journal("promote", "staging/web", "--why", "x" * 501).exit_code == 1
    assert rollout(journal).continued == -1

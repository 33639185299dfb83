"""`suspend` and `resume` write a person's word into the real journal, under the person's name."""

import json

import pytest

from reconciler.core.record import What
from tests.cli.installation import WEB, Installation, entry


@pytest.fixture
def journal(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> Installation:
    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setenv("LOGNAME", "grace")
    installation.journal(entry(What.PROMOTED, to_version=WEB, revision="1" * 40))
    return installation


def newest(journal: Installation) -> dict[str, object]:
    """The last record."""
    found: list[dict[str, object]] = json.loads(journal("audit", "list", "--json", "--limit", "1").stdout)
    return found[0]


@pytest.mark.parametrize(("target", "service"), [("staging", ""), ("staging/web", "web")])
def test_a_suspension_and_its_end(journal: Installation, target: str, service: str) -> None:
    result = journal("suspend", target, "--why", "a fair \x1b")
    assert result.exit_code == 0, result.output
    record = newest(journal)
    assert (record["what"], record["environment"], record["service"]) == ("Suspended", "staging", service)
    assert (record["author"], record["reason"], record["trigger"]) == ("grace", "a fair \\x1b", "command line")
    again = journal("suspend", target)
    assert again.exit_code == 0
    assert "already suspended" in again.stdout
    assert "by grace" in again.stdout
    assert newest(journal) == record
    assert journal("resume", target).exit_code == 0
    assert newest(journal)["what"] == "Resumed"
    assert journal("audit", "verify").exit_code == 0


def test_behind_sudo_the_person_counts(journal: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "heidi")
    journal("suspend", "staging")
    assert newest(journal)["author"] == "heidi"


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("stagign", "Did you mean staging?"),
        ("staging/wbe", "Did you mean staging/web?"),
        ("staging/", "knows no service"),
        ("staging/web/1", "knows no service"),
        ("", "no environment"),
    ],
)
def test_a_wrong_target_is_refused_and_not_recorded(journal: Installation, target: str, said: str) -> None:
    before = newest(journal)
    result = journal("suspend", target)
    assert result.exit_code == 1
    assert said in result.stderr
    assert newest(journal) == before


def test_a_reason_is_bounded(journal: Installation) -> None:
    assert journal("suspend", "staging", "--why", "x" * 501).exit_code == 1

"""`plan` and `status` where the engine does not answer: told on standard error, exit code 1. See also tests/e2e."""

import json

from tests.cli.installation import Installation


def test_an_engine_that_does_not_answer(installation: Installation) -> None:
    installation.commit()
    result = installation("plan")
    assert result.exit_code == 1
    assert "note: there is no journal yet" in result.stderr
    error = result.stderr.splitlines()[-1]
    assert error.startswith("error: ")
    assert "none.sock" in error
    assert "Traceback" not in result.output


def test_status_shows_the_trouble_and_fails(installation: Installation) -> None:
    installation.commit()
    result = installation("status", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)[0]["reason"] == "EngineUnreachable"
    assert "staging: EngineUnreachable" in installation("status").stdout


def test_a_repository_that_is_not_there(installation: Installation) -> None:
    result = installation("plan", "staging")
    assert result.exit_code == 1
    assert "error: " in result.stderr


def test_an_unknown_environment(installation: Installation) -> None:
    for command in ("plan", "status"):
        result = installation(command, "stagin")
        assert result.exit_code == 1
        assert "Did you mean staging?" in result.stderr


def test_watch_and_json_exclude_each_other(installation: Installation) -> None:
    assert installation("status", "--watch", "--json").exit_code == 1

"""What holds for every command: exit codes, errors, where settings are looked for, no power over a terminal."""

import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from reconciler import __version__
from reconciler.cli import words
from reconciler.cli.app import COMMANDS
from reconciler.cli.common import printable, safe
from reconciler.core.record import What
from reconciler.core.steps import Effect
from tests.cli.installation import WEB, Installation, call, entry


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    result = call(name, "--help")
    assert result.exit_code == 0
    assert f"reconciler {name}" in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [("plna",), ("plan", "--nonsense"), ("audit", "show", "x"), ("audit", "show", "0"), ("suspend",), (), ("audit",)],
)
def test_what_is_typed_wrong_is_never_exit_code_2(arguments: tuple[str, ...]) -> None:
    assert call(*arguments).exit_code == 1


def test_a_misspelt_command_is_recognised() -> None:
    assert "Did you mean 'plan'?" in call("plna").stderr


def test_version() -> None:
    assert call("version").stdout.startswith(f"reconciler {__version__} ")
    assert json.loads(call("version", "--json").stdout)["version"] == __version__


def test_completion_knows_the_commands() -> None:
    result = call(env={"_RECONCILER_COMPLETE": "complete_bash", "COMP_WORDS": "reconciler sus", "COMP_CWORD": "1"})
    assert result.stdout.split() == ["suspend"]


def test_settings_are_looked_for_in_three_places(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr("reconciler.cli.common.SETTINGS_PLACES", (Path("reconciler.yaml"), elsewhere / "etc.yaml"))
    nothing = call("settings", "check")
    assert nothing.exit_code == 1
    assert "--settings FILE" in nothing.stderr
    text = installation.settings.read_text()
    (elsewhere / "etc.yaml").write_text(text)
    assert "etc.yaml: ok" in call("settings", "check").stdout
    (elsewhere / "reconciler.yaml").write_text(text)
    assert "reconciler.yaml: ok" in call("settings", "check").stdout
    named = call("settings", "check", env={"RECONCILER_SETTINGS": str(installation.settings)})
    assert f"{installation.settings}: ok" in named.stdout


def test_settings_check_tells_every_problem_with_its_place(installation: Installation) -> None:
    installation.settings.write_text(installation.settings.read_text() + "concurrency: many\nfoo: 1\n")
    result = installation("settings", "check")
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"{installation.settings}:8:14", f"{installation.settings}:9:1"]


def test_settings_check_opens_the_files_that_are_named(installation: Installation) -> None:
    text = installation.settings.read_text()
    installation.settings.write_text(text + "http: {tokenFile: token}\n")
    missing = installation("settings", "check")
    assert missing.exit_code == 1
    assert f"{installation.root}/token" in missing.stderr
    (installation.root / "token").write_text("a long enough token\n")
    assert installation("settings", "check").exit_code == 0


def test_settings_check_warns(installation: Installation) -> None:
    assert "http.tokenFile is not set" in installation("settings", "check").stderr
    installation.settings.chmod(0o666)
    assert "can be written by everybody" in installation("settings", "check").stderr


def test_text_from_outside_has_no_power_over_the_terminal() -> None:
    assert printable("a\x1b[31mb\x9bc\u202ed\n") == "a\\x1b[31mb\\x9bc\\u202ed\\n"
    assert safe("[red]x[/red] :smile:").plain == "[red]x[/red] :smile:"


def test_every_effect_has_words() -> None:
    assert set(words.EFFECTS) == set(get_args(Effect))


@pytest.mark.parametrize(
    "arguments", [("status",), ("audit", "export"), ("audit", "list", "--json"), ("audit", "list")]
)
def test_a_full_disk_is_one_line_and_exit_code_1(installation: Installation, arguments: tuple[str, ...]) -> None:
    installation.commit()
    installation.journal(entry(What.PROMOTED, to_version=WEB))
    command = (sys.executable, "-m", "reconciler", *arguments, "--settings", str(installation.settings))
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: standard output: cannot be written: No space left on device. Make room there, or let it go elsewhere"
    ]

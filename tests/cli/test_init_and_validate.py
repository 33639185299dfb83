"""`init` writes what `validate` and `settings check` accept; `validate` finds every error and its place."""

import json
import os
from pathlib import Path

import pytest

from tests.cli.installation import SERVICE, Installation, call


def test_what_init_writes_is_valid_and_is_never_overwritten(tmp_path: Path) -> None:
    first = call("init", tmp_path)
    assert first.exit_code == 0
    assert f"reconciler run --settings {tmp_path}/reconciler.yaml" in first.stdout
    assert call("validate", tmp_path / "fleet").exit_code == 0
    assert call("settings", "check", "--settings", tmp_path / "reconciler.yaml").exit_code == 0
    service = tmp_path / "fleet" / "environments" / "staging" / "hello.yaml"
    service.write_text("mine")
    second = call("init", tmp_path)
    assert second.exit_code == 0
    assert f"kept  {service}" in second.stdout
    assert service.read_text() == "mine"


def test_init_says_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    result = call("init", tmp_path / "taken")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.output


def test_all_errors_at_once_with_their_places(installation: Installation) -> None:
    installation.write("web.yaml", SERVICE.replace("spec:", "spec:\n  replicsa: 2\n  drift: maybe"))
    installation.write(
        "worker.yaml", SERVICE.replace("kind: Service", "kind: Servcie").replace("name: web", "name: worker")
    )
    result = call("validate", installation.fleet)
    assert result.exit_code == 1
    places = [line.split(": ")[0] for line in result.stderr.splitlines()]
    directory = f"{installation.fleet}/environments/staging"
    assert f"{directory}/web.yaml:6:3" in places
    assert f"{directory}/web.yaml:7:10" in places
    assert f"{directory}/worker.yaml:2:7" in places
    assert 'did you mean "replicas"?' in result.stderr


def test_paths_can_be_opened_from_where_one_is(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    installation.write("web.yaml", "kind: Service\n")
    monkeypatch.chdir(installation.root)
    assert call("validate", "fleet").stderr.startswith("fleet/environments/staging/web.yaml:1:")
    monkeypatch.chdir(installation.fleet)
    assert call("validate").stderr.startswith("environments/staging/web.yaml:1:")


def test_json_for_programs(installation: Installation) -> None:
    assert json.loads(call("validate", "--json", installation.fleet).stdout) == {
        "valid": True,
        "environments": ["environments/staging"],
        "services": 1,
        "errors": [],
        "permissions": [],
        "unchecked": [],
        "remarks": [],
    }
    installation.write("web.yaml", SERVICE + "  replicsa: 2\n")
    result = call("validate", "--json", installation.fleet)
    assert result.exit_code == 1
    (error,) = json.loads(result.stdout)["errors"]
    assert (error["file"], error["line"], error["column"]) == ("environments/staging/web.yaml", 7, 3)
    assert error["reason"] == "ManifestInvalid"


def test_what_the_operator_has_to_allow_is_a_note_and_no_error(installation: Installation) -> None:
    installation.write("web.yaml", SERVICE + "  security:\n    privileged: true\n")
    result = call("validate", installation.fleet)
    assert result.exit_code == 0
    assert "web.yaml:8:" in result.stderr
    assert "allow.privileged" in result.stderr


def test_one_file_alone(installation: Installation) -> None:
    good = installation.write("web.yaml", SERVICE)
    bad = installation.write("bad.yaml", "kind: Service\n")
    assert call("validate", good).exit_code == 0
    result = call("validate", bad)
    assert result.exit_code == 1
    assert "bad.yaml:1:1" in result.stderr
    environment = installation.fleet / "environments" / "staging" / "environment.yaml"
    assert call("validate", environment).exit_code == 0
    environment.write_text("kind: Environment\n")
    assert call("validate", environment).exit_code == 1


def test_a_base_is_found_and_a_link_is_refused(installation: Installation) -> None:
    (installation.fleet / "base").mkdir()
    base = installation.fleet / "base" / "web.yaml"
    base.write_text(SERVICE)
    installation.write("web.yaml", "extends: base/web.yaml\nspec:\n  replicas: 2\n")
    assert call("validate", installation.fleet).exit_code == 0
    refused = call("validate", base)
    assert refused.exit_code == 1
    assert "belongs to no environment" in refused.stderr
    outside = installation.root / "outside.yaml"
    outside.write_text(SERVICE)
    base.unlink()
    base.symlink_to(outside)
    result = call("validate", installation.fleet)
    assert result.exit_code == 1
    assert "symbolic link" in result.stderr


@pytest.mark.parametrize("kind", ["fifo", "huge"])
def test_odd_files_are_told_and_not_read(installation: Installation, kind: str) -> None:
    path = installation.write("web.yaml", "")
    if kind == "fifo":
        path.unlink()
        os.mkfifo(path)
    else:
        os.truncate(path, 1 << 30)
    result = call("validate", installation.fleet)
    assert result.exit_code == 1
    assert "web.yaml" in result.stderr


@pytest.mark.parametrize("path", ["nowhere", "."])
def test_where_there_is_nothing_to_validate(tmp_path: Path, path: str) -> None:
    result = call("validate", tmp_path / path)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")

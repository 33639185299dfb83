"""The plugin that forbids skipping does so, tried with real runs of pytest; without RECONCILER_CI skips are skips."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SKIPS = {
    "in the body": "import pytest\ndef test_it():\n    pytest.skip('no engine')\n",
    "by a mark": "import pytest\n@pytest.mark.skipif(True, reason='no engine')\ndef test_it():\n    pass\n",
    "a whole module": "import pytest\npytest.skip('no engine', allow_module_level=True)\n",
}


def _run(folder: Path, *, ci: bool) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "RECONCILER"))}
    environment |= {"PYTHONPATH": str(ROOT)} | ({"RECONCILER_CI": "1"} if ci else {})
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.tidy.no_skips", "-p", "no:cacheprovider", "."]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("kind", SKIPS)
def test_a_skip_is_a_failure_in_ci(tmp_path: Path, kind: str) -> None:
    (tmp_path / "test_skipping.py").write_text(SKIPS[kind] + "\ndef test_other():\n    pass\n")
    ended = _run(tmp_path, ci=True)
    assert ended.returncode in {1, 2}, ended.stdout
    assert "nothing may be skipped here" in ended.stdout
    assert "no engine" in ended.stdout


def test_a_skip_is_a_skip_elsewhere_and_an_expected_failure_stays_one(tmp_path: Path) -> None:
    expected = "@pytest.mark.xfail(strict=True)\ndef test_known():\n    raise AssertionError\n"
    (tmp_path / "test_skipping.py").write_text(SKIPS["in the body"] + expected)
    ended = _run(tmp_path, ci=False)
    assert ended.returncode == 0, ended.stdout
    assert "1 skipped, 1 xfailed" in ended.stdout

"""The installation that the tests of the command line share, each its own."""

from pathlib import Path

import pytest

from tests.cli.installation import Installation


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installation:
    monkeypatch.delenv("RECONCILER_SETTINGS", raising=False)
    return Installation(tmp_path)

"""The mirror of a repository that an attacker writes to."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.git_source import GitSource
from reconciler.settings import RepositorySettings
from tests.support.git_server import Upstream


@pytest.fixture
def source(upstream: Upstream, tmp_path: Path) -> Iterator[GitSource]:
    settings = RepositorySettings("fleet", str(upstream.path), allow_file=True)
    made = GitSource({"fleet": settings}, tmp_path / "mirrors", SystemClock())
    yield made
    made.close()

"""A house of its own for each test from end to end, and nothing of it left on the engine."""

from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.e2e.running import House


@pytest.fixture
def house(tmp_path: Path, engine: str, raw: docker.APIClient) -> Iterator[House]:
    found = House(tmp_path, engine)
    yield found
    found.clean(raw)

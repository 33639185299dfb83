"""The sample fleet is right as it stands: every environment, every service, nothing left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.core import manifest
from reconciler.core.manifest import Fleet
from reconciler.core.model import DesiredState, ExecCheck, HttpCheck, TcpCheck
from reconciler.core.policy import Allow
from reconciler.schemas import load_schemas
from tests.support.fleet import REVISION

SAMPLE = Path(__file__).resolve().parents[2] / "sample-repo"


@pytest.mark.parametrize("name", ["staging", "production"])
def test_an_environment_of_the_sample_is_right(name):
    files = {str(path.relative_to(SAMPLE)): path.read_bytes() for path in SAMPLE.rglob("*") if path.is_file()}
    directory = f"environments/{name}"
    blobs = {path: str(hash(data)) for path, data in files.items() if path.startswith(f"{directory}/")}
    fleet = Fleet(directory, blobs, files.__getitem__)
    state = manifest.parse(name, REVISION, fleet, schemas=load_schemas(), allow=Allow(), cache={})
    assert isinstance(state, DesiredState), state
    assert state.problems == {}
    assert {key: type(each.health.check) for key, each in state.services.items()} == {
        "web": HttpCheck,
        "api": TcpCheck,
        "worker": ExecCheck,
    }
    assert state.services["web"].files[0].content == f"Welcome to {name}.\n".encode()
    assert state.services["web"].tmpfs

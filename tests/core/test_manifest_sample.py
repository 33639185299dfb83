"""The sample fleet is right as it stands: every environment, every service, nothing left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.core import manifest
from reconciler.core.delivery import Strategy
from reconciler.core.manifest import Fleet
from reconciler.core.model import DesiredState, ExecCheck, HttpCheck, TcpCheck
from reconciler.core.policy import Allow
from reconciler.schemas import load_schemas
from tests.support.fleet import REVISION

SAMPLE = Path(__file__).resolve().parents[2] / "sample-repo"
ALLOW = Allow(proxy=True)


def sample(name: str) -> DesiredState:
    files = {str(path.relative_to(SAMPLE)): path.read_bytes() for path in SAMPLE.rglob("*") if path.is_file()}
    directory = f"environments/{name}"
    blobs = {path: str(hash(data)) for path, data in files.items() if path.startswith(f"{directory}/")}
    fleet = Fleet(directory, blobs, files.__getitem__)
    state = manifest.parse(name, REVISION, fleet, schemas=load_schemas(), allow=ALLOW, cache={})
    assert isinstance(state, DesiredState), state
    return state


@pytest.mark.parametrize("name", ["staging", "production"])
def test_an_environment_of_the_sample_is_right(name):
    state = sample(name)
    assert state.problems == {}
    checks = {key: type(each.health.check) for key, each in state.services.items()}
    functions = {"shout": HttpCheck} if name == "production" else {}
    assert checks == {"web": HttpCheck, "api": TcpCheck, "worker": ExecCheck, **functions}
    assert state.services["web"].files[0].content == f"Welcome to {name}.\n".encode()
    assert state.services["web"].tmpfs


def test_the_sample_shows_a_careful_release_and_a_function():
    services = sample("production").services
    web, shout = services["web"], services["shout"]
    assert (web.rollout.strategy, web.rollout.gate is not None, web.warm_up is not None) == (
        Strategy.CANARY,
        True,
        True,
    )
    assert sample("staging").services["web"].rollout.strategy is Strategy.ROLLING
    assert shout.args == ("function",)
    assert shout.scaling is not None
    assert shout.scaling.minimum == 0
    assert web.route is not None
    assert shout.route is not None
    assert web.route.hosts == shout.route.hosts, "one host name, told apart by the path"

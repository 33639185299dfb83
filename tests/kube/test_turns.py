"""Who breaks the tests' cluster has it alone, and gets it also while others take turns at using it."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.cluster import eventually, turn
from tests.support.kube_world import World, either


def _waits(directory: Path) -> bool:
    """Whether somebody keeps the door."""
    with (directory / "door.lock").open("a") as door:
        try:
            fcntl.flock(door, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_whoever_wants_it_alone_is_not_overtaken_by_those_who_share(tmp_path: Path) -> None:
    order: list[str] = []

    def take(name: str, *, alone: bool) -> None:
        with turn(tmp_path, alone=alone):
            order.append(name)

    with ThreadPoolExecutor(2) as pool:
        with turn(tmp_path, alone=False), turn(tmp_path, alone=False):
            first = pool.submit(take, "alone", alone=True)
            eventually(lambda: _waits(tmp_path))
            second = pool.submit(take, "shares", alone=False)
        first.result()
        second.result()
    assert order == ["alone", "shares"]


@pytest.fixture(params=["real"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with either(request, tmp_path) as built:
        yield built


def test_whoever_comes_upon_it_on_the_way_takes_a_turn_too(request: pytest.FixtureRequest, world: World) -> None:
    own = request.getfixturevalue("own_cluster")
    with (own.directory / "turn.lock").open("a") as handle, pytest.raises(BlockingIOError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

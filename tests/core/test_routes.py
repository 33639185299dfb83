"""Services that cannot run twice, services that go, and routes that come and go, behind a proxy."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from reconciler.core.delivery import Rollout, Route, Stage, Strategy
from reconciler.core.status import Sync
from tests.support.fronted import (
    BACKEND,
    CANARY,
    GATED,
    ROLLING,
    ROUTE,
    WARM,
    Fronted,
    fronted,
    released,
)
from tests.support.scene import ENVIRONMENT

# What cannot run twice


RECREATE = Rollout(Strategy.RECREATE, surge=0, unavailable=1, progress_deadline=timedelta(minutes=5))


def test_recreate_keeps_the_old_one_until_the_new_one_is_healthy() -> None:
    scene = fronted(rollout=RECREATE, replicas=1)
    (old,) = scene.of("a")
    scene.commit("b")
    scene.until("InstanceHealthy")
    assert old.name in scene.instances and not scene.instances[old.name].address, "it is stopped and kept"
    scene.settle()
    assert scene.serving() == ["b"]
    assert list(scene.of("a")) == []


@pytest.mark.parametrize("how", ["sick", "dying", "cold"])
def test_recreate_returns_to_the_kept_one_when_the_new_one_fails(how: str) -> None:
    scene = fronted(rollout=RECREATE, replicas=1, warm_up=WARM)
    (old,) = scene.of("a")
    getattr(scene, how).add(scene.commit("b"))
    scene.settle()
    assert list(scene.instances) == [old.name], "the very same instance"
    assert scene.serving() == ["a"]
    assert scene.wanted.version in scene.web.quarantine
    assert scene.log.count("CreateInstance") == 1


# A service that goes, and routes that come and go


def test_a_service_that_is_removed_in_a_canary_drains_and_goes_whole() -> None:
    scene = released(5)
    for instance in scene.taking():
        scene.sessions(instance, 1)
    scene.wanted = None
    scene.rest()
    assert len(scene.instances) == 3
    assert scene.taking() == []
    for instance in scene.instances.values():
        scene.sessions(instance, 0)
    scene.settle()
    assert scene.instances == {}
    assert "web" not in scene.memory.services
    assert scene.log.count("ServiceRemoved") == 1


def test_a_service_whose_proxies_went_before_it_is_removed_all_the_same() -> None:
    scene = fronted(rollout=CANARY)
    scene.wanted = None
    scene.has_proxies = False
    for _ in range(20):
        scene.step()
        scene.later(5)
    assert scene.instances == {}


def test_a_service_gets_a_route_and_is_found_by_name_until_it_goes() -> None:
    scene = Fronted(None, common={"replicas": 2, "rollout": CANARY})
    scene.commit("a", route=None)
    scene.settle()
    assert all(i.serving for i in scene.instances.values())
    names = set(scene.instances)
    scene.commit("a", route=ROUTE)
    scene.settle()
    assert scene.split() == "a 100"
    assert set(scene.instances) == names
    assert scene.service.sync is Sync.SYNCED
    assert all(i.serving for i in scene.instances.values()), "clients by name are not cut off"
    scene.commit("b")
    scene.settle()
    assert scene.serving() == ["b", "b"]
    assert scene.log.count("DetachTraffic") == 2
    assert len(scene.instances) == 2


@pytest.mark.parametrize("rollout", [CANARY, ROLLING])
def test_a_release_that_brings_a_route_stops_nothing_that_is_found_by_name(rollout: Rollout) -> None:
    scene = Fronted(None, common={"replicas": 2, "rollout": rollout, "route": None})
    scene.commit("a")
    scene.settle()
    scene.commit("b", route=ROUTE)
    scene.settle()
    assert scene.serving() == ["b", "b"]
    assert len(scene.instances) == 2


@pytest.mark.parametrize("letter", ["a", "b"])
def test_a_service_loses_its_route_and_is_found_by_name_again(letter: str) -> None:
    scene = fronted(rollout=CANARY)
    before = set(scene.instances)
    scene.commit(letter, route=None)
    scene.settle()
    running = scene.instances.values()
    assert [i.image[-1] for i in running] == [letter] * 2
    assert all(i.serving for i in running)
    assert scene.service.sync is Sync.SYNCED, scene.service
    assert "DriftFound" not in scene.log
    if letter == "a":
        assert set(scene.instances) == before
    first = scene.of(letter)[0]
    scene.change(first.name, serving=False)
    scene.settle()
    assert "DriftFound" in scene.log, "from then on its name is watched as for any other"
    assert all(i.serving for i in scene.instances.values())


def test_a_port_that_changes_with_the_version_is_used_for_each() -> None:
    scene = fronted(rollout=replace(CANARY, stages=(Stage(50, timedelta(seconds=10)),)))
    scene.commit("b", route=Route(9090))
    scene.settle_until("ShiftTraffic")
    places = scene.traffic.proxies(ENVIRONMENT)[0].backends[BACKEND].held
    assert sorted(port for _, port in places) == [8080, 8080, 9090]


def test_gated_release_is_stopped_by_a_dead_baseline_never() -> None:
    scene = released(5, GATED)
    for twin in scene.of("a", baseline=True):
        scene.die(twin)
    scene.settle()
    assert scene.serving() == ["b", "b"]
    assert scene.web.losses == ()

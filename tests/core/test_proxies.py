"""Proxies that are away, forgetful or full, and hands in their tables: nothing is taken or stopped, all comes back."""

from __future__ import annotations

import pytest

from reconciler.core.errors import Reason
from reconciler.core.live import HealthStatus, ServerMode
from reconciler.core.model import DriftPolicy
from reconciler.core.status import Sync
from tests.support.fronted import (
    BACKEND,
    CANARY,
    ROUTE,
    SLOW,
    WARM,
    Fronted,
    fronted,
    released,
)
from tests.support.scene import ENVIRONMENT

# Proxies that are not there


@pytest.mark.parametrize("proxies", [1, 2])
@pytest.mark.parametrize("weight", [5, 100])
def test_while_a_proxy_is_away_nothing_is_taken_and_nothing_stops(proxies: int, weight: int) -> None:
    scene = two_fronted(proxies, weight)
    scene.traffic.reach(ENVIRONMENT, proxies - 1, reachable=False)
    there = dict(scene.instances)
    scene.rounds(20, each=60)
    assert set(there) <= set(scene.instances)
    assert scene.service.reason is Reason.PROXY_UNREACHABLE
    assert scene.shifts == []
    assert "RolloutFailed" not in scene.log, "the version is not to blame"
    scene.traffic.reach(ENVIRONMENT, proxies - 1, reachable=True)
    scene.up_since = scene.now
    scene.settle()
    assert scene.serving() == ["b", "b"]


def two_fronted(proxies: int, weight: int) -> Fronted:
    scene = Fronted(None, proxies=proxies, common={"route": ROUTE, "replicas": 2, "rollout": SLOW})
    scene.commit("a")
    scene.settle()
    scene.commit("b")
    while f"b {weight}" not in scene.split():
        scene.rest()
        scene.later(10 if f"b {weight}" not in scene.split() else 0)
    scene.rest()
    scene.shifts.clear()
    scene.log.clear()
    return scene


def test_while_the_proxy_is_away_repairs_still_grow() -> None:
    scene = fronted(rollout=CANARY)
    scene.traffic.reach(ENVIRONMENT, 0, reachable=False)
    scene.die(scene.of("a")[0])
    scene.rounds(3)
    running = [i for i in scene.of("a") if i.address]
    assert len(running) == 2
    scene.traffic.reach(ENVIRONMENT, 0, reachable=True)
    scene.settle()
    assert scene.serving() == ["a", "a"]
    assert len(scene.instances) == 2


def test_a_release_grows_while_the_proxy_is_away_and_goes_on_when_it_is_back() -> None:
    scene = fronted(rollout=CANARY)
    scene.traffic.reach(ENVIRONMENT, 0, reachable=False)
    scene.commit("b")
    scene.rounds(4, each=200)
    assert len(scene.of("b")) == 1
    assert "RolloutFailed" not in scene.log
    scene.traffic.reach(ENVIRONMENT, 0, reachable=True)
    scene.up_since = scene.now
    scene.settle()
    assert scene.path == ["a 95 b 5", "a 50 b 50", "b 100"]


@pytest.mark.parametrize("drift", list(DriftPolicy))
@pytest.mark.parametrize("weight", [0, 50])
def test_a_proxy_that_lost_its_state_gets_its_table_again(drift: DriftPolicy, weight: int) -> None:
    scene = released(weight, drift=drift) if weight else fronted(rollout=SLOW, drift=drift)
    split, names = scene.split(), set(scene.instances)
    scene.traffic.forget(ENVIRONMENT)
    assert scene.service.reason is Reason.DRIFT_TRAFFIC
    scene.rest()
    assert scene.split() == split
    assert set(scene.instances) == names, "no instance is replaced for it"
    assert scene.log.count("DriftFound") == 1
    scene.settle()
    assert scene.log.count("DriftRepaired") == 1
    assert scene.serving() == ["b" if weight else "a"] * 2


def test_one_of_two_proxies_that_lost_its_state_gets_its_table_again() -> None:
    scene = two_fronted(2, 50)
    scene.traffic.forget(ENVIRONMENT, 1)
    scene.rest()
    held = [proxy.backends[BACKEND].held for proxy in scene.traffic.proxies(ENVIRONMENT)]
    assert held[0] == held[1] and held[0]


def test_a_weight_that_was_changed_by_hand_is_corrected_and_told() -> None:
    scene = fronted(rollout=CANARY)
    first = scene.of("a")[0]
    scene.traffic.by_hand(ENVIRONMENT, BACKEND, scene.at(first), weight=1)
    assert "ready 100 -> ready 1" in scene.service.message
    scene.settle()
    assert scene.place(first) == "ready 100"
    assert [word for word in scene.log if "Drift" in word] == ["DriftFound", "DriftRepaired"]
    assert scene.service.sync is Sync.SYNCED


def test_a_weight_that_was_changed_by_hand_is_only_told_where_git_says_so() -> None:
    scene = fronted(rollout=CANARY, drift=DriftPolicy.REPORT)
    first = scene.of("a")[0]
    scene.traffic.by_hand(ENVIRONMENT, BACKEND, scene.at(first), weight=1)
    scene.settle()
    assert scene.place(first) == "ready 1"
    assert scene.log == ["DriftFound"]
    scene.traffic.by_hand(ENVIRONMENT, BACKEND, scene.at(first), weight=100)
    scene.settle()
    assert scene.log == ["DriftFound", "DriftRepaired"]


def test_an_instance_that_somebody_put_into_maintenance_comes_back() -> None:
    scene = fronted(rollout=CANARY)
    first = scene.of("a")[0]
    scene.traffic.by_hand(ENVIRONMENT, BACKEND, scene.at(first), mode=ServerMode.MAINT)
    scene.settle()
    assert scene.place(first) == "ready 100"


def test_an_address_of_somebody_who_is_gone_is_freed_before_anything_starts() -> None:
    scene = fronted(rollout=CANARY)
    lost = scene.of("a")[0]
    at_address = scene.at(lost)
    scene.die(lost)
    found = scene.look()
    assert [type(step).__name__ for step in found.steps] == ["FreePlace"]
    scene.settle()
    assert scene.log.index("FreePlace") < scene.log.index("StartInstance")
    assert at_address not in scene.traffic.proxies(ENVIRONMENT)[0].backends[BACKEND].held


def test_an_address_that_stands_in_the_proxy_still_proves_nothing_about_its_new_owner() -> None:
    scene = fronted(rollout=CANARY, warm_up=WARM)
    lost, other = scene.of("a")
    scene.die(lost)
    scene.traffic.reach(ENVIRONMENT, 0, reachable=False)
    scene.rounds(2)
    (new,) = [i for i in scene.of("a") if i.name not in (lost.name, other.name)]
    scene.change(new.name, address=lost.address, health=HealthStatus.STARTING, warmth=None)
    scene.traffic.reach(ENVIRONMENT, 0, reachable=True)
    scene.step()
    assert new.name not in [i.name for i in scene.taking()]
    scene.settle()
    assert len(scene.serving()) == 2


def test_without_free_places_nothing_is_taken_and_nothing_stops() -> None:
    scene = fronted(rollout=CANARY)
    scene.traffic.proxies(ENVIRONMENT)[0].backends[BACKEND].places = 2
    scene.commit("b")
    scene.rounds(6)
    assert {error.reason for error in scene.failures} == {Reason.PROXY_FULL}
    assert scene.split() == "a 100"
    assert "TerminateInstance" not in scene.log
    scene.traffic.proxies(ENVIRONMENT)[0].backends[BACKEND].places = 8
    scene.settle()
    assert scene.serving() == ["b", "b"]

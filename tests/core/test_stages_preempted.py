"""Releases in stages behind a proxy: another commit in each of their states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from reconciler.core.delivery import Stage, Strategy
from tests.core.test_stages import paused
from tests.support.fronted import (
    CANARY,
    HELD,
    Fronted,
    fronted,
)


def growing() -> Fronted:
    scene = fronted(rollout=CANARY)
    scene.commit("b")
    scene.settle_until("StartInstance")
    return scene


def shifted() -> Fronted:
    scene = fronted(rollout=CANARY)
    scene.commit("b")
    scene.settle_until("ShiftTraffic")
    return scene


def soaking() -> Fronted:
    scene = shifted()
    scene.rest()
    scene.later(5)
    return scene


def passed() -> Fronted:
    scene = soaking()
    scene.later(5)
    scene.until("StagePassed")
    return scene


def at_half() -> Fronted:
    scene = soaking()
    scene.later(5)
    scene.rest()
    assert scene.split() == "a 50 b 50"
    return scene


def at_full() -> Fronted:
    scene = fronted(rollout=replace(CANARY, soak=timedelta(minutes=1)))
    scene.commit("b")
    for _ in range(3):
        scene.rest()
        scene.later(10)
    assert scene.split() == "b 100" and "Promoted" not in scene.log
    return scene


def promoted() -> Fronted:
    scene = fronted(rollout=CANARY)
    scene.commit("b")
    scene.settle_until("Promoted")
    return scene


def held() -> Fronted:
    scene = fronted(rollout=HELD)
    scene.commit("b")
    scene.settle()
    return scene


def returning() -> Fronted:
    scene = at_half()
    for instance in scene.of("b"):
        scene.sessions(instance, 1)
    scene.sick.add(scene.wanted.version)
    scene.live()
    scene.settle_until("ShiftTraffic")
    return scene


STATES = [growing, shifted, soaking, paused, passed, at_half, at_full, promoted, held, returning]


@pytest.mark.parametrize("state", STATES)
def test_a_third_version_takes_over_from_any_state(state: Callable[[], Fronted]) -> None:
    scene = state()
    scene.shifts.clear()
    scene.watch = never_nobody
    scene.commit("c", rollout=CANARY)
    scene.rest()
    assert "b" not in scene.split() or state in (promoted, held), "what was overtaken loses its traffic first"
    for instance in scene.of("b"):
        scene.sessions(instance, 0)
    scene.settle()
    assert scene.serving() == ["c", "c"]
    assert len(scene.instances) == 2
    assert scene.web.quarantine == {}, "and Git has forgotten what failed"


@pytest.mark.parametrize("state", STATES[:-3])
def test_a_revert_before_the_promotion_is_one_shift_without_gates(state: Callable[[], Fronted]) -> None:
    scene = state()
    scene.shifts.clear()
    scene.log.clear()
    scene.watch = never_nobody
    scene.commit("a")
    scene.rest()
    assert scene.path in ([], ["a 100"])
    assert scene.log.count("RolloutSuperseded") == 1
    assert "StagePassed" not in scene.log and "RolloutStarted" not in scene.log
    scene.settle()
    assert scene.serving() == ["a", "a"]
    assert len(scene.instances) == 2


@pytest.mark.parametrize("state", STATES[:-3])
def test_there_and_back_and_there_again_begins_at_the_first_stage(state: Callable[[], Fronted]) -> None:
    scene = state()
    version = scene.wanted.version
    for instance in scene.taking():
        scene.sessions(instance, 1)
    scene.commit("a")
    scene.step()
    assert "RolloutSuperseded" in scene.log
    scene.shifts.clear()
    scene.commit("b", rollout=CANARY)
    scene.rest()
    assert scene.wanted.version == version
    assert scene.shifts[-1] == "a 95 b 5"
    for instance in scene.instances.values():
        scene.sessions(instance, 0)
    scene.settle()
    assert scene.path[-1] == "b 100"
    assert scene.serving() == ["b", "b"]


def test_a_shorter_plan_does_not_skip_the_last_soak() -> None:
    long = replace(CANARY, stages=tuple(Stage(w, timedelta(seconds=10)) for w in (5, 10, 20, 40)))
    scene = fronted(rollout=long, replicas=1)
    scene.commit("b")
    for _ in range(3):
        scene.rest()
        scene.later(10)
    scene.rest()
    assert scene.split() == "a 60 b 40"
    scene.commit("b", rollout=replace(long, stages=(Stage(50),), soak=timedelta(seconds=60)))
    scene.rest()
    assert scene.split() == "b 100" and "Promoted" not in scene.log
    scene.later(59)
    scene.rest()
    assert "Promoted" not in scene.log
    scene.later(1)
    scene.settle()
    assert "Promoted" in scene.log


def test_a_strategy_without_stages_in_the_middle_of_a_canary_ends_it_as_a_rolling_release() -> None:
    scene = soaking()
    scene.watch = never_nobody
    scene.commit("b", rollout=replace(CANARY, strategy=Strategy.ROLLING, stages=()))
    scene.settle()
    assert scene.serving() == ["b", "b"]


def never_nobody(scene: Fronted) -> None:
    assert scene.serving(), "nobody serves: " + " ".join(scene.log[-20:])

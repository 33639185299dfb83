"""What could hurt a service while it is released: failures at each stage, a stable side that is not well, warmth."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from reconciler.core.delivery import Against, Gate, Rollout
from reconciler.core.errors import Reason
from reconciler.core.live import HealthStatus, ServerMode, Warmth, WarmthStatus
from reconciler.core.memory import EnvironmentMemory
from reconciler.core.stages import compared
from reconciler.core.status import ServiceHealth, Sync
from reconciler.core.steps import ShiftTraffic, TerminateInstance
from tests.support.fronted import (
    BLUE_GREEN,
    CANARY,
    FAIL,
    GATED,
    HELD,
    ROLLING,
    SLOW,
    WARM,
    Fronted,
    fewest,
    fronted,
    released,
)

# A gate that finds fault


@pytest.mark.parametrize("rollout", [SLOW, replace(SLOW, gate=Gate())], ids=["", "baseline"])
@pytest.mark.parametrize("weight", [5, 50, 100])
def test_weights_go_back_first_and_the_candidate_goes_when_it_is_drained(weight: int, rollout: Rollout) -> None:
    scene = released(weight, rollout)
    candidates = scene.of("b")
    for instance in candidates:
        scene.sessions(instance, 1)
    scene.finding = FAIL
    scene.watch = fewest(2)
    scene.rest()
    assert scene.log[0] == "RolloutFailed"
    assert scene.shifts[0] == "a 100", "all of it in the first table"
    assert {scene.place(i).split()[0] for i in candidates} == {"drain"}
    assert {scene.place(i) for i in scene.of("a")} == {"ready 100"}
    assert len(scene.of("b")) == len(candidates), "none stops while it has requests"
    for instance in candidates:
        scene.sessions(instance, 0)
    scene.settle()
    assert scene.of("b") == [] and scene.of("a", baseline=True) == []
    assert scene.serving() == ["a", "a"]
    assert scene.web.quarantine[scene.wanted.version].reason == Reason.GATE_FAILED
    assert scene.log.count("RolledBack") == 1
    assert (scene.service.sync, scene.service.health) == (Sync.OUT_OF_SYNC, ServiceHealth.HEALTHY)


def test_a_failed_version_is_not_tried_again_however_often_is_looked() -> None:
    scene = released(50)
    scene.finding = FAIL
    scene.settle()
    scene.log.clear()
    scene.rounds(20, each=600)
    assert scene.log == []
    assert scene.service.reason is Reason.QUARANTINED


def test_a_second_failure_after_another_commit_cannot_loop() -> None:
    scene = released(50)
    scene.finding = FAIL
    scene.settle()
    scene.commit("c")
    scene.settle()
    assert scene.log.count("RolloutFailed") == 2
    assert scene.wanted.version in scene.web.quarantine
    scene.log.clear()
    scene.rounds(10, each=100)
    assert scene.log == []
    assert scene.serving() == ["a", "a"]


def test_blue_green_returns_after_the_switch_when_it_fails() -> None:
    scene = released(100, replace(BLUE_GREEN, soak=timedelta(seconds=60)))
    assert len(scene.of("a")) == 2
    scene.sick.add(scene.wanted.version)
    scene.live()
    scene.rest()
    assert scene.shifts[0] == "a 100"
    assert "CreateInstance" not in scene.log
    scene.settle()
    assert scene.web.quarantine[scene.wanted.version].reason == Reason.UNHEALTHY
    assert scene.serving() == ["a", "a"]


def test_a_candidate_that_never_gets_healthy_gets_no_traffic() -> None:
    scene = fronted(rollout=CANARY)
    scene.sick.add(scene.commit("b"))
    scene.settle()
    assert scene.shifts == []
    assert scene.web.quarantine[scene.wanted.version].reason == Reason.STARTUP_DEADLINE


def test_a_candidate_that_grows_for_too_long_fails() -> None:
    scene = fronted(rollout=CANARY)
    version = scene.commit("b")
    scene.until("StartInstance")
    scene.live = lambda: None  # type: ignore[method-assign]
    scene.later(300)
    scene.step()
    assert scene.web.quarantine[version].reason == Reason.PROGRESS_DEADLINE


# A stable version that is not well


def test_where_all_of_the_stable_ones_are_dead_a_proven_candidate_takes_over() -> None:
    scene = released(5)
    for instance in scene.of("a"):
        scene.die(instance)
    scene.step()
    assert scene.split() == "b 100"
    assert scene.log.count("InstanceLost") == 2
    scene.rest()
    assert scene.split() == "a 95 b 5", "they were made anew, and the stage goes on"


def test_a_stable_version_that_was_dead_before_the_release_is_replaced() -> None:
    scene = fronted(rollout=CANARY)
    stable = scene.wanted.version
    scene.dying.add(stable)
    scene.live()
    scene.commit("b")
    for _ in range(30):
        scene.step()
        scene.later(2)
    scene.settle()
    assert scene.web.stable.version == scene.wanted.version
    assert scene.serving() == ["b", "b"]


def test_the_stable_version_is_repaired_during_a_long_canary() -> None:
    scene = released(5)
    lost = scene.of("a")[0]
    scene.watch = fewest(2)
    scene.die(lost)
    scene.rest()
    assert len(scene.of("a")) == 2
    assert scene.split() == "a 95 b 5"
    assert scene.log.count("InstanceLost") == 1
    assert scene.web.lost == frozenset()
    assert "RolloutFailed" not in scene.log
    scene.settle()
    assert scene.serving() == ["b", "b"]


def test_a_stable_instance_that_falls_sick_is_replaced_and_the_last_one_stays() -> None:
    scene = released(5, replicas=1)
    (old,) = scene.of("a")
    scene.change(old.name, health=HealthStatus.UNHEALTHY)
    scene.live = lambda: None  # type: ignore[method-assign]
    scene.step()
    assert scene.place(old).startswith("drain"), "a candidate serves"
    for candidate in scene.of("b"):
        scene.change(candidate.name, health=HealthStatus.UNHEALTHY)
    scene.step()
    assert "RolloutFailed" in scene.log


def test_the_last_instances_stay_although_they_are_sick() -> None:
    scene = fronted(rollout=ROLLING)
    scene.sick.add(scene.wanted.version)
    scene.live()
    scene.rounds(3)
    assert len(scene.taking()) == 2, "sick ones are better than none"
    assert "enough healthy instances before old ones go" in scene.service.waiting


@pytest.mark.parametrize(("surge", "unavailable", "most", "least"), [(1, 0, 4, 3), (2, 0, 5, 3), (0, 1, 3, 2)])
def test_a_rolling_release_keeps_to_surge_and_unavailable(surge: int, unavailable: int, most: int, least: int) -> None:
    scene = fronted(rollout=replace(ROLLING, surge=surge, unavailable=unavailable), replicas=3)

    def look(world: Fronted) -> None:
        assert len(world.serving()) >= least
        going = world.web.detached.keys() | world.web.terminated.keys()
        assert len([i for i in world.instances.values() if i.name not in going]) <= most

    scene.watch = look
    scene.commit("b")
    scene.settle()
    assert scene.serving() == ["b", "b", "b"]


def test_a_candidate_that_is_only_shown_lets_no_stable_one_go() -> None:
    scene = fronted(rollout=replace(BLUE_GREEN, preview_soak=timedelta(minutes=1)), replicas=1)
    (old,) = scene.of("a")
    scene.change(old.name, health=HealthStatus.UNHEALTHY)
    scene.until("InstanceLost")
    scene.live()
    scene.watch = fewest(1)
    scene.commit("b")
    scene.settle()
    assert scene.serving() == ["b"]


def test_a_baseline_that_is_the_last_of_the_stable_version_keeps_its_traffic_for_another_candidate() -> None:
    scene = released(5, GATED, replicas=1)
    for instance in [*scene.of("a"), *scene.of("b")]:
        scene.die(instance)
    scene.watch = fewest(1)
    scene.commit("c")
    scene.settle()
    assert scene.serving() == ["c"]


def test_what_drains_comes_back_when_all_others_are_lost() -> None:
    scene = fronted(rollout=ROLLING, replicas=1)
    (old,) = scene.of("a")
    scene.sessions(old, 1)
    scene.commit("b")
    scene.rest()
    scene.die(scene.of("b")[0])
    scene.settle()
    assert scene.path == ["b 100", "a 100", "b 100"]
    assert scene.of("a") == [], "it goes when the new one is repaired"


def test_the_version_before_takes_over_while_it_is_held_and_all_of_the_new_one_is_dead() -> None:
    scene = fronted(rollout=HELD, replicas=1)
    scene.commit("b")
    scene.settle()
    scene.shifts.clear()
    scene.die(scene.of("b")[0])
    scene.settle()
    assert scene.path == ["a 100", "b 100"], "until the new one is repaired"
    assert len(scene.of("a")) == 1, "and then it is held again"


@pytest.mark.parametrize("against", list(Against))
def test_a_candidate_is_compared_with_its_baseline_or_with_all_of_the_stable_ones(against: Against) -> None:
    scene = released(5, GATED)
    found = compared(scene.web, against, list(scene.instances.values()))
    beside = scene.of("a", baseline=against is Against.BASELINE)
    assert [{i.name for i in side} for side in found] == [{i.name for i in scene.of("b")}, {i.name for i in beside}]
    scene.settle()
    assert compared(scene.web, against, list(scene.instances.values())) == ([], [])


# Warmth


def test_an_instance_gets_traffic_only_when_it_is_warm_beside_a_stable_one() -> None:
    scene = fronted(rollout=CANARY, warm_up=WARM)
    scene.commit("b")
    scene.settle()
    assert scene.log.index("WarmInstance") < scene.log.index("InstanceWarm") < scene.log.index("ShiftTraffic")
    assert scene.log.count("InstanceWarm") == 2


def test_a_warm_up_that_fails_returns() -> None:
    scene = fronted(rollout=CANARY, warm_up=WARM)
    scene.cold.add(scene.commit("b"))
    scene.settle()
    assert scene.shifts == []
    failed = scene.web.quarantine[scene.wanted.version]
    assert failed.reason == Reason.WARM_UP_FAILED
    scene.log.clear()
    scene.rounds(5, each=60)
    assert scene.log == []


def test_a_repair_whose_warm_up_fails_serves_all_the_same() -> None:
    scene = fronted(rollout=CANARY, warm_up=WARM)
    scene.cold.add(scene.wanted.version)
    scene.die(scene.of("a")[0])
    scene.settle()
    assert scene.serving() == ["a", "a"]
    assert "RolloutFailed" not in scene.log
    assert "InstanceWarm" not in scene.log


def test_a_warm_up_that_goes_on_is_waited_for() -> None:
    scene = fronted(rollout=CANARY, warm_up=WARM)
    scene.commit("b")
    scene.until("WarmInstance")
    assert "to warm up (0 requests)" in scene.service.waiting


def test_warmth_that_a_restart_forgot_is_made_anew_only_before_the_first_traffic() -> None:
    scene = fronted(rollout=CANARY, warm_up=WARM)
    scene.commit("b")
    scene.until("InstanceWarm")
    (candidate,) = scene.of("b")
    scene.change(candidate.name, warmth=None)
    scene.settle_until("WarmInstance")
    scene.settle_until("ShiftTraffic")
    for instance in scene.instances.values():
        scene.change(instance.name, warmth=None)
    scene.log.clear()
    scene.rest()
    assert "WarmInstance" not in scene.log
    assert scene.split() == "a 95 b 5"


def test_the_p95_stands_in_the_record_in_milliseconds() -> None:
    scene = fronted(rollout=CANARY, warm_up=WARM)
    scene.commit("b")
    scene.until("WarmInstance")
    (candidate,) = scene.of("b")
    for p95, expected in ((0.0125, {"p95Ms": "12.5"}), (None, {})):
        scene.change(candidate.name, warmth=Warmth(WarmthStatus.WARM, 20, p95, "warm"))
        (step,) = [s for s in scene.service.steps if getattr(s, "what", "") == "InstanceWarm"]
        assert step.details == {"name": candidate.name, "requests": 20, "said": "warm", **expected}


# A daemon that starts again


@pytest.mark.parametrize("weight", [5, 50, 100])
def test_health_that_is_not_known_yet_takes_nothing_out_of_traffic(weight: int) -> None:
    scene = released(weight)
    before = {i.name: scene.place(i) for i in scene.instances.values()}
    for name in scene.instances:
        scene.change(name, health=HealthStatus.STARTING)
    assert not scene.service.steps
    assert {i.name: scene.place(i) for i in scene.instances.values()} == before
    scene.settle()
    assert scene.serving() == ["b", "b"]


def test_health_that_is_not_known_yet_lets_no_old_one_go() -> None:
    scene = fronted(rollout=ROLLING)
    scene.commit("b")
    scene.settle_until("ShiftTraffic")
    for name in scene.instances:
        scene.change(name, health=HealthStatus.STARTING)
    ready = {i.name for i in scene.taking()}
    assert not any(isinstance(step, TerminateInstance) for step in scene.service.steps)
    (shift,) = [step for step in scene.service.steps if isinstance(step, ShiftTraffic)]
    assert {share.name for share in shift.shares if share.mode is ServerMode.READY} == ready


def test_a_lost_journal_adopts_what_the_proxies_serve_and_moves_nothing() -> None:
    scene = fronted(rollout=CANARY)
    scene.memory = EnvironmentMemory()
    scene.settle()
    assert scene.log[0] == "Adopted"
    assert {"CreateInstance", "TerminateInstance", "StartInstance"}.isdisjoint(scene.log)
    assert scene.split() == "a 100"
    assert scene.service.sync is Sync.SYNCED


@pytest.mark.parametrize("applied", [False, True])
def test_a_shift_without_an_outcome_is_done_again_and_reaches_its_stage(applied: bool) -> None:
    scene = fronted(rollout=CANARY)
    scene.commit("b")
    scene.until("InstanceHealthy")
    scene.traffic.fail(applied=applied)
    scene.step()
    assert len(scene.failures) == 1
    assert scene.web.shares is None
    assert scene.service.steps
    scene.settle()
    assert scene.path[-3:] == ["a 95 b 5", "a 50 b 50", "b 100"]

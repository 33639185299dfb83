"""The number of instances by demand: more and fewer, during a release on both sides, asleep and awake."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from reconciler.core.analysis import Verdict
from reconciler.core.delivery import Rollout, Scaling, Strategy, Volume
from reconciler.core.errors import Reason
from reconciler.core.freeze import Held
from reconciler.core.gate import GateFinding
from reconciler.core.model import DriftPolicy
from reconciler.core.scaling import Decision
from reconciler.core.status import ServiceHealth, Sync
from tests.support.fronted import BLUE_GREEN, CANARY, GATED, Fronted, fronted

SCALING = Scaling(1, 6, sessions=10)
SLEEPY = replace(SCALING, minimum=0)


def scaled(count: int = 2, rollout: Rollout = CANARY, scaling: Scaling = SCALING, **changes: object) -> Fronted:
    """A stable service of a with so many instances."""
    scene = fronted(rollout=rollout, scaling=scaling, **changes)
    ask(scene, count)
    scene.settle()
    scene.log.clear()
    scene.shifts.clear()
    return scene


def ask(scene: Fronted, count: int) -> None:
    scene.demand = Decision(count, f"{count} are asked for", None)


def test_more_are_made_and_get_traffic_when_they_are_proven() -> None:
    scene = scaled(2)
    ask(scene, 4)
    scene.settle()
    assert scene.serving() == ["a"] * 4
    assert scene.log.count("Scaled") == 1
    assert scene.web.scale == 4
    assert (scene.service.sync, scene.service.replicas) == (Sync.SYNCED, 4)
    assert "RolloutStarted" not in scene.log


def test_fewer_are_drained_before_they_stop() -> None:
    scene = scaled(4)
    for instance in scene.taking():
        scene.sessions(instance, 1)
    ask(scene, 1)
    scene.rest()
    assert len(scene.taking()) == 1
    assert len(scene.instances) == 4
    for instance in scene.instances.values():
        scene.sessions(instance, 0)
    scene.settle()
    assert len(scene.instances) == 1
    assert "InstanceLost" not in scene.log and "DriftFound" not in scene.log


def test_the_number_holds_while_nothing_is_known_of_the_demand() -> None:
    scene = scaled(4)
    scene.demand = None
    scene.settle()
    assert len(scene.instances) == 4
    assert scene.log == []


def test_limits_that_change_in_git_hold_at_once() -> None:
    scene = scaled(4)
    scene.demand = None
    scene.commit("a", scaling=replace(SCALING, maximum=3))
    scene.settle()
    assert len(scene.instances) == 3
    scene.commit("a", scaling=replace(SCALING, minimum=5))
    scene.settle()
    assert len(scene.instances) == 5


def test_the_next_look_is_when_the_decision_says() -> None:
    scene = scaled(2)
    scene.demand = Decision(2, "enough", scene.now + timedelta(seconds=15))
    assert scene.service.recheck_at == scene.now + timedelta(seconds=15)


def test_a_lost_instance_is_made_anew_up_to_the_number_of_the_demand() -> None:
    scene = scaled(3)
    scene.die(scene.of("a")[0])
    scene.settle()
    assert scene.serving() == ["a"] * 3
    assert scene.log.count("InstanceLost") == 1


# During a release


def test_both_sides_scale_during_a_canary() -> None:
    scene = scaled(2)
    scene.commit("b")
    scene.rest()
    scene.later(10)
    scene.rest()
    assert (scene.split(), len(scene.of("a")), len(scene.of("b"))) == ("a 50 b 50", 2, 1)
    ask(scene, 6)
    scene.rest()
    assert (scene.split(), len(scene.of("a")), len(scene.of("b"))) == ("a 50 b 50", 6, 3)
    ask(scene, 4)
    scene.rest()
    assert (scene.split(), len(scene.of("a")), len(scene.of("b"))) == ("a 50 b 50", 4, 2)
    scene.settle()
    assert scene.serving() == ["b"] * 4
    assert scene.web.losses == ()


def test_a_baseline_scales_with_the_candidate() -> None:
    scene = scaled(2, GATED)
    scene.finding = GateFinding(Verdict.HOLD, "too few")
    scene.commit("b")
    scene.rest()
    ask(scene, 6)
    scene.rest()
    assert len(scene.of("a", baseline=True)) == len(scene.of("b")) == 1
    assert len(scene.of("a")) == 6


def test_a_return_comes_back_to_the_number_that_is_asked_for_now() -> None:
    scene = scaled(2)
    scene.commit("b")
    scene.rest()
    ask(scene, 4)
    scene.rest()
    scene.finding = GateFinding(Verdict.FAIL, "errors")
    scene.settle()
    assert scene.serving() == ["a"] * 4
    ask(scene, 2)
    scene.settle()
    assert scene.serving() == ["a"] * 2


def test_a_green_side_that_became_too_small_grows_before_the_switch() -> None:
    scene = scaled(2, replace(BLUE_GREEN, preview_soak=timedelta(seconds=30)))
    scene.commit("b")
    scene.rest()
    ask(scene, 5)
    scene.later(30)
    scene.watch = lambda world: None if len(world.serving()) >= 2 else 1 / 0
    scene.settle()
    assert scene.serving() == ["b"] * 5


# Asleep


def asleep(rollout: Rollout = CANARY, **changes: object) -> Fronted:
    scene = scaled(0, rollout, SLEEPY, **changes)
    assert scene.instances == {}
    return scene


def test_a_service_sleeps_and_that_is_as_it_should_be() -> None:
    scene = asleep()
    assert (scene.service.sync, scene.service.health) == (Sync.SYNCED, ServiceHealth.HEALTHY)
    assert not scene.step()
    assert "DriftFound" not in scene.log


def test_where_drift_is_only_reported_a_service_sleeps_and_wakes_too() -> None:
    scene = asleep(drift=DriftPolicy.REPORT)
    assert scene.log == []
    ask(scene, 1)
    scene.settle()
    assert scene.serving() == ["a"]
    assert "DriftFound" not in scene.log


def test_a_request_wakes_it() -> None:
    scene = asleep()
    ask(scene, 1)
    scene.settle()
    assert scene.serving() == ["a"]
    assert "RolloutStarted" not in scene.log


def test_a_release_while_it_sleeps_is_tried_with_one_instance_beside_one_of_the_stable_version() -> None:
    scene = asleep()
    scene.commit("b")
    scene.rest()
    assert (len(scene.of("a")), len(scene.of("b"))) == (1, 1)
    assert scene.split() == "a 95 b 5"
    scene.settle()
    assert scene.web.stable is not None and scene.web.stable.version == scene.wanted.version
    assert scene.instances == {}, "and it sleeps again"
    assert scene.service.sync is Sync.SYNCED
    ask(scene, 2)
    scene.settle()
    assert scene.serving() == ["b", "b"]


def test_a_release_that_fails_while_the_service_sleeps_leaves_it_asleep() -> None:
    scene = asleep()
    scene.sick.add(scene.commit("b"))
    scene.settle()
    assert scene.wanted.version in scene.web.quarantine
    assert scene.instances == {}
    ask(scene, 1)
    scene.settle()
    assert scene.serving() == ["a"]


def test_a_release_that_waits_for_the_end_of_a_freeze_does_not_wake_it() -> None:
    scene = asleep()
    scene.held = Held(Reason.FROZEN, "frozen")
    scene.commit("b")
    scene.settle()
    assert scene.instances == {}


def test_the_first_version_is_tried_also_where_nobody_asks_for_it() -> None:
    scene = Fronted(None, common={})
    ask(scene, 0)
    scene.commit("a", rollout=CANARY, scaling=SLEEPY, route=fronted().common["route"])
    scene.settle()
    assert "Promoted" in scene.log
    assert scene.instances == {}


def test_of_a_version_that_can_run_once_only_there_is_one_however_many_are_asked_for() -> None:
    alone = (Volume("data", "/data"),)
    scene = fronted(
        rollout=Rollout(Strategy.RECREATE, progress_deadline=timedelta(minutes=5)), volumes=alone, replicas=1
    )
    scene.commit("b", volumes=(), scaling=SCALING, rollout=CANARY)
    ask(scene, 3)
    scene.until("CreateInstance")
    scene.sick.add(scene.wanted.version)
    scene.settle()
    assert scene.serving() == ["a"]
    assert len(scene.instances) == 1


def test_where_nothing_was_decided_yet_as_many_stay_as_run() -> None:
    scene = fronted(rollout=CANARY, replicas=4)
    scene.commit("a", scaling=SCALING, replicas=1)
    scene.settle()
    assert scene.serving() == ["a"] * 4, "nobody knows the demand yet"
    ask(scene, 2)
    scene.settle()
    assert scene.serving() == ["a"] * 2


def test_a_number_in_git_ends_what_demand_decided() -> None:
    scene = scaled(4)
    scene.commit("a", scaling=None, replicas=3)
    scene.settle()
    assert scene.serving() == ["a"] * 3
    assert scene.web.scale == 3
    scene.log.clear()
    scene.settle()
    assert scene.log == []

"""Releases in stages behind a proxy: each row of the stage table."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from reconciler.core.delivery import Against, Gate, Rollout, Route, Stage, Undecided
from reconciler.core.errors import Reason
from reconciler.core.live import ServerMode
from reconciler.core.record import What
from reconciler.core.status import ServiceHealth, Sync
from tests.support.fronted import (
    BLUE_GREEN,
    CANARY,
    GATED,
    HELD,
    HOLD,
    PASS,
    Fronted,
    fronted,
)

PAUSED = replace(CANARY, stages=(Stage(5, timedelta(seconds=10), pause=True), Stage(50, timedelta(seconds=10))))
AGAINST_STABLE = replace(GATED, gate=Gate(against=Against.STABLE))


def test_a_canary_goes_up_step_by_step_and_the_old_ones_go_last() -> None:
    scene = fronted(rollout=CANARY)
    scene.commit("b")
    scene.settle()
    assert scene.path == ["a 95 b 5", "a 50 b 50", "b 100"]
    assert scene.log.count("StagePassed") == 2
    assert scene.log.index("Promoted") < scene.log.index("TerminateInstance")
    assert scene.log[-2:] == ["RemoveInstance", "RemoveInstance"]
    assert (scene.service.sync, scene.service.health) == (Sync.SYNCED, ServiceHealth.HEALTHY)
    assert not scene.step(), "a second look does nothing"


def test_a_candidate_has_as_many_instances_as_its_share_needs() -> None:
    scene = fronted(rollout=CANARY, replicas=4)
    scene.commit("b")
    scene.settle_until("ShiftTraffic")
    assert len(scene.of("b")) == 1
    scene.settle_until("ShiftTraffic")
    assert (len(scene.of("a")), len(scene.of("b"))) == (4, 2)
    scene.settle_until("Promoted")
    assert len(scene.of("b")) == 4


def test_each_soak_lasts_as_long_as_is_declared() -> None:
    scene = fronted(rollout=replace(CANARY, soak=timedelta(seconds=30)))
    began = scene.now
    scene.commit("b")
    scene.rest()
    assert scene.shifts == ["a 95 b 5"]
    assert "the soak of stage 1 (5 %)" in scene.service.waiting
    assert scene.service.recheck_at == began + timedelta(seconds=10)
    assert scene.service.health is ServiceHealth.PROGRESSING
    scene.later(9.9)
    assert not scene.step()
    scene.later(0.1)
    scene.rest()
    assert scene.shifts == ["a 95 b 5", "a 50 b 50"]
    scene.later(10)
    scene.rest()
    assert scene.shifts[-1] == "b 100"
    scene.later(29)
    assert not scene.step()
    scene.later(1)
    scene.settle()
    assert "Promoted" in scene.log


def test_blue_green_shows_first_then_switches_and_holds() -> None:
    route = Route(8080, preview="next.example.org")
    scene = fronted(rollout=replace(BLUE_GREEN, preview_soak=timedelta(seconds=20)), route=route)
    scene.commit("b")
    scene.rest()
    assert scene.split() == "a 100"
    previewed = [i.image[-1] for i in scene.joined().instances if i.preview and i.preview.mode is ServerMode.READY]
    assert previewed == ["b", "b"], "all of the new ones, before any traffic"
    scene.later(20)
    scene.rest()
    assert scene.shifts == ["a 100", "b 100"]
    assert scene.web.stable is not None and scene.web.stable.version == scene.wanted.version
    assert len(scene.of("a")) == 2, "held for an instant return"
    assert {scene.place(i) for i in scene.of("a")} == {"drain 100"}
    assert scene.service.recheck_at == scene.now + timedelta(minutes=5)
    assert scene.service.sync is Sync.SYNCED
    scene.later(300)
    scene.settle()
    assert len(scene.instances) == 2


def test_the_version_before_returns_in_one_shift_while_it_is_held() -> None:
    scene = fronted(rollout=HELD)
    scene.commit("b")
    scene.settle()
    scene.shifts.clear()
    scene.commit("a")
    scene.settle_until("ShiftTraffic")
    assert scene.shifts == ["a 100"]
    assert "StagePassed" not in scene.log and "CreateInstance" not in scene.log
    scene.settle()
    assert scene.web.stable.version == scene.wanted.version
    assert len(scene.of("b")) == 2, "now that one is held"
    scene.commit("b")
    scene.settle_until("ShiftTraffic")
    assert scene.split() == "b 100"


def test_a_version_that_came_back_after_its_hold_goes_through_all_stages() -> None:
    scene = fronted(rollout=CANARY, replicas=1)
    scene.commit("b")
    scene.settle()
    scene.shifts.clear()
    scene.commit("a")
    scene.settle()
    assert scene.path == ["a 5 b 95", "a 50 b 50", "a 100"]


def test_the_first_version_of_a_service_needs_no_stages() -> None:
    scene = Fronted(None, common={})
    scene.commit("a", rollout=GATED, route=Route(8080), replicas=2)
    scene.settle()
    assert scene.log.count("StagePassed") == 0
    assert scene.split() == "a 100"


def test_no_instances_are_asked_for_and_none_is_tried() -> None:
    scene = fronted(rollout=CANARY, replicas=0)
    scene.commit("b")
    scene.settle()
    assert scene.instances == {}
    assert scene.web.stable.version == scene.wanted.version


# Pauses


def paused() -> Fronted:
    scene = fronted(rollout=PAUSED)
    scene.commit("b")
    scene.rest()
    scene.later(10)
    scene.rest()
    assert scene.log.count("Paused") == 1
    scene.log.clear()
    return scene


def test_a_pause_lasts_until_a_person_goes_on_and_has_no_deadline() -> None:
    scene = paused()
    assert scene.service.reason is Reason.PAUSED
    assert "reconciler promote" in scene.service.waiting
    assert scene.service.recheck_at is None
    scene.later(7 * 24 * 3600)
    assert not scene.step()
    scene.record(What.CONTINUED, details={})
    scene.settle()
    assert "RolloutFailed" not in scene.log
    assert scene.path == ["a 95 b 5", "a 50 b 50", "b 100"]


def test_a_commit_without_the_pause_goes_on_and_does_not_fail_for_the_time_that_passed() -> None:
    scene = paused()
    scene.later(24 * 3600)
    scene.commit("b", rollout=CANARY)
    scene.settle()
    assert scene.log[0] == "Continued"
    assert "RolloutFailed" not in scene.log
    assert scene.serving() == ["b", "b"]


def test_a_candidate_that_breaks_while_it_is_paused_returns() -> None:
    scene = paused()
    scene.sick.add(scene.wanted.version)
    scene.live()
    scene.settle()
    assert "RolloutFailed" in scene.log
    assert scene.split() == "a 100"


def test_a_pause_before_the_switch_of_blue_green() -> None:
    scene = fronted(rollout=replace(BLUE_GREEN, preview_pause=True))
    scene.commit("b")
    scene.settle()
    assert scene.service.message == "paused at stage 1 (0 %)"
    assert scene.split() == "a 100"
    scene.record(What.CONTINUED, details={})
    scene.settle()
    assert scene.split() == "b 100"


# Gates


def gated(rollout: Rollout = GATED) -> Fronted:
    """A canary that waits for its gate at 5 %."""
    scene = fronted(rollout=rollout)
    scene.commit("b")
    scene.rest()
    scene.later(10)
    scene.rest()
    assert scene.shifts[-1].endswith("b 5")
    return scene


def test_a_gate_that_passes_lets_each_stage_go_on() -> None:
    scene = gated()
    assert "the gate: nothing was seen yet" in scene.service.waiting
    scene.finding = PASS
    scene.settle()
    assert scene.path == ["a 95 b 5", "a 50 b 50", "b 100"]


def test_a_gate_that_holds_stays_until_it_passes() -> None:
    scene = gated()
    scene.finding = HOLD
    scene.rounds(20, each=10)
    assert scene.shifts == ["a 95 b 5"]
    assert "too few requests" in scene.service.waiting
    scene.finding = PASS
    scene.settle()
    assert scene.serving() == ["b", "b"]


def test_an_undecided_gate_returns_at_the_deadline() -> None:
    scene = gated()
    scene.finding = HOLD
    scene.later(299)
    assert not scene.step()
    scene.later(1)
    scene.settle()
    assert scene.web.quarantine[scene.wanted.version].reason == Reason.GATE_UNDECIDED
    assert scene.shifts[-1] == "a 100"


def test_a_gate_without_any_finding_is_undecided_too() -> None:
    scene = gated()
    scene.later(300)
    scene.settle()
    assert scene.web.quarantine[scene.wanted.version].reason == Reason.GATE_UNDECIDED


def test_an_undecided_gate_goes_on_where_that_is_declared_at_the_last_stage_too() -> None:
    scene = gated(replace(GATED, gate=Gate(undecided=Undecided.ADVANCE)))
    scene.finding = HOLD
    for share in ("a 50 b 50", "b 100"):
        scene.later(300)
        scene.rest()
        assert scene.shifts[-1] == share
        scene.later(10)
        assert not scene.step()
    scene.later(300)
    scene.settle()
    assert scene.log.count("StagePassed") == 2
    assert scene.web.stable.version == scene.wanted.version
    assert "RolloutFailed" not in scene.log


def test_the_baseline_is_as_many_gets_as_much_and_goes_before_the_last_stage() -> None:
    scene = fronted(rollout=GATED, replicas=4)
    scene.finding = PASS
    scene.commit("b")
    scene.rest()
    (twin,), (candidate,) = scene.of("a", baseline=True), scene.of("b")
    assert scene.place(twin) == scene.place(candidate)
    scene.later(10)
    scene.rest()
    assert (len(scene.of("a", baseline=True)), len(scene.of("b"))) == (1, 2), "half of what is left for the rest"
    assert {scene.place(i) for i in scene.of("a", baseline=True)} == {scene.place(i) for i in scene.of("b")}
    assert scene.split() == "a 50 b 50"
    scene.later(10)
    scene.settle()
    assert scene.serving() == ["b"] * 4
    assert scene.of("a", baseline=True) == []
    assert "InstanceLost" not in scene.log


def test_against_stable_no_baseline_is_made() -> None:
    scene = gated(AGAINST_STABLE)
    assert scene.of("a", baseline=True) == []
    assert len(scene.of("a")) == 2


def test_a_baseline_that_dies_is_no_loss_of_the_service_and_is_made_anew() -> None:
    scene = gated()
    (twin,) = scene.of("a", baseline=True)
    scene.die(twin)
    scene.rest()
    assert "InstanceLost" not in scene.log and scene.web.losses == ()
    (again,) = scene.of("a", baseline=True)
    assert again.name != twin.name or again.address != twin.address
    assert scene.split() == "a 95 b 5"

"""Canary and blue-green on an engine with controllers of its own: by weights, by numbers, by the address."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from reconciler.core.analysis import Verdict
from reconciler.core.delivery import Against, Gate, Query, Rollout, Route, Scaling, Stage, Strategy
from reconciler.core.errors import Reason
from reconciler.core.gate import GateFinding
from reconciler.core.groups import split
from reconciler.core.model import Drain
from reconciler.core.status import ServiceHealth
from tests.support.native_scene import NativeScene, native, never_down

CANARY = Rollout(
    Strategy.CANARY,
    progress_deadline=timedelta(minutes=5),
    stages=(Stage(10, timedelta(seconds=10)), Stage(50, timedelta(seconds=10))),
)
BLUE_GREEN = Rollout(Strategy.BLUE_GREEN, progress_deadline=timedelta(minutes=5), hold=timedelta(minutes=5))
PAUSED = Rollout(Strategy.CANARY, progress_deadline=timedelta(minutes=5), stages=(Stage(20, pause=True),))
GATE = Gate(Against.STABLE, errors=False, queries=(Query("errors", "x", maximum=1),))
ROUTE = Route(8080, hosts=("web.test",), preview="preview.web.test")


def canary(*, gateway: bool, **changes: object) -> NativeScene:
    more = {"route": ROUTE} if gateway else {}
    scene = native(gateway=gateway, **{"rollout": CANARY, "replicas": 4, **more, **changes})
    scene.watch = never_down
    return scene


def test_weights_of_a_gateway_are_exact() -> None:
    scene = canary(gateway=True)
    scene.commit("b")
    scene.settle()
    assert scene.splits == ["a 90 b 10", "a 50 b 50", "b 100"]
    assert list(scene.groups().values()) == ["b"]
    assert scene.log[-2:] == ["Promoted", "RemoveGroup"]


def test_a_share_that_the_gateway_does_not_take_is_not_given() -> None:
    scene = canary(gateway=True)
    scene.cluster.refusal = "no listener has such a host"
    scene.commit("b")
    scene.rounds(200)
    assert scene.log.count("RouteGroups") == 1
    assert "StagePassed" not in scene.log
    assert sorted(scene.groups().values()) == ["a", "b"]
    said = scene.service
    assert (said.reason, said.message) == (Reason.PROXY_UNREACHABLE, scene.cluster.refusal)
    scene.cluster.refusal = ""
    scene.log.clear()
    scene.settle()
    assert scene.splits == ["a 90 b 10", "a 50 b 50", "b 100"]
    assert "Promoted" in scene.log


@pytest.mark.parametrize("rollout", [BLUE_GREEN, Rollout(progress_deadline=timedelta(minutes=5))])
def test_nothing_is_promoted_or_removed_before_the_gateway_has_taken_the_route(rollout: Rollout) -> None:
    scene = NativeScene(gateway=True)
    scene.cluster.refusal = "no listener has such a host"
    scene.commit("a", rollout=rollout, route=ROUTE)
    scene.rounds(100)
    assert "Promoted" not in scene.log
    assert scene.service.reason is Reason.PROXY_UNREACHABLE
    scene.cluster.refusal = ""
    scene.rounds(10)
    assert scene.log.count("Promoted") == 1
    scene.cluster.refusal = "the Gateway is gone"
    scene.log.clear()
    scene.rounds(10)
    assert scene.log == []
    assert (scene.service.reason, scene.service.health) == (Reason.PROXY_UNREACHABLE, ServiceHealth.PROGRESSING)
    scene.cluster.refusal = ""
    scene.rounds(10)
    assert scene.log == []
    assert scene.service.health is ServiceHealth.HEALTHY


@pytest.mark.parametrize("gateway", [False, True])
def test_status_shows_the_stage_the_shares_and_what_is_held(gateway: bool) -> None:
    scene = canary(gateway=gateway, rollout=replace(PAUSED, hold=timedelta(minutes=1)))
    scene.commit("b")
    scene.rounds(20)
    shown = scene.service.progress
    assert shown is not None
    assert shown.stage is not None
    assert (shown.stage.number, shown.stage.weight, shown.stage.paused) == (1, 20, True)
    assert [round(each.share, 2) for each in shown.split] == [0.8, 0.2]
    scene.commit("b", rollout=replace(CANARY, stages=(), hold=timedelta(minutes=1)))
    scene.until("Promoted")
    shown = scene.service.progress
    assert shown is not None
    assert [kept.name for kept in shown.kept] == [name for name, letter in scene.groups().items() if letter == "a"]


def test_without_a_gateway_the_numbers_of_instances_are_the_shares() -> None:
    scene = canary(gateway=False)
    scene.commit("b")
    scene.settle()
    assert scene.splits == ["a 80 b 20", "a 50 b 50", "b 100"]
    assert list(scene.groups().values()) == ["b"]


@pytest.mark.parametrize("gateway", [False, True])
def test_blue_green_switches_at_once_and_holds_the_old_one(gateway: bool) -> None:
    scene = canary(gateway=gateway, rollout=BLUE_GREEN)
    scene.commit("b")
    scene.rounds(30)
    assert [each for each in scene.splits if each != "a 100"] == ["b 100"]
    assert sorted(scene.groups().values()) == ["a", "b"]
    assert "Promoted" in scene.log
    scene.rounds(330)
    assert list(scene.groups().values()) == ["b"]


@pytest.mark.parametrize("gateway", [False, True])
def test_a_return_while_the_old_one_is_held_is_one_step(gateway: bool) -> None:
    scene = canary(gateway=gateway, rollout=BLUE_GREEN)
    scene.commit("b")
    scene.rounds(30)
    scene.log.clear()
    scene.commit("a")
    scene.step()
    assert scene.log == ["RolloutStarted", "RouteGroups"]
    assert scene.split() == "a 100"
    scene.settle()
    assert "RolloutFailed" not in scene.log
    assert scene.web.stable is not None
    assert scene.web.stable.image.endswith("a")


@pytest.mark.parametrize("gateway", [False, True])
@pytest.mark.parametrize("how", ["sick", "dying"])
def test_a_bad_candidate_never_gets_a_request(gateway: bool, how: str) -> None:
    scene = canary(gateway=gateway)
    getattr(scene.cluster, how).add("b")
    scene.commit("b")
    scene.settle()
    assert set(scene.splits) <= {"a 100"}
    assert list(scene.groups().values()) == ["a"]
    assert "RolledBack" in scene.log


@pytest.mark.parametrize("gateway", [False, True])
def test_a_gate_takes_the_weight_back_before_the_candidate_goes(gateway: bool) -> None:
    rollout = Rollout(Strategy.CANARY, progress_deadline=timedelta(minutes=5), stages=CANARY.stages, gate=GATE)
    scene = canary(gateway=gateway, rollout=rollout)
    scene.finding = GateFinding(Verdict.HOLD, "nothing yet", {})
    scene.commit("b")
    scene.rounds(30)
    assert scene.split() == ("a 90 b 10" if gateway else "a 80 b 20")
    scene.finding = GateFinding(Verdict.FAIL, "errors 9 > 1", {})
    scene.log.clear()
    scene.rounds(20)
    scene.settle()
    assert scene.log.index("RolloutFailed") < scene.log.index("RouteGroups") < scene.log.index("RemoveGroup")
    assert scene.split() == "a 100"
    assert next(iter(scene.web.quarantine.values())).reason == "GateFailed"


def test_a_pause_waits_for_a_person() -> None:
    scene = canary(gateway=True, rollout=PAUSED)
    scene.commit("b")
    scene.rounds(20)
    assert scene.service.reason is Reason.PAUSED
    assert scene.split() == "a 80 b 20"


@pytest.mark.parametrize("gateway", [False, True])
@pytest.mark.parametrize("after", ["EnsureGroup", "RouteGroups", "StagePassed", "InstanceHealthy"])
def test_a_newer_commit_overtakes_in_every_state(gateway: bool, after: str) -> None:
    scene = canary(gateway=gateway)
    scene.commit("b")
    scene.until(after)
    scene.commit("c")
    scene.settle()
    assert list(scene.groups().values()) == ["c"]
    assert scene.split() == "c 100"
    assert "RolloutSuperseded" in scene.log


@pytest.mark.parametrize("gateway", [False, True])
@pytest.mark.parametrize("after", ["EnsureGroup", "RouteGroups", "StagePassed"])
def test_a_revert_in_every_state_leaves_the_stable_one(gateway: bool, after: str) -> None:
    scene = canary(gateway=gateway)
    scene.commit("b")
    scene.until(after)
    scene.commit("a")
    scene.settle()
    assert list(scene.groups().values()) == ["a"]
    assert scene.split() == "a 100"
    assert scene.web.quarantine == {}


@pytest.mark.parametrize("gateway", [False, True])
def test_where_the_stable_one_is_dead_the_candidate_takes_over(gateway: bool) -> None:
    scene = canary(gateway=gateway)
    scene.cluster.sick.add("a")
    scene.watch = lambda scene: None
    scene.commit("b")
    scene.settle()
    assert scene.split() == "b 100"


@pytest.mark.parametrize("gateway", [False, True])
def test_the_strategy_changes_between_releases(gateway: bool) -> None:
    scene = canary(gateway=gateway, rollout=Rollout())
    assert scene.groups() == {"web": "a"}
    scene.commit("b", rollout=CANARY)
    scene.settle()
    assert list(scene.groups().values()) == ["b"]
    assert "web" not in scene.groups()
    scene.commit("c", rollout=Rollout())
    scene.settle()
    assert scene.groups() == {"web": "c"}
    scene.commit("c", rollout=CANARY)
    scene.settle()
    assert scene.groups() == {"web": "c"}, "a version that runs is not moved for its next strategy"


@pytest.mark.parametrize("gateway", [False, True])
def test_an_autoscaled_service_keeps_its_number_through_a_canary(gateway: bool) -> None:
    scene = canary(gateway=gateway, scaling=Scaling(2, 8, cpu=0.5))
    (name,) = scene.groups()
    scene.cluster.scale(name, 6)
    scene.commit("b")
    scene.until("Promoted")
    (new,) = [each for each, letter in scene.groups().items() if letter == "b"]
    assert scene.cluster.deployments[new].replicas >= 6
    scene.settle()
    assert scene.cluster.deployments[new].effect.replicas is None, "demand decides again"
    scene.log.clear()
    scene.commit("c")
    scene.settle()
    assert "Scaled" not in scene.log, "the number is known already"
    assert scene.split() == "c 100"


def test_a_release_while_somebody_removed_the_stable_group_ends_as_declared() -> None:
    scene = canary(gateway=False)
    scene.watch = lambda scene: None
    scene.cluster.slow["b"] = 20
    scene.cluster.deployments.clear()
    scene.commit("b")
    scene.settle()
    assert scene.split() == "b 100"
    assert list(scene.groups().values()) == ["b"]


def test_a_candidate_is_shown_at_its_preview_address_first() -> None:
    scene = canary(gateway=True, rollout=Rollout(Strategy.BLUE_GREEN, preview_soak=timedelta(seconds=30)))
    wanted = scene.commit("b")
    scene.rounds(15)
    assert scene.split() == "a 100"
    assert scene.cluster.routes["web"].preview == f"web-{wanted.version[:12]}"


def test_the_route_that_somebody_changed_is_taken_back_in_the_middle_of_a_canary() -> None:
    scene = canary(gateway=True, rollout=PAUSED)
    scene.commit("b")
    scene.rounds(20)
    scene.cluster.routes.pop("web")
    scene.watch = lambda scene: None
    scene.rounds(3)
    assert scene.split() == "a 80 b 20"


def test_a_group_goes_after_the_last_requests() -> None:
    scene = canary(gateway=True, drain=Drain(timedelta(seconds=20), timedelta(seconds=5)))
    scene.commit("b")
    scene.until("Promoted")
    scene.rounds(10)
    assert sorted(scene.groups().values()) == ["a", "b"]
    scene.rounds(20)
    assert list(scene.groups().values()) == ["b"]


@pytest.mark.parametrize(
    ("replicas", "surge", "weight", "pair"),
    [
        (4, 1, 25, (1, 3)),
        (10, 1, 5, (1, 10)),
        (1, 1, 50, (1, 1)),
        (4, 1, 0, (0, 4)),
        (4, 1, 100, (4, 0)),
        (3, 0, 33, (1, 2)),
    ],
)
def test_numbers_come_as_near_to_a_share_as_they_can(
    replicas: int, surge: int, weight: int, pair: tuple[int, int]
) -> None:
    assert split(replicas, surge, weight) == pair

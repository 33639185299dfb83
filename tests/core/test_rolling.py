"""Rolling releases behind a proxy: places without weight let its checks of new instances run beside ours."""

from __future__ import annotations

from dataclasses import replace

from reconciler.core.live import HealthStatus, Phase, ServerMode
from tests.support.fronted import ROLLING, ROUTE, Fronted, fronted
from tests.support.scene import ENVIRONMENT


def starting(**changes: object) -> Fronted:
    """A release of b whose first new instance runs and is not known healthy yet."""
    scene = fronted(rollout=ROLLING, **changes)
    scene.commit("b")
    scene.until("StartInstance")
    return scene


def test_a_starting_instance_has_a_place_without_weight() -> None:
    scene = starting()
    scene.until("ShiftTraffic")
    (new,) = scene.of("b")
    assert new.health is HealthStatus.STARTING
    assert scene.place(new) == "ready 0"
    assert scene.serving() == ["a", "a"]
    assert new.name not in scene.web.exposed | scene.web.served
    assert scene.service.steps == (), "its place is known: nothing more to do until it is healthy"
    scene.live()
    scene.settle()
    assert scene.serving() == ["b", "b"]


def test_with_sticky_sessions_it_has_no_place_before_it_is_healthy() -> None:
    # The address may be one that clients of an instance that is gone still ask for.
    scene = starting(route=replace(ROUTE, sticky=True))
    assert scene.service.steps == ()
    (new,) = scene.of("b")
    assert scene.place(new) == "no place"


def test_where_nobody_carries_the_traffic_the_first_place_is_the_whole_one() -> None:
    scene = Fronted(None, common={"route": ROUTE, "replicas": 1, "rollout": ROLLING})
    scene.commit("a")
    scene.settle()
    assert scene.path == ["a 100"]
    assert scene.log.count("ShiftTraffic") == 1


def test_one_that_never_had_weight_goes_without_a_drain_also_when_nobody_serves() -> None:
    scene = starting(replicas=1)
    scene.until("ShiftTraffic")
    (new,), (old,) = scene.of("b"), scene.of("a")
    scene.die(old)
    scene.commit("c")
    scene.until("TerminateInstance")
    assert new.name not in scene.web.detached
    scene.settle()
    assert scene.serving() == ["c"]


def test_an_unhealthy_one_has_no_place_and_a_place_by_hand_is_taken_back() -> None:
    scene = starting()
    (new,) = scene.of("b")
    scene.change(new.name, health=HealthStatus.UNHEALTHY)
    scene.rest()
    assert scene.place(new) in ("no place", "maint 0")
    scene = starting()
    scene.until("ShiftTraffic")
    (new,) = scene.of("b")
    scene.traffic.by_hand(ENVIRONMENT, "rec.prod.web", scene.at(new), mode=ServerMode.READY, weight=7)
    scene.until("ShiftTraffic")
    assert scene.place(new) == "ready 0"
    assert scene.instances[new.name].phase is Phase.RUNNING

"""A freeze, or a revision that changes too much at once: what is new waits, what is on its way or broken does not."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from reconciler.core.analysis import Verdict
from reconciler.core.errors import Reason
from reconciler.core.freeze import Held
from reconciler.core.gate import GateFinding
from reconciler.core.live import ImageState, ImageStatus
from reconciler.core.question import Wish
from reconciler.core.status import ServiceHealth, Sync
from tests.support.fronted import CANARY, ROUTE, Fronted, fronted
from tests.support.scene import START

FROZEN = Held(Reason.FROZEN, "frozen until Monday", START + timedelta(days=2))
CAPPED = Held(Reason.CHANGE_CAP_EXCEEDED, "9 of 10 services would change")


def held(scene: Fronted, why: Held = FROZEN) -> Fronted:
    scene.held = why
    return scene


def test_a_new_version_waits_and_says_for_what() -> None:
    scene = held(fronted(rollout=CANARY))
    scene.commit("b")
    scene.settle()
    assert scene.log == []
    service = scene.service
    assert (service.reason, service.message) == (Reason.FROZEN, "frozen until Monday")
    assert (service.sync, service.health) == (Sync.OUT_OF_SYNC, ServiceHealth.HEALTHY)
    assert service.desired is not None and service.desired.version == scene.wanted.version
    assert service.recheck_at == FROZEN.until
    assert scene.split() == "a 100"


def test_its_image_is_fetched_meanwhile() -> None:
    scene = held(fronted(rollout=CANARY))
    scene.commit("b")
    pinned = scene.wanted.spec.image.pinned
    scene.images[pinned] = ImageState(ImageStatus.ABSENT)
    scene.settle()
    assert scene.log == ["PullImage"]
    assert scene.images[pinned].status is ImageStatus.PRESENT
    assert scene.split() == "a 100"


def test_a_return_to_a_version_that_is_held_never_waits() -> None:
    scene = fronted(rollout=replace(CANARY, hold=timedelta(minutes=5)))
    scene.commit("b")
    scene.settle()
    held(scene)
    scene.commit("a")
    scene.settle()
    assert scene.serving() == ["a", "a"]


def test_once_nothing_of_it_is_held_it_waits_like_any_other() -> None:
    scene = fronted(rollout=CANARY)
    scene.commit("b")
    scene.settle()
    held(scene)
    scene.commit("a")
    scene.settle()
    assert scene.serving() == ["b", "b"]
    assert scene.service.reason is Reason.FROZEN


def test_it_begins_when_that_is_over() -> None:
    scene = held(fronted(rollout=CANARY))
    scene.commit("b")
    scene.settle()
    scene.held = None
    scene.settle()
    assert scene.path == ["a 95 b 5", "a 50 b 50", "b 100"]


def test_too_great_a_change_waits_for_a_commit_not_for_a_time() -> None:
    scene = held(fronted(rollout=CANARY), CAPPED)
    scene.commit("b")
    scene.settle()
    assert (scene.service.reason, scene.service.recheck_at) == (Reason.CHANGE_CAP_EXCEEDED, None)
    scene.commit("a")
    scene.settle()
    assert (scene.service.sync, scene.service.reason) == (Sync.SYNCED, None)


def test_a_service_that_does_not_run_yet_waits_too() -> None:
    scene = held(Fronted(None, common={"route": ROUTE}))
    scene.commit("a")
    scene.step()
    assert scene.instances == {} and scene.service.steps == ()
    assert scene.service.reason is Reason.FROZEN


def test_a_release_under_way_goes_on() -> None:
    scene = fronted(rollout=CANARY)
    scene.commit("b")
    scene.rest()
    held(scene)
    scene.settle()
    assert scene.serving() == ["b", "b"]
    assert scene.service.reason is None


def test_a_release_under_way_returns_when_it_fails() -> None:
    scene = fronted(rollout=CANARY)
    scene.commit("b")
    scene.rest()
    held(scene)
    scene.finding = GateFinding(Verdict.FAIL, "errors")
    scene.settle()
    assert scene.split() == "a 100"
    assert scene.service.reason is Reason.QUARANTINED
    assert "RolledBack" in scene.log


def test_a_revert_of_a_release_under_way_is_no_change() -> None:
    scene = fronted(rollout=CANARY)
    scene.commit("b")
    scene.rest()
    held(scene)
    scene.commit("a")
    scene.settle()
    assert scene.serving() == ["a", "a"]
    assert scene.service.sync is Sync.SYNCED


def test_a_third_version_waits_and_the_one_under_way_goes_back() -> None:
    scene = fronted(rollout=CANARY)
    scene.commit("b")
    scene.rest()
    held(scene)
    scene.commit("c")
    scene.settle()
    assert scene.split() == "a 100"
    assert scene.of("b") == [] and scene.of("c") == []
    assert scene.log.count("RolloutSuperseded") == 1
    scene.held = None
    scene.settle()
    assert scene.serving() == ["c", "c"]


def test_repairs_never_wait_and_a_new_number_of_instances_neither() -> None:
    scene = held(fronted(rollout=CANARY))
    scene.commit("b")
    scene.die(scene.of("a")[0])
    scene.settle()
    assert scene.serving() == ["a", "a"]
    scene.commit("b", replicas=3)
    scene.settle()
    assert scene.serving() == ["a"] * 3
    scene.commit("a")
    scene.settle()
    assert scene.service.sync is Sync.SYNCED


def test_a_version_in_quarantine_is_told_as_that() -> None:
    scene = fronted(rollout=CANARY)
    scene.sick.add(scene.commit("b"))
    scene.settle()
    held(scene)
    assert scene.service.reason is Reason.QUARANTINED
    scene.commit("c")
    scene.settle()
    assert scene.service.reason is Reason.FROZEN
    assert scene.web.quarantine == {}


def test_without_the_files_of_the_stable_version_nothing_is_done_while_a_new_one_waits() -> None:
    scene = held(fronted(rollout=CANARY))
    scene.wish = lambda wish: Wish(wish.name, wish.desired)
    scene.commit("b")
    assert scene.service.steps == ()
    assert scene.service.reason is Reason.FROZEN


def test_the_file_of_a_service_that_is_not_valid_is_told_before_a_freeze() -> None:
    scene = held(fronted(rollout=CANARY))
    scene.wish = lambda wish: Wish("web", held=Reason.MANIFEST_INVALID, message="line 3")
    assert (scene.service.reason, scene.service.message) == (Reason.MANIFEST_INVALID, "line 3")

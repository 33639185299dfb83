"""The planner by scenarios in a pure world: releases, failures, rollbacks, and host ports."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from reconciler.core.errors import Reason
from reconciler.core.live import Difference, ImageState, ImageStatus, Phase
from reconciler.core.model import Drain
from reconciler.core.record import What
from reconciler.core.status import ServiceHealth, Sync
from reconciler.core.steps import PullImage
from tests.support.scene import PUBLISHED, Scene, name_of, settled


def test_the_first_release_pulls_creates_starts_proves_attaches_and_promotes() -> None:
    scene = Scene()
    scene.settle()
    assert scene.log == [
        "EnsureNetwork",
        "RolloutStarted",
        "PullImage",
        "CreateInstance",
        "StartInstance",
        "InstanceHealthy",
        "AttachTraffic",
        "Promoted",
    ]
    assert scene.service.sync is Sync.SYNCED
    assert scene.service.health is ServiceHealth.HEALTHY


def test_a_second_look_does_nothing() -> None:
    scene = settled(replicas=3)
    assert not scene.step()
    assert scene.look().in_sync


def test_a_release_replaces_one_by_one_and_never_loses_capacity() -> None:
    scene = settled(replicas=3)

    def never_fewer(world: Scene) -> None:
        assert len(world.serving()) >= 3
        running = [i for i in world.instances.values() if i.name not in world.memory.services["web"].detached]
        assert len(running) <= 4

    scene.watch = never_fewer
    scene.want("b", replicas=3)
    scene.settle()
    assert scene.serving() == ["b", "b", "b"]
    assert scene.log.count("PullImage") == 1
    assert scene.log.index("PullImage") < scene.log.index("DetachTraffic")
    assert scene.log[-1] == "RemoveInstance"
    assert "Promoted" in scene.log


def test_a_revert_is_an_ordinary_release_without_a_pull() -> None:
    scene = settled()
    scene.want("b")
    scene.settle()
    scene.log.clear()
    scene.want("a")
    scene.settle()
    assert scene.serving() == ["a"]
    assert "PullImage" not in scene.log


@pytest.mark.parametrize(("how", "reason"), [("dying", Reason.INSTANCE_EXITED), ("sick", Reason.STARTUP_DEADLINE)])
def test_a_failed_version_returns_is_quarantined_and_not_tried_again(how: str, reason: Reason) -> None:
    scene = settled(replicas=2)
    scene.want("b", replicas=2)
    getattr(scene, how).add(scene.wanted.version)
    scene.watch = lambda world: None if len(world.serving()) >= 2 else pytest.fail("capacity lost")
    scene.settle()
    assert scene.serving() == ["a", "a"]
    assert "RolloutFailed" in scene.log
    assert "RolledBack" in scene.log
    service = scene.service
    assert (service.sync, service.reason) == (Sync.OUT_OF_SYNC, Reason.QUARANTINED)
    assert service.health is ServiceHealth.HEALTHY
    assert scene.memory.services["web"].quarantine[scene.wanted.version].reason == reason
    assert not scene.step()


def test_out_of_memory_is_said() -> None:
    scene = settled()
    scene.want("b")
    scene.step()
    while not any(i.version == scene.wanted.version for i in scene.instances.values()):
        scene.step()
    name = name_of(scene.wanted, 0)
    scene.change(name, phase=Phase.EXITED, exit_code=137, oom_killed=True)
    scene.settle()
    assert scene.memory.services["web"].quarantine[scene.wanted.version].reason == Reason.OOM_KILLED


def test_a_failure_with_half_of_the_old_ones_gone_brings_them_back() -> None:
    scene = settled(replicas=2)
    scene.want("b", replicas=2)
    while scene.serving() != ["a", "b"]:
        scene.step()
        scene.now += timedelta(seconds=6)
    scene.sick.add(scene.wanted.version)
    scene.live()
    scene.settle()
    assert scene.serving() == ["a", "a"]


def test_a_new_commit_lifts_the_quarantine_and_the_same_version_may_be_tried_again() -> None:
    scene = settled()
    scene.want("b")
    scene.dying.add(scene.wanted.version)
    scene.settle()
    scene.want("a")
    scene.settle()
    assert scene.log[-1] == "QuarantineLifted"
    assert scene.service.sync is Sync.SYNCED
    scene.dying.clear()
    scene.want("b")
    scene.settle()
    assert scene.serving() == ["b"]


def test_the_first_version_fails_and_nothing_is_left_running() -> None:
    scene = Scene()
    scene.dying.add(scene.wanted.version)
    scene.settle()
    assert scene.instances == {}
    assert (scene.service.health, scene.service.reason) == (ServiceHealth.DEGRADED, Reason.QUARANTINED)


def test_no_progress_until_the_deadline_fails_the_rollout() -> None:
    scene = settled()
    scene.want("b")
    pinned = scene.wanted.spec.image.pinned
    scene.images[pinned] = ImageState(ImageStatus.FAILED, Reason.IMAGE_NOT_FOUND, "no such image", scene.now, 1)
    scene.step()
    service = scene.service
    assert (service.reason, service.message) == (Reason.IMAGE_NOT_FOUND, "no such image")
    assert "another try" in service.waiting
    scene.now += timedelta(minutes=5)
    scene.settle()
    assert scene.memory.services["web"].quarantine[scene.wanted.version].reason == Reason.PROGRESS_DEADLINE
    assert scene.serving() == ["a"]


def test_a_failed_pull_is_tried_again_after_a_pause_and_a_running_one_is_awaited() -> None:
    scene = Scene()
    scene.step()
    pinned = scene.wanted.spec.image.pinned
    scene.images[pinned] = ImageState(ImageStatus.PULLING)
    assert scene.service.steps == ()
    scene.images[pinned] = ImageState(ImageStatus.FAILED, Reason.IMAGE_UNAVAILABLE, "no answer", scene.now, 3)
    assert scene.service.recheck_at == scene.now + timedelta(seconds=4)
    scene.now += timedelta(seconds=4)
    assert scene.service.steps[-1] == PullImage(pinned)
    scene.step()
    assert scene.log.count("PullFailed") == 1, "a failure is recorded once"
    scene.images[pinned] = ImageState(ImageStatus.FAILED, Reason.IMAGE_UNAVAILABLE, "no answer", scene.now, 4)
    scene.now += timedelta(seconds=8)
    assert scene.service.steps == (PullImage(pinned),)
    del scene.images[pinned]
    assert scene.service.reason is Reason.IMAGE_UNAVAILABLE, "a look by another program knows it from the journal"
    scene.settle()
    assert scene.memory.services["web"].pull_failed == ""


def test_a_reason_of_a_newer_release_for_a_failed_pull_is_no_fault_of_ours() -> None:
    scene = Scene()
    scene.step()
    scene.record(What.PULL_FAILED, reason="ImageFromTheFuture", details={"said": "no such thing yet"})
    scene.images.clear()
    assert (scene.service.reason, scene.service.message) == (Reason.IMAGE_UNAVAILABLE, "no such thing yet")


def test_a_plan_of_a_release_shows_its_first_effects() -> None:
    scene = settled()
    scene.want("b")
    assert [getattr(step, "what", type(step).__name__) for step in scene.service.steps] == [
        What.ROLLOUT_STARTED,
        "PullImage",
    ]
    scene.images[scene.wanted.spec.image.pinned] = ImageState(ImageStatus.PRESENT)
    assert [type(step).__name__ for step in scene.service.steps] == ["Transition", "CreateInstance", "StartInstance"]


def test_no_instance_is_made_of_a_version_whose_secrets_have_changed() -> None:
    scene = settled(replicas=2)
    scene.want("b", replicas=2)
    scene.dying.add(scene.wanted.version)
    held = "a secret has changed"
    obstruct = lambda wish: replace(wish, fallback=replace(wish.fallback, obstacle=held))  # noqa: E731
    scene.wish = lambda wish: obstruct(wish) if wish.fallback else wish
    scene.settle()
    del scene.instances[min(scene.instances)]
    scene.settle()
    assert scene.serving() == ["a"]
    assert "the secrets of this version" in scene.service.waiting
    assert held in scene.service.message


def test_a_newer_commit_overtakes_a_rollout() -> None:
    scene = settled(replicas=2)
    scene.want("b", replicas=2)
    for _ in range(4):
        scene.step()
    scene.want("c", replicas=2)
    scene.settle()
    assert scene.serving() == ["c", "c"]
    assert "RolloutSuperseded" in scene.log
    assert {i.version for i in scene.instances.values()} == {scene.wanted.version}


def test_there_and_back_again_readopts_what_still_runs() -> None:
    scene = settled(replicas=2)
    before = set(scene.instances)
    scene.want("b", replicas=2)
    while "DetachTraffic" not in scene.log:
        scene.step()
    scene.want("a", replicas=2)
    scene.settle()
    assert set(scene.instances) == before
    assert scene.service.sync is Sync.SYNCED


def test_a_dead_stable_version_does_not_block_the_fix() -> None:
    scene = settled(replicas=2)
    scene.dying.add(scene.wanted.version)
    scene.live()
    scene.want("b", replicas=2)
    scene.settle()
    assert scene.serving() == ["b", "b"]


def test_the_last_healthy_instance_stays_while_its_successor_is_sick() -> None:
    scene = settled()
    scene.want("b")
    scene.sick.add(scene.wanted.version)
    for _ in range(20):
        scene.step()
        assert scene.serving() == ["a"]


def test_a_drain_of_no_length_stops_at_once_but_only_when_the_new_one_serves() -> None:
    at_once = Drain(timedelta(0), timedelta(seconds=10))
    scene = settled(drain=at_once)
    scene.watch = lambda world: None if world.serving() else pytest.fail("capacity lost")
    scene.want("b", drain=at_once)
    scene.settle()
    assert scene.serving() == ["b"]
    assert "DetachTraffic" not in scene.log


def test_an_instance_that_ignores_the_signal_is_killed_after_the_grace_and_that_is_visible() -> None:
    scene = settled()
    old = next(iter(scene.instances))
    scene.stubborn.add(old)
    scene.want("b")
    scene.settle()
    assert "KillInstance" in scene.log
    assert old not in scene.instances


def test_stop_first_keeps_the_old_one_until_the_new_one_is_healthy() -> None:
    scene = settled(ports=PUBLISHED)
    old = next(iter(scene.instances))

    def one_holder(world: Scene) -> None:
        assert sum(i.phase is Phase.RUNNING for i in world.instances.values()) <= 1

    scene.watch = one_holder
    scene.want("b", ports=PUBLISHED)
    scene.step()
    scene.settle()
    assert scene.serving() == ["b"]
    assert old not in scene.instances
    assert scene.log.index("PullImage") < scene.log.index("CreateInstance") < scene.log.index("TerminateInstance")
    assert scene.log.index("Promoted") < scene.log.index("RemoveInstance")


@pytest.mark.parametrize("how", ["dying", "sick"])
def test_stop_first_returns_to_the_kept_one(how: str) -> None:
    scene = settled(ports=PUBLISHED)
    old = next(iter(scene.instances))
    scene.want("b", ports=PUBLISHED)
    getattr(scene, how).add(scene.wanted.version)
    scene.settle()
    assert set(scene.instances) == {old}
    assert scene.serving() == ["a"]
    assert scene.log.count("CreateInstance") == 1
    scene.change(old, differences=(Difference(Reason.DRIFT_RESTARTED, "restarted"),))
    assert not scene.step()

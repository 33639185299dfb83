"""The planner by scenarios in a pure world: losses, drift, scaling, suspension, adoption and removal."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from reconciler.core.errors import Reason
from reconciler.core.live import Difference, Foreign, HealthStatus, Phase
from reconciler.core.memory import EnvironmentMemory, Suspension
from reconciler.core.model import DriftPolicy
from reconciler.core.status import ServiceHealth, Sync
from tests.support.scene import settled, target


def test_scaling_up_and_down_follows_git() -> None:
    scene = settled(replicas=1)
    scene.want("a", replicas=3)
    scene.settle()
    assert len(scene.serving()) == 3
    scene.want("a", replicas=1)
    scene.settle()
    assert [i.ordinal for i in scene.instances.values()] == [0]
    scene.want("a", replicas=0)
    scene.settle()
    assert scene.instances == {}
    assert scene.service.sync is Sync.SYNCED
    assert "DriftFound" not in scene.log


def test_an_exited_instance_is_recorded_and_replaced_with_growing_pauses() -> None:
    scene = settled(replicas=2)
    for _ in range(3):
        name = next(iter(scene.instances))
        scene.change(name, phase=Phase.EXITED, exit_code=3, serving=False)
        scene.settle()
        assert len(scene.serving()) == 2
    assert scene.log.count("InstanceLost") == 3
    assert scene.now >= scene.memory.services["web"].losses[0] + timedelta(seconds=3)


def test_a_promoted_version_that_keeps_dying_is_rolled_back() -> None:
    scene = settled()
    scene.want("b")
    scene.settle()
    for _ in range(6):
        for name, instance in list(scene.instances.items()):
            if instance.version == scene.wanted.version:
                scene.change(name, phase=Phase.EXITED, exit_code=3, serving=False)
        scene.settle()
    assert scene.serving() == ["a"]
    assert scene.memory.services["web"].quarantine[scene.wanted.version].reason == Reason.FLAPPING


def test_a_sick_instance_of_the_stable_version_is_replaced() -> None:
    scene = settled(replicas=2)
    name = next(iter(scene.instances))
    scene.change(name, health=HealthStatus.UNHEALTHY, detail="503")
    scene.step()
    assert "InstanceLost" in scene.log
    scene.watch = lambda world: world.instances.get(name) and world.change(name, health=HealthStatus.UNHEALTHY)
    scene.settle()
    assert name not in scene.instances
    assert len(scene.serving()) == 2


CHANGED = Difference(Reason.DRIFT_CHANGED, "memory: 1 -> 2")


def test_a_changed_instance_is_replaced_and_the_repair_is_recorded() -> None:
    scene = settled(replicas=2)
    name = next(iter(scene.instances))
    scene.change(name, differences=(CHANGED,))
    scene.watch = lambda world: None if len(world.serving()) >= 2 else pytest.fail("capacity lost")
    scene.settle()
    assert name not in scene.instances
    assert [word for word in scene.log if word.startswith("Drift")] == ["DriftFound", "DriftRepaired"]


def test_report_only_records_once_and_touches_nothing() -> None:
    scene = settled(drift=DriftPolicy.REPORT, replicas=2)
    names = sorted(scene.instances)
    scene.change(names[0], differences=(CHANGED,))
    del scene.instances[names[1]]
    scene.settle()
    assert scene.log == ["DriftFound", "DriftFound"]
    assert scene.service.reason in (Reason.DRIFT_CHANGED, Reason.DRIFT_MISSING)
    assert scene.service.sync is Sync.OUT_OF_SYNC


def test_a_missing_instance_is_drift_and_comes_back() -> None:
    scene = settled(replicas=2)
    del scene.instances[next(iter(scene.instances))]
    scene.settle()
    assert len(scene.serving()) == 2
    assert scene.log[0] == "DriftFound"
    assert scene.log[-1] == "DriftRepaired"
    assert not scene.step()


def test_an_instance_added_by_hand_goes() -> None:
    scene = settled()
    mine = next(iter(scene.instances.values()))
    scene.instances["x"] = replace(mine, name="x", id="x", ordinal=7)
    scene.settle()
    assert set(scene.instances) == {mine.name}
    assert [word for word in scene.log if word.startswith("Drift")] == ["DriftFound", "DriftRepaired"]


def test_an_instance_taken_out_of_traffic_or_paused_by_hand_is_replaced() -> None:
    scene = settled(replicas=2)
    first, second = sorted(scene.instances)
    scene.change(first, serving=False)
    scene.settle()
    assert first not in scene.instances
    scene.change(second, phase=Phase.PAUSED)
    scene.settle()
    assert second not in scene.instances
    assert len(scene.serving()) == 2


def test_lifetime_replaces_and_says_when() -> None:
    scene = settled(lifetime=timedelta(hours=1))
    old = next(iter(scene.instances))
    assert scene.service.recheck_at == scene.now - (scene.now - scene.instances[old].created_at) + timedelta(hours=1)
    scene.now += timedelta(hours=1)
    scene.settle()
    assert old not in scene.instances
    assert "DriftFound" not in scene.log
    assert scene.log.count("InstanceExpired") == 1, "why it was replaced stands in the journal"


def test_a_squatter_is_reported_once_and_avoided() -> None:
    scene = settled()
    name = next(iter(scene.instances))
    del scene.instances[name]
    scene.foreign = (Foreign(name, Reason.NAME_TAKEN, "a container that is not ours has this name"),)
    scene.settle()
    assert [i.ordinal for i in scene.instances.values()] == [1]
    assert scene.log.count("DriftFound") == 2
    scene.foreign = ()
    scene.settle()
    assert scene.memory.foreign == {}


def test_leftovers_are_swept() -> None:
    scene = settled()
    scene.orphans = ("left",)
    scene.settle()
    assert scene.log == ["SweepOrphan"]


def test_a_lost_journal_adopts_and_restarts_nothing() -> None:
    scene = settled(replicas=2)
    before = set(scene.instances)
    scene.memory = EnvironmentMemory()
    scene.settle()
    assert scene.log == ["Adopted"]
    assert set(scene.instances) == before
    assert scene.service.sync is Sync.SYNCED


def test_a_lost_journal_and_a_new_version_release_from_what_was_adopted() -> None:
    scene = settled()
    scene.memory = EnvironmentMemory()
    scene.want("b")
    scene.settle()
    assert scene.log[0] == "Adopted"
    assert scene.serving() == ["b"]
    assert scene.memory.services["web"].previous is not None


def test_suspended_and_held_services_are_left_alone() -> None:
    scene = settled()
    scene.want("b")
    scene.suspended = "by ann: incident"
    assert scene.service.steps == ()
    assert scene.service.health is ServiceHealth.SUSPENDED
    scene.suspended = ""
    scene.wish = lambda wish: replace(wish, desired=None, held=Reason.MANIFEST_INVALID, message="line 3")
    assert scene.service.steps == ()
    assert (scene.service.reason, scene.service.message) == (Reason.MANIFEST_INVALID, "line 3")
    scene.wish = lambda wish: replace(wish, desired=target("a"), held=Reason.MANIFEST_INVALID, message="line 3")
    assert scene.service.steps == ()
    assert scene.service.sync is Sync.OUT_OF_SYNC
    assert Suspension("ann", scene.now, "why").by == "ann"


def test_a_removed_service_drains_and_is_forgotten() -> None:
    scene = settled(replicas=2)
    scene.wanted = None
    scene.step()
    assert scene.service.message.startswith("no longer declared")
    scene.settle()
    assert scene.instances == {}
    assert scene.log.index("DetachTraffic") < scene.log.index("TerminateInstance") < scene.log.index("RemoveInstance")
    assert scene.log[-1] == "ServiceRemoved"
    assert scene.look().services == {}

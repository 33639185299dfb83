"""Releases on an engine with controllers of its own: rolling, recreate, repair, return and the end of a service."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from reconciler.core.delivery import Rollout, Scaling, Strategy
from reconciler.core.errors import Reason
from reconciler.core.model import DriftPolicy, Port
from reconciler.core.status import ServiceHealth, Sync
from tests.support.native_scene import NativeScene, native, never_down

ROLLING = Rollout(progress_deadline=timedelta(minutes=5))


def test_the_first_release_declares_a_group_and_its_address() -> None:
    scene = NativeScene()
    scene.commit("a")
    scene.settle()
    assert scene.log == ["RolloutStarted", "EnsureGroup", "RouteGroups", "Promoted"]
    assert scene.groups() == {"web": "a"}
    assert scene.split() == "a 100"
    assert scene.service.health is ServiceHealth.HEALTHY


def test_a_release_changes_the_one_group_and_the_engine_replaces() -> None:
    scene = native()
    scene.watch = never_down
    scene.commit("b")
    scene.settle()
    assert scene.groups() == {"web": "b"}
    assert scene.log == ["RolloutStarted", "EnsureGroup", "InstanceHealthy", "Promoted"]
    assert scene.web.previous is not None


def test_an_idle_look_does_nothing() -> None:
    scene = native()
    assert not scene.step()


@pytest.mark.parametrize(("how", "reason"), [("dying", "InstanceExited"), ("sick", "StartupDeadline")])
def test_a_bad_version_is_taken_back_and_quarantined(how: str, reason: str) -> None:
    scene = native()
    scene.watch = never_down
    getattr(scene.cluster, how).add("b")
    bad = scene.commit("b")
    scene.settle()
    assert scene.groups() == {"web": "a"}
    assert scene.split() == "a 100"
    assert scene.web.quarantine[bad.version].reason == reason
    assert "RolledBack" in scene.log
    assert scene.log.count("RolloutFailed") == 1
    assert scene.service.reason is Reason.QUARANTINED


def test_an_image_that_cannot_be_pulled_is_said_and_ends_at_the_deadline() -> None:
    scene = native(rollout=ROLLING)
    scene.cluster.missing.add("b")
    scene.commit("b")
    scene.rounds(10)
    assert scene.service.reason is Reason.IMAGE_NOT_FOUND
    assert scene.log.count("PullFailed") == 1
    scene.settle()
    assert scene.groups() == {"web": "a"}
    assert next(iter(scene.web.quarantine.values())).reason == "ProgressDeadline"


def test_a_quota_is_said_and_goes_away_by_itself() -> None:
    scene = native()
    scene.cluster.quota = 2
    scene.commit("b")
    scene.rounds(10)
    assert scene.service.reason is Reason.QUOTA_EXCEEDED
    assert "2 pods" in scene.service.message
    scene.cluster.quota = None
    scene.settle()
    assert scene.groups() == {"web": "b"}


def test_the_same_version_operated_anew_is_no_release() -> None:
    scene = native()
    scene.commit("a", replicas=3)
    scene.settle()
    assert scene.log == ["EnsureGroup"]
    assert scene.cluster.deployments["web"].replicas == 3
    scene.commit("a", ports=(Port("http", 8080), Port("admin", 8081)))
    scene.log.clear()
    scene.settle()
    assert "RouteGroups" in scene.log


def test_what_somebody_changed_is_taken_back_and_recorded() -> None:
    scene = native()
    scene.cluster.scale("web", 5)
    assert scene.service.sync is Sync.OUT_OF_SYNC
    scene.settle()
    assert scene.cluster.deployments["web"].replicas == 2
    assert scene.log == ["DriftFound", "EnsureGroup", "DriftRepaired"]


def test_where_git_says_so_a_change_is_only_reported() -> None:
    scene = native(drift=DriftPolicy.REPORT)
    scene.cluster.scale("web", 5)
    scene.rounds(20)
    assert scene.log == ["DriftFound"]
    assert scene.service.reason is Reason.DRIFT_CHANGED
    scene.cluster.deployments.clear()
    scene.rounds(20)
    assert scene.groups() == {}
    assert scene.service.reason is Reason.DRIFT_MISSING


def test_a_group_that_somebody_removed_is_back() -> None:
    scene = native()
    scene.cluster.deployments.clear()
    scene.settle()
    assert scene.groups() == {"web": "a"}
    assert scene.log[0] == "DriftFound"
    assert "DriftRepaired" in scene.log


def test_an_address_that_somebody_changed_is_taken_back() -> None:
    scene = native()
    scene.cluster.routes.clear()
    scene.settle()
    assert scene.split() == "a 100"


def test_instances_that_die_are_the_engines_to_replace_and_are_recorded_once() -> None:
    scene = native()
    scene.cluster.dying.add("a")
    scene.rounds(5)
    scene.cluster.dying.clear()
    scene.rounds(30)
    assert scene.log.count("InstanceLost") == 2
    assert scene.service.health is ServiceHealth.HEALTHY


def test_a_version_that_keeps_dying_gives_way_to_the_one_before() -> None:
    scene = native()
    scene.commit("b")
    scene.settle()
    scene.cluster.dying.add("b")
    for _ in range(12):
        for pod in scene.cluster.deployments["web"].pods:
            pod.name += "x"
        scene.rounds(2)
    scene.settle()
    assert scene.groups() == {"web": "a"}
    assert "Flapping" in {q.reason for q in scene.web.quarantine.values()}


def test_what_must_not_run_twice_stops_first() -> None:
    scene = native(rollout=Rollout(Strategy.RECREATE, surge=0, unavailable=1))
    scene.commit("b")
    scene.settle()
    assert scene.groups() == {"web": "b"}


def test_a_service_that_is_removed_goes_whole_address_first() -> None:
    scene = native()
    scene.wanted = None
    scene.rounds(30)
    assert scene.log == ["RemoveRoute", "RemoveGroup", "ServiceRemoved"]
    assert "web" not in scene.memory.services


def test_the_first_version_that_fails_leaves_nothing() -> None:
    scene = NativeScene()
    scene.cluster.dying.add("a")
    scene.commit("a")
    scene.rounds(30)
    assert scene.groups() == {}
    assert scene.service.reason is Reason.QUARANTINED


def test_a_service_without_ports_has_no_address() -> None:
    scene = native(ports=())
    assert scene.cluster.routes == {}
    scene.commit("a", ports=(Port("http", 8080),))
    scene.settle()
    assert scene.cluster.routes.keys() == {"web"}
    scene.commit("a", ports=())
    scene.settle()
    assert scene.cluster.routes == {}


def test_a_lost_journal_adopts_what_runs() -> None:
    scene = native()
    scene.memory = type(scene.memory)()
    scene.settle()
    assert scene.log[0] == "Adopted"
    assert "RolloutStarted" not in scene.log
    assert scene.web.stable is not None
    assert scene.service.sync is Sync.SYNCED


def test_the_autoscaler_owns_the_number() -> None:
    scene = native(scaling=Scaling(2, 6, cpu=0.5))
    assert scene.cluster.deployments["web"].replicas == 2
    scene.cluster.scale("web", 5)
    scene.rounds(5)
    assert scene.log == []
    scene.commit("b")
    scene.settle()
    assert scene.cluster.deployments["web"].replicas == 5, "a release does not undo what demand asked for"


def test_an_eviction_says_nothing_against_a_version() -> None:
    scene = native()
    scene.commit("b")
    scene.until("EnsureGroup")
    scene.rounds(1)
    scene.cluster.evict("web")
    scene.settle()
    assert scene.groups() == {"web": "b"}
    assert scene.web.quarantine == {}


def test_secrets_that_are_missing_are_waited_for() -> None:
    scene = native()
    wanted = scene.commit("b")
    scene.wanted = replace(wanted, obstacle="secret token is missing")
    scene.rounds(5)
    assert scene.groups() == {"web": "a"}
    assert scene.service.reason is Reason.SECRET_MISSING


def test_nothing_that_cannot_be_read_is_declared() -> None:
    scene = native()
    scene.cluster.dying.add("b")
    scene.commit("b")
    scene.until("RolloutFailed")
    scene.log.clear()
    scene.unreadable = True
    scene.rounds(10)
    assert "EnsureGroup" not in scene.log

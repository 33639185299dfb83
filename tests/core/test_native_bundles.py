"""Bundles of plain manifests, planned as values: release, return, quarantine, drift, removal, and what hinders them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from reconciler.core.delivery import Rollout
from reconciler.core.errors import Reason
from reconciler.core.kstatus import Standing
from reconciler.core.memory import EnvironmentMemory
from reconciler.core.model import Bundle, DriftPolicy, Target
from reconciler.core.plan import plan
from reconciler.core.question import Wish
from reconciler.core.record import What
from reconciler.core.status import ServiceHealth, Sync
from reconciler.core.steps import EnsureGroup, Step, Transition
from tests.support.fake_bundles import FAILED, NEVER
from tests.support.native_scene import NativeScene

DEADLINE = Rollout(progress_deadline=timedelta(minutes=5))


def objects(letter: str, *names: str) -> tuple[bytes, ...]:
    """ConfigMaps: each holds the letter of its version, but for one that is called `same`."""
    return tuple(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": name},
                "data": {"letter": "-" if name == "same" else f"is-{letter}"},
            }
        ).encode()
        for name in names
    )


@dataclass
class BundleScene(NativeScene):
    """The service `web` is a bundle. `failures`: what was said of versions that failed."""

    failures: list[str] = field(default_factory=list)

    def do(self, step: Step, service: str = "web") -> None:
        if isinstance(step, Transition) and step.what is What.ROLLOUT_FAILED:
            self.failures.append(str(step.details["said"]))
        super().do(step, service)

    def declare(self, letter: str, *names: str, prune: bool = True, **changes: object) -> Target:
        """A commit with these objects."""
        bundle = Bundle("apps/web", objects(letter, *names), prune)
        return self.commit(letter, bundle=bundle, **changes)

    def there(self) -> list[str]:
        """The objects that the bundle has, with the letter of each."""
        found = self.cluster.bundles.names()
        return [f"{name} {json.loads(now)['data']['letter'].removeprefix('is-')}" for name, now in found.items()]


def empty() -> BundleScene:
    """A cluster in which there is nothing yet."""
    return BundleScene(common={"rollout": DEADLINE})


def bundle(*names: str, **changes: object) -> BundleScene:
    """A cluster in which version a of a bundle is stable."""
    scene = empty()
    scene.declare("a", *(names or ("one", "same", "two")), **changes)
    scene.settle()
    assert scene.service.sync is Sync.SYNCED, scene.service
    scene.log.clear()
    return scene


def test_the_first_release_is_applied_and_waited_for() -> None:
    scene = empty()
    scene.declare("a", "one", "two")
    assert scene.step()
    assert scene.service.health is ServiceHealth.PROGRESSING
    assert scene.service.waiting == "ConfigMap prod/one: 0 of 1 available"
    assert scene.service.replicas == 0
    scene.settle()
    assert scene.log == ["RolloutStarted", "EnsureGroup", "Promoted"]
    assert scene.there() == ["one a", "two a"]
    assert scene.service.health is ServiceHealth.HEALTHY
    assert not scene.step()


def test_what_only_the_version_before_had_goes_when_the_new_one_stands() -> None:
    scene = bundle()
    scene.declare("b", "one", "same", "three")
    scene.step()
    assert scene.there() == ["one b", "same -", "three b", "two a"]
    scene.settle()
    assert scene.log == ["RolloutStarted", "EnsureGroup", "Promoted", "PruneGroup"]
    assert scene.there() == ["one b", "same -", "three b"]
    assert not scene.step()


def test_two_versions_later_all_that_is_left_goes() -> None:
    scene = bundle()
    scene.cluster.bundles.sick["is-b"] = NEVER
    scene.declare("b", "one", "three")
    scene.rounds(10)
    scene.declare("c", "one")
    scene.settle()
    assert scene.log.count("PruneGroup") == 1
    assert scene.there() == ["one c"]


@pytest.mark.parametrize("standing", [NEVER, FAILED])
def test_a_version_that_does_not_become_well_is_taken_back(standing: Standing) -> None:
    scene = bundle()
    scene.cluster.bundles.sick["is-b"] = standing
    bad = scene.declare("b", "one", "three")
    scene.rounds(20)
    assert scene.log == ["RolloutStarted", "EnsureGroup"], "what failed may heal: it has until the deadline"
    scene.settle()
    assert scene.log == ["RolloutStarted", "EnsureGroup", "RolloutFailed", "EnsureGroup", "RolledBack", "PruneGroup"]
    assert scene.there() == ["one a", "same -", "two a"]
    assert scene.web.quarantine[bad.version].reason == "ProgressDeadline"
    assert scene.failures == [f"no progress for 300 s: ConfigMap prod/one: {standing.said}"]
    assert scene.service.reason is Reason.QUARANTINED
    assert scene.service.health is ServiceHealth.HEALTHY
    scene.declare("c", "one")
    scene.settle()
    assert scene.there() == ["one c"]


def test_the_very_first_version_that_fails_stays_as_it_is() -> None:
    scene = empty()
    scene.cluster.bundles.sick["is-a"] = FAILED
    scene.declare("a", "one", "two")
    scene.rounds(320)
    assert scene.log == ["RolloutStarted", "EnsureGroup", "RolloutFailed"]
    assert scene.there() == ["one a", "two a"], "some of it may have been there before"
    assert scene.service.health is ServiceHealth.DEGRADED
    assert "what was applied of it stays" in scene.service.message
    scene.declare("b", "one")
    scene.settle()
    assert scene.there() == ["one b"]


def test_a_revert_makes_what_was_removed_anew() -> None:
    scene = bundle()
    scene.declare("b", "one")
    scene.settle()
    scene.declare("a", "one", "same", "two")
    scene.settle()
    assert scene.there() == ["one a", "same -", "two a"]
    assert scene.log[4:] == ["RolloutStarted", "EnsureGroup", "Promoted"]


def test_a_revert_in_the_middle_is_no_drift_and_keeps_nothing() -> None:
    scene = bundle()
    scene.declare("b", "one", "three")
    scene.rounds(1)
    scene.declare("a", "one", "same", "two")
    scene.settle()
    assert scene.log == ["RolloutStarted", "EnsureGroup", "RolloutSuperseded", "EnsureGroup", "PruneGroup"]
    assert scene.there() == ["one a", "same -", "two a"]
    assert scene.web.quarantine == {}


@pytest.mark.parametrize("now", ["{}", None])
def test_what_somebody_changed_or_removed_is_put_back(now: str | None) -> None:
    scene = bundle()
    scene.cluster.bundles.change("one", now)
    assert scene.service.sync is Sync.OUT_OF_SYNC
    scene.settle()
    assert scene.log == ["DriftFound", "EnsureGroup", "DriftRepaired"]
    assert scene.there() == ["one a", "same -", "two a"]


def test_where_git_says_so_it_is_only_reported() -> None:
    scene = bundle(drift=DriftPolicy.REPORT)
    scene.cluster.bundles.change("one", '{"data": {"letter": "z"}}')
    scene.rounds(20)
    assert scene.log == ["DriftFound"]
    assert scene.service.reason is Reason.DRIFT_CHANGED
    assert scene.service.health is ServiceHealth.HEALTHY
    scene.cluster.bundles.change("two", None)
    scene.rounds(20)
    assert scene.log == ["DriftFound", "DriftFound"]
    assert scene.there() == ["one z", "same -"]
    assert scene.service.health is ServiceHealth.DEGRADED, "it is not all there, and nobody will mend it"


def test_an_inventory_that_somebody_removed_is_made_anew() -> None:
    scene = bundle()
    scene.cluster.bundles.inventories.clear()
    scene.settle()
    assert scene.log == ["DriftFound", "EnsureGroup", "DriftRepaired"]
    assert scene.service.health is ServiceHealth.HEALTHY


def test_an_object_that_is_well_no_more_is_said_and_is_not_healthy() -> None:
    scene = bundle()
    scene.cluster.bundles.sick["is-a"] = NEVER
    assert scene.service.health is ServiceHealth.PROGRESSING
    assert scene.service.sync is Sync.OUT_OF_SYNC
    assert scene.service.waiting == "ConfigMap prod/one: 0 of 1 available"
    scene.cluster.bundles.sick["is-a"] = FAILED
    assert scene.service.health is ServiceHealth.DEGRADED
    assert scene.service.reason is Reason.UNHEALTHY
    assert scene.service.message == f"ConfigMap prod/one: {FAILED.said}"
    assert scene.service.waiting == "web to become well"
    scene.rounds(400)
    assert scene.log == [], "there is nothing to do about it"
    scene.cluster.bundles.sick.clear()
    scene.settle()
    assert scene.service.health is ServiceHealth.HEALTHY


def test_a_bundle_that_git_no_longer_declares_goes() -> None:
    scene = bundle()
    scene.wanted = None
    scene.rounds(5)
    assert scene.log == ["RemoveGroup", "ServiceRemoved"]
    assert scene.there() == []
    assert "web" not in scene.memory.services


def test_without_prune_nothing_is_removed() -> None:
    scene = bundle(prune=False)
    scene.declare("b", "one", prune=False)
    scene.settle()
    assert scene.log == ["RolloutStarted", "EnsureGroup", "Promoted"]
    assert scene.there() == ["one b", "same -", "two a"]
    scene.wanted = None
    scene.rounds(5)
    assert scene.there() == ["one b", "same -", "two a"]
    assert scene.cluster.bundles.inventories == {}


def test_prune_that_is_taken_back_leaves_what_is_left_and_is_no_release() -> None:
    scene = bundle()
    scene.cluster.bundles.stuck.add("two")
    scene.declare("b", "one")
    scene.until("PruneGroup")
    scene.declare("b", "one", prune=False)
    scene.log.clear()
    scene.settle()
    assert scene.log == ["EnsureGroup"]
    assert scene.there() == ["one b", "two a"]


def test_what_does_not_go_is_tried_again_until_it_goes() -> None:
    scene = bundle()
    scene.cluster.bundles.stuck.add("two")
    scene.declare("b", "one")
    scene.until("PruneGroup")
    assert scene.log[2:] == ["Promoted", "PruneGroup"]
    assert scene.service.health is ServiceHealth.HEALTHY
    assert scene.service.sync is Sync.OUT_OF_SYNC
    assert scene.there() == ["one b", "two a"], "all others are gone"
    scene.cluster.bundles.stuck.clear()
    scene.settle()
    assert scene.there() == ["one b"]
    assert not scene.step()


def test_nothing_is_removed_while_something_else_is_due() -> None:
    scene = bundle()
    scene.cluster.bundles.stuck.add("two")
    scene.declare("b", "one")
    scene.until("PruneGroup")
    scene.cluster.bundles.change("one", "{}")
    assert [type(step).__name__ for step in scene.service.steps] == ["Transition", "EnsureGroup"]
    scene.cluster.bundles.sick["is-b"] = NEVER
    scene.do(scene.service.steps[1])
    assert [step for step in scene.service.steps if not isinstance(step, Transition)] == []


def test_a_suspended_bundle_is_left_alone_and_said_to_be_as_declared() -> None:
    scene = bundle()
    scene.declare("b", "one")
    question = scene.question()
    wish = question.wishes["web"]

    def suspended(wish: Wish) -> tuple[Sync, ServiceHealth, int]:
        found = plan(replace(question, wishes={"web": replace(wish, suspended="suspended in Git")})).services["web"]
        assert found.steps == ()
        return found.sync, found.health, found.replicas

    assert suspended(wish) == (Sync.OUT_OF_SYNC, ServiceHealth.SUSPENDED, 0)
    assert suspended(replace(wish, desired=wish.fallback)) == (Sync.SYNCED, ServiceHealth.SUSPENDED, 0)


def test_a_stable_version_that_renders_otherwise_by_now_is_not_applied() -> None:
    scene = bundle()
    scene.cluster.bundles.sick["is-b"] = NEVER
    stable = scene.wanted
    assert stable is not None
    scene.declare("b", "one")
    scene.until("RolloutFailed", 400)
    said = "what renders it makes something else of it by now"
    scene.known[stable.version] = replace(stable, obstacle=said)
    scene.log.clear()
    scene.rounds(20)
    assert scene.log == []
    assert scene.there() == ["one b", "same -", "two a"]
    assert said in scene.service.message
    assert scene.service.waiting == "the manifests of this version"
    assert scene.service.health is ServiceHealth.DEGRADED


def test_a_stable_version_that_cannot_be_read_is_not_applied() -> None:
    scene = bundle()
    scene.cluster.bundles.sick["is-b"] = NEVER
    scene.declare("b", "one")
    scene.until("RolloutFailed", 400)
    scene.unreadable = True
    scene.log.clear()
    scene.rounds(20)
    assert scene.log == []
    assert scene.there() == ["one b", "same -", "two a"]
    assert "it cannot be applied again; commit a good version" in scene.service.message
    assert scene.service.health is ServiceHealth.DEGRADED


def test_a_bundle_waits_for_what_it_depends_on() -> None:
    scene = bundle()
    needed = replace(scene.declare("b", "one").spec, name="base")
    scene.declare("b", "one", depends_on=("base",))
    question = scene.question()
    base = Target(needed, "b" * 64, "r-b")
    found = plan(replace(question, wishes={**question.wishes, "base": Wish("base", base)}))
    web = found.services["web"]
    assert web.reason is Reason.DEPENDENCY_NOT_READY
    assert not any(isinstance(step, EnsureGroup) for step in web.steps)
    assert any(isinstance(step, EnsureGroup) for step in found.services["base"].steps)


def test_a_repair_does_not_wait_for_what_it_depends_on() -> None:
    scene = bundle(depends_on=("base",))
    assert scene.wanted is not None
    scene.cluster.bundles.change("one", "{}")
    question = scene.question()
    base = Target(replace(scene.wanted.spec, name="base", depends_on=()), "b" * 64, "r-b")
    found = plan(replace(question, wishes={**question.wishes, "base": Wish("base", base)}))
    assert any(isinstance(step, EnsureGroup) for step in found.services["web"].steps)


def test_a_lost_journal_adopts_what_stands() -> None:
    scene = bundle()
    scene.declare("b", "one")
    scene.cluster.bundles.sick["is-b"] = NEVER
    scene.memory = EnvironmentMemory()
    scene.settle()
    assert scene.log[:3] == ["Adopted", "RolloutStarted", "EnsureGroup"]
    assert scene.there() == ["one a", "same -", "two a"], "there is a version to return to"


def test_what_was_not_applied_to_the_end_is_not_adopted() -> None:
    scene = bundle()
    inventories = scene.cluster.bundles.inventories
    inventories["web"] = replace(inventories["web"], operated="")
    scene.memory = EnvironmentMemory()
    scene.settle()
    assert scene.log == ["RolloutStarted", "EnsureGroup", "Promoted"]

"""What the planner has recorded, remembers and forgets again, by scenarios in a pure world."""

from __future__ import annotations

from dataclasses import replace

from reconciler.core.delivery import Rollout
from reconciler.core.diff import serves
from reconciler.core.errors import Reason
from reconciler.core.live import Difference, Foreign, HealthStatus, LiveState, Phase
from reconciler.core.memory import EnvironmentMemory
from reconciler.core.model import ExecCheck, Health, HttpCheck, TcpCheck, version_of
from reconciler.core.plan import plan
from reconciler.core.question import Question
from reconciler.core.status import Sync
from reconciler.core.steps import EnsureNetwork, SweepOrphan, Transition
from tests.support.scene import ENVIRONMENT, START, Scene, settled, spec


def test_what_was_removed_by_hand_is_told_and_forgotten_also_where_it_was_one_too_many() -> None:
    scene = settled(replicas=2)
    scene.want("a", replicas=1)
    surplus = max(scene.instances)
    del scene.instances[surplus]
    scene.settle()
    assert [word for word in scene.log if word.startswith("Drift")] == ["DriftFound", "DriftRepaired"]
    assert surplus not in scene.memory.services["web"].made


def test_nothing_piles_up_in_the_memory_over_many_releases_with_hands_in_between() -> None:
    scene = settled(replicas=2)
    for letter in "bcdefa" * 3:
        scene.want(letter, replicas=2)
        scene.settle_until("DetachTraffic")
        for name in [name for name, i in scene.instances.items() if not i.image.endswith(letter)]:
            del scene.instances[name]
        scene.settle()
        scene.log.clear()
    known = scene.memory.services["web"]
    held = known.made | known.intended | known.exposed | known.served | known.kept | known.lost
    assert len(held | known.terminated.keys() | known.detached.keys() | known.drift.keys()) <= 6


def test_foreign_things_are_forgotten_one_by_one() -> None:
    scene = settled()
    for place in range(5):
        scene.foreign = (
            Foreign("always", Reason.NOT_OWNED, "in our network"),
            Foreign(f"passing-{place}", Reason.NOT_OWNED, "in our network"),
        )
        scene.settle()
    assert set(scene.memory.foreign) == {"always", "passing-4"}
    scene.foreign = ()
    scene.settle()
    assert scene.memory.foreign == {}


def test_the_network_does_not_wait_for_leftovers_and_what_is_in_the_way_is_told_first() -> None:
    scene = Scene(foreign=(Foreign("net", Reason.NAME_TAKEN, "not ours"),), orphans=("left",))
    kinds = [type(step) for step in scene.look().steps]
    assert kinds == [Transition, EnsureNetwork, SweepOrphan]


def test_many_instances_are_adopted_in_several_records() -> None:
    scene = settled(replicas=250, rollout=Rollout(surge=250))
    before = set(scene.instances)
    scene.memory = EnvironmentMemory()
    scene.settle()
    assert scene.log == ["Adopted"] * 3
    assert set(scene.instances) == before
    assert scene.service.sync is Sync.SYNCED


def test_a_return_and_a_repair_are_over_when_what_was_wrong_is_gone() -> None:
    scene = settled(replicas=2)
    scene.want("b", replicas=2)
    scene.sick.add(scene.wanted.version)
    scene.settle()
    assert scene.log[-1] == "RolledBack"
    scene.want("a", replicas=2)
    scene.settle()
    scene.change(min(scene.instances), differences=(Difference(Reason.DRIFT_FILESYSTEM, "/etc"),))
    scene.settle()
    assert scene.log[-1] == "DriftRepaired"


def test_what_gave_up_its_traffic_does_not_count_also_when_somebody_puts_it_back() -> None:
    scene = settled()
    mine = next(iter(scene.instances.values()))
    known = scene.memory.services["web"]
    assert serves(mine, known)
    for gone in ({"detached": {mine.name: START}}, {"terminated": {mine.name: START}}):
        assert not serves(mine, replace(known, **gone))
    for change in ({"serving": False}, {"phase": Phase.PAUSED}, {"health": HealthStatus.STARTING}):
        assert not serves(replace(mine, **change), known)


def test_removals_are_held_as_a_whole_and_everything_else_goes_on() -> None:
    scene = settled()
    live = LiveState(ENVIRONMENT, scene.now, tuple(scene.instances.values()), network_ready=True)
    held = (Reason.PRUNE_CAP_EXCEEDED, "too many")
    found = plan(Question(ENVIRONMENT, None, {}, live, scene.memory, scene.now, held)).services["web"]
    assert (found.steps, found.reason, found.message) == ((), *held)


def test_the_check_is_part_of_the_version() -> None:
    plain, http, tcp = (
        version_of(spec(health=Health(check=check)), {}) for check in (None, HttpCheck(8080, "/a"), TcpCheck(8080))
    )
    other = version_of(spec(health=Health(check=HttpCheck(8080, "/b"))), {})
    assert len({plain, http, tcp, other, version_of(spec(health=Health(check=ExecCheck(("true",)))), {})}) == 5

"""Chaos from a seed: commits, hands, sickness and crashes in any order; once they stop, the world is as Git declares.

To replay a failure: the seed is in the test's name. Invariants on the way: no traffic to an instance not known healthy
(asserted by the world itself), no version that Git never declared, never more instances than replicas, surge and those
on their way out allow.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from reconciler.core.errors import Reason
from reconciler.core.live import Difference, Foreign, Phase
from reconciler.core.memory import EnvironmentMemory
from reconciler.core.status import Sync
from reconciler.core.steps import Step
from tests.simulation.test_crashes import Crash, Mortal
from tests.support.scene import PUBLISHED, name_of

IMAGES = "abcd"


def commit(world: Mortal, seeded: random.Random) -> None:
    if world.wanted.spec.stop_first:
        world.want(seeded.choice(IMAGES), ports=PUBLISHED, replicas=seeded.choice([0, 1, 1, 1]))
    else:
        world.want(seeded.choice(IMAGES), replicas=seeded.choice([0, 1, 2, 3]))


def publish(world: Mortal, seeded: random.Random) -> None:
    world.want(seeded.choice(IMAGES), ports=seeded.choice([(), PUBLISHED]))


def forget_files(world: Mortal, seeded: random.Random) -> None:
    """What was declared once cannot be read from Git any more."""
    world.known.clear()


def break_version(world: Mortal, seeded: random.Random) -> None:
    commit(world, seeded)
    seeded.choice([world.sick, world.dying]).add(world.wanted.version)


def mend_versions(world: Mortal, seeded: random.Random) -> None:
    world.sick.clear()
    world.dying.clear()


def by_hand(world: Mortal, seeded: random.Random) -> None:
    if not world.instances:
        return
    name = seeded.choice(sorted(world.instances))
    match seeded.randrange(6):
        case 0:
            del world.instances[name]
        case 1:
            world.change(name, phase=Phase.EXITED, exit_code=0, serving=False)
        case 2 if world.instances[name].phase is Phase.RUNNING:
            world.change(name, phase=Phase.PAUSED)
        case 3:
            world.change(name, differences=(Difference(Reason.DRIFT_FILESYSTEM, "/etc/passwd"),))
        case 4:
            world.change(name, serving=False)
        case _:
            copy = name_of(world.wanted, seeded.randrange(5, 9))
            world.instances[copy] = replace(world.instances[name], name=copy, id=copy)


def squat(world: Mortal, seeded: random.Random) -> None:
    name = name_of(world.wanted, seeded.randrange(4))
    if name not in world.instances:
        world.foreign = (Foreign(name, Reason.NAME_TAKEN, "not ours"),)


def lose_journal(world: Mortal, seeded: random.Random) -> None:
    if seeded.random() < 0.2:
        world.memory = EnvironmentMemory()


def die(world: Mortal, seeded: random.Random) -> None:
    world.moments = {world.passed + seeded.randrange(1, 6)}


def pass_time(world: Mortal, seeded: random.Random) -> None:
    world.now += timedelta(seconds=seeded.choice([1, 5, 12, 40, 700]))


EVENTS = (commit, commit, break_version, mend_versions, by_hand, by_hand, squat, lose_journal, die, die, pass_time)


def bounded(world: Mortal) -> None:
    memory = world.memory.services.get("web")
    if memory is None:
        return
    going = memory.terminated.keys() | memory.detached.keys()
    ours = [i for i in world.instances.values() if i.name in memory.made and i.name not in going]
    running = [i for i in ours if i.phase is Phase.RUNNING]
    assert len(running) <= 3 + 1 + 3, "more instances than the largest scale, its surge and its leftovers"


class Guarded(Mortal):
    """No act of ours takes the last instance that serves well away from a version that proved itself."""

    def effect(self, step: Step) -> None:
        before = self.serving()
        super().effect(step)
        known = self.memory.services.get("web")
        if known is not None and known.stable is not None and self.wanted.spec.replicas:
            assert self.serving() or not before, f"{step} took the last one: {' '.join(self.log[-30:])}"


def one_holder(world: Mortal) -> None:
    """Of what we made, one at most runs on a host port."""
    memory = world.memory.services.get("web")
    if memory is not None and world.wanted.spec.stop_first:
        running = [i.name for i in world.instances.values() if i.name in memory.made and i.phase is Phase.RUNNING]
        assert len(running) <= 1, " ".join(running)


def chaos(world: Mortal, seeded: random.Random, events: Sequence[Callable[[Mortal, random.Random], None]]) -> None:
    for _ in range(25):
        seeded.choice(events)(world, seeded)
        try:
            for _ in range(seeded.randrange(4)):
                world.step()
        except Crash:
            world.restart(timedelta(seconds=seeded.choice([0, 2, 30, 900])))
    mend_versions(world, seeded)
    world.moments = set()


def calmed(world: Mortal, **changes: object) -> list[str]:
    """The world once chaos is over and a last version is declared."""
    world.want("e", **changes)
    world.now += timedelta(minutes=15)
    world.settle()
    assert len(world.instances) == world.wanted.spec.replicas
    assert world.service.sync is Sync.SYNCED
    assert not world.step()
    return world.serving()


@pytest.mark.parametrize("seed", range(400))
def test_once_chaos_ends_the_world_is_as_declared(seed: int) -> None:
    seeded = random.Random(seed)
    world = Guarded(watch=bounded)
    world.want("a", replicas=2)
    chaos(world, seeded, (*EVENTS, forget_files))
    assert calmed(world, replicas=2) == ["e", "e"]


@pytest.mark.parametrize("seed", range(200))
def test_once_chaos_ends_a_published_service_is_as_declared(seed: int) -> None:
    seeded = random.Random(seed)
    world = Mortal(watch=one_holder)
    world.want("a", ports=PUBLISHED)
    chaos(world, seeded, [event for event in (*EVENTS, forget_files) if event is not lose_journal])
    assert calmed(world, ports=PUBLISHED) == ["e"]


@pytest.mark.parametrize("seed", range(200))
def test_once_chaos_ends_a_service_that_was_published_and_was_not_is_as_declared(seed: int) -> None:
    seeded = random.Random(seed)
    world = Mortal()
    world.want("a")
    chaos(world, seeded, (*EVENTS, publish, publish, publish))
    assert calmed(world, ports=seeded.choice([(), PUBLISHED])) == ["e"]

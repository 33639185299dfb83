"""Chaos from a seed in the whole loop with three services: once it stops, each of them is as Git declares.

To replay a failure: the seed is in the test's name. Whatever befalls the others, `calm`, which nobody touches, keeps
its two instances at every moment, and the journal's chain holds.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta

import pytest

from reconciler.core.audit import check
from reconciler.core.errors import Reason, ReconcilerError, Retryable
from reconciler.core.live import Difference, Phase
from tests.support.world import ENVIRONMENT, DiedError, World, image, manifest

BAD = {"START_DELAY_MS": "900000"}
DYING = {"EXIT_AFTER_MS": "10", "EXIT_CODE": "3"}
FAILING = {**DYING, "START_DELAY_MS": "9000"}
PUBLISHED = "  ports: [{name: http, container: 8080, host: 8080}]\n"


def body(name: str, letter: str, chance: random.Random) -> bytes:
    if name == "door":
        return manifest(name, letter, 1, PUBLISHED)
    return manifest(name, letter, chance.choice([0, 1, 2, 3]), chance.choice(["", "  dependsOn: [door]\n"]))


def commit(world: World, chance: random.Random) -> None:
    name = chance.choice(["web", "door"])
    world.commit(**{name: body(name, chance.choice("abcd"), chance)})


def bad_file(world: World, chance: random.Random) -> None:
    world.commit(**{chance.choice(["web", "door"]): b"spec: ["})


def remove(world: World, chance: random.Random) -> None:
    world.commit(**{chance.choice(["web", "door"]): None})


def sicken(world: World, chance: random.Random) -> None:
    world.engine.behaviour[image(chance.choice("bcd"))] = chance.choice([BAD, DYING, FAILING])


def by_hand(world: World, chance: random.Random) -> None:
    theirs = sorted(name for name in world.engine.containers if ".calm." not in name)
    if not theirs:
        return
    box = world.engine.containers[chance.choice(theirs)]
    match chance.randrange(4):
        case 0:
            del world.engine.containers[box.called]
        case 1 if box.phase is Phase.RUNNING:
            world.engine.end(box, 1, world.clock.now())
        case 2:
            box.attached = False
        case _:
            box.differences.append(Difference(Reason.DRIFT_CHANGED, "memory"))


def git_away(world: World, chance: random.Random) -> None:
    world.repository.trouble = chance.choice([None, Reason.REPOSITORY_UNREACHABLE])


def engine_away(world: World, chance: random.Random) -> None:
    world.engine.reachable = chance.choice([True, False])


def images_gone(world: World, chance: random.Random) -> None:
    world.engine.present.clear()


def trouble(world: World, chance: random.Random) -> None:
    """From now on some effects and appends fail, and now and then the daemon dies of it; `calm` is spared."""
    share = chance.choice([0.0, 0.05, 0.2])

    def fault(moment: str, what: object) -> None:
        if chance.random() < share / 5:
            raise DiedError
        if chance.random() < share and ".calm." not in getattr(what, "name", ""):
            raise Retryable(Reason.ENGINE_REFUSED, "at random")

    world.engine.fault = fault


EVENTS: tuple[Callable[[World, random.Random], None], ...] = (
    commit,
    commit,
    commit,
    bad_file,
    remove,
    sicken,
    by_hand,
    by_hand,
    git_away,
    engine_away,
    images_gone,
    trouble,
)


def live_on(world: World, chance: random.Random) -> None:
    for _ in range(chance.randrange(12)):
        try:
            world.cycle()
        except ReconcilerError:
            pass
        except DiedError:
            world.boot()
        world.clock.advance(timedelta(seconds=chance.choice([0, 1, 1, 7, 400])))
        calm = [box for name, box in world.engine.containers.items() if ".calm." in name]
        assert [(box.phase, box.attached) for box in calm] == [(Phase.RUNNING, True)] * 2


@pytest.mark.parametrize("seed", range(120))
def test_once_chaos_ends_each_service_is_as_declared(seed: int) -> None:
    chance = random.Random(seed)
    world = World()
    world.commit(calm=manifest("calm", "a"), web=manifest("web", "a"), door=manifest("door", "a", 1, PUBLISHED))
    assert world.drive().result == "synced"
    for _ in range(20):
        chance.choice(EVENTS)(world, chance)
        live_on(world, chance)
    world.engine.fault = lambda moment, effect: None
    world.engine.reachable, world.repository.trouble = True, None
    world.engine.behaviour.clear()
    world.clock.advance(timedelta(minutes=15))
    world.commit(web=manifest("web", "e"), door=manifest("door", "e", 1, PUBLISHED))
    assert world.drive(3000).result == "synced"
    assert (world.serving("web"), world.serving("door")) == (["e", "e"], ["e"])
    assert len(world.engine.containers) == 5
    assert check(world.disk.records) == ""
    before = len(world.disk.records)
    assert world.cycle().steps_done == 0
    world.boot()
    world.cycle()
    assert world.told()[before:] == ["EpochOpened"]
    assert set(world.journal.memory(ENVIRONMENT).services) == {"calm", "door", "web"}

"""Chaos behind proxies, from a seed: commits and reverts, deaths, hands, sickness, proxies that go and come, clocks.

To replay a failure: the seed is in the test's name. The laws of `fronted_laws.py` hold around every effect whatever
comes: above all no act of the daemon takes the last healthy instance out of a proxy. `calm`, which nobody touches, is
never down.
Once chaos ends each service is as Git declares.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta

import pytest

from reconciler.core.audit import check
from reconciler.core.errors import Reason, ReconcilerError, Retryable
from reconciler.core.live import Phase, ServerMode
from reconciler.core.record import Entry, What
from tests.support.fake_journal import FakeJournal
from tests.support.fronted_world import BLUE_GREEN, CANARY, GATED, RECREATE, ROLLING, FrontedWorld, manifest
from tests.support.world import ENVIRONMENT, DiedError, image
from tests.support.world import manifest as unfronted

SICK = (
    {"START_DELAY_MS": "900000"},
    {"UNHEALTHY_AFTER_MS": "3000"},
    {"UNHEALTHY_AFTER_MS": "9000", "START_DELAY_MS": "1000"},
    {"EXIT_AFTER_MS": "10", "EXIT_CODE": "3"},
    {"EXIT_AFTER_MS": "7000", "EXIT_CODE": "3"},
    {"COLD_REQUESTS": "100000", "COLD_MS": "900"},
)
WARM = "  warmUp: {requests: [{path: /}], count: 5, p95: 100ms, deadline: 10s}\n"
PAUSED = (
    "{strategy: canary, progressDeadline: 2m, steps: [{weight: 10, soak: 2s, pause: true}, {weight: 40, soak: 2s}]}"
)
SCALED = "  scaling: {min: 0, max: 3, sessionsPerInstance: 2, stabilization: 20s, wake: 30s}\n"


def body(name: str, letter: str, chance: random.Random) -> bytes:
    if name == "door":
        return manifest(name, letter, chance.choice([0, 1, 1, 1]), RECREATE)
    rollout = chance.choice([ROLLING, ROLLING, CANARY, PAUSED, GATED, BLUE_GREEN, BLUE_GREEN])
    if chance.random() < 0.15:
        return manifest(name, letter, -1, rollout, SCALED)
    replicas = chance.choice([0, 1, 2, 2, 3])
    if chance.random() < 0.1:
        return unfronted(name, letter, replicas)
    return manifest(name, letter, replicas, rollout, chance.choice(["", "", WARM, "  drift: report\n"]))


def commit(world: FrontedWorld, chance: random.Random) -> None:
    name = chance.choice(["web", "web", "door"])
    world.commit(**{name: body(name, chance.choice("abcd"), chance)})


def revert(world: FrontedWorld, chance: random.Random) -> None:
    """The files as they were some commits ago, as a new commit."""
    sha = chance.choice(list(world.repository.commits))
    world.repository.commit(world.repository.commits[sha][1])


def remove(world: FrontedWorld, chance: random.Random) -> None:
    world.commit(**{chance.choice(["web", "door"]): None})


def sicken(world: FrontedWorld, chance: random.Random) -> None:
    """New instances of a version are sick in some way, or its answers are errors."""
    letter = chance.choice("bcd")
    if chance.random() < 0.3:
        world.failing.add(letter)
    else:
        world.engine.behaviour[image(letter)] = chance.choice(SICK)


def mend(world: FrontedWorld, chance: random.Random) -> None:
    world.engine.behaviour.clear()
    world.failing.clear()


def die(world: FrontedWorld, chance: random.Random) -> None:
    """An instance that is not of `calm` ends, or is taken away."""
    theirs = sorted(name for name in world.engine.containers if ".calm." not in name)
    if not theirs:
        return
    box = world.engine.containers[chance.choice(theirs)]
    if chance.random() < 0.3:
        del world.engine.containers[box.called]
    elif box.phase is Phase.RUNNING:
        world.engine.end(box, 1, world.clock.now())


def by_hand(world: FrontedWorld, chance: random.Random) -> None:
    """Somebody changes a place of a table."""
    index = chance.randrange(len(world.tables()))
    places = [
        (name, at)
        for name, backend in sorted(world.tables()[index].backends.items())
        for at in sorted(backend.held)
        if not name.endswith(".calm")
    ]
    if places:
        name, at = chance.choice(places)
        mode, weight = chance.choice([*ServerMode]), chance.choice([0, 1, 100, 256])
        world.traffic.by_hand(ENVIRONMENT, name, at, index=index, mode=mode, weight=weight)


def lingering(world: FrontedWorld, chance: random.Random) -> None:
    world.lingers = chance.choice([0, 1, 5, 60])


def sleep(world: FrontedWorld, chance: random.Random) -> None:
    world.asleep = not world.asleep


def proxy_away(world: FrontedWorld, chance: random.Random) -> None:
    index = chance.randrange(len(world.tables()))
    world.traffic.reach(ENVIRONMENT, index, reachable=chance.random() < 0.5)


def lost_answer(world: FrontedWorld, chance: random.Random) -> None:
    world.traffic.fail(applied=chance.random() < 0.7)


def clock_jumps(world: FrontedWorld, chance: random.Random) -> None:
    """The wall clock is set: only `now` moves."""
    by = timedelta(seconds=chance.choice([-300, -20, 20, 3600]))
    world.clock.at += by
    for box in world.engine.containers.values():
        # An engine's checks do not go by the wall clock.
        if box.started_at is not None:
            box.started_at += by


def trouble(world: FrontedWorld, chance: random.Random) -> None:
    """From now on some effects and appends fail, and now and then the daemon dies of it; `calm` is spared."""
    share = chance.choice([0.0, 0.0, 0.05, 0.2])

    def fault(moment: str, what: object) -> None:
        if chance.random() < share / 5:
            raise DiedError
        if chance.random() < share and ".calm" not in getattr(what, "name", ""):
            raise Retryable(Reason.ENGINE_REFUSED, "at random")

    world.fault = fault


def restart(world: FrontedWorld, chance: random.Random) -> None:
    world.boot()


def promote(world: FrontedWorld, chance: random.Random) -> None:
    """A person lets a release go on."""
    trouble, world.fault = world.fault, lambda moment, what: None
    person = FakeJournal.open(world.disk, world.clock, "ann", act=False)
    person.append(Entry(world.clock.now(), What.CONTINUED, ENVIRONMENT, "web", author="ann"))
    world.fault = trouble


def forget(world: FrontedWorld, chance: random.Random) -> None:
    """A proxy loses its table, but for that of `calm`."""
    proxy = chance.choice(world.tables())
    for name, backend in proxy.backends.items():
        if not name.endswith(".calm"):
            for at in backend.held:
                proxy.sessions.pop((name, at), None)
                proxy.served.pop((name, at), None)
            backend.held.clear()


def engine_away(world: FrontedWorld, chance: random.Random) -> None:
    world.engine.reachable = chance.choice([True, False])


EVENTS: tuple[Callable[[FrontedWorld, random.Random], None], ...] = (
    commit,
    commit,
    commit,
    commit,
    revert,
    remove,
    sicken,
    sicken,
    mend,
    die,
    die,
    by_hand,
    by_hand,
    lingering,
    sleep,
    proxy_away,
    lost_answer,
    lost_answer,
    trouble,
    restart,
    restart,
    promote,
    forget,
    engine_away,
    clock_jumps,
)


def live_on(world: FrontedWorld, chance: random.Random) -> None:
    for _ in range(chance.randrange(10)):
        try:
            world.cycle()
        except ReconcilerError:
            pass
        except DiedError:
            world.boot()
        world.wait(chance.choice([0, 1, 1, 2, 7, 100]))


def calmed(world: FrontedWorld) -> None:
    """The end of all trouble."""
    world.fault = lambda moment, what: None
    for index in range(len(world.tables())):
        world.traffic.reach(ENVIRONMENT, index, reachable=True)
    world.engine.reachable = True
    world.engine.behaviour.clear()
    world.failing.clear()
    world.lingers, world.asleep = 2, False


def chaos(seed: int, proxies: int) -> FrontedWorld:
    chance = random.Random(seed)
    world = FrontedWorld(proxies=proxies)
    world.commit(calm=manifest("calm", "a"), web=manifest("web", "a"), door=manifest("door", "a", 1, RECREATE))
    world.settle(quiet=5)
    world.laws.never_down = {"calm"}
    for _ in range(25):
        chance.choice(EVENTS)(world, chance)
        live_on(world, chance)
    calmed(world)
    world.wait(900)
    return world


@pytest.mark.parametrize("seed", range(50))
def test_once_chaos_ends_each_service_is_as_declared(seed: int) -> None:
    world = chaos(seed, proxies=1 + seed % 2)
    chance = random.Random(seed)
    rollout = chance.choice([ROLLING, CANARY, GATED, BLUE_GREEN])
    world.commit(web=manifest("web", "e", 2, rollout), door=manifest("door", "e", 1, RECREATE))
    world.settle()
    assert (world.serving("web"), world.serving("door")) == (["e", "e"], ["e"])
    world.laws.declared(set(world.engine.containers), {"calm": 2, "web": 2, "door": 1})
    assert check(world.disk.records) == ""
    before = len(world.disk.records)
    assert world.cycle().steps_done == 0
    world.boot()
    world.wait(5)
    world.settle(quiet=5)
    assert world.told()[before:] == ["EpochOpened"]

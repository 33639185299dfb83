"""The daemon dies anywhere in a release behind proxies: before and after each intent, effect and outcome; and in pairs.

To replay a failure: its message has the story, the seed and the moments. The laws of `fronted_laws.py` are looked at
around every effect and after every passing of time; the end is as without a death.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from reconciler.core.audit import check
from tests.support.fronted_laws import BrokenLawError
from tests.support.fronted_world import BLUE_GREEN, CANARY, GATED, RECREATE, ROLLING, WEB, FrontedWorld, manifest
from tests.support.world import ENVIRONMENT, DiedError, image

WHOLE = ("rolling", "canary with a baseline", "blue-green and its return", "recreate", "scale", "sleep and wake")
"""Stories in which the daemon dies at each moment there is; in the others at one of so many:"""
SOME = 23
DOWNTIMES = (0, 0, 2, 9, 40, 400)
WARM = "  warmUp: {requests: [{path: /}], count: 5, deadline: 10s}\n"
ASLEEP = "  scaling: {min: 0, max: 3, sessionsPerInstance: 2, stabilization: 20s, wake: 30s}\n"


@dataclass
class Mortal:
    """A world whose daemon dies at the given moments: each append and each effect has one before and one after it."""

    world: FrontedWorld
    deaths: set[int]
    chance: random.Random
    passed: int = 0

    def __post_init__(self) -> None:
        self.world.fault = self.fault

    def fault(self, moment: str, what: object) -> None:
        self.passed += 1
        if self.passed in self.deaths:
            raise DiedError

    def live(self, work: Callable[[], object]) -> None:
        """Do the work, with a new daemon after each death, some time later."""
        while True:
            try:
                work()
            except DiedError:
                self.world.wait(self.chance.choice(DOWNTIMES))
                self.world.boot()
                continue
            return

    def release(self, letter: str, rollout: str, replicas: int = 2, extra: str = "") -> None:
        self.world.commit(web=manifest("web", letter, replicas, rollout, extra))
        self.live(self.world.settle)


def release(mortal: Mortal, rollout: str) -> None:
    mortal.release("b", rollout)


def failing(mortal: Mortal, rollout: str) -> None:
    """A canary falls sick with its share of the traffic; other candidates never get well."""
    sick = {"UNHEALTHY_AFTER_MS": "3000"} if "canary" in rollout else {"START_DELAY_MS": "900000"}
    mortal.world.engine.behaviour[image("b")] = sick
    mortal.world.commit(web=manifest("web", "b", 2, rollout))
    mortal.live(lambda: until(mortal.world, lambda: "RolledBack" in mortal.world.told()))
    mortal.release("c", rollout)


def sick_after_all(mortal: Mortal, rollout: str) -> None:
    """It falls sick when it has the whole traffic, and the version before is still there."""
    mortal.world.laws.never_down.clear()
    mortal.world.engine.behaviour[image("b")] = {"UNHEALTHY_AFTER_MS": "4000", "START_DELAY_MS": "1000"}
    mortal.world.commit(web=manifest("web", "b", 2, rollout))
    mortal.live(lambda: until(mortal.world, lambda: mortal.world.serving() == ["a", "a"]))
    mortal.live(lambda: until(mortal.world, lambda: "RolledBack" in mortal.world.told()))
    mortal.release("c", rollout)


def gated(mortal: Mortal, rollout: str) -> None:
    """A version whose answers are errors is stopped by its gate."""
    mortal.world.failing.add("b")
    mortal.world.commit(web=manifest("web", "b", 2, rollout))
    mortal.live(lambda: until(mortal.world, lambda: "RolledBack" in mortal.world.told()))
    mortal.release("c", rollout)


def there_and_back(mortal: Mortal, rollout: str) -> None:
    """A commit in the middle of a release takes it back, and another one comes soon after."""
    for letter, seconds in (("b", 5), ("a", 4), ("c", 7)):
        mortal.world.commit(web=manifest("web", letter, 2, rollout))
        end = mortal.world.clock.elapsed + seconds
        mortal.live(lambda end=end: until(mortal.world, lambda: mortal.world.clock.elapsed >= end))
    mortal.release("d", rollout)


def hold_and_return(mortal: Mortal, rollout: str) -> None:
    """A commit takes back a version that was promoted, while the one before it is still held."""
    world = mortal.world
    world.commit(web=manifest("web", "b", 2, rollout))
    mortal.live(lambda: until(world, lambda: world.told().count("Promoted") == 2))
    mortal.release("a", rollout)


def scales(mortal: Mortal, rollout: str) -> None:
    mortal.release("a", rollout, replicas=4)
    mortal.release("a", rollout, replicas=1)
    mortal.release("a", rollout, replicas=3)


def sleeps(mortal: Mortal, rollout: str) -> None:
    """It falls asleep, is woken, and gets a new version in its sleep."""
    world = mortal.world
    world.asleep = True
    mortal.live(lambda: until(world, lambda: not world.engine.containers))
    world.traffic.set_waiting(ENVIRONMENT, WEB, 2)
    mortal.live(lambda: until(world, lambda: world.serving() != []))
    world.traffic.set_waiting(ENVIRONMENT, WEB, 0)
    world.asleep = False
    mortal.live(lambda: until(world, lambda: world.cycle().result == "synced"))
    world.asleep = True
    mortal.live(lambda: until(world, lambda: not world.engine.containers))
    world.commit(web=manifest("web", "b", -1, rollout, ASLEEP))
    mortal.live(lambda: until(world, lambda: "Promoted" in world.told()[-40:] and not world.engine.containers))


def until(world: FrontedWorld, reached: Callable[[], bool], limit: float = 1500) -> None:
    end = world.clock.elapsed + limit
    while not reached():
        world.cycle()
        world.wait()
        assert world.clock.elapsed < end, world.laws.said("limit", "it does not come to that")


def recreated(mortal: Mortal, rollout: str) -> None:
    mortal.release("b", rollout, replicas=1)


def recreated_in_vain(mortal: Mortal, rollout: str) -> None:
    mortal.world.engine.behaviour[image("b")] = {"START_DELAY_MS": "900000"}
    mortal.world.commit(web=manifest("web", "b", 1, rollout))
    mortal.live(lambda: until(mortal.world, lambda: "RolledBack" in mortal.world.told()))
    assert mortal.world.serving() == ["a"]
    mortal.release("c", rollout, replicas=1)


def released_warm(mortal: Mortal, rollout: str) -> None:
    mortal.release("b", rollout, extra=WARM)


@dataclass(frozen=True)
class Story:
    tell: Callable[[Mortal, str], None]
    rollout: str
    end: list[str]
    replicas: int = 2
    extra: str = ""
    lingers: int = 2


STORIES = {
    "rolling": Story(release, ROLLING, ["b", "b"]),
    "rolling, requests that never end": Story(release, ROLLING, ["b", "b"], lingers=100),
    "rolling, warm": Story(released_warm, ROLLING, ["b", "b"]),
    "rolling that fails": Story(failing, ROLLING, ["c", "c"]),
    "rolling there and back": Story(there_and_back, ROLLING, ["d", "d"]),
    "canary": Story(release, CANARY, ["b", "b"]),
    "canary with a baseline": Story(release, GATED, ["b", "b"], lingers=5),
    "canary that fails": Story(failing, CANARY, ["c", "c"]),
    "canary stopped by its gate": Story(gated, GATED, ["c", "c"]),
    "canary there and back": Story(there_and_back, CANARY, ["d", "d"], lingers=5),
    "blue-green": Story(release, BLUE_GREEN, ["b", "b"]),
    "blue-green and its return": Story(hold_and_return, BLUE_GREEN, ["a", "a"], lingers=5),
    "blue-green that fails": Story(failing, BLUE_GREEN, ["c", "c"]),
    "blue-green that falls sick": Story(sick_after_all, BLUE_GREEN, ["c", "c"]),
    "blue-green there and back": Story(there_and_back, BLUE_GREEN, ["d", "d"]),
    "recreate": Story(recreated, RECREATE, ["b"], replicas=1),
    "recreate in vain": Story(recreated_in_vain, RECREATE, ["c"], replicas=1),
    "scale": Story(scales, ROLLING, ["a", "a", "a"], lingers=5),
    "sleep and wake": Story(sleeps, ROLLING, [], replicas=-1, extra=ASLEEP),
}


def told(name: str, deaths: set[int], seed: int = 0, proxies: int = 1) -> int:
    """The story with deaths at these moments, and all that has to hold at its end. Returns how many moments it has."""
    story = STORIES[name]
    world = FrontedWorld(proxies=proxies, lingers=story.lingers)
    for letter in "abcd":
        world.engine.behaviour[image(letter)] = {"START_DELAY_MS": "1000"}
    world.commit(web=manifest("web", "a", story.replicas, story.rollout, story.extra))
    world.settle(quiet=15)
    if story.replicas > 0:
        world.laws.never_down = {"web"}
    mortal = Mortal(world, deaths, random.Random(seed))
    try:
        story.tell(mortal, story.rollout)
        mortal.deaths = set()
        world.settle()
        assert world.serving() == story.end
        world.laws.declared(set(world.engine.containers), {"web": len(story.end)})
        assert check(world.disk.records) == ""
        before = len(world.disk.records)
        assert world.cycle().steps_done == 0
        assert len(world.disk.records) == before
    except (AssertionError, BrokenLawError) as error:
        raise AssertionError(f"{name}, seed {seed}, deaths at {sorted(deaths)}: {error}") from error
    return mortal.passed


@pytest.mark.parametrize("name", STORIES)
def test_the_story_without_a_death(name: str) -> None:
    assert told(name, set()) > 10


@pytest.mark.parametrize("name", WHOLE)
def test_a_death_at_every_moment(name: str) -> None:
    for moment in range(1, told(name, set()) + 1):
        told(name, {moment}, seed=moment)


@pytest.mark.parametrize("name", [name for name in STORIES if name not in WHOLE])
def test_a_death_at_some_moments(name: str) -> None:
    for moment in range(1 + len(name) % SOME, told(name, set()) + 1, SOME):
        told(name, {moment}, seed=moment)


@pytest.mark.parametrize("seed", range(2))
def test_deaths_in_pairs_and_more_with_two_proxies(seed: int) -> None:
    chance = random.Random(seed)
    for name in STORIES:
        deaths = {moment for moment in range(1, 300) if chance.random() < chance.choice([0.01, 0.02, 0.1])}
        told(name, deaths, seed, proxies=2)

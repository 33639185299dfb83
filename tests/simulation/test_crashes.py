"""Crash anywhere: the core's steps are cut off before and after every effect, once, in all pairs, and in storms.

After each cut the world goes on from what the journal and the engine hold, after a varied downtime (a fixed one hides
bugs). The end must be the same as without a cut, no capacity may be lost on the way, and nothing may be left over.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from reconciler.core.record import What
from reconciler.core.status import Sync
from reconciler.core.steps import Step, Transition
from tests.support.scene import PUBLISHED, Scene

DOWNTIMES = (timedelta(0), timedelta(seconds=3), timedelta(seconds=11), timedelta(hours=1))


class Crash(Exception):
    """The daemon dies here."""


@dataclass
class Mortal(Scene):
    """A world whose daemon dies at chosen moments: each effect has two, after its intent and after itself."""

    moments: set[int] = field(default_factory=set)
    passed: int = 0
    floor: int = 0

    def do(self, step: Step, service: str = "web") -> None:
        if isinstance(step, Transition):
            super().do(step, service)
            return
        self.record(What.INTENT, step, service=service)
        self.maybe_die()
        self.effect(step)
        assert len(self.serving()) >= self.floor, f"capacity lost at {step}"
        self.maybe_die()
        self.record(What.DONE, step, service=service)

    def maybe_die(self) -> None:
        self.passed += 1
        if self.passed in self.moments:
            raise Crash

    def survive(self, downtime: Callable[[], timedelta]) -> None:
        """Settle, restarting after each crash."""
        while True:
            try:
                self.settle()
            except Crash:
                self.restart(downtime())
                continue
            return

    def restart(self, downtime: timedelta) -> None:
        """A new daemon after a while in which the instances went on by themselves."""
        self.now += downtime
        self.up_since = self.now
        self.live()


def release(world: Mortal, downtime: Callable[[], timedelta]) -> None:
    world.want("b", replicas=2)
    world.survive(downtime)


def failing_release(world: Mortal, downtime: Callable[[], timedelta]) -> None:
    world.want("b", replicas=2)
    world.sick.add(world.wanted.version)
    world.survive(downtime)


def dying_release_and_fix(world: Mortal, downtime: Callable[[], timedelta]) -> None:
    world.want("b", replicas=2)
    world.dying.add(world.wanted.version)
    world.survive(downtime)
    world.want("c", replicas=2)
    world.survive(downtime)


def there_and_back(world: Mortal, downtime: Callable[[], timedelta]) -> None:
    world.want("b", replicas=2)
    try:
        for _ in range(5):
            world.step()
    except Crash:
        world.restart(downtime())
    world.want("a", replicas=2)
    world.survive(downtime)


def scale(world: Mortal, downtime: Callable[[], timedelta]) -> None:
    world.want("a", replicas=4)
    world.survive(downtime)
    world.want("a", replicas=2)
    world.survive(downtime)


def removed_by_hand(world: Mortal, downtime: Callable[[], timedelta]) -> None:
    del world.instances[min(world.instances)]
    world.floor = 1
    world.survive(downtime)


def published(world: Mortal, downtime: Callable[[], timedelta]) -> None:
    world.want("b", ports=PUBLISHED)
    world.survive(downtime)


def published_failing(world: Mortal, downtime: Callable[[], timedelta]) -> None:
    world.want("b", ports=PUBLISHED)
    world.dying.add(world.wanted.version)
    world.survive(downtime)


def removal(world: Mortal, downtime: Callable[[], timedelta]) -> None:
    world.floor = 0
    world.wanted = None
    world.survive(downtime)


Story = Callable[[Mortal, Callable[[], timedelta]], None]
STORIES: dict[str, tuple[Story, list[str]]] = {
    "release": (release, ["b", "b"]),
    "failing release": (failing_release, ["a", "a"]),
    "dying release and fix": (dying_release_and_fix, ["c", "c"]),
    "there and back": (there_and_back, ["a", "a"]),
    "scale": (scale, ["a", "a"]),
    "removed by hand": (removed_by_hand, ["a", "a"]),
    "published": (published, ["b"]),
    "published failing": (published_failing, ["a"]),
    "removal": (removal, []),
}


def told(name: str, moments: set[int], downtime: Callable[[], timedelta]) -> Mortal:
    """The story with crashes at the given moments, and all that must hold at its end."""
    story, end = STORIES[name]
    world = Mortal()
    host_port = name.startswith("published")
    world.want("a", **({"ports": PUBLISHED} if host_port else {"replicas": 2}))
    world.settle()
    world.passed, world.moments, world.floor = 0, moments, 0 if host_port else 2
    story(world, downtime)
    assert world.serving() == end
    assert len(world.instances) == len(end), "something is left over"
    assert not world.step(), "a second reconcile does something"
    if end and end[0] == (world.wanted.spec.image.pinned[-1] if world.wanted else ""):
        assert world.service.sync is Sync.SYNCED
    return world


def moments_of(name: str) -> int:
    return told(name, set(), lambda: timedelta(0)).passed


@pytest.mark.parametrize("name", STORIES)
def test_a_crash_at_every_moment_changes_nothing_in_the_end(name: str) -> None:
    for moment in range(1, moments_of(name) + 1):
        for downtime in DOWNTIMES:
            told(name, {moment}, lambda downtime=downtime: downtime)


@pytest.mark.parametrize("name", STORIES)
def test_all_pairs_of_crashes(name: str) -> None:
    seeded = random.Random(7)
    for pair in itertools.combinations(range(1, moments_of(name) + 3), 2):
        told(name, set(pair), lambda: seeded.choice(DOWNTIMES))


@pytest.mark.parametrize("seed", range(60))
def test_storms(seed: int) -> None:
    seeded = random.Random(seed)
    for name in STORIES:
        moments = {moment for moment in range(1, 120) if seeded.random() < 0.3}
        told(name, moments, lambda: timedelta(seconds=seeded.choice([0, 0, 1, 4, 9, 30, 600])))

"""The daemon dies anywhere in a release on an engine with controllers of its own: around each effect, and in storms.

At every moment a pod that is ready gets the requests, and the end is as without a death. To replay a failure: its
message has the story and the moments.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from reconciler.core.audit import check
from reconciler.core.errors import Reason, Retryable
from reconciler.core.plan import plan
from reconciler.core.question import Question
from reconciler.core.rest import Rests
from reconciler.core.status import Plan, ServicePlan
from tests.support.fake_cluster import BEFORE
from tests.support.native_world import BLUE_GREEN, CANARY, RECREATE, ROLLING, NativeWorld, manifest
from tests.support.world import DiedError

STRATEGIES = {"rolling": ROLLING, "canary": CANARY, "blueGreen": BLUE_GREEN, "recreate": RECREATE}
ROUTE = "  traffic: {port: 8080, hosts: [web.test]}\n"
DOWNTIMES = (0, 1, 5, 40)
Story = Callable[["Mortal"], str]


class Mortal:
    """A world whose daemon dies at the given moments."""

    def __init__(self, rollout: str, *, gateway: bool, deaths: set[int], chance: random.Random) -> None:
        self.world = NativeWorld(gateway=gateway)
        self.rollout, self.replicas = STRATEGIES[rollout], 1 if rollout == "recreate" else 4
        self.extra = ROUTE if gateway else ""
        self.deaths: set[int] = set()
        self.passed = 0
        self.chance = chance
        self.world.commit(self.manifest("a"))
        assert self.world.drive().result == "synced"
        self.deaths = deaths
        self.world.fault = self._fault
        if rollout != "recreate":
            self.world.law = _never_down

    def manifest(self, letter: str) -> bytes:
        return manifest(letter, self.rollout, self.replicas, self.extra)

    def _fault(self, moment: str, what: object) -> None:
        self.passed += 1
        if self.passed in self.deaths:
            raise DiedError

    def drive(self) -> None:
        """Work to the end, with a new daemon after each death, some time later."""
        while True:
            try:
                self.world.drive()
            except DiedError:
                self.world.wait(self.chance.choice(DOWNTIMES))
                self.world.boot()
                continue
            return


def _never_down(world: NativeWorld) -> None:
    # It must not be taken for a fault of one service.
    if not world.split():
        raise SystemExit(f"nobody gets the requests: {world.letters()} {world.told()[-20:]}")


def release(mortal: Mortal) -> str:
    mortal.world.commit(mortal.manifest("b"))
    mortal.drive()
    return "b"


def failing(mortal: Mortal) -> str:
    mortal.world.cluster.dying.add("b")
    mortal.world.commit(mortal.manifest("b"))
    mortal.drive()
    return "a"


def reverted(mortal: Mortal) -> str:
    return overtaken(mortal, "a")


def overtaken(mortal: Mortal, by: str = "c") -> str:
    mortal.world.commit(mortal.manifest("b"))
    for _ in range(8):
        try:
            mortal.world.cycle()
        except DiedError:
            mortal.world.boot()
        mortal.world.wait(1)
    mortal.world.commit(mortal.manifest(by))
    mortal.drive()
    return by


def there_and_back(mortal: Mortal) -> str:
    release(mortal)
    mortal.world.commit(mortal.manifest("a"))
    mortal.drive()
    return "a"


STORIES: dict[str, Story] = {story.__name__: story for story in (release, failing, reverted, overtaken, there_and_back)}


def told(story: str, rollout: str, gateway: bool, deaths: set[int], seed: int = 0) -> Mortal:
    mortal = Mortal(rollout, gateway=gateway, deaths=deaths, chance=random.Random(seed))
    letter = STORIES[story](mortal)
    mortal.deaths = set()
    world = mortal.world
    assert world.letters() == [letter], (story, rollout, gateway, deaths, world.told()[-30:])
    assert world.split() == {letter: 100.0}
    records = len(world.disk.records)
    world.drive()
    assert len(world.disk.records) == records, "a second reconcile writes nothing"
    assert check(world.disk.records) == ""
    return mortal


@pytest.mark.parametrize("gateway", [False, True])
@pytest.mark.parametrize("rollout", STRATEGIES)
@pytest.mark.parametrize("story", STORIES)
def test_a_death_at_every_moment_ends_as_none(story: str, rollout: str, gateway: bool) -> None:
    moments = told(story, rollout, gateway, set()).passed
    assert moments
    for moment in range(1, moments + 1):
        told(story, rollout, gateway, {moment}, moment)


@pytest.mark.parametrize("seed", range(20))
def test_storms_of_deaths_end_as_none(seed: int) -> None:
    chance = random.Random(seed)
    story, rollout = chance.choice(list(STORIES)), chance.choice(list(STRATEGIES))
    told(story, rollout, chance.random() < 0.5, {chance.randint(1, 30) for _ in range(6)}, seed)


@pytest.mark.parametrize("seed", range(12))
def test_in_storms_nothing_that_is_kept_of_services_at_rest_is_stale(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    recalled: list[ServicePlan] = []
    known: dict[str, ServicePlan] = {}

    def compared(question: Question, rests: Rests | None = None) -> Plan:
        before = dict(known)
        found = plan(question, rests)
        assert found == plan(question)
        known.update(found.services)
        recalled.extend(each for name, each in found.services.items() if before.get(name) is each)
        return found

    monkeypatch.setattr("reconciler.loop.plan", compared)
    chance = random.Random(seed)
    story, rollout = chance.choice(list(STORIES)), chance.choice(list(STRATEGIES))
    told(story, rollout, chance.random() < 0.5, {chance.randint(1, 30) for _ in range(6)}, seed)
    assert recalled


@pytest.mark.parametrize("gateway", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_an_engine_that_fails_now_and_then_delays_and_changes_nothing(seed: int, gateway: bool) -> None:
    chance = random.Random(seed)
    mortal = Mortal(chance.choice(list(STRATEGIES)), gateway=gateway, deaths=set(), chance=chance)

    def fault(moment: str, what: object) -> None:
        if chance.random() < 0.3:
            answer = "refused" if moment == BEFORE else "done, and the answer was lost"
            raise Retryable(Reason.ENGINE_UNREACHABLE, answer, where="fake cluster", remedy="Wait")

    mortal.world.fault = fault
    mortal.world.commit(mortal.manifest("b"))
    for _ in range(40):
        mortal.world.cycle()
        mortal.world.wait(3)
    mortal.world.fault = lambda moment, what: None
    mortal.world.drive()
    assert mortal.world.letters() == ["b"]
    assert mortal.world.split() == {"b": 100.0}
    assert mortal.world.told().count("Promoted") == 2

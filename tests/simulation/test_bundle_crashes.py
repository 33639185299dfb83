"""The daemon dies anywhere in a release of plain manifests: around and within effects, around appends, in storms.

At every moment what the stable version declares is there, and what somebody else has made is as it was. The end is as
without a death: exactly what is declared. To replay a failure: its message has the story and the moments.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta

import pytest

from reconciler.core.audit import check
from reconciler.core.errors import Reason, Retryable
from reconciler.core.kubernetes_identity import Identity
from reconciler.core.record import What
from tests.support.fake_bundles import NEVER, FakeObject
from tests.support.fake_cluster import BEFORE, WITHIN
from tests.support.native_world import NativeWorld
from tests.support.world import DIRECTORY, ENVIRONMENT, ENVIRONMENT_FILE, DiedError

DOWNTIMES = (0, 1, 5, 40)
QUIET = 4
"""Longer than an object takes to be current."""
DECLARED = {
    "a": ("one", "two", "three", "same"),
    "b": ("one", "two", "same", "four"),
    "c": ("one", "three", "same", "five"),
}
"""The objects of each version; `same` has the same content in all of them."""
Story = Callable[["Mortal"], str]


def content(name: str, letter: str) -> str:
    return "-" if name == "same" else f"is-{letter}"


def files(letter: str) -> Mapping[str, bytes | None]:
    """One commit: the bundle `web` in this version."""
    text = "---\n".join(
        f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{letter: {content(name, letter)}}}\n"
        for name in DECLARED[letter]
    )
    manifest = (
        "apiVersion: reconciler.dev/v1\nkind: Manifests\nmetadata: {name: web}\n"
        "spec: {path: apps/web, progressDeadline: 2m}\n"
    )
    return {
        f"{DIRECTORY}/environment.yaml": ENVIRONMENT_FILE,
        f"{DIRECTORY}/web.yaml": manifest.encode(),
        "apps/web/all.yaml": text.encode(),
    }


class Mortal:
    """A world whose daemon dies at the given moments."""

    def __init__(self, deaths: set[int], chance: random.Random) -> None:
        self.world = NativeWorld()
        self.letters: dict[str, str] = {}
        self.passed = 0
        self.deaths: set[int] = set()
        self.chance = chance
        self.theirs = Identity("", "ConfigMap", ENVIRONMENT, "somebody-elses")
        self.world.cluster.bundles.objects[self.theirs] = FakeObject("", "as it was", self.world.clock.now())
        self.commit("a")
        assert self.world.drive().result == "synced"
        self.deaths = deaths
        self.world.fault = self._fault
        self.world.disk.fault = self._fault
        self.world.law = self._law

    def commit(self, letter: str) -> None:
        self.letters[self.world.repository.commit(files(letter))] = letter

    def _fault(self, moment: str, what: object) -> None:
        self.passed += 1
        if self.passed in self.deaths:
            raise DiedError

    def _law(self, world: NativeWorld) -> None:
        """What the stable version has is there, whatever else is; a fault of the test's own ends all of it."""
        promoted = [each.entry.to_version for each in world.disk.records if each.entry.what is What.PROMOTED]
        assert promoted[-1] is not None
        stable = self.letters[promoted[-1].revision]
        missing = set(DECLARED[stable]) - world.cluster.bundles.names().keys()
        theirs = world.cluster.bundles.objects[self.theirs]
        if missing or theirs.now != "as it was":
            raise SystemExit(f"{stable} is stable and {missing} gone, {theirs}: {world.told()[-20:]}")

    def drive(self) -> None:
        """Work to the end, with a new daemon after each death, some time later."""
        while True:
            try:
                self._settle()
            except DiedError:
                self.world.wait(self.chance.choice(DOWNTIMES))
                self.world.boot()
                continue
            return

    def _settle(self) -> None:
        """Reconcile until nothing happened for a while and nothing is to come. Long waits are passed in one go."""
        quiet = 0
        while quiet <= QUIET:
            cycle = self.world.cycle()
            quiet = 0 if cycle.steps_done else quiet + 1
            if quiet > QUIET and cycle.recheck_at is not None:
                self.world.clock.advance(max(cycle.recheck_at - self.world.clock.now(), timedelta(0)))
                quiet = 0
            self.world.wait(1)

    def some(self, rounds: int = 3) -> None:
        """A little work only."""
        for _ in range(rounds):
            try:
                self.world.cycle()
            except DiedError:
                self.world.boot()
            self.world.wait(1)

    def there(self) -> dict[str, str]:
        return {name: json.loads(now)["data"]["letter"] for name, now in self.world.cluster.bundles.names().items()}


def declared(letter: str) -> dict[str, str]:
    return {name: content(name, letter) for name in DECLARED[letter]}


def release(mortal: Mortal) -> str:
    mortal.commit("b")
    mortal.drive()
    return "b"


def failing(mortal: Mortal) -> str:
    mortal.world.cluster.bundles.sick["is-b"] = NEVER
    release(mortal)
    return "a"


def reverted(mortal: Mortal) -> str:
    return overtaken(mortal, "a")


def overtaken(mortal: Mortal, by: str = "c") -> str:
    mortal.commit("b")
    mortal.some()
    mortal.commit(by)
    mortal.drive()
    return by


def there_and_back(mortal: Mortal) -> str:
    release(mortal)
    mortal.commit("a")
    mortal.drive()
    return "a"


STORIES: dict[str, Story] = {story.__name__: story for story in (release, failing, reverted, overtaken, there_and_back)}


def ends_well(mortal: Mortal, letter: str, *about: object) -> None:
    world = mortal.world
    mortal.deaths = set()
    world.fault = world.disk.fault = lambda moment, what: None
    assert mortal.there() == declared(letter), (*about, world.told()[-30:])
    (group,) = world.cluster.bundles.groups()
    assert {each.split("/")[-1] for each in group.inventory} == set(DECLARED[letter])
    assert group.leftovers == ()
    records = len(world.disk.records)
    for _ in range(3):
        world.cycle()
        world.wait(20)
    assert len(world.disk.records) == records, "a second reconcile writes nothing"
    assert check(world.disk.records) == ""


def told(story: str, deaths: set[int], seed: int = 0) -> Mortal:
    mortal = Mortal(deaths, random.Random(seed))
    ends_well(mortal, STORIES[story](mortal), story, deaths)
    return mortal


@pytest.mark.parametrize("story", STORIES)
def test_a_death_at_every_moment_ends_as_none(story: str) -> None:
    moments = told(story, set()).passed
    assert moments > 10
    for moment in range(1, moments + 1):
        told(story, {moment}, moment)


@pytest.mark.parametrize("seed", range(30))
def test_storms_of_deaths_end_as_none(seed: int) -> None:
    chance = random.Random(seed)
    told(chance.choice(list(STORIES)), {chance.randint(1, 60) for _ in range(8)}, seed)


@pytest.mark.parametrize("seed", range(20))
def test_answers_that_are_lost_delay_and_change_nothing(seed: int) -> None:
    chance = random.Random(seed)
    mortal = Mortal(set(), chance)

    def fault(moment: str, what: object) -> None:
        if chance.random() < 0.15:
            answer = {BEFORE: "refused", WITHIN: "done in part"}.get(moment, "done, and the answer was lost")
            raise Retryable(Reason.ENGINE_UNREACHABLE, answer, where="fake cluster", remedy="Wait")

    mortal.world.fault = fault
    for letter in ("b", "c"):
        mortal.commit(letter)
        for _ in range(chance.randint(1, 20)):
            mortal.world.cycle()
            mortal.world.wait(2)
    mortal.world.fault = lambda moment, what: None
    mortal.drive()
    ends_well(mortal, "c", seed)


def test_the_journal_names_what_was_removed() -> None:
    mortal = told("release", set())
    entries = [each.entry for each in mortal.world.disk.records]
    removals = [entry for entry in entries if entry.details.get("effect") == "PruneGroup"]
    assert [entry.what for entry in removals] == [What.INTENT, What.DONE]
    assert removals[0].details["objects"] == ["/ConfigMap/prod/three"]
    assert removals[0].revision


def test_what_never_goes_is_tried_with_pauses_and_keeps_nothing_else_from_being_done() -> None:
    mortal = Mortal(set(), random.Random(0))
    mortal.world.cluster.bundles.stuck.add("three")
    mortal.commit("b")
    for _ in range(3600):
        mortal.world.cycle()
        mortal.world.wait(1)
    kinds = Counter(str(each.entry.details.get("effect")) for each in mortal.world.disk.records)
    assert 10 < kinds["PruneGroup"] < 60, "an attempt is two records, and there are a few of them in an hour"
    assert mortal.there() == {**declared("b"), "three": "is-a"}
    mortal.commit("c")
    mortal.world.cluster.bundles.stuck.clear()
    mortal.drive()
    ends_well(mortal, "c")

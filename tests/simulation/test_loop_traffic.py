"""The real loop behind proxies: what a person sees of a release, and what happens where a proxy is in trouble.

The laws of `fronted_laws.py` are looked at around every effect of every story here.
"""

from __future__ import annotations

from datetime import timedelta

import pytest

from reconciler.core.errors import Reason, Stalled
from reconciler.core.live import ServerMode
from reconciler.core.record import Entry, What
from reconciler.core.steps import EnsureProxy, ShiftTraffic
from tests.support.fake_journal import FakeJournal
from tests.support.fronted_world import (
    BLUE_GREEN,
    CANARY,
    GATED,
    RECREATE,
    ROLLING,
    WEB,
    FrontedWorld,
    fronted,
    manifest,
)
from tests.support.world import ENVIRONMENT, image

PAUSED = "{strategy: canary, progressDeadline: 1m, steps: [{weight: 10, soak: 2s, pause: true}]}"
SCALED = "  scaling: {min: 1, max: 4, sessionsPerInstance: 1, stabilization: 20s}\n"
STRATEGIES = {"rolling": ROLLING, "canary": CANARY, "gated": GATED, "blue-green": BLUE_GREEN}


def split(world: FrontedWorld) -> str:
    """The share of each image's letter in per cent: `a 80 b 20`."""
    return " ".join(f"{letter} {share:.0f}" for letter, share in sorted(world.shares().items()))


def splits(world: FrontedWorld, seconds: int) -> list[str]:
    """The splits that were there, one after the other."""
    found: list[str] = []
    for _ in range(seconds):
        world.cycle()
        if not found or found[-1] != split(world):
            found.append(split(world))
        world.wait()
    return found


def never_down(world: FrontedWorld) -> FrontedWorld:
    world.laws.never_down = {"web"}
    return world


@pytest.mark.parametrize(
    ("rollout", "seen"),
    [
        (CANARY, ["a 100", "a 80 b 20", "a 50 b 50", "b 100"]),
        (BLUE_GREEN, ["a 100", "b 100"]),
    ],
)
def test_the_traffic_moves_in_the_declared_shares_and_no_others(rollout: str, seen: list[str]) -> None:
    world = never_down(fronted(web=manifest("web", "a", 2, rollout)))
    world.engine.behaviour[image("b")] = {"START_DELAY_MS": "1000"}
    world.commit(web=manifest("web", "b", 2, rollout))
    assert splits(world, 40) == seen
    world.settle()
    world.laws.declared(set(world.engine.containers), {"web": 2})


def test_a_pause_waits_for_a_person() -> None:
    world = never_down(fronted(web=manifest("web", "a", 2, PAUSED)))
    world.commit(web=manifest("web", "b", 2, PAUSED))
    assert splits(world, 120)[-1] == "a 90 b 10"
    person = FakeJournal.open(world.disk, world.clock, "ann", act=False)
    person.append(Entry(world.clock.now(), What.CONTINUED, ENVIRONMENT, "web", author="ann"))
    world.settle()
    assert world.serving() == ["b", "b"]


def test_a_gate_stops_a_version_whose_answers_are_errors() -> None:
    world = never_down(fronted(web=manifest("web", "a", 2, GATED)))
    world.failing.add("b")
    world.commit(web=manifest("web", "b", 2, GATED))
    seen = splits(world, 60)
    assert seen[-1] == "a 100"
    assert "b 100" not in seen
    failed = next(r.entry for r in world.disk.records if r.entry.what is What.ROLLOUT_FAILED)
    assert failed.reason == Reason.GATE_FAILED
    assert len(world.engine.containers) == 2


def test_the_version_before_comes_back_at_once_while_it_is_held() -> None:
    world = never_down(fronted(web=manifest("web", "a", 2, BLUE_GREEN)))
    world.commit(web=manifest("web", "b", 2, BLUE_GREEN))
    while world.told().count("Promoted") < 2:
        world.cycle()
        world.wait()
    world.commit(web=manifest("web", "a", 2, BLUE_GREEN))
    world.cycle()
    assert split(world) == "a 100"


@pytest.mark.parametrize("rollout", STRATEGIES.values(), ids=STRATEGIES)
@pytest.mark.parametrize("daemon", ["lives", "dies"])
def test_a_proxy_that_forgets_everything_is_told_again_at_once(rollout: str, daemon: str) -> None:
    """At every look of a release: one proxy of two loses its table; what the other one does is not taken from it."""
    for moment in range(0, 18, 3):
        world = fronted(proxies=2, web=manifest("web", "a", 2, rollout))
        world.engine.behaviour[image("b")] = {"START_DELAY_MS": "1000"}
        world.commit(web=manifest("web", "b", 2, rollout))
        for _ in range(moment):
            world.cycle()
            world.wait()
        world.traffic.forget(ENVIRONMENT, 1)
        if daemon == "dies":
            world.boot()
        world.cycle()
        assert world.laws.serving("web", 0), moment
        assert world.laws.serving("web", 1), moment
        world.laws.never_down = {"web"}
        world.settle()
        assert world.serving() == ["b", "b"]
        world.laws.declared(set(world.engine.containers), {"web": 2})


@pytest.mark.parametrize("rollout", STRATEGIES.values(), ids=STRATEGIES)
def test_an_answer_lost_after_the_table_was_made_changes_nothing_in_the_end(rollout: str) -> None:
    """Each table in turn: it is made, and the daemon does not hear of it."""
    number, lost = 0, True
    while lost:
        deaf = Deaf(number, fronted(web=manifest("web", "a", 2, rollout)))
        deaf.release(rollout)
        number, lost = number + 1, deaf.lost
    assert number > 2


class Deaf:
    """A world in which the answer to one table is lost."""

    def __init__(self, number: int, world: FrontedWorld) -> None:
        self.world, self.number, self.lost = never_down(world), number, False
        self._count = 0
        world.fault = self._fault

    def _fault(self, moment: str, what: object) -> None:
        if moment == "before" and isinstance(what, ShiftTraffic):
            if self._count == self.number:
                self.lost = True
                self.world.traffic.fail(applied=True)
            self._count += 1

    def release(self, rollout: str) -> None:
        self.world.commit(web=manifest("web", "b", 2, rollout))
        self.world.settle()
        assert self.world.serving() == ["b", "b"]
        self.world.laws.declared(set(self.world.engine.containers), {"web": 2})


@pytest.mark.parametrize("rollout", STRATEGIES.values(), ids=STRATEGIES)
def test_while_one_of_two_proxies_does_not_answer_nobody_is_stopped_and_the_release_goes_on_after(rollout: str) -> None:
    for moment in range(0, 14, 4):
        world = never_down(fronted(proxies=2, web=manifest("web", "a", 2, rollout)))
        world.commit(web=manifest("web", "b", 2, rollout))
        for _ in range(moment):
            world.cycle()
            world.wait()
        world.traffic.reach(ENVIRONMENT, 1, reachable=False)
        before = [r for r in world.disk.records if r.entry.details.get("effect") == "TerminateInstance"]
        for _ in range(30):
            assert world.cycle().result != "synced" or moment > 9
            world.wait(20)
        after = [r for r in world.disk.records if r.entry.details.get("effect") == "TerminateInstance"]
        assert before == after
        assert "RolloutFailed" not in world.told()
        world.traffic.reach(ENVIRONMENT, 1, reachable=True)
        world.settle()
        assert world.serving() == ["b", "b"]
        world.laws.declared(set(world.engine.containers), {"web": 2})


def test_a_hand_at_the_table_is_told_and_undone() -> None:
    world = fronted()
    at = min(world.tables()[0].backends[WEB].held)
    world.traffic.by_hand(ENVIRONMENT, WEB, at, mode=ServerMode.MAINT)
    world.cycle()
    world.settle()
    world.laws.declared(set(world.engine.containers), {"web": 2})
    assert "DriftFound" in world.told()
    assert "DriftRepaired" in world.told()
    assert "InstanceLost" not in world.told()


def test_instances_that_die_at_a_release_leave_no_place_to_a_stranger() -> None:
    """Addresses come round again: what got one that a table still knows is not sent the requests of another service."""
    world = never_down(fronted(web=manifest("web", "a", 3), api=manifest("api", "a", 3)))
    for _ in range(30):
        box = next(b for name, b in sorted(world.engine.containers.items()) if ".api." in name and b.address)
        world.engine.end(box, 0, world.clock.now())
        world.cycle()
        world.wait(700)
    world.settle()
    world.laws.declared(set(world.engine.containers), {"web": 3, "api": 3})


def test_requests_that_never_end_are_ended_by_the_instance_itself_after_the_tail() -> None:
    world = never_down(fronted())
    world.lingers = 10_000
    world.wait()
    world.commit(web=manifest("web", "b"))
    world.settle()
    assert not [r for r in world.disk.records if r.entry.details.get("effect") == "CutSessions"]
    assert world.serving() == ["b", "b"]


def test_what_an_instance_does_not_end_in_its_grace_is_cut() -> None:
    world = never_down(fronted())
    for container in world.engine.containers.values():
        container.env = {**container.env, "IGNORE_TERM": "1"}
    world.lingers = 10_000
    world.wait()
    world.commit(web=manifest("web", "b"))
    world.settle()
    cuts = [r.entry for r in world.disk.records if r.entry.details.get("effect") == "CutSessions"]
    assert [entry.details["sessions"] for entry in cuts if entry.what is What.INTENT] == [2, 2]


def test_a_full_proxy_calls_a_person_and_takes_nothing_away() -> None:
    world = never_down(fronted())
    world.traffic.fail(Stalled(Reason.PROXY_FULL, "no place is free", where="fake", remedy="Give it more slots"))
    world.commit(web=manifest("web", "b"))
    world.settle()
    assert world.told().count("Stalled") == 1
    assert world.serving() == ["b", "b"]


def test_demand_adds_instances_and_takes_them_away_with_their_drain() -> None:
    world = never_down(fronted(web=manifest("web", "a", -1, ROLLING, SCALED)))
    for _ in range(90):
        world.cycle()
        world.wait()
    assert len(world.engine.containers) == 4
    world.asleep = True
    for _ in range(60):
        world.cycle()
        world.wait()
    assert len(world.engine.containers) == 1


def test_a_service_that_cannot_run_twice_is_back_after_a_version_that_never_gets_well() -> None:
    world = fronted(web=manifest("web", "a", 1, RECREATE))
    before = set(world.engine.containers)
    world.engine.behaviour[image("b")] = {"START_DELAY_MS": "900000"}
    world.commit(web=manifest("web", "b", 1, RECREATE))
    for _ in range(40):
        world.cycle()
        world.wait()
    assert world.serving() == ["a"]
    assert set(world.engine.containers) == before, "the very instance that was kept"


def test_a_clock_that_is_set_back_loses_no_request() -> None:
    world = never_down(fronted())
    world.commit(web=manifest("web", "b"))
    for _ in range(3):
        world.cycle()
        world.clock.at -= timedelta(minutes=1)
        for box in world.engine.containers.values():
            box.started_at = box.started_at and box.started_at - timedelta(minutes=1)
        world.wait()
    world.settle()
    assert world.serving() == ["b", "b"]


def test_a_service_that_is_held_keeps_its_way_in() -> None:
    world = never_down(fronted())
    before = world.traffic.observe(ENVIRONMENT).config
    secret = "  secrets: [{secret: nobody-has-it, env: TOKEN}]\n"
    world.commit(web=manifest("web", "b", 2, ROLLING, secret))
    for _ in range(30):
        world.cycle()
        world.wait()
    assert world.serving() == ["a", "a"]
    assert world.traffic.observe(ENVIRONMENT).config == before


def test_nothing_is_led_to_a_service_that_never_had_traffic() -> None:
    world = fronted()
    world.engine.behaviour[image("c")] = {"UNHEALTHY": "1"}
    api = manifest("api", "c", 1, ROLLING)
    world.commit(web=manifest("web", "a"), api=api)
    for _ in range(60):
        world.cycle()
        world.wait()
    ensured = [effect.text for effect in world.traffic.applied if isinstance(effect, EnsureProxy)]
    assert any("backend rec.prod.api\n" in text for text in ensured)
    assert not any("use_backend rec.prod.api " in text for text in ensured)
    assert "use_backend rec.prod.web " in ensured[-1]

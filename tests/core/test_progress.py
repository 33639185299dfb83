"""How far a release is and who gets the traffic: read off a pure world with a proxy, at each of its moments."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from reconciler.core.analysis import Verdict
from reconciler.core.delivery import Gate, Scaling, Stage, Strategy
from reconciler.core.diff import sort
from reconciler.core.gate import GateFinding
from reconciler.core.live import ServerMode
from reconciler.core.memory import ServiceMemory
from reconciler.core.progress import progress_at_rest, progress_of
from reconciler.core.question import Wish
from reconciler.core.record import What
from reconciler.core.scaling import Decision
from reconciler.core.status import Progress, Scale, StageProgress
from tests.support.fronted import BACKEND, BLUE_GREEN, CANARY, ROUTE, Fronted, fronted
from tests.support.scene import ENVIRONMENT, START, settled, target

SOAK = timedelta(seconds=10)
PAUSED = replace(CANARY, stages=(Stage(5, SOAK, pause=True), Stage(50, SOAK)), gate=Gate())
HELD = replace(CANARY, hold=timedelta(minutes=5))
HOLD = GateFinding(Verdict.HOLD, "too few requests")
PASS = GateFinding(Verdict.PASS, "no difference")


def progress(scene: Fronted) -> Progress:
    found = scene.service.progress
    assert found is not None
    return found


def stage(scene: Fronted) -> StageProgress:
    found = progress(scene).stage
    assert found is not None
    return found


def shares(scene: Fronted) -> list[tuple[str, float, int | None, int]]:
    """The split by the letter of the image, in the order in which it is shown."""
    letters = {i.version: i.image[-1] for i in scene.instances.values()}
    return [
        (letters[each.version], round(100 * each.share, 1), each.sessions, each.places)
        for each in progress(scene).split
    ]


def test_a_settled_service_has_all_of_its_traffic_at_one_version() -> None:
    scene = fronted(rollout=CANARY)
    assert progress(scene) == Progress(Strategy.CANARY, split=progress(scene).split)
    assert shares(scene) == [("a", 100.0, 0, 2)]


def test_without_proxy_and_demand_there_is_nothing_to_tell() -> None:
    assert settled().service.progress is None


def test_a_stage_before_at_and_after_its_soak() -> None:
    scene = fronted(rollout=PAUSED)
    scene.finding = HOLD
    scene.commit("b")
    scene.settle_until("StartInstance")
    assert stage(scene) == StageProgress(1, 3, 5, gated=True, finding=HOLD)
    began = progress(scene).started_at
    assert began is not None
    assert shares(scene)[0] == ("a", 100.0, 0, 2)
    scene.settle_until("ShiftTraffic")
    shifted = scene.memory.services["web"].rollout
    assert shifted is not None
    assert shifted.shifted_at is not None
    at = shifted.shifted_at
    assert stage(scene) == StageProgress(1, 3, 5, at, at + SOAK, gated=True, finding=HOLD)
    assert shares(scene) == [("a", 95.0, 0, 3), ("b", 5.0, 0, 1)]
    assert progress(scene).started_at == began
    scene.finding = PASS
    scene.settle_until("Paused")
    assert stage(scene) == StageProgress(1, 3, 5, at, at + SOAK, paused=True, gated=True, finding=PASS)
    scene.record(What.CONTINUED)
    assert not stage(scene).paused
    scene.settle_until("ShiftTraffic")
    assert (stage(scene).number, stage(scene).weight) == (2, 50)


def test_a_commit_that_takes_the_pause_away_is_seen_at_once() -> None:
    scene = fronted(rollout=PAUSED)
    scene.finding = PASS
    scene.commit("b")
    scene.settle_until("Paused")
    scene.commit("b", rollout=replace(PAUSED, stages=(Stage(5, SOAK), Stage(50, SOAK))))
    assert not stage(scene).paused


def test_a_preview_has_no_weight_and_asks_no_gate() -> None:
    scene = fronted(rollout=replace(BLUE_GREEN, preview_soak=SOAK, gate=Gate()))
    scene.finding = HOLD
    scene.commit("b")
    scene.settle_until("ShiftTraffic")
    assert (stage(scene).number, stage(scene).of, stage(scene).weight) == (1, 2, 0)
    assert (stage(scene).gated, stage(scene).finding) == (False, None)
    assert shares(scene)[0][:2] == ("a", 100.0)


def test_rolling_has_no_stages() -> None:
    scene = fronted()
    scene.commit("b")
    scene.settle_until("ShiftTraffic")
    assert progress(scene).stage is None
    assert progress(scene).started_at is not None
    assert [each[0] for each in shares(scene)] == ["a", "b"]


def test_the_way_back_is_told() -> None:
    scene = fronted(rollout=CANARY)
    scene.commit("b")
    scene.settle_until("ShiftTraffic")
    scene.finding = GateFinding(Verdict.FAIL, "worse")
    scene.settle_until("RolloutFailed", live=False)
    assert progress(scene).returning is not None
    assert progress(scene).stage is None


def test_instances_are_kept_until_the_hold_is_over() -> None:
    scene = fronted(rollout=HELD)
    before = {i.name for i in scene.of("a")}
    scene.commit("b")
    scene.settle_until("Promoted")
    scene.step()
    promoted = scene.memory.services["web"].promoted_at
    assert promoted is not None
    kept = progress(scene).kept
    assert {each.name for each in kept} == before
    assert {each.until for each in kept} == {promoted + timedelta(minutes=5)}
    scene.now = promoted + timedelta(minutes=5)
    assert progress(scene).kept == ()


def test_only_what_runs_out_of_traffic_is_kept() -> None:
    scene = fronted(rollout=HELD)
    scene.commit("b")
    scene.settle_until("Promoted")
    scene.step()
    known = scene.memory.services["web"]
    wish = Wish("web", scene.wanted)
    live = [i for i in scene.service.instances if i.image[-1] == "a"]
    assert [each.name for each in kept(wish, known, live)] == [i.name for i in live]
    first = live[0]
    without = replace(known, detached={name: at for name, at in known.detached.items() if name != first.name})
    assert kept(wish, without, live[:1]) == (), "it has traffic again"
    assert kept(wish, replace(known, terminated={first.name: scene.now}), live[:1]) == ()
    assert [each.name for each in kept(wish, known, [replace(first, server=None)])] == [first.name], "with sticky"
    assert kept(wish, replace(known, lost=frozenset({first.name})), live[:1]) == ()
    assert kept(wish, replace(known, promoted_at=None), live) == ()
    assert kept(Wish("web", target("b", route=ROUTE)), known, live) == ()


def kept(wish, known, live):
    found = progress_at_rest(wish, known, live)
    assert found is not None
    return found.kept


def test_a_suspended_release_stays_where_it_is() -> None:
    scene = fronted(rollout=PAUSED)
    scene.finding = PASS
    scene.commit("b")
    scene.settle_until("Paused")
    running = progress(scene)
    scene.suspended = "a fair"
    held = progress(scene)
    assert held.stage == replace(running.stage, finding=None)
    assert held.split == running.split
    assert progress_at_rest(Wish("web"), scene.memory.services["web"], ()) is None
    other = progress_at_rest(Wish("web", fallback=scene.known[running.split[0].version]), *at_rest(scene))
    assert other is not None
    assert other.stage is None
    plain = progress_at_rest(Wish("web", target("b", route=ROUTE)), *at_rest(scene))
    assert plain is not None
    assert plain.stage is None


def at_rest(scene: Fronted):
    return scene.memory.services["web"], scene.service.instances


def test_shares_count_only_who_is_ready_and_up() -> None:
    scene = fronted()
    wish, known = Wish("web", scene.wanted), scene.memory.services["web"]
    one, two = scene.service.instances
    assert one.server is not None
    assert two.server is not None

    def split(first, second):
        found = progress_at_rest(wish, known, (first, second))
        assert found is not None
        return [(each.share, each.sessions, each.places) for each in found.split]

    other = replace(two, version="0" * 64)
    down = replace(other, server=replace(two.server, up=False, sessions=3))
    assert split(one, down) == [(1.0, 0, 1), (0.0, 3, 1)]
    unknown = replace(other, server=replace(two.server, mode=ServerMode.DRAIN, sessions=None))
    assert split(one, unknown) == [(1.0, 0, 1), (0.0, None, 1)]
    heavier = replace(other, server=replace(two.server, weight=3 * one.server.weight))
    assert split(one, heavier) == [(0.25, 0, 1), (0.75, 0, 1)]
    assert split(replace(one, server=None), down) == [(0.0, 3, 1)]


SCALING = Scaling(1, 4, sessions=10.0)


@pytest.mark.parametrize(("scale", "count"), [(None, 2), (3, 3), (9, 4), (0, 1)])
def test_demand_within_its_limits(scale: int | None, count: int) -> None:
    scene = fronted()
    wish = Wish("web", target("a", route=ROUTE, replicas=2, scaling=SCALING))
    known = replace(scene.memory.services["web"], scale=scale, stable=None)
    found = progress_at_rest(wish, known, ())
    assert found is not None
    assert found.scale == Scale(count, 1, 4)
    assert found.split == ()


def test_a_new_decision_shows_with_the_look_that_makes_it() -> None:
    scene = fronted(scaling=SCALING)
    scene.demand = Decision(3, "3 instances", None)
    assert progress(scene).scale == Scale(3, 1, 4)


def test_requests_that_wait_at_the_proxy_are_counted() -> None:
    scene = fronted()
    scene.traffic.set_waiting(ENVIRONMENT, BACKEND, 7)
    assert progress(scene).queued == 7
    scene.traffic.proxies(ENVIRONMENT)[0].backends.clear()
    assert progress(scene).queued == 0
    assert progress(scene).split == ()


def test_a_route_where_no_proxy_is_configured_has_no_figures() -> None:
    view = sort(ENVIRONMENT, target("a", route=ROUTE), ServiceMemory(), (), {}, frozenset(), START)
    assert progress_of(view, Wish("web", view.target)) == Progress(Strategy.ROLLING)

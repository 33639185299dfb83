"""The real loop where something is wrong for long: what it costs, whom it stops, and that it ends with its cause."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from reconciler.backoff import Backoff, Pace
from reconciler.core import plan as planner
from reconciler.core.errors import Reason, ReconcilerError, Retryable, Stalled
from reconciler.core.live import Foreign, Instance
from reconciler.core.model import ServiceSpec
from reconciler.core.question import Question, Wish
from reconciler.core.record import Entry, What
from reconciler.core.status import ServicePlan
from reconciler.core.steps import AttachTraffic, Effect, EnsureNetwork, StartInstance, SweepOrphan
from tests.support.fake_journal import FakeJournal
from tests.support.fake_runtime import START, HandClock
from tests.support.world import DIRECTORY, ENVIRONMENT, ENVIRONMENT_FILE, World, image, manifest

QUIET = "  drift: report\n"


def stable(**services: bytes) -> World:
    world = World()
    world.commit(**(services or {"web": manifest("web", "a")}))
    assert world.drive().result == "synced"
    return world


def trouble(world: World, error: Exception, *kinds: type, service: str = "") -> None:
    """Each effect of these kinds fails, at one service or all."""

    def fault(moment: str, effect: Effect) -> None:
        mine = not service or f".{service}." in getattr(effect, "name", "")
        if moment == "before" and isinstance(effect, kinds) and mine:
            raise error

    world.engine.fault = fault


def calm(world: World) -> None:
    world.engine.fault = lambda moment, effect: None


def effects(world: World, kind: str) -> int:
    return sum(r.entry.what is What.INTENT and r.entry.details["effect"] == kind for r in world.disk.records)


def for_a_while(world: World, seconds: int) -> None:
    for _ in range(seconds):
        world.cycle()
        world.clock.advance(timedelta(seconds=1))


def test_a_fault_of_ours_in_one_service_stops_no_other_and_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world = stable(web=manifest("web", "a"), api=manifest("api", "a"))
    real = planner.plan_service

    def faulty(question: Question, wish: Wish, instances: tuple[Instance, ...]) -> ServicePlan:
        if wish.name == "web":
            raise ZeroDivisionError("oh")
        return real(question, wish, instances)

    monkeypatch.setattr(planner, "plan_service", faulty)
    world.commit(web=manifest("web", "b"), api=manifest("api", "b"))
    cycle = world.drive()
    assert world.serving("api") == ["b", "b"]
    assert world.serving("web") == ["a", "a"]
    assert cycle.result == "failed"
    assert cycle.status.plan is not None
    assert cycle.status.plan.services["web"].reason is Reason.INTERNAL_ERROR
    world.boot()
    world.drive()
    assert world.told().count("Stalled") == 1
    monkeypatch.setattr(planner, "plan_service", real)
    assert world.drive().result == "synced"
    assert world.serving("web") == ["b", "b"]


@pytest.mark.parametrize("error", [Retryable(Reason.SECRET_MISSING, "cannot be read"), ZeroDivisionError("oh")])
def test_a_secret_that_cannot_be_read_holds_its_service_only(error: Exception) -> None:
    world = stable(web=manifest("web", "a"), api=manifest("api", "a"))
    desire = world.reconciler._desire
    version = desire._version

    def unreadable(environment: str, spec: ServiceSpec) -> tuple[str, str]:
        if spec.name == "web":
            raise error
        return version(environment, spec)

    desire._version = unreadable  # type: ignore[method-assign]
    world.commit(web=manifest("web", "b"), api=manifest("api", "b"))
    world.drive()
    assert (world.serving("api"), world.serving("web")) == (["b", "b"], ["a", "a"])


def test_a_person_is_called_once_also_across_restarts_and_again_when_it_moved_on() -> None:
    world = stable()
    trouble(world, Stalled(Reason.PORT_TAKEN, "x" * 100_000), StartInstance)
    world.commit(web=manifest("web", "b"))
    for _ in range(3):
        for_a_while(world, 40)
        world.boot()
    assert world.told().count("Stalled") == 1
    failed = next(record.entry for record in world.disk.records if record.entry.what is What.FAILED)
    assert str(failed.details["said"]).startswith("xxx")
    calm(world)
    world.drive()
    trouble(world, Stalled(Reason.PORT_TAKEN, "in use"), StartInstance)
    world.commit(web=manifest("web", "c"))
    for_a_while(world, 40)
    assert world.told().count("Stalled") == 2


def test_an_environment_calls_a_person_once_and_its_services_wait_for_their_network() -> None:
    world = World()
    trouble(world, Stalled(Reason.NAME_TAKEN, "the network is not ours"), EnsureNetwork)
    world.commit(web=manifest("web", "a"), api=manifest("api", "a"))
    for_a_while(world, 60)
    world.boot()
    for_a_while(world, 60)
    assert world.told().count("Stalled") == 1
    assert effects(world, "CreateInstance") == 0
    assert effects(world, "PullImage") == 2
    calm(world)
    assert world.drive().result == "synced"


def test_a_leftover_that_cannot_be_swept_blocks_nobody_and_its_end_is_noticed() -> None:
    world = World()
    world.engine.orphans[ENVIRONMENT] = {"left"}
    trouble(world, Retryable(Reason.ENGINE_REFUSED, "busy"), SweepOrphan)
    world.commit(web=manifest("web", "a"))
    for_a_while(world, 30)
    assert world.serving() == ["a", "a"]
    assert world.cycle().result == "failed"
    world.engine.orphans[ENVIRONMENT].clear()
    assert world.drive(2000).result == "synced"


def test_one_cycle_sweeps_and_looks_again() -> None:
    world = stable()
    world.engine.orphans[ENVIRONMENT] = {"left"}
    cycle = world.cycle()
    assert (cycle.result, cycle.steps_done) == ("synced", 1)


def test_an_error_is_over_when_its_cause_is_gone() -> None:
    world = stable()
    trouble(world, Retryable(Reason.ENGINE_REFUSED, "no"), StartInstance)
    world.commit(web=manifest("web", "b"))
    for_a_while(world, 20)
    assert world.cycle().status.plan.services["web"].reason is Reason.ENGINE_REFUSED  # type: ignore[union-attr]
    person = FakeJournal.open(world.disk, world.clock, "ann", act=False)
    person.append(Entry(world.clock.now(), What.SUSPENDED, ENVIRONMENT, "web", author="ann", reason="incident"))
    status = world.cycle().status
    assert status.plan is not None
    assert status.plan.services["web"].reason is Reason.SUSPENDED


def test_what_failed_is_not_tried_again_in_the_same_cycle() -> None:
    world = stable(web=manifest("web", "a"), api=manifest("api", "a"))
    trouble(world, Retryable(Reason.ENGINE_REFUSED, "no"), StartInstance, service="web")
    world.commit(web=manifest("web", "b"), api=manifest("api", "b"))
    before = effects(world, "StartInstance")
    cycle = world.cycle()
    failed = [r.entry.service for r in world.disk.records if r.entry.what is What.FAILED]
    assert failed == ["web"]
    assert effects(world, "StartInstance") > before + 1, "the other one goes on"
    assert cycle.recheck_at is not None
    assert cycle.recheck_at > world.clock.now()


def test_what_is_undone_at_once_is_done_with_growing_pauses() -> None:
    world = stable()

    def undo(moment: str, effect: Effect) -> None:
        if moment == "after" and isinstance(effect, AttachTraffic):
            world.engine.containers[effect.name].attached = False

    world.engine.fault = undo
    world.engine.behaviour[image("b")] = {"START_DELAY_MS": "1000"}
    world.commit(web=manifest("web", "b"))
    for_a_while(world, 900)
    assert effects(world, "AttachTraffic") < 100
    calm(world)
    world.commit(web=manifest("web", "c"))
    assert world.drive(2000).result == "synced"


def test_an_image_that_vanishes_at_once_does_not_fill_the_journal() -> None:
    world = stable(web=manifest("web", "a", 2))
    world.engine.containers.pop(min(world.engine.containers))
    lost = {image("a")}
    pull = world.engine.settle

    def vanish() -> None:
        pull()
        world.engine.present.difference_update(lost)

    world.engine.settle = vanish  # type: ignore[method-assign]
    cycle = world.cycle()
    assert cycle.recheck_at is not None
    assert cycle.recheck_at > world.clock.now()
    assert cycle.result == "failed"
    for_a_while(world, 600)
    assert effects(world, "PullImage") < 20


def test_suspension_in_the_middle_of_a_release_does_not_make_it_fail() -> None:
    world = stable()
    world.engine.behaviour[image("b")] = {"START_DELAY_MS": "15000"}
    world.commit(web=manifest("web", "b"))
    for_a_while(world, 5)
    suspended = manifest("web", "b", extra="  suspend: true\n")
    world.commit(web=suspended)
    for _ in range(30):
        world.clock.advance(timedelta(minutes=1))
        world.cycle()
    world.commit(web=manifest("web", "b"))
    assert world.drive().result == "synced"
    assert world.serving() == ["b", "b"]
    assert "RolloutFailed" not in world.told()


def test_an_engine_that_was_away_does_not_make_a_release_fail() -> None:
    world = stable()
    world.engine.behaviour[image("b")] = {"START_DELAY_MS": "15000"}
    world.commit(web=manifest("web", "b"))
    for_a_while(world, 5)
    world.engine.reachable = False
    for _ in range(30):
        world.clock.advance(timedelta(minutes=1))
        with pytest.raises(ReconcilerError):
            world.cycle()
    world.engine.reachable = True
    assert world.drive().result == "synced"
    assert "RolloutFailed" not in world.told()


def test_a_dependency_that_takes_long_does_not_make_a_release_fail() -> None:
    world = World()
    world.engine.registry[image("b")] = Reason.IMAGE_NOT_FOUND
    world.commit(web=manifest("web", "a", 1, "  dependsOn: [db]\n"), db=manifest("db", "b", 1))
    for _ in range(40):
        world.clock.advance(timedelta(seconds=30))
        world.cycle()
    world.commit(db=manifest("db", "a", 1))
    assert world.drive().result == "synced"
    failed = [r.entry.service for r in world.disk.records if r.entry.what is What.ROLLOUT_FAILED]
    assert failed == ["db"]


def test_a_person_s_suspension_also_keeps_a_service_that_git_removes() -> None:
    world = stable(web=manifest("web", "a"), api=manifest("api", "a"))
    person = FakeJournal.open(world.disk, world.clock, "ann", act=False)
    person.append(Entry(world.clock.now(), What.SUSPENDED, ENVIRONMENT, "api", author="ann", reason="incident"))
    world.commit(api=None)
    world.drive()
    assert world.serving("api") == ["a", "a"]
    person.append(Entry(world.clock.now(), What.RESUMED, ENVIRONMENT, "api", author="ann"))
    world.drive()
    assert world.serving("api") == []


def test_a_suspended_environment_removes_nothing_also_without_its_journal() -> None:
    world = stable(web=manifest("web", "a"), api=manifest("api", "a"))
    world.disk.records.clear()
    world.boot()
    suspended = ENVIRONMENT_FILE.replace(b"spec: {}", b"spec: {suspend: true}")
    world.repository.commit({f"{DIRECTORY}/environment.yaml": suspended, f"{DIRECTORY}/api.yaml": None})
    world.drive()
    assert world.serving("api") == ["a", "a"]


def test_git_in_trouble_for_a_moment_does_not_lose_the_way_back() -> None:
    world = stable()
    world.engine.behaviour[image("b")] = {"START_DELAY_MS": "9000", "EXIT_AFTER_MS": "10", "EXIT_CODE": "3"}
    world.boot()
    at, known = world.source.at, world.repository.refs["refs/heads/main"]

    def unreadable(repository: str, sha: str) -> object:
        if sha == known:
            raise Retryable(Reason.REPOSITORY_UNREACHABLE, "the mirror cannot be read")
        return at(repository, sha)

    world.source.at = unreadable  # type: ignore[method-assign, assignment]
    world.commit(web=manifest("web", "b"))
    world.drive()
    assert world.serving() == ["a", "a"]
    world.engine.containers.pop(min(world.engine.containers))
    world.source.at = at  # type: ignore[method-assign]
    world.drive()
    assert world.serving() == ["a", "a"]


def test_bad_files_of_very_many_services_are_recorded_and_stop_nobody() -> None:
    world = World()
    bad = {f"service-{place:04}-with-a-rather-long-name-as-people-like-them": b"spec: [" for place in range(900)}
    world.commit(**bad, web=manifest("web", "a"))
    world.drive()
    assert world.serving() == ["a", "a"]


def test_the_steps_of_other_services_end_before_the_cycle_does() -> None:
    world = stable(web=manifest("web", "a"), api=manifest("api", "a"))
    ended = threading.Event()

    def slow() -> None:
        ended.wait(0.05)
        ended.set()

    def fail() -> None:
        raise Retryable(Reason.JOURNAL_UNAVAILABLE, "the disk is full")

    with pytest.raises(Retryable):
        world.reconciler._side_by_side([fail, slow])
    assert ended.is_set()


def test_stop_begins_nothing_new_and_the_next_start_goes_on() -> None:
    world = stable(web=manifest("web", "a"), api=manifest("api", "a"))
    world.commit(web=manifest("web", "b"), api=manifest("api", "b"))
    count = 0

    def stop(moment: str, effect: Effect) -> None:
        nonlocal count
        count += 1
        if count == 3:
            world.reconciler.stop()

    world.engine.fault = stop
    for _ in range(5):
        world.cycle()
    assert count <= 4, "the step in hand ends, and no other begins"
    intents = [r.entry.what for r in world.disk.records if r.entry.what in (What.INTENT, What.DONE)]
    assert intents.count(What.INTENT) == intents.count(What.DONE)
    world.reconciler.close()
    assert world.cycle().steps_done == 0, "also when it is closed"
    world.reconciler._stopping.clear()
    world.cycle()
    calm(world)
    world.boot()
    assert world.drive().result == "synced"


def test_a_squatter_in_the_network_is_told_although_the_network_cannot_be_made() -> None:
    world = World()
    world.engine.foreign[ENVIRONMENT] = [Foreign("rec.prod", Reason.NAME_TAKEN, "not ours")]
    trouble(world, Stalled(Reason.NAME_TAKEN, "the network is not ours"), EnsureNetwork)
    world.commit(web=manifest("web", "a"))
    for_a_while(world, 5)
    assert "DriftFound" in world.told()


def test_a_clock_that_is_set_back_makes_no_pause_longer() -> None:
    clock, backoff, pace = HandClock(), Backoff(), Pace()
    backoff.failed(clock.now(), lambda low, high: high)
    for _ in range(5):
        pace.did("x", clock.now())
    assert backoff.holds(START)
    assert pace.until("x", START) is not None
    clock.advance(timedelta(hours=-1))
    assert not backoff.holds(clock.now())
    assert pace.until("x", clock.now()) is None


def test_the_pace_forgets_what_is_long_ago() -> None:
    pace = Pace()
    for key in range(300):
        for _ in range(3):
            pace.did(key, START + timedelta(minutes=key))
    assert len(pace._done) <= 70
    assert pace.until(299, START + timedelta(minutes=299)) is not None
    assert pace.until(299, START + timedelta(minutes=400)) is None

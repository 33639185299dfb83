"""The real loop in a simulated world: what Git says and does, the laws of the journal, and a death at every moment."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest

from reconciler.core.audit import check
from reconciler.core.errors import Fenced, Reason
from reconciler.core.live import Phase
from reconciler.core.record import What
from reconciler.core.status import Sync
from reconciler.ports import Cause
from tests.support.fake_journal import FakeJournal
from tests.support.world import DIRECTORY, ENVIRONMENT, DiedError, World, image, manifest


def stable(**services: bytes) -> World:
    world = World()
    world.commit(**(services or {"web": manifest("web", "a")}))
    assert world.drive().result == "synced"
    return world


def test_a_commit_becomes_instances_and_every_effect_has_its_intent_and_outcome() -> None:
    world = stable()
    assert world.serving() == ["a", "a"]
    open_intents: list[str] = []
    for record in world.disk.records:
        entry = record.entry
        if entry.what is What.INTENT:
            open_intents.append(f"{entry.details['effect']} {entry.details['name']}")
        elif entry.what is What.DONE:
            open_intents.remove(f"{entry.details['effect']} {entry.details['name']}")
    assert open_intents == []
    assert check(world.disk.records) == ""
    intent = next(record.entry for record in world.disk.records if record.entry.what is What.INTENT)
    assert intent.revision == world.repository.refs["refs/heads/main"]
    assert intent.trigger == "poll"
    assert intent.author == "Ada <ada@example.org>"


def test_an_idle_cycle_writes_nothing_also_after_a_restart() -> None:
    world = stable()
    before = len(world.disk.records)
    world.cycle()
    world.boot()
    world.drive()
    assert world.told()[before:] == ["EpochOpened"]


def test_one_bad_service_keeps_its_last_good_version_and_stops_nobody() -> None:
    world = stable(web=manifest("web", "a"), api=manifest("api", "a"))
    world.commit(web=b"spec: [", api=manifest("api", "b"))
    status = world.drive().status
    assert world.serving("api") == ["b", "b"]
    assert world.serving("web") == ["a", "a"]
    assert status.plan is not None
    assert status.plan.services["web"].reason is Reason.MANIFEST_INVALID
    assert "web.yaml:2:1:" in status.plan.services["web"].message
    world.engine.containers.pop(min(world.engine.containers))
    world.drive()
    assert world.serving("web") == ["a", "a"], "the last good version is still kept whole"


def test_a_refused_revision_keeps_the_one_before_and_is_recorded_once() -> None:
    world = stable()
    world.repository.commit({f"{DIRECTORY}/environment.yaml": b"kind: Nonsense"})
    cycle = world.drive()
    assert cycle.result == "failed"
    assert world.serving() == ["a", "a"]
    assert world.told().count("RevisionRejected") == 1
    world.commit(web=manifest("web", "b"))
    assert world.drive().result == "synced"
    assert world.serving() == ["b", "b"]


def test_git_away_changes_nothing_and_repairs_go_on() -> None:
    world = stable()
    world.repository.trouble = Reason.REPOSITORY_UNREACHABLE
    world.engine.containers.pop(min(world.engine.containers))
    cycle = world.drive()
    assert cycle.status.reason is Reason.REPOSITORY_UNREACHABLE
    assert world.serving() == ["a", "a"]


def test_a_deleted_branch_never_prunes() -> None:
    world = stable()
    world.repository.commit({"README": b"."}, branch="other")
    world.repository.delete("main")
    assert world.drive().status.reason is Reason.BRANCH_MISSING
    assert world.serving() == ["a", "a"]


@pytest.mark.parametrize("left", [0, 1])
def test_mass_removal_is_refused(left: int) -> None:
    names = ["web", "api", "db", "job"]
    world = stable(**{name: manifest(name, "a", 1) for name in names})
    world.commit(**dict.fromkeys(names[left:], None))
    status = world.drive().status
    assert len(world.engine.containers) == 4
    reason = Reason.PRUNE_CAP_EXCEEDED if left else Reason.ENVIRONMENT_EMPTY
    assert status.plan is not None
    assert {status.plan.services[name].reason for name in names[left:]} == {reason}


def test_a_removed_service_goes_and_is_forgotten() -> None:
    world = stable(web=manifest("web", "a"), api=manifest("api", "a"))
    world.commit(api=None)
    assert world.drive().result == "synced"
    assert world.serving("api") == []
    assert "api" not in world.journal.memory(ENVIRONMENT).services
    assert world.told()[-1] == "ServiceRemoved"


def test_rewritten_history_is_followed_and_recorded_unrelated_history_is_held_until_a_person_speaks() -> None:
    world = stable()
    first = world.repository.refs["refs/heads/main"]
    world.commit(web=manifest("web", "b"))
    world.drive()
    files = {f"{DIRECTORY}/web.yaml": manifest("web", "c")}
    world.repository.commit(files, parent=first)
    world.drive()
    assert world.serving() == ["c", "c"]
    assert "HistoryRewritten" in world.told()
    tree = {path: body for path, body in world.repository.commits[first][1].items() if isinstance(body, bytes)}
    world.repository.commit({**tree, f"{DIRECTORY}/web.yaml": manifest("web", "d")}, parent=None)
    assert world.drive().status.reason is Reason.HISTORY_UNRELATED
    assert world.serving() == ["c", "c"]
    person = FakeJournal.open(world.disk, world.clock, "ann", act=False)
    last = world.disk.records[-1].entry
    person.append(type(last)(world.clock.now(), What.RESUMED, ENVIRONMENT, author="ann"))
    world.drive()
    assert world.serving() == ["d", "d"]


def test_a_failed_release_keeps_its_reason_and_its_last_words() -> None:
    world = stable()
    world.engine.behaviour[image("b")] = {"START_DELAY_MS": "9000", "EXIT_AFTER_MS": "10", "EXIT_CODE": "3"}
    world.commit(web=manifest("web", "b"))
    cycle = world.drive()
    assert world.serving() == ["a", "a"]
    failed = next(record.entry for record in world.disk.records if record.entry.what is What.ROLLOUT_FAILED)
    assert failed.reason == Reason.INSTANCE_EXITED
    assert isinstance(failed.details["log"], list)
    assert cycle.status.plan is not None
    assert cycle.status.plan.services["web"].reason is Reason.QUARANTINED
    assert world.told().count("RolloutFailed") == 1
    world.commit(web=manifest("web", "a"))
    assert world.drive().result == "synced"


def test_a_lost_journal_restarts_nothing_and_says_that_it_begins_anew() -> None:
    world = stable()
    before = {name: box.serial for name, box in world.engine.containers.items()}
    world.disk.records.clear()
    world.boot()
    assert world.drive().result == "synced"
    assert {name: box.serial for name, box in world.engine.containers.items()} == before
    assert world.told() == ["JournalBegan", "EpochOpened", "RevisionAdmitted", "Adopted"]


def test_without_a_durable_intent_nothing_is_touched() -> None:
    world = stable()
    world.commit(web=manifest("web", "b"))
    world.cycle()
    before = dict(world.engine.containers)
    world.disk.fail_next("before")
    with pytest.raises(Exception, match="simulated"):
        for _ in range(10):
            world.clock.advance(timedelta(seconds=1))
            world.cycle()
    assert {name for name in world.engine.containers if name not in before} == set()
    assert world.drive().result == "synced"


def test_a_stale_daemon_is_fenced_before_it_acts() -> None:
    world = stable()
    old, old_journal = world.reconciler, world.journal
    world.boot()
    world.commit(web=manifest("web", "b"))
    count = world.engine.serial
    world.reconciler, new = old, world.reconciler
    with pytest.raises(Fenced):
        world.cycle()
    assert world.engine.serial == count
    assert old_journal.epoch < world.journal.epoch
    world.reconciler = new
    world.drive()
    assert world.serving() == ["b", "b"]


def test_suspended_by_a_person_until_resumed() -> None:
    world = stable()
    person = FakeJournal.open(world.disk, world.clock, "ann", act=False)
    entry = type(world.disk.records[0].entry)
    person.append(entry(world.clock.now(), What.SUSPENDED, ENVIRONMENT, "web", author="ann", reason="incident 7"))
    world.commit(web=manifest("web", "b"))
    status = world.drive().status
    assert world.serving() == ["a", "a"]
    assert status.plan is not None
    assert "ann: incident 7" in status.plan.services["web"].message
    person.append(entry(world.clock.now(), What.RESUMED, ENVIRONMENT, "web", author="ann"))
    world.drive()
    assert world.serving() == ["b", "b"]


def test_a_dependency_first() -> None:
    world = World()
    world.commit(web=manifest("web", "a", 1, "  dependsOn: [db]\n"), db=manifest("db", "a", 1))
    world.drive()
    created = [r.entry.service for r in world.disk.records if r.entry.details.get("effect") == "CreateInstance"]
    assert created[0] == "db"
    assert world.serving() == ["a"]
    healthy = next(r.index for r in world.disk.records if r.entry.service == "db" and r.entry.what is What.PROMOTED)
    first = next(
        r.index
        for r in world.disk.records
        if r.entry.details.get("effect") == "CreateInstance" and r.entry.service == "web"
    )
    assert healthy < first


def test_plan_shows_any_branch_and_records_nothing() -> None:
    world = stable()
    before = len(world.disk.records)
    world.repository.commit(
        {f"{DIRECTORY}/web.yaml": manifest("web", "b")}, branch="next", parent=world.repository.refs["refs/heads/main"]
    )
    assert world.reconciler.plan(ENVIRONMENT).plan.in_sync
    status = world.reconciler.plan(ENVIRONMENT, "next")
    assert status.plan.services["web"].sync is Sync.OUT_OF_SYNC
    assert len(world.disk.records) == before


def story(world: World) -> None:
    """A release, one that dies, its fix, and a hand in between."""
    world.commit(web=manifest("web", "b"))
    survive(world)
    world.engine.behaviour[image("c")] = {"EXIT_AFTER_MS": "10", "EXIT_CODE": "3"}
    world.commit(web=manifest("web", "c"))
    survive(world)
    world.engine.containers.pop(min(world.engine.containers), None)
    world.commit(web=manifest("web", "d"))
    survive(world)


def survive(world: World) -> None:
    while True:
        try:
            world.drive()
        except DiedError:
            world.clock.advance(timedelta(seconds=world.chance.choice([0, 2, 9, 400])))
            world.boot()
            continue
        return


def told(deaths: set[int], seed: int) -> int:
    world = stable()
    world.chance = random.Random(seed)
    passed = 0

    def fault(moment: str, what: object) -> None:
        nonlocal passed
        passed += 1
        if passed in deaths:
            raise DiedError

    world.engine.fault = world.disk.fault = fault
    story(world)
    world.engine.fault = world.disk.fault = lambda moment, what: None
    world.drive()
    assert world.serving() == ["d", "d"]
    assert len(world.engine.containers) == 2
    assert all(box.phase is Phase.RUNNING for box in world.engine.containers.values())
    assert check(world.disk.records) == ""
    assert world.cycle().steps_done == 0
    return passed


def test_the_story_without_a_death() -> None:
    assert told(set(), 0) > 100


@pytest.mark.parametrize("part", range(4))
def test_a_death_at_every_moment_of_disk_and_engine(part: int) -> None:
    for moment in range(1 + part, told(set(), 0) + 1, 4):
        told({moment}, moment)


@pytest.mark.parametrize("seed", range(24))
def test_storms_of_deaths(seed: int) -> None:
    chance = random.Random(seed)
    told({moment for moment in range(1, 500) if chance.random() < 0.08}, seed)


def test_a_newer_commit_ends_a_cycle_between_two_steps() -> None:
    world = World()
    world.commit(web=manifest("web", "a", replicas=4))
    world.news = lambda: len(world.engine.containers) >= 1
    cycle = world.cycle()
    assert len(world.engine.containers) == 1, "no further step was begun"
    assert cycle.recheck_at is not None and cycle.recheck_at <= world.clock.now()
    world.news = lambda: False
    world.drive()
    assert world.serving() == ["a"] * 4


def test_where_a_look_takes_long_events_in_vain_are_looked_at_ever_more_seldom() -> None:
    world = stable()
    settle = world.engine.settle

    def slowly() -> None:
        settle()
        world.clock.elapsed += 0.1

    world.engine.settle = slowly  # type: ignore[method-assign]

    def rest(kind: str) -> float:
        return round(world.reconciler.reconcile(ENVIRONMENT, [Cause(kind, world.clock.now())]).rest, 3)

    assert rest("poll") == 0.2
    assert [rest("engine") for _ in range(5)] == [0.4, 0.8, 1.0, 1.0, 1.0]
    assert [rest("operator"), rest("engine")] == [0.2, 0.4]
    world.engine.containers.popitem()
    assert rest("engine") == 0.2, "there was something to do"
    world.engine.settle = settle  # type: ignore[method-assign]
    assert rest("engine") == 0.0

"""What is kept of services with nothing to do: it is used, and whatever happens it is what a plan made anew would be.

The comparison itself is in `NativeScene.look`, so that each test of releases on such engines makes it, too.
"""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.analysis import Verdict
from reconciler.core.delivery import Rollout, Route, Scaling, Strategy
from reconciler.core.errors import Reason
from reconciler.core.freeze import Held
from reconciler.core.gate import GateFinding
from reconciler.core.live import Difference, ImageState, ImageStatus, LiveState
from reconciler.core.memory import ServiceMemory, Suspension
from reconciler.core.model import ImageRef
from reconciler.core.plan import plan
from reconciler.core.question import Question, Wish
from reconciler.core.rest import Rests, basis
from reconciler.core.scaling import Decision
from reconciler.core.status import ServicePlan, Sync
from reconciler.core.steps import SweepOrphan
from tests.support.native_scene import NativeScene, native


def keeps(scene: NativeScene) -> bool:
    """Whether the next look finds no plan anew."""
    before = scene.look().services["web"]
    return scene.look().services["web"] is before


def test_of_a_service_at_rest_nothing_is_planned_anew() -> None:
    scene = native()
    assert keeps(scene)
    scene.clock.advance(timedelta(days=400))
    assert keeps(scene)


def test_a_clock_that_was_set_back_is_news() -> None:
    question, rests = native().question(), Rests()
    first = plan(question, rests).services["web"]
    later = replace(question, now=question.now + timedelta(hours=1))
    assert plan(later, rests).services["web"] is first
    assert plan(replace(question, now=question.now - timedelta(hours=1)), rests).services["web"] is not first


def test_what_waits_for_the_time_is_kept_until_then() -> None:
    scene = native(rollout=Rollout(Strategy.BLUE_GREEN, hold=timedelta(minutes=5)))
    scene.commit("b")
    scene.until("Promoted")
    scene.rounds(10)
    first = scene.service
    assert len(scene.groups()) == 2
    assert first.recheck_at is not None
    assert keeps(scene)
    scene.clock.advance(first.recheck_at - scene.clock.now() - timedelta(seconds=1))
    assert scene.service is first
    scene.clock.advance(timedelta(seconds=1))
    assert scene.service is not first
    scene.settle()
    assert keeps(scene)


def test_what_waits_for_the_engine_is_kept_until_its_deadline() -> None:
    scene = native()
    scene.cluster.sick.add("b")
    scene.commit("b", rollout=Rollout(progress_deadline=timedelta(minutes=5)))
    scene.rounds(20)
    first = scene.service
    assert (first.waiting, first.steps) != ("", ())
    assert keeps(scene)
    assert first.recheck_at is not None
    scene.clock.advance(first.recheck_at - scene.clock.now())
    assert scene.service is not first


def test_a_lifetime_is_never_kept() -> None:
    assert not keeps(native(lifetime=timedelta(days=1)))


def by_hand(scene: NativeScene) -> None:
    name = next(iter(scene.cluster.deployments))
    scene.cluster.scale(name, 7)


def by_address(scene: NativeScene) -> None:
    scene.cluster.changed["web"] = [Difference(Reason.DRIFT_CHANGED, "spec.type: ClusterIP -> NodePort by me")]


def suspended(scene: NativeScene) -> None:
    web = replace(scene.web, suspension=Suspension("ann", scene.clock.now(), "why not"))
    scene.memory = replace(scene.memory, services={"web": web})


NEWS = {
    "commit": lambda scene: scene.commit("b"),
    "revision": lambda scene: scene.commit("a", labels={"team": "shop"}),
    "eviction": lambda scene: scene.cluster.evict(next(iter(scene.cluster.deployments))),
    "removal": lambda scene: scene.cluster.deployments.clear(),
    "no address": lambda scene: scene.cluster.routes.clear(),
    "death": lambda scene: scene.cluster.dying.add("a"),
    "hands": by_hand,
    "address": by_address,
    "journal": suspended,
}


@pytest.mark.parametrize("news", NEWS)
def test_any_news_of_a_service_is_planned_for(news: str) -> None:
    scene = native()
    before = scene.look().services["web"]
    NEWS[news](scene)
    assert scene.look().services["web"] is not before


def test_one_service_has_no_news_for_another() -> None:
    scene = native()
    rests = Rests()
    first = plan(scene.question(), rests).services["web"]
    other = scene.question()
    group = replace(other.live.groups[0], name="api", service="api")
    other = replace(other, live=replace(other.live, groups=(*other.live.groups, group)))
    found = plan(other, rests).services
    assert found["web"] is first
    assert found["api"].sync is Sync.OUT_OF_SYNC


def test_an_image_that_cannot_be_fetched_any_more_is_news() -> None:
    scene = native()
    rests, question = Rests(), scene.question()
    first = plan(question, rests).services["web"]
    lost = dict.fromkeys(question.live.images, ImageState(ImageStatus.FAILED, Reason.IMAGE_NOT_FOUND, "gone"))
    assert plan(replace(question, live=replace(question.live, images=lost)), rests).services["web"] is not first


def test_what_is_never_kept() -> None:
    question = native().question()
    wish, live = question.wishes["web"], question.live
    assert wish.desired is not None
    aging = replace(wish.desired, spec=replace(wish.desired.spec, lifetime=timedelta(days=1)))

    def kept(asked: Question, by: Wish) -> bool:
        return basis(asked, by, live.instances, live.groups) is not None

    assert kept(question, wish)
    assert not kept(replace(question, native=None), wish)
    assert not kept(replace(question, findings={"web": GateFinding(Verdict.PASS, "")}), wish)
    assert not kept(replace(question, demands={"web": Decision(1, "", None)}), wish)
    for change in (
        {"desired": None},
        {"desired": aging},
        {"held": Reason.FROZEN},
        {"suspended": "by ann"},
    ):
        assert not kept(question, replace(wish, **change))


def test_only_what_time_alone_does_not_change_is_kept() -> None:
    question = native().question()
    found, memory = plan(question).services["web"], question.memory.services["web"]
    now = basis(question, question.wishes["web"], question.live.instances, question.live.groups)
    assert memory.stable is not None

    def kept(found: ServicePlan, memory: ServiceMemory | None) -> bool:
        look = Rests()
        look.note(now, found, memory)
        return look.anew().recalled("web", now) is found

    assert kept(found, memory)
    assert kept(found, replace(memory, losses=(question.now,)))
    assert kept(replace(found, sync=Sync.OUT_OF_SYNC), memory)
    assert not kept(replace(found, sync=Sync.OUT_OF_SYNC), replace(memory, losses=(question.now,)))
    assert not kept(found, None)
    for change in ({"steps": (SweepOrphan("x"),)}, {"recheck_at": question.now}):
        assert not kept(replace(found, **change), memory)


def test_what_is_asked_of_one_service_is_known_by_more_than_the_engine() -> None:
    question = native().question()
    wish, live, now = question.wishes["web"], question.live, question.now

    def found_by(asked: Question, by: Wish = wish) -> object:
        known = basis(asked, by, live.instances, live.groups)
        assert known is not None
        return known.parts

    assert found_by(question) == found_by(replace(question))
    assert found_by(replace(question, up_since=now)) == found_by(replace(question, able_since={"web": now}))
    for change in ({"up_since": now}, {"able_since": {"web": now}}, {"changes_held": Held(Reason.FROZEN, "", now)}):
        assert found_by(replace(question, **change)) != found_by(question)
    assert wish.desired is not None
    other = replace(wish.desired, spec=replace(wish.desired.spec, image=ImageRef("x", "sha256:" + "0" * 64)))
    both = replace(wish, fallback=other)
    lost = {other.spec.image.pinned: ImageState(ImageStatus.FAILED, Reason.IMAGE_NOT_FOUND, "gone")}
    failed = replace(question, live=replace(live, images={**live.images, **lost}))
    assert found_by(question, both) != found_by(failed, both)


def test_whoever_adds_to_what_is_asked_thinks_of_what_is_kept() -> None:
    known = {"environment", "revision", "wishes", "live", "memory", "now", "removals_held", "up_since", "able_since"}
    known |= {"front", "changes_held", "findings", "demands", "native"}
    assert {each.name for each in fields(Question)} == known, "does the plan of a service at rest depend on it?"
    shown = {"environment", "observed_at", "instances", "images", "foreign", "orphans", "network_ready", "proxy"}
    assert {each.name for each in fields(LiveState)} == shown | {"groups", "routes"}


LETTERS = st.sampled_from("abc")
SPECS = st.fixed_dictionaries(
    {},
    optional={
        "replicas": st.integers(0, 4),
        "lifetime": st.sampled_from([None, timedelta(minutes=1)]),
        "rollout": st.builds(
            Rollout,
            st.sampled_from([Strategy.ROLLING, Strategy.BLUE_GREEN, Strategy.CANARY]),
            hold=st.sampled_from([timedelta(0), timedelta(seconds=20)]),
            progress_deadline=st.sampled_from([timedelta(seconds=15), timedelta(minutes=5)]),
        ),
        "scaling": st.sampled_from([None, Scaling(1, 5, cpu=0.5)]),
        "route": st.sampled_from([None, Route(8080, hosts=("web.test",))]),
    },
)
ACTS = st.one_of(
    st.tuples(st.just("commit"), LETTERS, SPECS),
    st.tuples(st.just("wait"), st.integers(1, 60)),
    st.tuples(st.just("jump"), st.sampled_from([-3600, -1, 700, 86400])),
    st.tuples(st.just("sick"), LETTERS),
    st.tuples(st.just("dying"), LETTERS),
    st.tuples(st.just("missing"), LETTERS),
    st.tuples(st.just("scale"), st.integers(0, 5)),
    st.tuples(st.just("quota"), st.sampled_from([None, 1, 3])),
    st.tuples(st.sampled_from(["evict", "remove", "address", "cut", "suspend", "withdraw", "unreadable"])),
)


def evict(scene: NativeScene) -> None:
    for deployment in scene.cluster.deployments.values():
        if deployment.pods:
            scene.cluster.evict(deployment.effect.name)
            return


def withdraw(scene: NativeScene) -> None:
    scene.wanted = None


def unreadable(scene: NativeScene) -> None:
    scene.unreadable = not scene.unreadable


HANDS = {
    "evict": evict,
    "remove": NEWS["removal"],
    "address": by_address,
    "cut": NEWS["no address"],
    "suspend": suspended,
    "withdraw": withdraw,
    "unreadable": unreadable,
}


def act(scene: NativeScene, what: str, *values: object) -> None:
    match what, *values:
        case "commit", str(letter), dict(changes):
            scene.commit(letter, **changes)
        case "wait", int(seconds):
            scene.rounds(seconds)
        case "jump", int(seconds):
            scene.clock.advance(timedelta(seconds=seconds))
        case ("sick" | "dying" | "missing") as fault, str(letter):
            getattr(scene.cluster, fault).symmetric_difference_update(letter)
        case "quota", most:
            scene.cluster.quota = most  # type: ignore[assignment]
        case "scale", int(count):
            for name in scene.cluster.deployments:
                scene.cluster.scale(name, count)
        case _:
            HANDS[what](scene)


@settings(max_examples=60)
@given(st.booleans(), st.lists(ACTS, max_size=8))
def test_whatever_happens_nothing_that_is_kept_is_stale(gateway: bool, acts: list[tuple[object, ...]]) -> None:
    scene = native(gateway=gateway)
    for each in acts:
        act(scene, *each)  # type: ignore[arg-type]
        scene.look()
        scene.rounds(2)


def test_the_comparison_finds_what_is_stale() -> None:
    scene = native()
    scene.look()
    wrong = replace(scene.look().services["web"], message="of yesterday")
    known = scene.rests._noted["web"]
    scene.rests._noted["web"] = (known[0], wrong)
    with pytest.raises(AssertionError, match="not so any more"):
        scene.look()

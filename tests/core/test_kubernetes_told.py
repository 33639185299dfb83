"""What one look at a namespace keeps for the next: it is used, and no look differs from one that reads all anew."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.kubernetes_objects import Gateway, group_objects, route_objects
from reconciler.core.kubernetes_read import Told, live_state, slim
from reconciler.core.live import HealthStatus, LiveState
from reconciler.core.model import Health, HttpCheck, ServiceSpec
from tests.support.kube_answers import (
    MADE,
    NOW,
    answered,
    changed,
    condition,
    pod,
    replica_set,
    running,
    seen,
    settled,
    status,
)
from tests.support.kube_specs import ENVIRONMENT, OTHER, PLACE, PLAIN, RICH, SECRETS, VERSION, ensure, lead

BEGAN = datetime.fromisoformat(MADE)
CHECK = Health(HttpCheck(80), interval=timedelta(seconds=2), unhealthy_after=3, startup=timedelta(seconds=60))
BLIND = Health(None, interval=timedelta(seconds=5), healthy_after=2)


@dataclass
class Space:
    """A namespace: `objects` by kind and name, replaced and never changed. Each look is made twice and compared."""

    objects: dict[tuple[str, str], dict] = field(default_factory=dict)
    at: datetime = NOW
    checks: dict[str, Health] = field(default_factory=dict)
    told: Told = field(default_factory=Told)

    def put(self, *objects: dict) -> None:
        for each in objects:
            self.objects[each["kind"], each["metadata"]["name"]] = slim(each)

    def look(self) -> LiveState:
        about = "default", ENVIRONMENT, self.at, self.checks, [PLAIN.image.pinned, RICH.image.pinned]
        found = live_state(seen(self.objects.values()), *about, self.told)
        anew = live_state(seen(self.objects.values()), *about)
        assert found == anew, "what was kept is not so any more"
        return found


def release(spec: ServiceSpec, version: str = VERSION, replicas: int = 2) -> list[dict]:
    """The objects of a service of which one pod runs and one waits."""
    objects = [answered(each) for each in group_objects(ensure(spec, replicas, version=version), PLACE, SECRETS)]
    deployment = next(each for each in objects if each["kind"] == "Deployment")
    maker = replica_set(deployment, available=1)
    maker["metadata"]["name"] += version[:1]
    names = [f"{maker['metadata']['name']}-{number}" for number in range(replicas)]
    pods = [pod(maker, name, status=running() if number else waiting()) for number, name in enumerate(names)]
    ways = [answered(each) for each in route_objects(lead(spec, {version: 100}), PLACE, Gateway("public"))]
    rest = [each for each in objects if each is not deployment]
    return [settled(deployment, replicas), *rest, maker, *pods, *ways]


def waiting() -> dict:
    return status({"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}, phase="Pending")


def space() -> Space:
    found = Space()
    found.put(*release(PLAIN), *release(RICH))
    found.look()
    return found


def the(found: LiveState, service: str) -> list[object]:
    groups = [each for each in found.groups if each.service == service]
    return [*groups, *(each for each in found.instances if each.service == service), found.routes[service]]


def same(one: list[object], other: list[object]) -> list[bool]:
    return [a is b for a, b in zip(one, other, strict=True)]


def test_of_the_very_same_objects_nothing_is_read_again() -> None:
    world = space()
    before = world.look()
    world.at += timedelta(days=1)
    after = world.look()
    for service in ("plain", "web"):
        assert all(same(the(before, service), the(after, service)))


def test_what_is_new_of_one_service_is_read_and_the_other_is_not() -> None:
    world = space()
    before = world.look()
    world.put(changed(release(RICH)[0], ["f:spec", "f:replicas"], 7, "kubectl"))
    after = world.look()
    assert all(same(the(before, "plain"), the(after, "plain")))
    assert [each.replicas for each in after.groups if each.service == "web"] == [7]


def test_what_is_gone_is_forgotten() -> None:
    world = space()
    count = sum(map(len, world.told.objects.values())), len(world.told.made)
    kept = dict(world.objects)
    world.put(*release(replace(PLAIN, name="third")))
    world.look()
    world.objects = kept
    world.look()
    assert (sum(map(len, world.told.objects.values())), len(world.told.made)) == count


@pytest.mark.parametrize(
    ("check", "found", "moments"),
    [
        (
            CHECK,
            running("False"),
            {0: "starting", 60: "starting", 60.001: "unhealthy", 61: "unhealthy", 59: "starting"},
        ),
        (CHECK, running("False", "2026-01-01T00:01:40Z"), {106: "starting", 106.001: "unhealthy", 99: "starting"}),
        (CHECK, running("Unknown"), {0: "starting", 900: "starting"}),
        (CHECK, running(), {0: "healthy", 900: "healthy"}),
        (BLIND, running(), {9.999: "starting", 10: "healthy", 0: "starting"}),
        (None, running(), {0: "healthy", 900: "healthy"}),
    ],
)
def test_time_alone_changes_how_a_pod_is(check: Health | None, found: dict, moments: dict[float, str]) -> None:
    world = Space(checks={} if check is None else {VERSION: check})
    maker = replica_set(answered(group_objects(ensure(PLAIN, 1), PLACE, {})[0]))
    world.put(pod(maker, status=found))
    for second, health in moments.items():
        world.at = BEGAN + timedelta(seconds=second)
        assert world.look().instances[0].health is HealthStatus(health)


def test_another_check_of_a_version_is_news() -> None:
    world = Space(at=BEGAN + timedelta(seconds=1))
    maker = replica_set(answered(group_objects(ensure(PLAIN, 1), PLACE, {})[0]))
    world.put(pod(maker))
    for check, health in ((BLIND, "starting"), (CHECK, "healthy"), (BLIND, "starting"), (None, "healthy")):
        world.checks = {} if check is None else {VERSION: check}
        assert world.look().instances[0].health is HealthStatus(health)


def test_a_window_without_an_end_never_ends() -> None:
    world = Space(checks={VERSION: replace(CHECK, startup=timedelta(days=3_000_000))})
    maker = replica_set(answered(group_objects(ensure(PLAIN, 1), PLACE, {})[0]))
    world.put(pod(maker, status=running("False")))
    assert world.look().instances[0].health is HealthStatus.STARTING


def test_a_leftover_is_one_as_soon_as_it_is_old() -> None:
    world = Space(at=BEGAN + timedelta(seconds=59))
    world.put(*(each for each in release(RICH) if each["kind"] == "ConfigMap"))
    assert world.look().orphans == ()
    world.at += timedelta(seconds=2)
    assert len(world.look().orphans) == 1


POOL: list[dict] = [
    *release(PLAIN),
    *release(PLAIN, OTHER),
    *release(RICH),
    *release(RICH, OTHER, 1),
    *release(replace(PLAIN, name="web-1")),
]
STATES = [
    running(),
    running("False"),
    running("False", "2026-01-01T00:30:00Z", restarts=1, startTime="2026-01-01T00:20:00Z"),
    waiting(),
    status({"terminated": {"exitCode": 3, "finishedAt": MADE}}, restarts=2),
    {"phase": "Pending", "conditions": [condition("PodScheduled", "False", reason="Unschedulable")]},
]
places = st.integers(0, len(POOL) - 1)


def alter(way: Callable[[dict], object]) -> Callable[[dict], dict]:
    def altered(live: dict) -> dict:
        found = copy.deepcopy(live)
        way(found)
        return found

    return altered


def unlabel(live: dict) -> None:
    live["metadata"]["labels"].pop("dev.reconciler.service", None)


def give_away(live: dict) -> None:
    live["metadata"]["labels"]["dev.reconciler.owner"] = "another"


def regroup(live: dict) -> None:
    live["metadata"]["labels"]["dev.reconciler.group"] = "web"


def lose_maker(live: dict) -> None:
    live["metadata"].pop("ownerReferences", None)


def remake(live: dict) -> None:
    live["metadata"]["uid"] = "uid-of-another"


def rest(live: dict) -> None:
    live.setdefault("spec", {})["replicas"] = 0


def fail(live: dict) -> None:
    said = 'pods "x" is forbidden: exceeded quota: small'
    live.setdefault("status", {})["conditions"] = [condition("ReplicaFailure", "True", message=said)]


WAYS = [alter(each) for each in (unlabel, give_away, regroup, lose_maker, remake, rest, fail)]
ACTS = st.one_of(
    st.tuples(st.just("put"), places),
    st.tuples(st.just("take"), places),
    st.tuples(st.just("alter"), places, st.sampled_from(WAYS)),
    st.tuples(st.just("state"), places, st.sampled_from(STATES)),
    st.tuples(st.just("drift"), places, st.integers(0, 9)),
    st.tuples(st.just("time"), st.sampled_from([-4000, -1, 1, 6, 61, 3600])),
    st.tuples(st.just("check"), st.sampled_from([VERSION, OTHER]), st.sampled_from([CHECK, BLIND, None])),
)


def act(world: Space, what: str, place: object, value: object = None) -> None:
    live = POOL[place] if isinstance(place, int) and 0 <= place < len(POOL) else POOL[0]
    key = live["kind"], live["metadata"]["name"]
    match what:
        case "put":
            world.put(live)
        case "take":
            world.objects.pop(key, None)
        case "alter":
            world.put(value(live))  # type: ignore[operator]
        case "state" if live["kind"] == "Pod":
            world.put({**live, "status": value})
        case "drift" if live["kind"] == "Deployment":
            world.put(changed(live, ["f:spec", "f:replicas"], value, "kubectl"))
        case "time":
            world.at += timedelta(seconds=place)  # type: ignore[arg-type]
        case "check":
            world.checks.pop(str(place), None)
            if isinstance(value, Health):
                world.checks[str(place)] = value


@pytest.mark.parametrize("objects", [[*release(PLAIN), *release(RICH)], POOL], ids=["two", "many"])
def test_whatever_happens_to_a_single_object_is_seen(objects: list[dict]) -> None:
    world = Space(checks={VERSION: CHECK})
    world.put(*objects)
    for live in objects:
        key = live["kind"], live["metadata"]["name"]
        states = [{**live, "status": each} for each in STATES] if live["kind"] == "Pod" else []
        for each in (None, *(way(live) for way in WAYS), *states):
            world.put(live)
            world.look()
            if each is None:
                del world.objects[key]
            else:
                world.put(each)
            world.look()
        world.put(live)


@settings(max_examples=150)
@given(st.sets(places), st.lists(ACTS, max_size=12))
def test_whatever_is_told_no_look_differs_from_one_that_reads_all_anew(
    first: set[int], acts: list[tuple[object, ...]]
) -> None:
    world = Space(at=BEGAN + timedelta(seconds=30), checks={VERSION: CHECK})
    world.put(*(POOL[place] for place in sorted(first)))
    world.look()
    for each in acts:
        act(world, *each)  # type: ignore[arg-type]
        world.look()
        world.look()

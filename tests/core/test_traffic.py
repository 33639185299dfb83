"""The tables of the proxies as values: shares, what joins instances with places, what differs, and what is stray."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core import names, traffic
from reconciler.core.delivery import Route
from reconciler.core.diff import View, sort
from reconciler.core.live import (
    Backend,
    HealthStatus,
    Instance,
    LiveState,
    Phase,
    ProxyState,
    ProxyStatus,
    Server,
    ServerMode,
)
from reconciler.core.memory import ServiceMemory
from reconciler.core.model import DriftPolicy
from reconciler.core.record import VersionRef
from reconciler.core.steps import FreePlace, Share
from tests.support.scene import ENVIRONMENT, START, target

ROUTED = target("a", route=Route(8080, preview="next.example.org"), replicas=2)
STABLE = VersionRef(ROUTED.version, ROUTED.spec.image.pinned, "r1")
FRONT = names.backend(ENVIRONMENT, "web")
PREVIEW = names.backend(ENVIRONMENT, "web", preview=True)


def instance(ordinal: int, server: Server | None = None, **changes: object) -> Instance:
    plain = Instance(
        id=str(ordinal),
        name=f"web.{ordinal}",
        service="web",
        version=ROUTED.version,
        revision="r1",
        ordinal=ordinal,
        image=ROUTED.spec.image.pinned,
        phase=Phase.RUNNING,
        created_at=START,
        health=HealthStatus.HEALTHY,
        address=f"10.0.0.{ordinal}",
        server=server,
    )
    return replace(plain, **changes)


def place(ordinal: int, mode: ServerMode = ServerMode.READY, weight: int = 100, **changes: object) -> Server:
    return replace(Server(f"10.0.0.{ordinal}", 8080, mode, weight, up=True), **changes)


def shown(*servers: Server, preview: tuple[Server, ...] = ()) -> ProxyState:
    return ProxyState(ProxyStatus.READY, "c", {FRONT: Backend(servers, 8), PREVIEW: Backend(preview, 8)})


def view(*instances: Instance, shares: dict[str, str] | None, **changes: object) -> View:
    memory = ServiceMemory(stable=STABLE, shares=shares, made=frozenset(i.name for i in instances))
    wanted = replace(ROUTED, spec=replace(ROUTED.spec, **changes))
    return sort(ENVIRONMENT, wanted, memory, instances, {}, frozenset(), START, proxy=shown())


def full(*instances: Instance) -> list[Share]:
    return [Share(i.name, i.address, 8080, ServerMode.READY, 100) for i in instances]


# What the proxies show of instances


def live(*instances: Instance) -> LiveState:
    return LiveState(ENVIRONMENT, START, instances)


@pytest.mark.parametrize(
    ("server", "serving"),
    [
        (place(1), True),
        (place(1, up=False), False),
        (place(1, weight=0), False),
        (place(1, ServerMode.DRAIN), False),
        (place(1, ServerMode.MAINT), False),
    ],
)
def test_an_instance_serves_as_the_proxies_show_it(server: Server, serving: bool) -> None:
    (found,) = traffic.joined(live(instance(1)), shown(server), {"web"}).instances
    assert (found.server, found.preview, found.serving) == (server, None, serving)


@pytest.mark.parametrize("servers", [(), (place(1, ServerMode.MAINT),)])
def test_without_a_place_that_counts_it_serves_if_it_is_found_by_name(servers: tuple[Server, ...]) -> None:
    (found,) = traffic.joined(live(instance(1, serving=True)), shown(*servers), {"web"}).instances
    assert found.serving


def test_the_preview_is_another_place() -> None:
    there = place(1)
    (found,) = traffic.joined(live(instance(1)), shown(preview=(there,)), {"web"}).instances
    assert (found.server, found.preview, found.serving) == (None, there, False)


def test_an_instance_without_an_address_has_no_place() -> None:
    nobody = place(1, address="")
    (found,) = traffic.joined(live(instance(1, address="")), shown(nobody), {"web"}).instances
    assert found.server is None


def test_what_is_not_routed_and_what_has_no_backend_stays_as_it_is() -> None:
    given = live(instance(1, serving=True))
    assert traffic.joined(given, None, {"web"}) == given
    assert traffic.joined(given, shown(place(1)), ()).instances == given.instances
    assert traffic.joined(given, ProxyState(ProxyStatus.ABSENT), {"web"}).instances == given.instances


# Shares

groups = st.lists(st.tuples(st.integers(0, 12), st.floats(0, 100).map(lambda share: round(share, 2))), max_size=4)


@given(groups)
def test_weights_are_within_the_range_and_only_for_a_share(found: list[tuple[int, float]]) -> None:
    weights = traffic.split(found)
    assert len(weights) == len(found)
    for weight, (count, share) in zip(weights, found, strict=True):
        assert 0 <= weight <= traffic.MOST
        assert (weight > 0) is (count > 0 and share > 0)


def within(found: list[tuple[int, float]], weights: tuple[int, ...]) -> float:
    """By how many percentage points a group gets more or less than its share."""
    total = sum(share for count, share in found if count)
    given = sum(weight * count for weight, (count, _) in zip(weights, found, strict=True))
    pairs = zip(weights, found, strict=True)
    return max(abs(100 * weight * count / given - 100 * share / total) for weight, (count, share) in pairs)


@given(
    candidate=st.integers(1, 20),
    stable=st.integers(1, 20),
    weight=st.integers(1, 99),
)
def test_two_groups_get_their_shares_within_half_a_point(candidate: int, stable: int, weight: int) -> None:
    found = [(candidate, float(weight)), (stable, 100.0 - weight)]
    each = [share / count for count, share in found]
    weights = traffic.split(found)
    # Of the smaller one the weight is at least 1, and of the greater at most 256: beyond that nothing can be exact.
    if max(each) <= traffic.MOST * min(each):
        assert within(found, weights) <= 0.5


@given(twins=st.integers(1, 4), stable=st.integers(1, 10), weight=st.integers(1, 50))
def test_a_baseline_gets_as_much_as_the_candidate(twins: int, stable: int, weight: int) -> None:
    found = [(twins, float(weight)), (twins, min(weight, (100 - weight) / 2)), (stable, 0.0)]
    found[2] = (stable, 100 - found[0][1] - found[1][1])
    weights = traffic.split(found)
    each = [share / count for count, share in found if share]
    if max(each) <= traffic.MOST * min(each):
        assert within(found, weights) <= 0.75
    if found[0][1] == found[1][1]:
        assert weights[0] == weights[1]


def test_the_shares_of_the_usual_steps_are_exact() -> None:
    assert traffic.split([(1, 5), (1, 95)]) == (5, 95)
    assert traffic.split([(1, 1), (1, 99)]) == (1, 99)
    assert traffic.split([(2, 50), (2, 50)]) == (100, 100)
    assert traffic.split([(1, 0), (3, 100)]) == (0, 100)
    assert traffic.split([(0, 5), (2, 95)]) == (0, 100)
    assert traffic.split([(0, 5), (2, 0)]) == (0, 0)
    assert traffic.split([]) == ()


# Tables


def test_a_table_that_is_there_and_known_is_not_made_again() -> None:
    first, second = instance(1, place(1)), instance(2, place(2))
    known = {"web.1": "ready 100", "web.2": "ready 100"}
    assert traffic.shift(view(first, second, shares=known), full(first, second)) is None
    again = traffic.shift(view(first, second, shares=None), full(second, first))
    assert again is not None, "an attempt without an outcome is made again"
    assert [share.name for share in again.shares] == ["web.1", "web.2"]
    reached = traffic.shift(view(first, second, shares=known), full(first, second), 1)
    assert reached is not None and reached.stage == 1, "that a stage is reached has to be known"


def test_an_empty_table_is_no_step_where_there_never_was_one() -> None:
    assert traffic.shift(view(instance(1), shares=None), []) is None


@pytest.mark.parametrize(
    "server",
    [
        None,
        place(1, weight=7),
        place(1, ServerMode.DRAIN),
        place(1, ServerMode.MAINT),
        place(1, port=9090),
        place(1, even=False),
    ],
)
def test_whatever_the_proxies_show_otherwise_is_made_right(server: Server | None) -> None:
    there = instance(1, server)
    assert traffic.shift(view(there, shares={"web.1": "ready 100"}), full(there)) is not None


def test_the_weight_of_what_drains_does_not_matter() -> None:
    there = instance(1, place(1, ServerMode.DRAIN, 3))
    wanted = [Share("web.1", "10.0.0.1", 8080, ServerMode.DRAIN, 100)]
    known = view(there, shares={"web.1": "drain"})
    known = replace(known, memory=replace(known.memory, detached={"web.1": START}))
    assert traffic.shift(known, wanted) is None
    assert traffic.shift(view(there, shares={"web.1": "drain"}), wanted) is not None, "when it began has to be known"


def test_what_is_not_in_the_table_loses_its_place_unless_it_has_none() -> None:
    for mode in ServerMode:
        there = instance(1, place(1, mode))
        step = traffic.shift(view(there, shares={}), [])
        assert (step is None) is (mode is ServerMode.MAINT), mode


def test_where_drift_is_only_reported_weights_stay_and_places_come_back() -> None:
    first = instance(1, place(1, weight=1))
    known = {"web.1": "ready 100"}
    assert traffic.shift(view(first, shares=known, drift=DriftPolicy.REPORT), full(first)) is None
    assert traffic.shift(view(first, shares={}, drift=DriftPolicy.REPORT), full(first)) is not None
    assert traffic.shift(view(first, shares=known, drift=DriftPolicy.REPORT), full(first), 0) is not None
    lost = instance(1)
    assert traffic.shift(view(lost, shares=known, drift=DriftPolicy.REPORT), full(lost)) is not None


def test_ready_are_those_with_an_address() -> None:
    first, second = instance(1), instance(2, address="")
    assert traffic.ready(view(first, second, shares=None), [first, second], 7) == [
        Share("web.1", "10.0.0.1", 8080, ServerMode.READY, 7)
    ]


# The preview


def test_the_preview_shows_these_instances_only() -> None:
    shown_before, new = instance(1, preview=place(1)), instance(2)
    step = traffic.preview(view(shown_before, new, shares=None), [new])
    assert step is not None
    assert (step.name, [share.name for share in step.shares], step.stage) == (PREVIEW, ["web.2"], None)
    gone = instance(1, preview=place(1, ServerMode.MAINT))
    there = instance(2, preview=place(2))
    assert traffic.preview(view(gone, there, shares=None), [there]) is None


def test_without_a_preview_address_there_is_no_preview() -> None:
    assert traffic.preview(view(instance(1), shares=None, route=Route(8080)), [instance(1)]) is None
    assert traffic.preview(view(instance(1), shares=None, route=None), [instance(1)]) is None


# What was changed by hand


def test_what_was_changed_is_told_in_words() -> None:
    first, second, third = instance(1, place(1, weight=1)), instance(2, place(2, ServerMode.MAINT)), instance(3)
    shares = {"web.1": "ready 100", "web.2": "ready 100", "web.3": "drain"}
    assert traffic.changed(view(first, second, third, shares=shares)) == (
        "web.1: ready 100 -> ready 1, web.2: ready 100 -> maint, web.3: drain -> no place"
    )


def test_nothing_is_told_of_what_is_not_known() -> None:
    first = instance(1, place(1, weight=1))
    known = {"web.1": "ready 100"}
    assert traffic.changed(view(first, shares=None)) == ""
    assert traffic.changed(view(first, shares={})) == ""
    assert traffic.changed(view(replace(first, address=""), shares=known)) == ""
    assert traffic.changed(view(first, shares=known, route=None)) == "", "the table of a route that is gone"
    blind = replace(view(first, shares=known), proxy=ProxyState(ProxyStatus.UNREACHABLE))
    assert traffic.changed(blind) == ""


def test_what_was_in_a_table_and_has_no_route_any_more_was_not_taken_out_by_hand() -> None:
    there = instance(1)
    known = view(there, shares={"web.1": "ready 100"}, route=None)
    known = replace(known, memory=replace(known.memory, served=frozenset({"web.1"})))
    again = sort(ENVIRONMENT, known.target, known.memory, (there,), {}, frozenset(), START + timedelta(minutes=1))
    assert again.fresh == (there,)
    without = replace(known.memory, shares=None)
    unplugged = sort(ENVIRONMENT, known.target, without, (there,), {}, frozenset(), START)
    assert unplugged.stale == (there,)


# Strays


def test_a_place_of_nobody_is_freed_whatever_its_backend() -> None:
    known = instance(1)
    state = shown(place(1), place(9, ServerMode.MAINT), preview=(place(1), place(8)))
    assert traffic.strays(replace(live(known), proxy=state)) == (
        FreePlace(FRONT, "10.0.0.9", 8080),
        FreePlace(PREVIEW, "10.0.0.8", 8080),
    )


def test_the_address_of_another_service_and_of_an_ended_instance_is_stray() -> None:
    other = replace(instance(2), service="api")
    ended = instance(1, phase=Phase.EXITED, address="")
    found = traffic.strays(replace(live(other, ended), proxy=shown(place(1), place(2))))
    assert [step.address for step in found] == ["10.0.0.1", "10.0.0.2"]


def test_without_proxies_nothing_is_stray() -> None:
    assert traffic.strays(live(instance(1))) == ()


def test_of_two_places_of_an_instance_the_more_willing_one_counts() -> None:
    old, new = place(1, ServerMode.MAINT), place(1, port=9090)
    (found,) = traffic.joined(live(instance(1)), shown(old, new), {"web"}).instances
    assert found.server == new

"""A route is led only when the Gateway has taken it: what the runtime waits for, says, and leaves alone until then."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.adapters import kubernetes_runtime
from reconciler.core.delivery import Route
from reconciler.core.errors import Reason, Retryable
from reconciler.core.steps import GroupShare, RouteGroups
from tests.support.kube_house import KubeHouse, kube_house
from tests.support.kube_world import ENVIRONMENT, World, ensure, kube_world, lead, service

SPEC = service(route=Route(8080, hosts=("web.example",)))
KEY = (ENVIRONMENT, "httproutes", "web")


@pytest.fixture
def house() -> Iterator[KubeHouse]:
    with kube_house() as built:
        yield built


@pytest.fixture
def world(house: KubeHouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(kubernetes_runtime, "TAKEN_WITHIN", 60.0)
    with kube_world(house.kubeconfig(tmp_path), ENVIRONMENT, house, gateway="front") as built:
        for name in ("web-a", "web-b"):
            built.runtime.apply(ensure(SPEC, name))
        yield built


def shares(**weights: int) -> RouteGroups:
    table = tuple(GroupShare(f"web-{letter}", letter * 64, weight) for letter, weight in weights.items())
    return replace(lead(SPEC, exact=True), shares=table)


def say(house: KubeHouse, status: str = "True") -> None:
    """The Gateway's word about the route as it is now."""
    found = copy.deepcopy(house.objects[KEY])
    seen = found["metadata"]["generation"]
    accepted = {"type": "Accepted", "status": status, "observedGeneration": seen, "reason": "R", "message": "m"}
    found["status"] = {"parents": [{"parentRef": {"name": "front"}, "conditions": [accepted]}]}
    house.store("MODIFIED", ENVIRONMENT, "httproutes", found)


def _generation(house: KubeHouse) -> int:
    """Of the route, as soon as it is wholly ours; 0 before."""
    about = house.objects[KEY]["metadata"] if KEY in house.objects else {"managedFields": [], "generation": 0}
    whole = all(each["operation"] == "Apply" for each in about["managedFields"])
    return int(about["generation"]) if whole else 0


def applied(world: World, house: KubeHouse, effect: RouteGroups, then: Callable[[], None]) -> None:
    """Apply, and do something as soon as the route is written. Raises what the runtime raises."""
    before = _generation(house)
    with ThreadPoolExecutor(1) as executor:
        working = executor.submit(world.runtime.apply, effect)
        with house.news:
            assert house.news.wait_for(lambda: _generation(house) > before, 60)
        then()
        working.result(60)


def test_it_waits_for_the_word_of_the_gateway(world: World, house: KubeHouse) -> None:
    applied(world, house, shares(a=100), lambda: say(house))
    assert world.live().routes["web"].refusal == ""
    applied(world, house, shares(a=80, b=20), lambda: say(house))
    route = world.live().routes["web"]
    assert (route.weights, route.refusal) == ({"web-a": 80, "web-b": 20}, "")
    before = world.asked()
    world.runtime.apply(shares(a=80, b=20))
    assert world.asked() == before


def test_a_word_about_an_earlier_declaration_does_not_count(
    world: World, house: KubeHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied(world, house, shares(a=50, b=50), lambda: say(house))
    monkeypatch.setattr(kubernetes_runtime, "TAKEN_WITHIN", 0.3)
    with pytest.raises(Retryable, match="has not said yet whether it takes the last change") as caught:
        world.runtime.apply(shares(b=100))
    assert caught.value.reason is Reason.PROXY_UNREACHABLE
    route = world.live().routes["web"]
    assert (route.weights, route.differences[0].detail) == ({"web-b": 100}, "Service/web-a is not wanted any more")
    assert route.refusal
    # Requests may still be led to it.
    assert world.there("Service", "web-a")
    say(house)
    world.until(lambda live: not live.routes["web"].refusal)
    world.runtime.apply(shares(b=100))
    assert not world.there("Service", "web-a")


def test_what_a_gateway_refuses_is_said(world: World, house: KubeHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_runtime, "TAKEN_WITHIN", 0.3)
    with pytest.raises(Retryable, match="Gateway front, HTTPRoute web: "):
        applied(world, house, shares(a=100), lambda: say(house, "False"))
    world.until(lambda live: "Accepted is False (R): m" in live.routes["web"].refusal)  # it may come after that time
    with pytest.raises(Retryable, match=r"Gateway front, HTTPRoute web: Accepted is False \(R\): m"):
        world.runtime.apply(shares(a=100))

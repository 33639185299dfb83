"""What others add to our objects in a namespace is seen and taken away, on the fake API and on a real cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.adapters import kubernetes_apply
from reconciler.adapters.kubernetes_apply import path
from reconciler.adapters.kubernetes_client import JSON_PATCH, MERGE_PATCH, ApiError
from reconciler.core.added_fields import claim
from reconciler.core.errors import Reason, Rejected, Retryable
from tests.contract.test_kubernetes_runtime import plain, refused, rendered, stranger
from tests.support.kube_house import Fault, kube_house
from tests.support.kube_world import ENVIRONMENT, World, either, ensure, kube_world, lead, service


@pytest.fixture(params=["fake", "real"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with either(request, tmp_path) as built:
        yield built


def set_variable(world: World, name: str = "FOO") -> None:
    """What `kubectl set env` does: the rest stays as it is."""
    spec = world.get("Deployment", "web")["spec"]["template"]["spec"]
    spec["containers"][0]["env"].append({"name": name, "value": "bar"})
    world.change("Deployment", "web", {"spec": {"template": {"spec": {"containers": spec["containers"]}}}})


def variables(world: World) -> list[str]:
    container = world.get("Deployment", "web")["spec"]["template"]["spec"]["containers"][0]
    return [one["name"] for one in container["env"]]


CHANGE = "PATCH /apis/apps/v1/namespaces/prod/deployments/web "
ADDED = "spec.template.spec.containers[name=main].env[name=FOO] was added by kubectl-edit"


def test_a_variable_that_somebody_adds_is_seen_and_taken_away(world: World) -> None:
    effect = ensure(service())
    world.runtime.apply(effect)
    before = world.get("Deployment", "web")
    set_variable(world)
    live = world.until(lambda live: live.groups[0].differences)
    assert [each.detail for each in live.groups[0].differences] == [ADDED]
    world.runtime.apply(effect)
    assert world.group().differences == ()
    after = world.get("Deployment", "web")
    assert after["spec"] == before["spec"]
    assert after["metadata"]["generation"] == before["metadata"]["generation"] + 2  # by hand, and by us: once each
    assert "kubectl-edit" not in [one["manager"] for one in after["metadata"]["managedFields"]]


def test_what_somebody_adds_just_before_an_apply_is_not_taken_for_admission(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.runtime.apply(ensure(service()))

    def slow(point: str) -> None:
        if point == "kubernetes.before_apply":
            set_variable(world)

    monkeypatch.setattr(kubernetes_apply, "hit", slow)
    effect = ensure(service(env={"A": "2"}))
    world.runtime.apply(effect)
    assert ADDED in [each.detail for each in world.group().differences]
    monkeypatch.undo()
    world.runtime.apply(effect)
    assert (variables(world), world.group().differences) == (["A"], ())


def test_a_port_that_somebody_adds_is_seen_and_taken_away(world: World) -> None:
    effect = lead(service(), "web", mixed=True)
    world.runtime.apply(effect)
    before = world.get("Service", "web")["spec"]
    ports = [*before["ports"], {"name": "more", "port": 9, "protocol": "TCP", "targetPort": 9}]
    world.change("Service", "web", {"spec": {"ports": ports, "publishNotReadyAddresses": True}})
    live = world.until(lambda live: live.routes["web"].differences)
    assert [each.detail for each in live.routes["web"].differences] == [
        "spec.ports[port=9,protocol=TCP] was added by kubectl-edit",
        "spec.publishNotReadyAddresses was added by kubectl-edit",
    ]
    world.runtime.apply(effect)
    assert world.live().routes["web"].differences == ()
    assert world.get("Service", "web")["spec"] == before


def test_a_release_takes_away_what_was_added(world: World) -> None:
    world.runtime.apply(ensure(service()))
    set_variable(world)
    world.until(lambda live: live.groups[0].differences)
    world.runtime.apply(ensure(service(env={"B": "3"})))
    assert (variables(world), world.group().differences) == (["B"], ())


def test_what_somebody_owns_with_us_goes_with_the_next_release(world: World) -> None:
    """Another tool applies the same: an apply alone would leave in what only we gave up."""
    effect = ensure(service())
    world.runtime.apply(effect)
    body = rendered(world, effect, "Deployment")
    theirs = {**body, "metadata": {"name": "web"}, "spec": {**body["spec"], "replicas": 2}}
    world.hands.apply(path("Deployment", world.namespace, "web"), theirs, manager="theirs")
    live = world.until(lambda live: live.groups[0].differences)
    assert [each.detail for each in live.groups[0].differences] == ["spec.replicas: 1 -> 2 by theirs"]
    world.runtime.apply(ensure(service(env={"B": "3"})))
    assert (variables(world), world.group().differences) == (["B"], ())


def send(world: World, body: Any, content_type: str) -> None:
    """A patch under our name."""
    way, query = path("Deployment", world.namespace, "web"), {"fieldManager": "reconciler"}
    world.hands.call("PATCH", way, query=query, body=body, content_type=content_type)


def test_what_was_made_ours_before_a_crash_is_still_taken_away(world: World) -> None:
    effect = ensure(service())
    world.runtime.apply(effect)
    set_variable(world)
    while True:
        try:
            send(world, claim(world.get("Deployment", "web"), "apps/v1"), JSON_PATCH)
            break
        except ApiError as error:
            assert error.status == 409  # a controller wrote its status in between
    other = world.again()
    try:
        assert other.observe(ENVIRONMENT, {}, []).groups[0].differences
        other.apply(effect)
        assert other.observe(ENVIRONMENT, {}, []).groups[0].differences == ()
    finally:
        other.close()
    assert variables(world) == ["A", "B"]


def test_what_is_set_under_our_name_is_seen_and_taken_away(world: World) -> None:
    effect = ensure(service())
    world.runtime.apply(effect)
    send(world, {"spec": {"minReadySeconds": 7}}, MERGE_PATCH)
    live = world.until(lambda live: live.groups[0].differences)
    assert [each.detail for each in live.groups[0].differences] == ["spec.minReadySeconds was added by reconciler"]
    world.runtime.apply(effect)
    assert not world.get("Deployment", "web")["spec"].get("minReadySeconds")


def test_what_somebody_adds_while_a_creation_is_unfinished_is_seen(world: World) -> None:
    world.make("Deployment", rendered(world, ensure(service()), "Deployment"), "reconciler")
    world.until(lambda live: live.groups)
    assert world.group().differences == ()
    set_variable(world)
    live = world.until(lambda live: live.groups[0].differences)
    assert [each.detail for each in live.groups[0].differences] == [ADDED]
    world.runtime.apply(ensure(service(env={"B": "3"})))
    assert (variables(world), world.group().differences) == (["B"], ())


def test_an_object_that_changes_in_between_is_looked_at_again(tmp_path: Path) -> None:
    with kube_house() as house, kube_world(house.kubeconfig(tmp_path), ENVIRONMENT, house) as world:
        effect = ensure(service())
        world.runtime.apply(effect)
        set_variable(world)
        world.until(lambda live: live.groups[0].differences)
        fault = Fault(CHANGE, 409, "Conflict", times=5)
        house.faults.append(fault)
        world.runtime.apply(effect)
        assert (variables(world), fault.times) == (["A", "B"], 0)
        set_variable(world)
        world.until(lambda live: live.groups[0].differences)
        fault.times = 100
        error = refused(world, effect)
        assert (type(error), error.reason) == (Retryable, Reason.ENGINE_REFUSED)
        assert world.group().differences
        fault.times = 0
        set_variable(world, "BAR")
        world.until(lambda live: live.groups and len(live.groups[0].differences) == 2)
        world.runtime.apply(effect)
        assert variables(world) == ["A", "B"]


def test_a_refusal_to_make_it_ours_is_told_as_one(tmp_path: Path) -> None:
    with kube_house() as house, kube_world(house.kubeconfig(tmp_path), ENVIRONMENT, house) as world:
        effect = ensure(service())
        world.runtime.apply(effect)
        set_variable(world)
        world.until(lambda live: live.groups[0].differences)
        house.faults.append(Fault(CHANGE, 422, "Invalid", "no"))
        assert type(refused(world, effect)) is Rejected


def test_another_object_in_place_of_a_new_one_is_no_refusal(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the version counted as one that the API will never take."""

    def swapped(point: str) -> None:
        if point == "kubernetes.before_adopt":
            world.delete("Deployment", "web")
            world.make("Deployment", stranger())

    monkeypatch.setattr(kubernetes_apply, "hit", swapped)
    error = refused(world, ensure(service()))
    assert (type(error), error.reason) == (Retryable, Reason.ENGINE_REFUSED)
    assert world.owned("Deployment", "web") == []


def test_another_object_is_not_made_ours(world: World) -> None:
    """It has the same name, and the watch has not told yet."""
    effect = ensure(service())
    world.runtime.apply(effect)
    set_variable(world)
    world.until(lambda live: live.groups[0].differences)
    if world.house is not None:
        world.house.hush(True)
    world.delete("Deployment", "web")
    world.make("Deployment", stranger())
    before = plain(world.get("Deployment", "web"))
    assert refused(world, effect).reason is Reason.NOT_OWNED
    assert plain(world.get("Deployment", "web")) == before

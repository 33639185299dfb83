"""What the runtime does with objects in a namespace, on the fake API and on a real cluster: the same tests for both."""

from __future__ import annotations

import base64
import copy
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from reconciler.adapters import kubernetes_site
from reconciler.core import names
from reconciler.core.delivery import Scaling
from reconciler.core.errors import Reason, ReconcilerError, Retryable, Stalled
from reconciler.core.kubernetes_labels import Place
from reconciler.core.kubernetes_objects import group_objects, route_objects
from reconciler.core.model import File, SecretTarget, SecretUse, ServiceSpec
from reconciler.core.steps import (
    EnsureGroup,
    EnsureNetwork,
    PullImage,
    RemoveGroup,
    RemoveRoute,
    RuntimeEffect,
    SweepOrphan,
)
from tests.support.kube_world import ENVIRONMENT, OWNER, World, either, ensure, lead, service, version

LATER = timedelta(minutes=5)


@pytest.fixture(params=["fake", "real"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with either(request, tmp_path) as built:
        yield built


def refused(world: World, effect: RuntimeEffect) -> ReconcilerError:
    with pytest.raises(ReconcilerError) as caught:
        world.runtime.apply(effect)
    return caught.value


def rendered(world: World, effect: EnsureGroup, kind: str) -> dict[str, Any]:
    objects = group_objects(effect, Place(OWNER, world.namespace), {})
    return next(one for one in objects if one["kind"] == kind)


def stranger(name: str = "web") -> dict[str, Any]:
    """A Deployment of somebody else, which runs nothing."""
    pod = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "127.0.0.1:1/x"}]}}
    spec = {"replicas": 0, "selector": {"matchLabels": {"app": name}}, "template": pod}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def plain(found: dict[str, Any]) -> dict[str, Any]:
    """An object without what its controllers write."""
    kept = copy.deepcopy(found)
    kept.pop("status", None)
    for key in ("resourceVersion", "annotations", "managedFields"):
        kept["metadata"].pop(key, None)
    return kept


def test_an_empty_namespace_shows_nothing(world: World) -> None:
    live = world.live()
    assert (live.groups, live.instances, live.orphans, live.foreign, live.network_ready) == ((), (), (), (), True)


def test_a_group_is_shown_at_once_as_it_was_declared(world: World) -> None:
    effect = ensure(service(replicas=2))
    world.runtime.apply(effect)
    group = world.group()
    assert (group.version, group.operated, group.replicas) == (effect.version, effect.operated, 2)
    assert (group.differences, group.settled, group.image) == ((), False, effect.spec.image.pinned)
    assert world.get("PodDisruptionBudget", "web")["spec"]["maxUnavailable"] == 1


@pytest.mark.parametrize("kind", ["Deployment", "PodDisruptionBudget", "Service"])
def test_what_was_created_is_owned_as_if_it_was_applied(world: World, kind: str) -> None:
    effect, route = ensure(service(replicas=2, files=(File("/etc/a", b"x"),))), lead(service(), "web", mixed=True)
    world.runtime.apply(effect)
    world.runtime.apply(route)
    created = world.owned(kind, "web")
    place = Place(OWNER, world.namespace)
    objects = (*group_objects(effect, place, {}), *route_objects(route, place, None))
    body = next(one for one in objects if one["kind"] == kind)
    world.hands.apply(f"/{_path(kind)}/namespaces/{world.namespace}/{_plural(kind)}/web", body, force=False)
    assert created == world.owned(kind, "web")
    assert [operation for operation, _ in created] == ["Apply"]


def _path(kind: str) -> str:
    return {"Deployment": "apis/apps/v1", "PodDisruptionBudget": "apis/policy/v1", "Service": "api/v1"}[kind]


def _plural(kind: str) -> str:
    return f"{kind.lower()}s"


def test_what_is_so_already_costs_no_call(world: World) -> None:
    effects: list[RuntimeEffect] = [ensure(service(replicas=2)), lead(service(), "web", mixed=True)]
    for effect in effects:
        world.runtime.apply(effect)
    before = world.asked()
    for effect in effects:
        world.runtime.apply(effect)
    for _ in range(5):
        world.live()
    assert world.asked() == before


def test_an_update_takes_away_what_is_no_longer_declared(world: World) -> None:
    world.runtime.apply(ensure(service()))
    changed = service(env={"B": "3"})
    world.runtime.apply(ensure(changed))
    assert (world.group().version, world.group().differences) == (version(changed), ())
    container = world.get("Deployment", "web")["spec"]["template"]["spec"]["containers"][0]
    assert container["env"] == [{"name": "B", "value": "3"}]


def test_a_creation_that_a_crash_interrupted_is_finished(world: World) -> None:
    effect = ensure(service())
    world.make("Deployment", rendered(world, effect, "Deployment"), "reconciler")
    world.until(lambda live: live.groups)
    assert world.group().differences == ()
    world.runtime.apply(ensure(service(env={"B": "3"})))
    container = world.get("Deployment", "web")["spec"]["template"]["spec"]["containers"][0]
    assert container["env"] == [{"name": "B", "value": "3"}]
    assert [operation for operation, _ in world.owned("Deployment", "web")] == ["Apply"]


def test_what_a_former_daemon_made_is_known(world: World) -> None:
    effect = ensure(service())
    world.runtime.apply(effect)
    other = world.again()
    try:
        assert other.observe(ENVIRONMENT, {}, []).groups[0].version == effect.version
        before = world.asked(other)
        other.apply(effect)
        assert world.asked(other) == before
    finally:
        other.close()


def test_what_is_not_ours_is_left_as_it_is(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_site, "LOOK_AGAIN", 0.2)
    world.make("Deployment", stranger())
    before = plain(world.get("Deployment", "web"))
    error = refused(world, ensure(service()))
    assert (type(error), error.reason) == (Stalled, Reason.NOT_OWNED)
    assert "Deployment web" in str(error)
    assert [(one.name, one.reason) for one in world.live().foreign] == [("Deployment/web", Reason.NAME_TAKEN)]
    world.runtime.apply(RemoveGroup("web", ENVIRONMENT))
    assert plain(world.get("Deployment", "web")) == before
    world.delete("Deployment", "web")
    world.until(lambda live: not live.foreign)
    world.runtime.apply(ensure(service()))
    assert world.group().name == "web"


@pytest.mark.parametrize("label", [names.LABEL_OWNER, names.LABEL_ENVIRONMENT])
def test_what_lost_our_labels_is_not_ours_any_more(world: World, label: str) -> None:
    world.runtime.apply(ensure(service()))
    world.change("Deployment", "web", {"metadata": {"labels": {label: None}}})
    world.until(lambda live: not live.groups)
    assert refused(world, ensure(service(env={}))).reason is Reason.NOT_OWNED
    assert label not in world.get("Deployment", "web")["metadata"]["labels"]


def test_one_that_took_the_place_of_ours_is_left_as_it_is(world: World) -> None:
    """The watch has not told yet: only the uid tells them apart."""
    world.runtime.apply(ensure(service()))
    if world.house is not None:
        world.house.hush(True)
    world.delete("Deployment", "web")
    world.make("Deployment", stranger())
    before = plain(world.get("Deployment", "web"))
    assert refused(world, ensure(service(env={}))).reason is Reason.NOT_OWNED
    world.runtime.apply(RemoveGroup("web", ENVIRONMENT))
    assert plain(world.get("Deployment", "web")) == before


def test_a_deletion_means_the_very_object_that_was_seen(world: World) -> None:
    world.runtime.apply(ensure(service()))
    if world.house is not None:
        world.house.hush(True)
    world.delete("Deployment", "web")
    world.make("Deployment", stranger())
    world.runtime.apply(RemoveGroup("web", ENVIRONMENT))
    assert world.there("Deployment", "web")


def test_a_missing_namespace_is_said_and_waited_for(world: World) -> None:
    if world.house is not None:
        world.house.namespaces.discard(world.namespace)
    else:
        world.hands.call("DELETE", f"/api/v1/namespaces/{world.namespace}")
    other = world.again()
    try:
        with pytest.raises(Stalled) as caught:
            other.observe(ENVIRONMENT, {}, [])
        assert caught.value.reason is Reason.NAMESPACE_MISSING
        assert world.namespace in str(caught.value)
    finally:
        other.close()
    error = refused(world, ensure(service()))
    assert error.reason is Reason.NAMESPACE_MISSING


def test_a_change_by_hand_is_seen_and_taken_back(world: World) -> None:
    effect = ensure(service())
    world.runtime.apply(effect)
    world.change("Deployment", "web", {"spec": {"replicas": 5}})
    live = world.until(lambda live: live.groups[0].differences)
    assert "spec.replicas: 1 -> 5 by kubectl-edit" in live.groups[0].differences[0].detail
    world.runtime.apply(effect)
    assert (world.group().differences, world.group().replicas) == ((), 1)
    assert world.get("Deployment", "web")["spec"]["replicas"] == 1


def test_what_others_add_is_no_drift(world: World) -> None:
    world.runtime.apply(ensure(service()))
    world.change("Deployment", "web", {"metadata": {"annotations": {"team": "blue"}}})
    world.make("Deployment", rendered(world, ensure(service(), "last"), "Deployment"))
    world.heard("Deployment last added")
    assert world.group().differences == ()


def test_a_group_goes_with_all_that_is_its_own(world: World) -> None:
    scaled = service(scaling=Scaling(1, 3, cpu=0.5))
    world.runtime.apply(ensure(scaled))
    world.runtime.apply(RemoveGroup("web", ENVIRONMENT))
    assert world.live().groups == ()
    for kind in ("Deployment", "PodDisruptionBudget", "HorizontalPodAutoscaler"):
        assert not world.there(kind, "web")
    before = world.asked()
    world.runtime.apply(RemoveGroup("web", ENVIRONMENT))
    assert world.asked() == before
    world.runtime.apply(ensure(scaled))
    assert world.group().name == "web"


def test_the_number_goes_over_to_an_autoscaler_and_back(world: World) -> None:
    spec = service(replicas=3)
    world.runtime.apply(ensure(spec))
    world.runtime.apply(ensure(replace(spec, scaling=Scaling(2, 6, cpu=0.5))))
    assert world.get("Deployment", "web")["spec"]["replicas"] == 3
    assert world.get("HorizontalPodAutoscaler", "web")["spec"]["maxReplicas"] == 6
    world.change("Deployment", "web", {"spec": {"replicas": 4}})
    world.until(lambda live: live.groups[0].replicas == 4)
    assert world.group().differences == ()
    world.runtime.apply(ensure(replace(spec, scaling=Scaling(2, 5, cpu=0.5))))
    assert world.get("Deployment", "web")["spec"]["replicas"] == 4
    world.runtime.apply(ensure(spec))
    assert world.get("Deployment", "web")["spec"]["replicas"] == 3
    assert not world.there("HorizontalPodAutoscaler", "web")


def test_a_new_group_begins_with_as_many_as_asked_where_an_autoscaler_decides(world: World) -> None:
    effect = ensure(service(scaling=Scaling(1, 6, cpu=0.5)), first=4)
    world.runtime.apply(effect)
    assert world.group().replicas == 4
    world.runtime.apply(replace(effect, revision="d" * 40))
    assert world.group().replicas == 4


def test_requests_are_led_to_all_or_to_one_version(world: World) -> None:
    old, new = service(), service(env={})
    for spec, name in ((old, "web-old"), (new, "web-new")):
        world.runtime.apply(ensure(spec, name))
    world.runtime.apply(lead(old, "web-old", mixed=True))
    assert world.live().routes["web"].weights is None
    world.runtime.apply(lead(new, "web-new", "web-old"))
    route = world.live().routes["web"]
    assert {name: weight for name, weight in (route.weights or {}).items() if weight} == {"web-new": 100}
    assert route.differences == ()
    world.runtime.apply(RemoveRoute("web", ENVIRONMENT))
    assert world.live().routes == {}
    assert not world.there("Service", "web")


def with_secret() -> ServiceSpec:
    return service(secrets=(SecretUse("password", SecretTarget.ENV, "PASSWORD"),), files=(File("/etc/a", b"x"),))


def test_a_secret_is_only_created_and_goes_with_what_stands_for_it(world: World) -> None:
    spec = with_secret()
    world.runtime.apply(ensure(spec))
    container = world.get("Deployment", "web")["spec"]["template"]["spec"]["containers"][0]
    name = next(one for one in container["env"] if one["name"] == "PASSWORD")["valueFrom"]["secretKeyRef"]["name"]
    secret, anchor = world.get("Secret", name), world.get("ConfigMap", name)
    assert "hunter2" in [base64.b64decode(value).decode() for value in secret["data"].values()]
    assert secret["metadata"]["ownerReferences"][0]["uid"] == anchor["metadata"]["uid"]
    assert "data" not in anchor
    world.clock.ahead = LATER
    assert world.live().orphans == ()
    world.runtime.apply(RemoveGroup("web", ENVIRONMENT))
    live = world.until(lambda live: not live.instances and len(live.orphans) == 2)
    assert f"{ENVIRONMENT}/Secret/{name}" in live.orphans
    for orphan in live.orphans:
        world.runtime.apply(SweepOrphan(orphan))
    assert world.live().orphans == ()
    assert not world.there("ConfigMap", name)
    assert set(world.runtime.api.counts) <= {"get", "list", "watch", "create", "patch", "delete"}


def test_a_secret_that_is_not_there_is_said(world: World) -> None:
    spec = service(secrets=(SecretUse("nothing", SecretTarget.ENV, "PASSWORD"),))
    error = refused(world, ensure(spec))
    assert (type(error), error.reason) == (Stalled, Reason.SECRET_MISSING)
    assert not world.there("Deployment", "web")


def test_a_secret_that_is_still_being_collected_is_waited_for(world: World) -> None:
    spec = with_secret()
    if world.house is None:
        return  # the garbage collector is faster than this test
    world.runtime.apply(ensure(spec))
    anchor = next(name for _, kind, name in world.house.objects if kind == "secrets")
    world.delete("ConfigMap", anchor)
    world.heard(f"ConfigMap {anchor} deleted")
    error = refused(world, ensure(spec))
    assert (type(error), error.reason) == (Retryable, Reason.ENGINE_REFUSED)
    world.delete("Secret", anchor)
    world.runtime.apply(ensure(spec))
    assert world.there("Secret", anchor)


@pytest.mark.parametrize("effect", [PullImage("x@sha256:0"), EnsureNetwork(ENVIRONMENT)])
def test_steps_for_other_engines_are_a_mistake(world: World, effect: RuntimeEffect) -> None:
    with pytest.raises(TypeError):
        world.runtime.apply(effect)


def test_a_hint_comes_for_what_is_new_only(world: World) -> None:
    world.live()
    world.make("Deployment", {**rendered(world, ensure(service()), "Deployment")})
    world.heard("Deployment web added")
    world.make("ConfigMap", {"metadata": {"name": "theirs"}})
    world.make("Deployment", rendered(world, ensure(service(), "last"), "Deployment"))
    world.heard("Deployment last added")
    assert not any("theirs" in detail for detail in world.told)

"""The runtime on a real cluster: pods come, are replaced and fail; quotas, the hands of people, the API's absence."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.adapters import kubernetes_runtime, kubernetes_watch
from reconciler.core.delivery import Route
from reconciler.core.errors import Reason, ReconcilerError, Stalled
from reconciler.core.live import HealthStatus, ImageStatus, Instance, LiveState, Phase
from reconciler.core.model import Drain, Health, HttpCheck, Resources, Security, ServiceSpec
from reconciler.core.steps import RemoveGroup, RemoveRoute
from tests.support.cluster import Given
from tests.support.gateway import Front
from tests.support.kube_world import ENVIRONMENT, PATIENCE, World, ensure, kube_world, lead, service, version
from tools import cluster as tool

Image = Callable[[str], str]
SHORT = Drain(deadline=timedelta(seconds=1), grace=timedelta(seconds=1))
IMPATIENT = Health(check=HttpCheck(8080, "/healthz"), interval=timedelta(seconds=1), startup=timedelta(seconds=5))


@pytest.fixture
def world(cluster: Given, namespace: str) -> Iterator[World]:
    with kube_world(cluster.kubeconfig, namespace) as built:
        yield built


def running(image: str, **changes: Any) -> ServiceSpec:
    """The sample service, as fast as Kubernetes can be."""
    given = {"drain": SHORT, "env": {}, "security": Security(user="65532"), **changes}
    return service(image, **given)


def healthy(live: LiveState, spec: ServiceSpec) -> list[Instance]:
    mine = [one for one in live.instances if one.version == version(spec) and one.health is HealthStatus.HEALTHY]
    return [one for one in mine if not one.leaving]


def up(world: World, spec: ServiceSpec, name: str = "web") -> LiveState:
    """The live state once the group stands. Each kind has a watch of its own, so its pods may be shown after it."""

    def stands(live: LiveState) -> bool:
        group = next((one for one in live.groups if one.name == name), None)
        if group is None or not group.settled or group.version != version(spec):
            return False
        return group.ready == len(healthy(live, spec)) == spec.replicas

    return world.until(stands)


def test_a_group_comes_up_is_updated_and_goes(world: World, image: Image) -> None:
    old = running(image("1.0"), replicas=2)
    world.runtime.apply(ensure(old))
    world.runtime.apply(lead(old, "web", mixed=True))
    live = up(world, old)
    assert len(healthy(live, old)) == 2
    assert {one.phase for one in live.instances} == {Phase.RUNNING}
    assert all(one.serving and one.image == old.image.pinned and one.started_at for one in live.instances)
    assert (live.groups[0].ready, live.groups[0].differences, live.routes["web"].differences) == (2, (), ())
    assert any("hello" in line for line in world.runtime.logs(live.instances[0].name, 20))

    new = running(image("1.1"), replicas=2)
    with world.full():
        world.runtime.apply(ensure(new))
        assert not world.group().settled  # by what the controller said of the old one it would be
    up(world, new)
    world.until(lambda live: len(live.instances) == 2)

    world.runtime.apply(RemoveRoute("web", ENVIRONMENT))
    world.runtime.apply(RemoveGroup("web", ENVIRONMENT))
    assert world.live().groups == ()
    world.until(lambda live: not live.instances)


def test_a_version_gets_all_requests_by_the_selector(world: World, image: Image) -> None:
    old, new = running(image("1.0")), running(image("1.1"))
    for spec, name in ((old, "web-a"), (new, "web-b")):
        world.runtime.apply(ensure(spec, name))
    for spec, name in ((old, "web-a"), (new, "web-b")):
        up(world, spec, name)
    for spec, first, second in ((old, "web-a", "web-b"), (new, "web-b", "web-a")):
        world.runtime.apply(lead(spec, first, second))
        weights = world.live().routes["web"].weights or {}
        assert {name for name, weight in weights.items() if weight} == {first}


def test_an_image_that_is_not_there_is_said(world: World, image: Image) -> None:
    there = running(image("1.0"))
    missing = replace(there, image=replace(there.image, digest=f"sha256:{'0' * 64}"))
    world.runtime.apply(ensure(missing))
    pinned = missing.image.pinned

    def told(live: LiveState) -> bool:
        found = world.runtime.observe(ENVIRONMENT, {}, [pinned]).images[pinned]
        return (found.status, found.reason) == (ImageStatus.FAILED, Reason.IMAGE_NOT_FOUND)

    world.until(told)


def test_a_program_that_ends_again_and_again_is_said(world: World, image: Image) -> None:
    spec = running(image("1.0"), env={"EXIT_AFTER_MS": "300", "EXIT_CODE": "3"})
    world.runtime.apply(ensure(spec))
    live = world.until(lambda live: any(one.phase is Phase.EXITED for one in live.instances))
    lost = next(one for one in live.instances if one.phase is Phase.EXITED)
    assert lost.exit_code == 3
    assert any("leaving with exit code 3" in line for line in world.runtime.logs(lost.name, 20))
    world.until(lambda live: any(one.name.rpartition(".")[2].isdigit() for one in live.instances))


def test_one_that_never_gets_healthy_is_said(world: World, image: Image) -> None:
    spec = running(image("1.0"), env={"UNHEALTHY": "1"}, health=IMPATIENT)
    world.runtime.apply(ensure(spec))
    checks = {version(spec): spec.health}

    def unwell(live: LiveState) -> bool:
        found = world.runtime.observe(ENVIRONMENT, checks, [])
        return any(one.health is HealthStatus.UNHEALTHY or one.phase is Phase.EXITED for one in found.instances)

    world.until(unwell)


def test_a_quota_that_is_exhausted_is_said(world: World, image: Image) -> None:
    quota = {"metadata": {"name": "small"}, "spec": {"hard": {"pods": "1"}}}
    world.hands.call("POST", f"/api/v1/namespaces/{world.namespace}/resourcequotas", body=quota)
    world.runtime.apply(ensure(running(image("1.0"), replicas=2)))
    live = world.until(lambda live: live.groups[0].reason)
    assert live.groups[0].reason is Reason.QUOTA_EXCEEDED
    assert "pods" in live.groups[0].detail


def test_what_fits_on_no_node_is_said(world: World, image: Image) -> None:
    world.runtime.apply(ensure(running(image("1.0"), resources=Resources(memory=1 << 45))))
    live = world.until(lambda live: live.groups[0].reason)
    assert live.groups[0].reason is Reason.UNSCHEDULABLE


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {"replicas": 3}},
        {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 77}}}},
        {"spec": {"paused": True}},
        {"metadata": {"labels": {"dev.reconciler.service": "other"}}},
    ],
)
def test_every_field_of_ours_is_watched_and_taken_back(world: World, change: dict[str, Any]) -> None:
    effect = ensure(service())
    world.runtime.apply(effect)
    before = world.get("Deployment", "web")["spec"]
    world.change("Deployment", "web", change)
    world.until(lambda live: any(group.differences for group in live.groups))
    world.runtime.apply(effect)
    assert world.group().differences == ()
    after = world.get("Deployment", "web")["spec"]
    assert (after["replicas"], after["template"], after.get("paused")) == (before["replicas"], before["template"], None)


def test_the_hands_of_people_on_the_rest_are_seen(world: World) -> None:
    effect, route = ensure(service(replicas=2)), lead(service(), "web", mixed=True)
    world.runtime.apply(effect)
    world.runtime.apply(route)
    world.delete("PodDisruptionBudget", "web")
    world.until(lambda live: live.groups[0].differences)
    world.runtime.apply(effect)
    assert world.group().differences == ()
    world.change("Service", "web", {"spec": {"selector": {"app": "other"}}})
    world.until(lambda live: live.routes["web"].differences)
    world.runtime.apply(route)
    assert world.live().routes["web"].differences == ()


def test_rights_that_lack_are_named(world: World, cluster: Given, tmp_path: Path) -> None:
    """A service account without any Role."""
    account = f"/api/v1/namespaces/{world.namespace}/serviceaccounts/nobody"
    world.hands.call("POST", account.removesuffix("/nobody"), body={"metadata": {"name": "nobody"}})
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token = world.hands.call("POST", f"{account}/token", body=request)["status"]["token"]
    with kube_world(_as_user(cluster.kubeconfig, tmp_path, token), world.namespace) as other:
        with pytest.raises(Stalled) as caught:
            other.live()
        assert caught.value.reason is Reason.FORBIDDEN
        assert "list " in str(caught.value)
        assert world.namespace in str(caught.value)


def _as_user(kubeconfig: Path, directory: Path, token: str) -> Path:
    content = yaml.safe_load(kubeconfig.read_text())
    content["users"] = [{"name": content["users"][0]["name"], "user": {"token": token}}]
    path = directory / "nobody"
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_api_goes_and_comes_back(
    own_cluster: tool.Cluster, cluster: Given, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_watch, "LONGEST_PAUSE", 1.0)
    with kube_world(cluster.kubeconfig, namespace, timeout=timedelta(seconds=10)) as world:
        world.runtime.apply(ensure(service()))
        tool.kill(own_cluster, "apiserver")
        try:
            error = _raised(world)
            assert error.reason is Reason.ENGINE_UNREACHABLE
            with pytest.raises(ReconcilerError) as caught:
                world.runtime.apply(ensure(service(env={})))
            assert caught.value.reason is Reason.ENGINE_UNREACHABLE
        finally:
            tool.start(own_cluster, "apiserver")
        assert world.until(lambda live: live.groups, during=(ReconcilerError,)).groups[0].name == "web"
        world.runtime.apply(ensure(service(env={})))
        world.change("Deployment", "web", {"spec": {"replicas": 4}})
        world.until(lambda live: live.groups[0].replicas == 4)  # which may have come by a list
        world.told.clear()
        world.change("Deployment", "web", {"spec": {"replicas": 5}})
        world.until(lambda live: live.groups[0].replicas == 5)
        world.heard("Deployment web modified")


def _raised(world: World) -> ReconcilerError:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            world.live()
        except ReconcilerError as error:
            return error
        with world.news:
            world.news.wait(0.2)
    raise AssertionError("nothing was said of the outage")


def test_a_hung_api_ends_each_call_in_time(own_cluster: tool.Cluster, cluster: Given, namespace: str) -> None:
    with kube_world(cluster.kubeconfig, namespace, timeout=timedelta(seconds=5)) as world:
        world.runtime.apply(ensure(service()))
        tool.pause(own_cluster, "apiserver")
        try:
            with pytest.raises(ReconcilerError) as caught:
                world.runtime.apply(ensure(service(env={})))
            assert caught.value.reason is Reason.ENGINE_UNREACHABLE
            began = time.monotonic()
            world.runtime.close()
            assert time.monotonic() - began < 20, "2 s are promised; a watch may last for minutes"
        finally:
            tool.resume(own_cluster, "apiserver")


def test_an_idle_observe_asks_nothing(world: World, image: Image) -> None:
    spec = running(image("1.0"))
    world.runtime.apply(ensure(spec))
    up(world, spec)
    before = world.asked()
    for _ in range(50):
        world.live()
    assert world.asked() == before


def test_routes_of_a_gateway_carry_weights(
    cluster: Given, namespace: str, front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_runtime, "TAKEN_WITHIN", PATIENCE)
    front.make()
    with kube_world(cluster.kubeconfig, namespace, gateway="front") as world:
        spec = service(route=Route(8080, hosts=("web.example",)))
        for name in ("web-a", "web-b"):
            world.runtime.apply(ensure(spec, name))
        step = lead(spec, "web-a", "web-b", exact=True)
        shares = tuple(
            replace(share, weight=weight, version=digit * 64)
            for share, weight, digit in zip(step.shares, (80, 20), "ab", strict=True)
        )
        world.runtime.apply(replace(step, shares=shares))
        route = world.live().routes["web"]
        assert (route.weights, route.differences, route.refusal) == ({"web-a": 80, "web-b": 20}, (), "")
        world.runtime.apply(RemoveRoute("web", ENVIRONMENT))
        assert world.live().routes == {}

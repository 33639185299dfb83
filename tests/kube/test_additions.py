"""What people and programs do to our objects on a real cluster: what is taken back and what is left alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from reconciler.adapters import kubernetes_runtime
from reconciler.adapters.kubernetes_apply import path
from reconciler.adapters.kubernetes_client import JSON_PATCH, ApiError
from reconciler.core.delivery import Route, Scaling
from reconciler.core.model import File
from tests.support.cluster import Given, eventually
from tests.support.gateway import Front
from tests.support.kube_world import ENVIRONMENT, PATIENCE, World, ensure, kube_world, lead, service

STRATEGIC = "application/strategic-merge-patch+json"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
INJECTS = """Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{containers: [
  Object.spec.template.spec.containers{name: "main", env: [
    Object.spec.template.spec.containers.env{name: "INJECTED", value: "1"}]}]}}}}"""
MORE: dict[str, tuple[dict[str, Any], str]] = {
    "container": ({"containers": [{"name": "x", "image": "y"}]}, "containers[name=x]"),
    "start": ({"initContainers": [{"name": "x", "image": "y"}]}, "initContainers"),
    "variable": ({"containers": [{"name": "main", "env": [{"name": "X"}]}]}, "containers[name=main].env[name=X]"),
    "source": (
        {"containers": [{"name": "main", "envFrom": [{"secretRef": {"name": "x"}}]}]},
        "containers[name=main].envFrom",
    ),
    "port": (
        {"containers": [{"name": "main", "ports": [{"containerPort": 9}]}]},
        "containers[name=main].ports[containerPort=9,protocol=TCP]",
    ),
    "limit": (
        {"containers": [{"name": "main", "resources": {"limits": {"memory": "1Gi"}}}]},
        "containers[name=main].resources",
    ),
    "user": (
        {"containers": [{"name": "main", "securityContext": {"runAsUser": 1}}]},
        "containers[name=main].securityContext.runAsUser",
    ),
    "hook": (
        {"containers": [{"name": "main", "lifecycle": {"postStart": {"sleep": {"seconds": 1}}}}]},
        "containers[name=main].lifecycle.postStart",
    ),
    "volume": ({"volumes": [{"name": "x", "emptyDir": {}}]}, "volumes"),
    "node": ({"nodeSelector": {"a": "b"}}, "nodeSelector"),
    "toleration": ({"tolerations": [{"key": "a", "operator": "Exists"}]}, "tolerations"),
    "affinity": ({"affinity": {"podAntiAffinity": {}}}, "affinity"),
    "address": ({"hostAliases": [{"ip": "192.0.2.1", "hostnames": ["x"]}]}, "hostAliases"),
    "host": ({"hostNetwork": True}, "hostNetwork"),
    "account": ({"serviceAccountName": "x"}, "serviceAccount"),
}


@pytest.fixture
def world(cluster: Given, namespace: str) -> Iterator[World]:
    with kube_world(cluster.kubeconfig, namespace) as built:
        yield built


def patch(world: World, body: dict[str, Any], manager: str, way: str = "") -> None:
    way = path("Deployment", world.namespace, "web") + way
    world.hands.call("PATCH", way, query={"fieldManager": manager}, body=body, content_type=STRATEGIC)


def names(world: World) -> list[str]:
    container = world.get("Deployment", "web")["spec"]["template"]["spec"]["containers"][0]
    return [one["name"] for one in container["env"]]


@pytest.mark.parametrize("what", list(MORE))
def test_whatever_is_added_to_the_instances_is_told_and_taken_away(world: World, what: str) -> None:
    more, told = MORE[what]
    effect = ensure(service(replicas=0))
    world.runtime.apply(effect)
    before = world.get("Deployment", "web")["spec"]
    patch(world, {"spec": {"template": {"spec": more}}}, "kubectl-patch")
    live = world.until(lambda live: live.groups[0].differences)
    assert f"spec.template.spec.{told} was added by kubectl-patch" in [one.detail for one in live.groups[0].differences]
    world.runtime.apply(effect)
    after = world.get("Deployment", "web")["spec"]
    assert (world.group().differences, _plain(after)) == ((), _plain(before))


def _plain(value: Any) -> Any:
    """Without what is empty: it declares nothing."""
    if isinstance(value, dict):
        return {key: plain for key, each in value.items() if (plain := _plain(each)) not in ({}, [], None)}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def test_an_autoscaler_and_a_budget_are_looked_after_too(world: World) -> None:
    effect = ensure(service(scaling=Scaling(2, 6, cpu=0.5)))
    world.runtime.apply(effect)
    for kind, more in (
        ("HorizontalPodAutoscaler", {"behavior": {"scaleUp": {"stabilizationWindowSeconds": 9}}}),
        ("PodDisruptionBudget", {"unhealthyPodEvictionPolicy": None}),
    ):
        world.change(kind, "web", {"spec": more})
        live = world.until(lambda live: live.groups[0].differences)
        assert live.groups[0].differences[0].detail.startswith(f"{kind}/web: spec.{next(iter(more))}")
        world.runtime.apply(effect)
        assert world.group().differences == ()


def test_what_is_added_to_a_route_is_told_and_taken_away(
    cluster: Given, namespace: str, front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_runtime, "TAKEN_WITHIN", PATIENCE)
    front.make()
    with kube_world(cluster.kubeconfig, namespace, gateway="front") as world:
        spec = service(route=Route(8080))
        step = lead(spec, "web-a", exact=True)
        world.runtime.apply(step)
        before = world.get("HTTPRoute", "web")["spec"]
        rules = [*before["rules"], {"backendRefs": [{"name": "other", "port": 80}]}]
        for more, told in (
            ({"hostnames": ["web.example"]}, "spec.hostnames was added by kubectl-edit"),
            ({"rules": rules}, "spec.rules was changed by kubectl-edit"),
        ):
            world.change("HTTPRoute", "web", {"spec": more})
            live = world.until(lambda live: live.routes["web"].differences)
            assert [one.detail for one in live.routes["web"].differences] == [f"HTTPRoute/web: {told}"]
            world.runtime.apply(step)
            assert (world.live().routes["web"].differences, world.get("HTTPRoute", "web")["spec"]) == ((), before)


def test_nothing_can_be_added_to_files(world: World) -> None:
    """Their ConfigMap cannot be changed by anybody."""
    world.runtime.apply(ensure(service(files=(File("/etc/a", b"x"),))))
    volumes = world.get("Deployment", "web")["spec"]["template"]["spec"]["volumes"]
    (name,) = [one["configMap"]["name"] for one in volumes]
    with pytest.raises(ApiError) as caught:
        world.change("ConfigMap", name, {"data": {"more": "x"}})
    assert caught.value.status == 422


def test_what_is_added_while_nobody_owns_anything_goes_too(world: World) -> None:
    """Somebody emptied the list of owners: what was there at our next apply is then somebody's before it."""
    effect = ensure(service(env={"A": "1"}))
    world.runtime.apply(effect)
    before = world.get("Deployment", "web")["spec"]
    step = {"op": "replace", "path": "/metadata/managedFields", "value": [{}]}
    way = path("Deployment", world.namespace, "web")
    world.hands.call("PATCH", way, body=[step], content_type=JSON_PATCH)
    more = {"containers": [{"name": "main", "env": [{"name": "FOO"}]}]}
    patch(world, {"spec": {"template": {"spec": more}}}, "kubectl-set")
    world.until(lambda live: live.groups[0].differences)
    world.runtime.apply(effect)
    assert any("env[name=FOO] was added" in each.detail for each in world.group().differences)
    world.runtime.apply(effect)
    assert (world.group().differences, world.get("Deployment", "web")["spec"]) == ((), before)


def test_what_others_may_do_is_left_alone(world: World) -> None:
    """A restart by hand, marks on the object itself, the number where an autoscaler decides."""
    effect = ensure(service(scaling=Scaling(1, 6, cpu=0.5)))
    world.runtime.apply(effect)
    restarted = {"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"}
    patch(world, {"spec": {"template": {"metadata": {"annotations": restarted}}}}, "kubectl-rollout")
    patch(world, {"metadata": {"annotations": {"team": "blue"}, "labels": {"team": "blue"}}}, "kubectl-annotate")
    patch(world, {"spec": {"replicas": 3}}, "kube-controller-manager", "/scale")
    world.until(lambda live: live.groups[0].replicas == 3)
    assert world.group().differences == ()
    before = world.asked()
    world.runtime.apply(effect)
    assert world.asked() == before
    world.runtime.apply(ensure(service(env={"B": "3"}, scaling=Scaling(1, 6, cpu=0.5))))
    after = world.get("Deployment", "web")
    assert (after["spec"]["replicas"], after["metadata"]["annotations"]["team"]) == (3, "blue")
    assert restarted.items() <= after["spec"]["template"]["metadata"]["annotations"].items()


@pytest.fixture
def injected(world: World) -> Iterator[None]:
    """Admission in this namespace puts a variable into every Deployment, as a webhook would."""
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"]}
    policy = {
        "matchConstraints": {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": world.namespace}},
            "resourceRules": [{**rule, "resources": ["deployments"]}],
        },
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": INJECTS}}],
    }
    plurals = ("mutatingadmissionpolicies", "mutatingadmissionpolicybindings")
    for plural, spec in zip(plurals, (policy, {"policyName": world.namespace}), strict=True):
        body = {"metadata": {"name": world.namespace}, "spec": spec}
        world.hands.call("POST", f"{ADMISSION}/{plural}", body=body)
    yield
    for plural in plurals:
        world.hands.call("DELETE", f"{ADMISSION}/{plural}/{world.namespace}")


def test_what_admission_changes_is_nobodys_and_no_drift(world: World, injected: None) -> None:
    effect = ensure(service())
    eventually(lambda: _is_injected(world))
    for each in (effect, ensure(service(env={"B": "3"}))):
        world.runtime.apply(each)
        assert "INJECTED" in names(world)
        assert world.group().differences == ()
    other = world.again()
    try:  # after a restart, too
        assert other.observe(ENVIRONMENT, {}, []).groups[0].differences == ()
    finally:
        other.close()
    patch(world, {"metadata": {"annotations": {"team": "blue"}}}, "kubectl-annotate")
    more = {"containers": [{"name": "main", "env": [{"name": "FOO"}]}]}
    patch(world, {"spec": {"template": {"spec": more}}}, "kubectl-set")
    live = world.until(lambda live: live.groups[0].differences)
    assert [one.detail.rpartition(".")[2] for one in live.groups[0].differences] == [
        "env[name=FOO] was added by kubectl-set"
    ]
    world.runtime.apply(each)
    assert (sorted(names(world)), world.group().differences) == (["B", "INJECTED"], ())


def _is_injected(world: World) -> bool:
    """Whether the policy is in force, by a creation that is only tried."""
    pod = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "main", "image": "x"}]}}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": pod}
    body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "tried"}, "spec": spec}
    made = world.hands.call("POST", path("Deployment", world.namespace), query={"dryRun": "All"}, body=body)
    return "env" in made["spec"]["template"]["spec"]["containers"][0]

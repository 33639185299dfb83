"""Looks at a namespace one after the other: what did not change is not read again, and no look differs from a first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.core.live import LiveState
from reconciler.core.model import File, SecretTarget, SecretUse
from reconciler.core.steps import RemoveGroup
from tests.support.kube_answers import pod, replica_set
from tests.support.kube_house import KubeHouse, kube_house
from tests.support.kube_world import ENVIRONMENT, OWNER, QUICK, World, ensure, kube_world, lead, service, version

SPEC = service(
    files=(File("/etc/a.conf", b"a"),), secrets=(SecretUse("password", SecretTarget.ENV, "PASSWORD"),), replicas=2
)
NEXT = service(f"127.0.0.1:1/none@sha256:{'b' * 64}", files=(File("/etc/a.conf", b"b"),))
IMAGES = [SPEC.image.pinned, NEXT.image.pinned]
CHECKS = {version(SPEC): QUICK, version(NEXT): QUICK}


@pytest.fixture
def house() -> Iterator[KubeHouse]:
    with kube_house() as built:
        yield built


@pytest.fixture
def world(house: KubeHouse, tmp_path: Path) -> Iterator[World]:
    with kube_world(house.kubeconfig(tmp_path), ENVIRONMENT, house) as built:
        yield built


def look(world: World) -> LiveState:
    return world.runtime.observe(ENVIRONMENT, CHECKS, IMAGES)


def start_pod(world: World) -> None:
    """What the controllers of a cluster would do."""
    maker = replica_set(world.get("Deployment", "web"), available=1)
    made = world.make("ReplicaSet", {**maker, "apiVersion": "apps/v1"})
    found = pod(made, "web-1-a")
    found["metadata"] |= {"namespace": ENVIRONMENT, "ownerReferences": [{"controller": True, "uid": "u"}]}
    world.make("Pod", {**found, "apiVersion": "v1"})


def file_of(world: World) -> str:
    volumes = world.get("Deployment", "web")["spec"]["template"]["spec"]["volumes"]
    return next(each["configMap"]["name"] for each in volumes if "configMap" in each)


def declare(world: World) -> None:
    world.runtime.apply(ensure(SPEC))
    world.runtime.apply(lead(SPEC, "web"))


ACTS: dict[str, Callable[[World], object]] = {
    "declared": declare,
    "a pod": start_pod,
    "by hand": lambda world: world.change("Deployment", "web", {"spec": {"replicas": 5}}),
    "repaired": lambda world: world.runtime.apply(ensure(SPEC)),
    "not ready": lambda world: world.change("Pod", "web-1-a", {"status": {"conditions": []}}),
    "another": lambda world: world.runtime.apply(ensure(service(name="api"), "api")),
    "released": lambda world: world.runtime.apply(ensure(NEXT)),
    "no address": lambda world: world.delete("Service", "web"),
    "no file": lambda world: world.delete("ConfigMap", file_of(world)),
    "given away": lambda world: world.change(
        "Deployment", "api", {"metadata": {"labels": {"dev.reconciler.owner": "x"}}}
    ),
    "taken back": lambda world: world.change(
        "Deployment", "api", {"metadata": {"labels": {"dev.reconciler.owner": OWNER}}}
    ),
    "removed": lambda world: world.runtime.apply(RemoveGroup("web", ENVIRONMENT)),
    "listed anew": lambda world: (world.house.forget(), world.house.cut()),
}


SHOWN: dict[str, Callable[[LiveState], object]] = {
    "declared": lambda live: live.routes["web"].weights == {"web": 100},
    "a pod": lambda live: live.instances[0].serving,
    "by hand": lambda live: live.groups[0].replicas == 5 and live.groups[0].differences,
    "repaired": lambda live: not live.groups[0].differences,
    "not ready": lambda live: not live.instances[0].serving,
    "another": lambda live: [each.name for each in live.groups] == ["api", "web"],
    "released": lambda live: live.groups[1].version == version(NEXT),
    "no address": lambda live: not live.routes,
    "no file": lambda live: live.groups[1].differences,
    "given away": lambda live: [each.name for each in live.groups] == ["web"],
    "taken back": lambda live: [each.name for each in live.groups] == ["api", "web"],
    "removed": lambda live: [each.name for each in live.groups] == ["api"],
    "listed anew": lambda live: [each.name for each in live.groups] == ["api"],
}


def test_no_look_differs_from_a_first_one(world: World) -> None:
    for what, act in ACTS.items():
        look(world)
        act(world)
        other = world.again()
        try:
            fresh = other.observe(ENVIRONMENT, CHECKS, IMAGES)
        finally:
            other.close()

        def alike(_live: LiveState, fresh: LiveState = fresh) -> bool:
            return replace(look(world), observed_at=fresh.observed_at) == fresh

        world.until(alike)
        assert SHOWN[what](fresh), (what, fresh)


def test_what_did_not_change_is_the_very_same(world: World, house: KubeHouse) -> None:
    def policy(found: dict[str, Any]) -> None:
        if found["kind"] == "Deployment":
            found["spec"]["progressDeadlineSeconds"] = 7

    house.admission = policy  # so a Deployment is shown otherwise than the cache has it
    declare(world)
    start_pod(world)
    before = world.until(lambda live: live.instances)
    after = world.live()
    assert after.groups[0] is before.groups[0]
    assert after.instances[0] is before.instances[0]
    assert after.routes["web"] is before.routes["web"]
    assert after.groups[0].differences == ()

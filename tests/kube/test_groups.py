"""What the planner may expect of an engine with controllers of its own: the same for the fake cluster and a real one.

The simulations stand on the fake; what it shows has to be what Kubernetes shows through `ports.Runtime`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from reconciler.core.errors import Reason
from reconciler.core.live import Group, HealthStatus, ImageStatus, LiveState, Phase
from reconciler.core.model import Drain, Security, ServiceSpec
from reconciler.core.steps import RemoveGroup, RemoveRoute
from reconciler.ports import Runtime
from tests.support.cluster import Given
from tests.support.fake_cluster import FakeCluster, FakeClusterRuntime
from tests.support.fake_engine import HandClock
from tests.support.kube_world import ENVIRONMENT, World, ensure, kube_world, lead, service, version

SHORT = Drain(deadline=timedelta(seconds=1), grace=timedelta(seconds=1))
FAKE = f"127.0.0.1:1/hello@sha256:{'0' * 63}"


@dataclass
class Engine:
    """An engine under test. `image(letter)` is one of its images, `hands(name, count)` what a person does to a number,
    `until` the live state once it is as asked. While it is `full`, no instance comes."""

    runtime: Runtime
    image: Callable[[str], str]
    hands: Callable[[str, int], None]
    until: Callable[[Callable[[LiveState], object]], LiveState]
    full: Callable[[], AbstractContextManager[None]]

    def running(self, letter: str, **changes: Any) -> ServiceSpec:
        given = {"drain": SHORT, "env": {}, "security": Security(user="65532"), **changes}
        return service(self.image(letter), **given)

    def live(self, *images: str) -> LiveState:
        return self.runtime.observe(ENVIRONMENT, {}, images)

    def stands(self, spec: ServiceSpec, name: str = "web") -> Group:
        def found(live: LiveState) -> list[Group]:
            mine = [one for one in live.groups if (one.name, one.version) == (name, version(spec))]
            return [one for one in mine if one.settled and one.ready == spec.replicas]  # of watches of two kinds

        return found(self.until(found))[0]


@pytest.fixture(params=["fake", "real"])
def site(
    request: pytest.FixtureRequest, cluster: Given, namespace: str, image: Callable[[str], str]
) -> Iterator[Engine]:
    if request.param == "fake":
        yield _fake()
        return
    with kube_world(cluster.kubeconfig, namespace) as world:
        yield _real(world, lambda letter: image({"a": "1.0", "b": "1.1"}[letter]))


def _fake() -> Engine:
    clock = HandClock()
    cluster = FakeCluster(clock)
    runtime = FakeClusterRuntime(cluster)

    def until(look: Callable[[LiveState], object]) -> LiveState:
        for _ in range(60):
            live = runtime.observe(ENVIRONMENT, {}, [])
            if look(live):
                return live
            clock.advance(timedelta(seconds=1))
        raise AssertionError(live)

    cluster.missing.add("f")
    # Time goes on in `until` only.
    return Engine(runtime, lambda letter: FAKE + letter, cluster.scale, until, nullcontext)


def _real(world: World, image: Callable[[str], str]) -> Engine:
    def scale(name: str, count: int) -> None:
        world.change("Deployment", name, {"spec": {"replicas": count}})
        world.until(lambda live: live.groups[0].replicas == count)

    return Engine(world.runtime, image, scale, world.until, world.full)


def test_a_group_is_what_was_declared_and_settles(site: Engine) -> None:
    spec = site.running("a", replicas=2)
    effect = ensure(spec)
    with site.full():
        site.runtime.apply(effect)
        (group,) = site.live().groups
    assert (group.name, group.service, group.version, group.revision) == ("web", "web", version(spec), effect.revision)
    assert (group.image, group.operated, group.replicas) == (spec.image.pinned, effect.operated, 2)
    assert (group.ready, group.settled, group.differences) == (0, False, ())
    assert site.stands(spec).ready == 2
    well = {(Phase.RUNNING, HealthStatus.HEALTHY, True)}
    live = site.until(lambda live: {(one.phase, one.health, one.serving) for one in live.instances} == well)
    instances = live.instances
    assert {(one.service, one.version, one.image) for one in instances} == {("web", version(spec), spec.image.pinned)}
    assert site.live(spec.image.pinned).images[spec.image.pinned].status is ImageStatus.PRESENT
    site.runtime.apply(effect)
    assert site.live().groups[0].settled, "the same again changes nothing"


def test_another_version_replaces_all_instances(site: Engine) -> None:
    old, new = site.running("a", replicas=2), site.running("b", replicas=2)
    site.runtime.apply(ensure(old))
    site.stands(old)
    with site.full():
        site.runtime.apply(ensure(new))
        (group,) = site.live().groups
    assert (group.version, group.settled) == (version(new), False)
    assert site.stands(new).ready == 2
    site.until(lambda live: {one.version for one in live.instances} == {version(new)})


def test_a_number_that_is_changed_by_hand_is_told_and_taken_back(site: Engine) -> None:
    spec = site.running("a")
    site.runtime.apply(ensure(spec))
    site.stands(spec)
    site.hands("web", 2)
    (group,) = site.live().groups
    assert [each.reason for each in group.differences] == [Reason.DRIFT_CHANGED]
    assert "replicas" in group.differences[0].detail
    site.runtime.apply(ensure(spec))
    (group,) = site.live().groups
    assert (group.replicas, group.differences) == (1, ())


def test_an_image_that_is_not_there_is_said(site: Engine) -> None:
    there = site.running("a")
    missing = replace(there, image=replace(there.image, digest=f"sha256:{'0' * 63}f"))
    site.runtime.apply(ensure(missing))
    pinned = missing.image.pinned
    site.until(lambda _: site.live(pinned).images[pinned].reason is Reason.IMAGE_NOT_FOUND)
    assert site.live(pinned).images[pinned].status is ImageStatus.FAILED
    assert not site.live().groups[0].settled


def test_requests_are_led_to_all_or_to_one_version(site: Engine) -> None:
    spec = site.running("a")
    name = f"web-{version(spec)[:12]}"
    site.runtime.apply(ensure(spec, name))
    every = lead(spec, name, mixed=True)
    site.runtime.apply(every)
    found = site.live().routes["web"]
    assert (found.weights, found.operated, found.differences) == (None, every.operated, ())
    site.runtime.apply(lead(spec, name))
    assert site.live().routes["web"].weights == {name: 100}
    site.runtime.apply(RemoveRoute("web", ENVIRONMENT))
    assert "web" not in site.live().routes
    site.runtime.apply(RemoveRoute("web", ENVIRONMENT))


def test_a_group_that_is_removed_is_gone_and_its_instances_leave(site: Engine) -> None:
    spec = site.running("a")
    site.runtime.apply(ensure(spec))
    site.stands(spec)
    for _ in range(2):
        site.runtime.apply(RemoveGroup("web", ENVIRONMENT))
        assert site.live().groups == ()
    site.until(lambda live: not live.instances)

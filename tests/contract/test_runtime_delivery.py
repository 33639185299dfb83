"""What every `ports.Runtime` promises for a safe delivery: addresses, volumes, warm-up, use of cpu. Fake and real."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from reconciler.core import names
from reconciler.core.delivery import Volume, WarmRequest, WarmUp
from reconciler.core.errors import Reason, Retryable, Stalled
from reconciler.core.live import HealthStatus, Phase, WarmthStatus
from reconciler.core.steps import (
    AttachTraffic,
    DetachTraffic,
    KillInstance,
    RemoveInstance,
    StartInstance,
    TerminateInstance,
    WarmInstance,
)
from tests.support.runtime_house import House, either_house, healthy

ASK = WarmUp((WarmRequest("/"), WarmRequest("/other")), count=5)


@pytest.fixture(params=["fake", "docker"])
def ready(request: pytest.FixtureRequest) -> Iterator[House]:
    for house in either_house(request):
        yield house.ready()


def test_an_instance_has_an_address_of_its_own_while_it_runs(ready: House) -> None:
    first = ready.create()
    assert ready.one().address == ""
    ready.runtime.apply(StartInstance(first))
    ready.start(ordinal=1)
    found = {i.name: i.address for i in ready.observe().instances}
    assert "" not in found.values()
    assert len(set(found.values())) == 2
    for effect in (AttachTraffic(first, "web"), DetachTraffic(first, "web")):
        ready.runtime.apply(effect)
        assert {i.name: i.address for i in ready.observe().instances} == found
    ready.runtime.apply(KillInstance(first))
    state = ready.settle(lambda s: s.instances[0].phase is Phase.EXITED)
    assert (state.instances[0].name, state.instances[0].address) == (first, "")


def test_a_volume_outlives_its_instances(ready: House) -> None:
    volume = (Volume("data", "/var/lib/web"),)
    name = healthy(ready, volumes=volume)
    assert ready.observe().instances[0].differences == ()
    ready.hands.write(name, "/var/lib/web/kept", b"of old")
    ready.runtime.apply(TerminateInstance(name))
    ready.one(lambda i: i.phase is Phase.EXITED)
    ready.runtime.apply(RemoveInstance(name))
    assert (ready.observe().instances, ready.observe().orphans) == ((), ())
    second = ready.start(ready.spec(image=ready.second, volumes=volume))
    found = ready.one(lambda i: i.health is HealthStatus.HEALTHY)
    assert (second != name, found.differences) == (True, ())
    assert ready.hands.read(second, "/var/lib/web/kept") == b"of old"
    assert (ready.observe().orphans, ready.observe().foreign) == ((), ())


def test_a_volume_that_is_not_ours_is_refused(ready: House) -> None:
    ready.hands.claim_volume(names.volume(ready.environment, "web", "data"))
    with pytest.raises(Stalled) as caught:
        ready.create(ready.spec(volumes=(Volume("data", "/data"),)))
    assert caught.value.reason is Reason.NAME_TAKEN
    assert ready.observe().instances == ()


def test_an_instance_is_warm_after_its_requests(ready: House) -> None:
    name = healthy(ready)
    assert ready.observe().instances[0].warmth is None
    ready.hints.clear()
    for _ in range(2):
        ready.runtime.apply(WarmInstance(name, 8080, ASK))
    found = ready.one(lambda i: i.warmth is not None and i.warmth.status is not WarmthStatus.RUNNING)
    assert found.warmth is not None
    assert (found.warmth.status, found.warmth.requests) == (WarmthStatus.WARM, 5)
    assert found.warmth.p95 is not None
    assert found.warmth.said
    ready.runtime.apply(WarmInstance(name, 8080, ASK))
    assert ready.observe().instances[0].warmth == found.warmth


def test_a_cold_instance_gets_as_many_requests_as_it_needs(ready: House) -> None:
    cold = healthy(ready, env={"COLD_REQUESTS": "4", "COLD_MS": "1000"})
    wanted = WarmUp((WarmRequest("/"),), count=5, p95=timedelta(milliseconds=900))
    ready.runtime.apply(WarmInstance(cold, 8080, wanted))
    warmth = ready.one(lambda i: i.warmth is not None and i.warmth.status is WarmthStatus.WARM).warmth
    assert warmth is not None
    assert warmth.requests >= 9


def test_an_instance_slower_than_the_stable_version_fails(ready: House) -> None:
    stable = healthy(ready)
    # More than twice as slow as the other, also if that one stood still for a second.
    slow = ready.start(ready.spec(env={"COLD_REQUESTS": "100", "COLD_MS": "2500"}), ordinal=1)
    ready.settle(lambda s: all(i.health is HealthStatus.HEALTHY for i in s.instances))
    wanted = WarmUp((WarmRequest("/"),), count=3, relative=2.0, deadline=timedelta(seconds=6))
    ready.runtime.apply(WarmInstance(slow, 8080, wanted, beside=stable))
    state = ready.settle(
        lambda s: any(i.warmth is not None and i.warmth.status is not WarmthStatus.RUNNING for i in s.instances)
    )
    warmths = {i.name: i.warmth for i in state.instances}
    assert warmths[stable] is None
    found = warmths[slow]
    assert found is not None
    assert found.status is WarmthStatus.FAILED
    assert "not warm after 6 s" in found.said
    ready.runtime.apply(WarmInstance(slow, 8080, wanted))
    assert {i.name: i.warmth for i in ready.observe().instances}[slow] == found


def test_one_that_was_started_again_is_cold_again(ready: House) -> None:
    name = healthy(ready)
    ready.runtime.apply(WarmInstance(name, 8080, ASK))
    ready.one(lambda i: i.warmth is not None and i.warmth.status is WarmthStatus.WARM)
    ready.pass_time()
    ready.hands.restart(name)
    ready.one(lambda i: i.health is HealthStatus.HEALTHY and bool(i.differences) and i.warmth is None)
    ready.runtime.apply(WarmInstance(name, 8080, ASK))
    ready.one(lambda i: i.warmth is not None and i.warmth.status is WarmthStatus.WARM)


def test_only_what_runs_can_be_warmed(ready: House) -> None:
    with pytest.raises(Retryable) as missing:
        ready.runtime.apply(WarmInstance(ready.creation(ready.spec()).name, 8080, ASK))
    assert missing.value.reason is Reason.DRIFT_MISSING
    name = ready.create()
    with pytest.raises(Retryable) as caught:
        ready.runtime.apply(WarmInstance(name, 8080, ASK))
    assert caught.value.reason is Reason.INSTANCE_EXITED
    assert ready.one().warmth is None


def test_the_use_of_cpu_is_told_where_it_is_asked_for(ready: House) -> None:
    ready.start(ready.spec())
    ready.start(ready.spec("other"))
    ready.metered = ("web",)
    assert [i.cpu for i in ready.observe().instances] == [None, None]
    state = ready.settle(lambda s: any(i.cpu is not None for i in s.instances))
    found = {i.service: i.cpu for i in state.instances}
    assert found["other"] is None
    assert found["web"] is not None
    assert 0 <= found["web"] < 1
    ready.metered = ()
    assert [i.cpu for i in ready.observe().instances] == [None, None]


def test_the_end_of_a_warm_up_is_hinted(ready: House) -> None:
    ready.runtime.watch(ready.hint)
    name = healthy(ready)
    ready.hints.clear()
    ready.runtime.apply(WarmInstance(name, 8080, ASK))
    ready.settle(lambda _: any(name in detail and "is warm" in detail for _, detail in ready.hints))

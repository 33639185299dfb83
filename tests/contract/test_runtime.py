"""What every `ports.Runtime` promises: one suite, run against the fake and against a real Docker Engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from reconciler.core import names
from reconciler.core.delivery import WarmRequest, WarmUp
from reconciler.core.errors import Reason, Retryable, Stalled
from reconciler.core.live import HealthStatus, ImageStatus, Phase
from reconciler.core.model import Health
from reconciler.core.steps import (
    AttachTraffic,
    DetachTraffic,
    EnsureNetwork,
    KillInstance,
    PullImage,
    RemoveInstance,
    StartInstance,
    SweepOrphan,
    TerminateInstance,
    WarmInstance,
)
from tests.support.runtime_house import House, either_house


@pytest.fixture(params=["fake", "docker"])
def house(request: pytest.FixtureRequest) -> Iterator[House]:
    yield from either_house(request)


@pytest.fixture
def ready(house: House) -> House:
    return house.ready()


def healthy(house: House) -> str:
    name = house.start()
    house.one(lambda i: i.health is HealthStatus.HEALTHY)
    return name


def test_an_unknown_environment_is_empty(house: House) -> None:
    state = house.observe()
    assert (state.environment, state.instances, state.foreign, state.orphans) == (house.environment, (), (), ())
    assert not state.network_ready


def test_the_network_is_made_once(house: House) -> None:
    house.runtime.apply(EnsureNetwork(house.environment))
    house.runtime.apply(EnsureNetwork(house.environment))
    assert house.observe().network_ready


def test_a_network_of_another_owner_is_not_touched(house: House) -> None:
    house.other.apply(EnsureNetwork(house.environment))
    with pytest.raises(Stalled) as caught:
        house.runtime.apply(EnsureNetwork(house.environment))
    assert caught.value.reason is Reason.NAME_TAKEN
    assert not house.observe().network_ready


def test_an_image_is_pulled_by_digest(house: House) -> None:
    house.runtime.apply(EnsureNetwork(house.environment))
    image = house.image.pinned
    house.runtime.apply(PullImage(image))
    house.runtime.apply(PullImage(image))
    house.settle(lambda s: s.images[image].status is ImageStatus.PRESENT, image)


def test_an_image_that_does_not_exist_fails_with_its_reason(house: House) -> None:
    house.runtime.apply(EnsureNetwork(house.environment))
    image = f"{house.image.repository}@sha256:{'0' * 64}"
    assert house.observe(image).images[image].status is ImageStatus.ABSENT
    for attempt in (1, 2):
        house.runtime.apply(PullImage(image))
        found = house.settle(lambda s, n=attempt: s.images[image].attempts == n, image).images[image]
        assert (found.status, found.reason) == (ImageStatus.FAILED, Reason.IMAGE_NOT_FOUND)
        assert found.detail
        assert found.failed_at is not None


def test_creating_without_the_image_is_retried(house: House) -> None:
    house.runtime.apply(EnsureNetwork(house.environment))
    absent = house.image.__class__(house.image.repository, "sha256:" + "0" * 64)
    with pytest.raises(Retryable) as caught:
        house.runtime.apply(house.creation(house.spec(image=absent)))
    assert caught.value.reason is Reason.IMAGE_UNAVAILABLE


def test_an_instance_is_created_once_and_says_what_it_is(ready: House) -> None:
    effect = ready.creation(ready.spec(), ordinal=3)
    ready.runtime.apply(effect)
    ready.runtime.apply(effect)
    found = ready.one()
    assert (found.name, found.service, found.version) == (effect.name, "web", effect.version)
    assert (found.revision, found.ordinal, found.image) == ("f" * 40, 3, ready.image.pinned)
    assert (found.phase, found.started_at, found.serving) == (Phase.CREATED, None, False)
    assert (found.health, found.differences) == (HealthStatus.STARTING, ())


def test_an_instance_becomes_healthy_without_differences(ready: House) -> None:
    name = ready.start()
    ready.runtime.apply(StartInstance(name))
    found = ready.one(lambda i: i.health is HealthStatus.HEALTHY)
    assert found.phase is Phase.RUNNING
    assert (found.differences, found.serving, found.finished_at, found.exit_code) == ((), False, None, None)
    assert found.started_at is not None


def test_an_instance_that_listens_late_is_healthy_later(ready: House) -> None:
    patient = replace(ready.spec().health, startup=timedelta(seconds=60))
    ready.start(ready.spec(env={"START_DELAY_MS": "4000"}, health=patient))
    assert ready.observe().instances[0].health is HealthStatus.STARTING
    ready.one(lambda i: i.health is HealthStatus.HEALTHY)


def test_an_unhealthy_instance_is_forgiven_for_the_startup_time_only(ready: House) -> None:
    ready.start(ready.spec(env={"UNHEALTHY": "1"}, health=replace(ready.spec().health, startup=timedelta(seconds=5))))
    assert ready.observe().instances[0].health is HealthStatus.STARTING
    found = ready.one(lambda i: i.health is HealthStatus.UNHEALTHY)
    assert "503" in found.detail


def test_health_can_be_lost(ready: House) -> None:
    name = ready.start(ready.spec(health=replace(ready.spec().health, timeout=timedelta(seconds=1))))
    ready.one(lambda i: i.health is HealthStatus.HEALTHY)
    ready.hands.stall(name)
    ready.one(lambda i: i.health is HealthStatus.UNHEALTHY)


def test_without_a_check_an_instance_is_healthy_when_it_has_been_running(ready: House) -> None:
    ready.start(ready.spec(health=Health(interval=timedelta(seconds=1), healthy_after=4)))
    assert ready.observe().instances[0].health is HealthStatus.STARTING
    ready.one(lambda i: i.health is HealthStatus.HEALTHY)


def test_an_exit_is_seen_with_its_code(ready: House) -> None:
    ready.start(ready.spec(env={"EXIT_AFTER_MS": "100", "EXIT_CODE": "3"}))
    found = ready.one(lambda i: i.phase is Phase.EXITED)
    assert (found.exit_code, found.oom_killed) == (3, False)
    assert found.finished_at is not None
    assert "3" in found.detail


def test_traffic_is_attached_and_detached(ready: House) -> None:
    name = healthy(ready)
    for _ in range(2):
        ready.runtime.apply(AttachTraffic(name, "web"))
        assert ready.observe().instances[0].serving
    for _ in range(2):
        ready.runtime.apply(DetachTraffic(name, "web"))
        assert not ready.observe().instances[0].serving
    assert ready.observe().instances[0].differences == ()


def test_an_instance_that_does_not_run_gets_no_traffic(ready: House) -> None:
    name = ready.create()
    with pytest.raises(Retryable) as caught:
        ready.runtime.apply(AttachTraffic(name, "web"))
    assert caught.value.reason is Reason.INSTANCE_EXITED


def test_a_dead_instance_does_not_serve(ready: House) -> None:
    name = healthy(ready)
    ready.runtime.apply(AttachTraffic(name, "web"))
    ready.hands.stop(name)
    assert not ready.one(lambda i: i.phase is Phase.EXITED).serving


def test_terminate_lets_it_end_by_itself(ready: House) -> None:
    name = healthy(ready)
    ready.runtime.apply(TerminateInstance(name))
    found = ready.one(lambda i: i.phase is Phase.EXITED)
    assert found.exit_code == 0
    ready.runtime.apply(TerminateInstance(name))
    ready.runtime.apply(KillInstance(name))


def test_kill_ends_what_does_not_listen(ready: House) -> None:
    name = ready.start(ready.spec(env={"IGNORE_TERM": "1"}))
    ready.one(lambda i: i.health is HealthStatus.HEALTHY)
    ready.runtime.apply(TerminateInstance(name))
    assert ready.observe().instances[0].phase is Phase.RUNNING
    ready.runtime.apply(KillInstance(name))
    assert ready.one(lambda i: i.phase is Phase.EXITED).exit_code == 137


def test_a_kept_instance_comes_back_out_of_traffic(ready: House) -> None:
    name = healthy(ready)
    ready.runtime.apply(AttachTraffic(name, "web"))
    ready.runtime.apply(TerminateInstance(name, keep=True))
    ready.one(lambda i: i.phase is Phase.EXITED)
    ready.runtime.apply(StartInstance(name))
    found = ready.one(lambda i: i.health is HealthStatus.HEALTHY)
    assert not found.serving
    assert [d.reason for d in found.differences] == [Reason.DRIFT_RESTARTED]


def test_an_instance_is_removed_once(ready: House) -> None:
    name = healthy(ready)
    ready.runtime.apply(RemoveInstance(name))
    ready.runtime.apply(RemoveInstance(name))
    state = ready.observe()
    assert (state.instances, state.orphans) == ((), ())


def test_what_is_gone_is_told_apart(ready: House) -> None:
    name = ready.creation(ready.spec()).name
    ready.runtime.apply(DetachTraffic(name, "web"))
    ready.runtime.apply(TerminateInstance(name))
    with pytest.raises(Retryable) as caught:
        ready.runtime.apply(StartInstance(name))
    assert caught.value.reason is Reason.DRIFT_MISSING


def test_the_last_lines_of_the_log(ready: House) -> None:
    name = ready.start(ready.spec(env={"LOG_LINES": "120", "VERSION": "9"}))
    ready.one(lambda i: i.health is HealthStatus.HEALTHY)
    # The engine reads the words of a program a moment after they were said.
    ready.settle(lambda _: ready.runtime.logs(name, 50)[-1:] == ("hello 9 listens on 8080",))
    lines = ready.runtime.logs(name, 50)
    assert len(lines) == 50
    assert lines[0] == "line 72 of hello 9"
    assert ready.runtime.logs(ready.creation(ready.spec(name="none")).name, 50) == ()


def test_drift_by_hand_is_seen(ready: House) -> None:
    name = healthy(ready)
    ready.hands.restart(name)
    found = ready.one(lambda i: bool(i.differences))
    assert [d.reason for d in found.differences] == [Reason.DRIFT_RESTARTED]


def test_a_pause_is_a_phase(ready: House) -> None:
    name = healthy(ready)
    ready.hands.pause(name)
    ready.one(lambda i: i.phase is Phase.PAUSED)
    ready.runtime.apply(RemoveInstance(name))
    assert ready.observe().instances == ()


def test_a_renamed_instance_is_still_known_and_can_be_removed(ready: House) -> None:
    name = healthy(ready)
    ready.hands.rename(name, f"renamed-{ready.environment}")
    found = ready.one(lambda i: bool(i.differences))
    assert found.name == name
    assert f"name: {name} -> renamed-{ready.environment}" in [d.detail for d in found.differences]
    ready.runtime.apply(RemoveInstance(name))
    assert ready.observe().instances == ()


def test_a_removed_instance_is_missing(ready: House) -> None:
    name = healthy(ready)
    ready.hands.remove(name)
    ready.settle(lambda s: s.instances == ())


def test_a_squatted_name_is_reported_and_never_touched(ready: House) -> None:
    effect = ready.creation(ready.spec())
    ready.hands.squat(ready.environment, effect.name)
    state = ready.settle(lambda s: bool(s.foreign))
    assert [(f.name, f.reason) for f in state.foreign] == [(effect.name, Reason.NAME_TAKEN)]
    with pytest.raises(Stalled) as taken:
        ready.runtime.apply(effect)
    assert taken.value.reason is Reason.NAME_TAKEN
    for forbidden in (
        StartInstance(effect.name),
        AttachTraffic(effect.name, "web"),
        DetachTraffic(effect.name, "web"),
        TerminateInstance(effect.name),
        KillInstance(effect.name),
        RemoveInstance(effect.name),
        WarmInstance(effect.name, 8080, WarmUp((WarmRequest("/"),))),
    ):
        with pytest.raises(Stalled) as refused:
            ready.runtime.apply(forbidden)
        assert refused.value.reason is Reason.NOT_OWNED
        assert refused.value.remedy
    assert ready.observe().foreign == state.foreign


def test_instances_of_another_owner_are_not_ours(ready: House) -> None:
    effect = ready.creation(ready.spec())
    ready.other.apply(effect)
    with pytest.raises(Stalled) as caught:
        ready.runtime.apply(RemoveInstance(effect.name))
    assert caught.value.reason is Reason.NOT_OWNED
    assert ready.observe().instances == ()
    assert len(ready.other.observe(ready.environment, {}, ()).instances) == 1


def test_an_environment_cannot_name_anothers_instance(ready: House) -> None:
    theirs = ready.creation(ready.spec())
    ready.runtime.apply(theirs)
    elsewhere = f"{ready.environment}-elsewhere"
    stolen = theirs.__class__(theirs.name, elsewhere, theirs.spec, theirs.version, theirs.revision, theirs.ordinal)
    with pytest.raises(Stalled) as caught:
        ready.runtime.apply(stolen)
    assert caught.value.reason is Reason.NOT_OWNED
    assert ready.runtime.observe(elsewhere, {}, ()).instances == ()


@pytest.mark.parametrize("name", ["", "x", "bridge", "rec", "rec.a.b", "rec.a.b.c.d.e", "../x"])
def test_names_that_are_not_derived_are_refused(house: House, name: str) -> None:
    with pytest.raises(Stalled) as caught:
        house.runtime.apply(RemoveInstance(name))
    assert caught.value.reason is Reason.NOT_OWNED


def test_sweeping_nothing_is_nothing(ready: House) -> None:
    gone = ready.creation(ready.spec()).name
    ready.runtime.apply(SweepOrphan(f"{gone}.files.0"))


def test_a_change_is_hinted(house: House) -> None:
    if not house.hints:
        house.runtime.watch(house.hint)
    house.ready()
    name = healthy(house)
    house.hints.clear()
    house.hands.stop(name)
    house.one(lambda i: i.phase is Phase.EXITED)
    # It is told a moment after it can be seen.
    house.settle(lambda _: any(place == house.environment and name in detail for place, detail in house.hints))


def test_unchanged_instances_are_the_same_values(ready: House) -> None:
    healthy(ready)
    assert ready.observe().instances == ready.observe().instances


def test_names_are_those_of_the_core(ready: House) -> None:
    effect = ready.creation(ready.spec(), ordinal=1)
    assert effect.name == names.instance(ready.environment, "web", effect.version, 1)

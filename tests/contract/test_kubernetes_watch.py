"""The cache follows the API through cuts, expired versions, silence, refusals and outages, and is idle when idle."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from reconciler.adapters import kubernetes_cache, kubernetes_client, kubernetes_watch
from reconciler.adapters.kubernetes_runtime import KubernetesRuntime
from reconciler.core import names
from reconciler.core.errors import Reason, ReconcilerError, Retryable, Stalled
from reconciler.core.kubernetes_slim import slim
from reconciler.core.steps import RemoveGroup
from tests.support.kube_house import HANG, Fault, KubeHouse, kube_house
from tests.support.kube_world import ENVIRONMENT, OWNER, PATIENCE, World, ensure, kube_world, service

KINDS = 7


@pytest.fixture
def house() -> Iterator[KubeHouse]:
    with kube_house() as built:
        yield built


@pytest.fixture
def world(house: KubeHouse, tmp_path: Path) -> Iterator[World]:
    with kube_world(house.kubeconfig(tmp_path), ENVIRONMENT, house) as built:
        yield built


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_watch, "LONGEST_PAUSE", 0.2)


def lists(world: World) -> int:
    return world.runtime.api.counts["list"]


def watches(world: World) -> int:
    return world.runtime.api.counts["watch"]


def soon(look: Callable[[], bool]) -> None:
    """Wait for what happens in the API's own threads, of which no hint tells."""
    end = time.monotonic() + PATIENCE
    while not look():
        assert time.monotonic() < end
        time.sleep(0.01)


def map_of(name: str, **data: str) -> dict[str, Any]:
    labels = {names.LABEL_OWNER: OWNER, names.LABEL_ENVIRONMENT: ENVIRONMENT, names.LABEL_SERVICE: "web"}
    return {"metadata": {"name": name, "labels": labels}, "data": data}


def touch(house: KubeHouse, name: str, plural: str = "deployments") -> None:
    """Write an object as it is: only its resourceVersion changes."""
    with house.news:
        house.store("MODIFIED", ENVIRONMENT, plural, copy.deepcopy(house.objects[ENVIRONMENT, plural, name]))


def settled(world: World) -> None:
    """Return when every watch is open."""
    world.live()
    assert world.house is not None
    soon(lambda: world.house.sent["OPENED"] >= KINDS)


def raised(runtime: KubernetesRuntime) -> ReconcilerError | None:
    try:
        runtime.observe(ENVIRONMENT, {}, [])
    except ReconcilerError as error:
        return error
    return None


def error_of(world: World) -> ReconcilerError:
    with pytest.raises(ReconcilerError) as caught:
        world.live()
    return caught.value


def test_each_kind_is_listed_once_and_watched(world: World, house: KubeHouse) -> None:
    settled(world)
    world.runtime.apply(ensure(service(replicas=2)))
    for _ in range(20):
        world.live()
    assert (lists(world), watches(world)) == (KINDS, KINDS)


def test_a_list_comes_in_pages(house: KubeHouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_watch, "PAGE", 2)
    with kube_world(house.kubeconfig(tmp_path), ENVIRONMENT, house) as first:
        for number in range(5):
            first.make("ConfigMap", map_of(f"m{number}"))
    with kube_world(house.kubeconfig(tmp_path), ENVIRONMENT, house) as second:
        second.clock.ahead = timedelta(minutes=5)
        assert len(second.live().orphans) == 5
        assert lists(second) == KINDS + 2


def test_a_cut_watch_is_taken_up_where_it_ended(world: World, house: KubeHouse) -> None:
    settled(world)
    house.cut()
    world.runtime.apply(ensure(service()))
    touch(house, "web")
    world.change("Deployment", "web", {"spec": {"replicas": 3}})
    world.until(lambda live: live.groups[0].replicas == 3)
    assert lists(world) == KINDS


def expire(world: World, house: KubeHouse) -> None:
    """The group goes while nothing is heard, and then it is too long ago for the watches to tell of it."""
    world.runtime.apply(ensure(service()))
    settled(world)
    house.hush(True)
    world.delete("Deployment", "web")
    house.forget()
    house.events.clear()
    house.hush(False)
    house.cut()


def test_versions_that_expired_are_listed_anew(world: World, house: KubeHouse) -> None:
    expire(world, house)
    world.until(lambda live: not live.groups)
    assert lists(world) > KINDS


def test_what_expired_is_shown_to_nobody(world: World, house: KubeHouse) -> None:
    settled(world)
    refused = Fault(f"GET /apis/apps/v1/namespaces/{ENVIRONMENT}/deployments ", 503, "ServiceUnavailable", times=10**6)
    house.faults.append(refused)  # of lists only
    expire(world, house)
    soon(lambda: refused.times < 10**6)
    assert isinstance(raised(world.runtime), Retryable)
    house.faults.remove(refused)
    soon(lambda: raised(world.runtime) is None)
    assert world.live().groups == ()


def test_a_bookmark_saves_the_list(world: World, house: KubeHouse) -> None:
    settled(world)
    house.forget()
    house.bookmark()
    soon(lambda: house.sent["BOOKMARK"] >= KINDS)
    house.cut()
    world.make("ConfigMap", map_of("b"))
    world.heard("ConfigMap b added")
    assert lists(world) == KINDS


def test_all_is_listed_anew_after_the_time_that_is_set(house: KubeHouse, tmp_path: Path) -> None:
    with kube_world(house.kubeconfig(tmp_path), ENVIRONMENT, house, relist=timedelta(milliseconds=300)) as world:
        world.live()
        with house.news:  # an event that was lost on the way
            house.objects[ENVIRONMENT, "configmaps", "a"] = {"kind": "ConfigMap", "apiVersion": "v1"} | map_of("a")
            house.objects[ENVIRONMENT, "configmaps", "a"]["metadata"] |= {"uid": "u", "resourceVersion": "1"}
        house.cut()
        world.clock.ahead = timedelta(minutes=5)
        world.until(lambda live: live.orphans)


def test_late_news_do_not_undo_an_own_write(world: World, house: KubeHouse) -> None:
    world.live()
    house.hush(True)
    world.runtime.apply(ensure(service()))
    effect = ensure(service(env={}))
    world.runtime.apply(effect)
    assert world.group().version == effect.version
    shown: set[str] = set()

    def note(environment: str, detail: str) -> None:
        shown.add(world.group().version)
        world.hint(environment, detail)

    world.runtime.watch(note)
    house.hush(False)  # all that happened is told late, step by step
    world.make("Deployment", {**map_of("last"), "spec": {}})
    world.heard("Deployment last added")
    assert shown == {effect.version}


def test_what_a_write_was_answered_is_not_read_again_as_news(
    world: World, house: KubeHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.live()
    house.hush(True)
    world.runtime.apply(ensure(service()))
    read: list[str] = []

    def noted(found: dict[str, Any]) -> dict[str, Any]:
        read.append(f"{found['kind']} {found['metadata']['name']}")
        return slim(found)

    monkeypatch.setattr(kubernetes_cache, "slim", noted)
    house.hush(False)
    world.make("Deployment", {**map_of("last"), "spec": {}})
    world.heard("Deployment last added")
    assert [each for each in read if each.startswith("Deployment")] == ["Deployment last"]
    world.change("Deployment", "web", {"spec": {"replicas": 3}})
    world.until(lambda live: any(group.replicas == 3 for group in live.groups))
    assert "Deployment web" in read


def test_what_we_deleted_does_not_come_back_by_late_news(world: World, house: KubeHouse) -> None:
    world.runtime.apply(ensure(service()))
    house.hush(True)
    touch(house, "web")
    world.runtime.apply(RemoveGroup("web", ENVIRONMENT))
    assert world.live().groups == ()
    shown: list[int] = []
    world.runtime.watch(lambda environment, detail: shown.append(len(world.live().groups)))
    house.hush(False)
    world.runtime.watch(lambda environment, detail: (shown.append(len(world.live().groups)), world.hint("", detail)))
    world.make("Deployment", {**map_of("last"), "spec": {}})
    world.heard("Deployment last added")
    assert set(shown) == {0}


def test_a_write_that_changes_nothing_is_no_news(world: World, house: KubeHouse) -> None:
    world.runtime.apply(ensure(service()))
    settled(world)
    world.make("ConfigMap", map_of("a"))
    world.heard("ConfigMap a added")
    world.told.clear()
    touch(house, "web")
    touch(house, "a", "configmaps")
    world.make("Deployment", {**map_of("last"), "spec": {}})
    world.heard("Deployment last added")
    assert [detail for detail in world.told if "last" not in detail] == []


def test_an_outage_is_said_after_the_timeout_and_ends(house: KubeHouse, tmp_path: Path) -> None:
    with kube_world(house.kubeconfig(tmp_path), ENVIRONMENT, house, timeout=timedelta(minutes=10)) as world:
        world.runtime.apply(ensure(service()))
        other = world.again(timeout=timedelta(seconds=1))
        try:
            soon(lambda: raised(other) is None)
            house.faults.append(Fault("", 500, "InternalError", "down", times=10**6))
            house.cut()
            world.heard("down")
            soon(lambda: raised(other) is not None)
            assert isinstance(raised(other), Retryable)
            assert world.group().name == "web"  # for as long as is set it is no outage
            house.faults.clear()
            soon(lambda: raised(other) is None)
            world.heard("the API answers")
        finally:
            other.close()


def test_an_api_that_is_down_at_the_start_is_unreachable(tmp_path: Path) -> None:
    dead = KubeHouse(address="http://127.0.0.1:1").kubeconfig(tmp_path)
    with kube_world(dead, ENVIRONMENT) as world:
        assert error_of(world).reason is Reason.ENGINE_UNREACHABLE


def test_an_api_that_hangs_at_the_start_is_unreachable(house: KubeHouse, tmp_path: Path) -> None:
    house.faults.append(Fault("GET", HANG, times=100))
    with kube_world(house.kubeconfig(tmp_path), ENVIRONMENT, house, timeout=timedelta(seconds=0.5)) as world:
        assert error_of(world).reason is Reason.ENGINE_UNREACHABLE


def test_a_watch_that_is_silent_is_opened_anew(
    house: KubeHouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_client, "SILENCE", 0.2)
    with kube_world(house.kubeconfig(tmp_path), ENVIRONMENT, house) as world:
        settled(world)
        soon(lambda: watches(world) >= 3 * KINDS)
        assert lists(world) == KINDS
        assert world.live().groups == ()


def test_a_kind_that_is_forbidden_is_named(house: KubeHouse, tmp_path: Path) -> None:
    house.faults.append(Fault("GET /apis/apps/v1/namespaces/prod/replicasets", 403, "Forbidden", "no", times=10**6))
    with kube_world(house.kubeconfig(tmp_path), ENVIRONMENT, house) as world:
        found = error_of(world)
        assert (type(found), found.reason) == (Stalled, Reason.FORBIDDEN)
        assert "list replicasets.apps in namespace prod" in str(found)
        house.faults.clear()
        world.until(lambda live: True, during=(ReconcilerError,))


def test_a_cluster_without_the_gateway_api_is_said(house: KubeHouse, tmp_path: Path) -> None:
    house.absent.add("httproutes")
    with kube_world(house.kubeconfig(tmp_path), ENVIRONMENT, house, gateway="front") as world:
        found = error_of(world)
        assert isinstance(found, Stalled)
        assert "Gateway API" in str(found)


def test_a_namespace_that_nobody_may_look_at_is_taken_to_exist(house: KubeHouse, tmp_path: Path) -> None:
    house.faults.append(Fault("GET /api/v1/namespaces/prod ", 403, "Forbidden", "no", times=10**6))
    with kube_world(house.kubeconfig(tmp_path), ENVIRONMENT, house) as world:
        assert world.live().groups == ()


def test_a_server_that_ends_each_watch_at_once_is_not_asked_without_a_pause(
    world: World, house: KubeHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled(world)
    monkeypatch.setattr(kubernetes_watch, "LONGEST_PAUSE", 1.0)
    house.longest = 0.0
    house.cut()
    began = time.monotonic()
    soon(lambda: watches(world) >= KINDS * 7)
    assert time.monotonic() - began > 1.0  # of some kind six pauses, which are 1.3 s at least
    house.longest = 60.0
    world.make("ConfigMap", map_of("a"))
    world.heard("ConfigMap a added")


@pytest.mark.parametrize("hung", [False, True])
def test_closing_ends_every_thread(house: KubeHouse, tmp_path: Path, hung: bool) -> None:
    before = set(threading.enumerate())

    def mine() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name.startswith("kubernetes")} - before

    if hung:
        house.faults.append(Fault("GET", HANG, times=100))
    with kube_world(house.kubeconfig(tmp_path), ENVIRONMENT, house, timeout=timedelta(seconds=60)) as world:
        if not hung:
            settled(world)
        assert mine()
        began = time.monotonic()
        world.runtime.close()
        assert time.monotonic() - began < 50  # and not 60
        assert not mine()


def test_what_admission_changes_is_no_drift(world: World, house: KubeHouse) -> None:
    """A policy of the cluster rewrites what we apply: to apply it again would change nothing."""

    def policy(found: dict[str, Any]) -> None:
        if found["kind"] == "Deployment":
            found["spec"]["progressDeadlineSeconds"] = 7

    house.admission = policy
    effect = ensure(service())
    world.runtime.apply(effect)
    assert world.get("Deployment", "web")["spec"]["progressDeadlineSeconds"] == 7
    assert world.group().differences == ()
    world.change("Deployment", "web", {"spec": {"replicas": 3}})
    found = world.until(lambda live: live.groups[0].differences).groups[0].differences
    assert [one.detail for one in found] == ["spec.replicas: 1 -> 3 by kubectl-edit"]
    world.runtime.apply(effect)
    assert world.group().differences == ()


def test_the_log_of_a_run_is_read(world: World, house: KubeHouse) -> None:
    running = {"name": "main", "restartCount": 2, "ready": True, "state": {}}
    labels = map_of("x")["metadata"]["labels"]
    pod = {"metadata": {"name": "web-1-abc", "labels": labels}, "status": {"containerStatuses": [running]}}
    world.live()  # all is listed: the pod comes as news
    world.make("Pod", pod)
    world.heard("Pod web-1-abc added")
    house.logs["web-1-abc", False] = "one\ntwo\n" + "x" * 5000 + "\n"
    house.logs["web-1-abc", True] = "before\n"
    assert world.runtime.logs("prod/web-1-abc.2", 2) == ("two", "x" * 2000)
    assert world.runtime.logs("prod/web-1-abc.1", 9) == ("before",)
    assert world.runtime.logs("prod/web-1-abc", 9) == ()  # nobody has the log of the first run any more
    assert world.runtime.logs("prod/gone", 9) == ()
    assert world.runtime.logs("elsewhere/web-1-abc", 9) == ()
    assert world.runtime.logs("prod/web-1-abc", 0) == ()

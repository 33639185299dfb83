"""Faults of a real cluster in the middle of a release: the API away, evictions, a quota, a node that is not ready."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.fleet import pinned
from reconciler.adapters.kubernetes_client import ApiError
from tests.e2e.running import PATIENCE
from tests.kube.house import KubeHouse
from tests.support.cluster import Given, eventually
from tools import cluster as tool

CANARY = {"strategy": "canary", "progressDeadline": "10m", "steps": [{"weight": 50, "soak": "6s"}]}
PAUSED = {**CANARY, "steps": [{"weight": 50, "pause": True}]}
"""It stays in its midst until a person says more."""
ROLLING = {"strategy": "rolling", "progressDeadline": "10m"}
LONG_DRAIN = {"deadline": "30s", "grace": "5s"}
"""Longer than kube-proxy takes to start and to learn what there is."""


@pytest.fixture
def house(tmp_path: Path, cluster: Given, namespace: str) -> KubeHouse:
    return KubeHouse(tmp_path, cluster.kubeconfig, namespace, gateway=False)


def records(house: KubeHouse) -> list[dict[str, Any]]:
    said = house.command("audit", "list", "--json", "--limit", "500")
    return [record.get("entry", record) for record in json.loads(said.stdout)]


def told(house: KubeHouse) -> list[str]:
    return [each["what"] for each in records(house)]


def status(house: KubeHouse) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(house.command("status", "--json").stdout)
    return found


def pods(house: KubeHouse, image: str) -> list[str]:
    """The names of the pods of an image that are not on their way out."""
    return [
        each["metadata"]["name"]
        for each in house.list("v1/pods")
        if each["spec"]["containers"][0]["image"] == pinned(image) and "deletionTimestamp" not in each["metadata"]
    ]


def test_an_api_server_that_dies_in_a_canary_delays_it_and_loses_no_request(
    house: KubeHouse, image: Callable[[str], str], own_cluster: tool.Cluster
) -> None:
    first = house.release(image("1.0"), rollout=CANARY, drain=LONG_DRAIN)
    with house.daemon() as daemon:
        daemon.synced(first)
        with house.asked():
            second = house.release(image("2.0"), rollout=CANARY, drain=LONG_DRAIN)
            eventually(lambda: pods(house, image("2.0")))
            tool.kill(own_cluster, "apiserver")
            tool.start(own_cluster, "apiserver")
            # It might not ask for another minute: its pauses grow to that while the API is away.
            tool.kill(own_cluster, "proxy")
            tool.start(own_cluster, "proxy")
            daemon.synced(second)
        assert house.images() == [pinned(image("2.0"))]
        assert "RolloutFailed" not in told(house)


def test_an_eviction_in_a_canary_says_nothing_against_it(house: KubeHouse, image: Callable[[str], str]) -> None:
    first = house.release(image("1.0"), rollout=CANARY)
    with house.daemon() as daemon:
        daemon.synced(first)
        second = house.release(image("2.0"), rollout=CANARY)
        (name, *_) = eventually(lambda: pods(house, image("2.0")))
        place = f"/api/v1/namespaces/{house.namespace}/pods/{name}/eviction"
        eventually(lambda: _evicted(house, place, name))
        daemon.synced(second)
        assert "RolloutFailed" not in told(house)


def _evicted(house: KubeHouse, place: str, name: str) -> bool:
    """Whether the API takes an eviction: it says no until it has looked at the budget, too."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    try:
        house.api.call("POST", place, body=body)
    except ApiError as error:
        assert error.status == 429, error
        return False
    return True


def test_a_quota_is_named_and_the_release_goes_on_when_it_is_raised(
    house: KubeHouse, image: Callable[[str], str]
) -> None:
    first = house.release(image("1.0"), rollout=ROLLING)
    with house.daemon() as daemon:
        daemon.synced(first)
        quotas = f"/api/v1/namespaces/{house.namespace}/resourcequotas"
        quota = {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "q"},
            "spec": {"hard": {"pods": "2"}},
        }
        house.api.call("POST", quotas, body=quota)
        eventually(lambda: house.api.call("GET", f"{quotas}/q").get("status", {}).get("used"))
        second = house.release(image("2.0"), rollout=ROLLING)
        eventually(lambda: "QuotaExceeded" in json.dumps(status(house)))
        assert house.images() == [pinned(image("2.0"))], "it is declared"
        assert len(pods(house, image("1.0"))) == 2, "and the old ones serve on"
        house.api.call("DELETE", f"{quotas}/q")
        daemon.synced(second)


def test_a_number_that_somebody_changes_in_a_canary_is_taken_back(
    house: KubeHouse, image: Callable[[str], str]
) -> None:
    first = house.release(image("1.0"), rollout=PAUSED, replicas=2)
    with house.daemon() as daemon:
        daemon.synced(first)
        (stable,) = [each["metadata"]["name"] for each in house.list("apps/v1/deployments")]
        second = house.release(image("2.0"), rollout=PAUSED, replicas=2)
        eventually(lambda: "Paused" in told(house))
        path = f"/apis/apps/v1/namespaces/{house.namespace}/deployments/{stable}/scale"
        declared = house.api.call("GET", path)["spec"]["replicas"]
        assert declared < 5
        house.api.call("PATCH", path, body={"spec": {"replicas": 5}}, content_type="application/merge-patch+json")
        eventually(lambda: house.api.call("GET", path)["spec"]["replicas"] == declared)
        assert house.command("promote", f"{house.environment}/web").returncode == 0
        daemon.synced(second)
        assert house.images() == [pinned(image("2.0"))]
        assert "RolloutFailed" not in told(house)


def test_what_an_autoscaler_decides_in_a_release_stands(house: KubeHouse, image: Callable[[str], str]) -> None:
    demanding = {"rollout": ROLLING, "scaling": {"min": 2, "max": 6, "cpu": "500m"}}
    scale = f"/apis/apps/v1/namespaces/{house.namespace}/deployments/web/scale"
    with house.daemon() as daemon:
        daemon.synced(house.release(image("1.0"), **demanding))
        with house.asked():
            revision = house.release(image("2.0"), **demanding)
            eventually(lambda: house.images() == [pinned(image("2.0"))])
            query = {"fieldManager": "kube-controller-manager"}  # the autoscaler's, which has no figures here
            body = {"spec": {"replicas": 5}}
            house.api.call("PATCH", scale, query=query, body=body, content_type="application/merge-patch+json")
            daemon.synced(revision)
            eventually(lambda: house.list("apps/v1/deployments")[0]["status"].get("readyReplicas") == 5)
            later = house.release(image("1.0"), **demanding)
            daemon.synced(later)
        (one,) = house.list("apps/v1/deployments")
        assert one["spec"]["replicas"] == 5, "its number outlives the release"
        assert daemon.stop() == 0
    assert "DriftFound" not in told(house)


def test_a_node_that_is_not_ready_quarantines_nothing_and_heals(
    house: KubeHouse, image: Callable[[str], str], own_cluster: tool.Cluster
) -> None:
    first = house.release(image("1.0"), rollout=ROLLING)
    with house.daemon() as daemon:
        daemon.synced(first)
        tool.stop(own_cluster, "controllers")
        tool.start(own_cluster, "controllers", "--node-monitor-grace-period=5s")
        try:
            tool.kill(own_cluster, "kubelet")
            eventually(
                lambda: '"Degraded"' in json.dumps(status(house)) or '"Progressing"' in json.dumps(status(house))
            )
        finally:
            tool.start(own_cluster, "kubelet")
            tool.stop(own_cluster, "controllers")
            tool.start(own_cluster, "controllers")
        eventually(lambda: '"Healthy"' in json.dumps(status(house)))
        assert "RolloutFailed" not in told(house)
        second = house.release(image("2.0"), rollout=ROLLING)
        daemon.synced(second)


def test_a_daemon_that_is_killed_in_a_canary_ends_it_when_it_is_back(
    house: KubeHouse, image: Callable[[str], str]
) -> None:
    first = house.release(image("1.0"), rollout=CANARY)
    with house.daemon() as daemon:
        daemon.synced(first)
        second = house.release(image("2.0"), rollout=CANARY)
        eventually(lambda: pods(house, image("2.0")))
        daemon.process.kill()
        daemon.process.wait(PATIENCE)
    with house.asked(), house.daemon() as daemon:
        daemon.synced(second)
    assert house.images() == [pinned(image("2.0"))]
    assert told(house).count("Promoted") == 2

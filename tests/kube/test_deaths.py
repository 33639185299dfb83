"""The real program, killed around each call that a release on Kubernetes makes, and started again."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.fleet import pinned
from reconciler.failpoints import KUBERNETES_FAILPOINTS
from tests.e2e.running import PATIENCE
from tests.kube.house import KubeHouse
from tests.support.cluster import Given, eventually

STRATEGIC = "application/strategic-merge-patch+json"
BLUE_GREEN = {"strategy": "blueGreen", "progressDeadline": "10m", "hold": "0s"}
HANDED = tuple(name for name in KUBERNETES_FAILPOINTS if "hand_over" in name)
CLAIMED = tuple(name for name in KUBERNETES_FAILPOINTS if "claim" in name)


@pytest.fixture
def house(tmp_path: Path, cluster: Given, namespace: str) -> KubeHouse:
    return KubeHouse(tmp_path, cluster.kubeconfig, namespace, gateway=False)


def dies_and_ends(house: KubeHouse, failpoint: str, revision: str) -> None:
    house.failpoint = failpoint
    with house.daemon() as daemon:
        assert daemon.process.wait(PATIENCE) == -signal.SIGKILL, failpoint
    house.failpoint = ""
    with house.daemon() as daemon:
        daemon.synced(revision)


def test_a_release_ends_as_declared_after_a_death_around_each_call(
    house: KubeHouse, image: Callable[[str], str]
) -> None:
    with house.daemon() as daemon:
        daemon.synced(house.release(image("1.0"), rollout=BLUE_GREEN, drain={"deadline": "1s", "grace": "2s"}))
    for number, failpoint in enumerate(name for name in KUBERNETES_FAILPOINTS if name not in (*HANDED, *CLAIMED)):
        chosen = image("1.0" if number % 2 else "2.0")
        revision = house.release(chosen, rollout=BLUE_GREEN, drain={"deadline": "1s", "grace": "2s"})
        dies_and_ends(house, failpoint, revision)
        assert house.images() == [pinned(chosen)], failpoint
    assert house.command("audit", "verify").returncode == 0


@pytest.mark.parametrize("failpoint", HANDED)
def test_the_number_is_not_lost_when_the_daemon_dies_handing_it_over(
    house: KubeHouse, image: Callable[[str], str], failpoint: str
) -> None:
    with house.daemon() as daemon:
        daemon.synced(house.release(image("1.0"), replicas=3))
    revision = house.release(image("1.0"), scaling={"min": 2, "max": 5, "cpu": "500m"})
    dies_and_ends(house, failpoint, revision)
    assert [each["spec"]["replicas"] for each in house.list("apps/v1/deployments")] == [3]


@pytest.mark.parametrize("failpoint", [*CLAIMED, "kubernetes.before_apply"])
def test_what_somebody_added_goes_also_when_the_daemon_dies_taking_it_away(
    house: KubeHouse, image: Callable[[str], str], failpoint: str
) -> None:
    with house.daemon() as daemon:
        daemon.synced(revision := house.release(image("1.0")))
    declared = _template(house)
    more = {
        "spec": {"template": {"spec": {"containers": [{"name": "main", "env": [{"name": "FOO", "value": "bar"}]}]}}}
    }
    path = f"/apis/apps/v1/namespaces/{house.namespace}/deployments/web"
    house.api.call("PATCH", path, query={"fieldManager": "kubectl-set"}, body=more, content_type=STRATEGIC)
    assert _template(house) != declared
    dies_and_ends(house, failpoint, revision)
    with house.daemon():
        eventually(lambda: _template(house) == declared)


def _template(house: KubeHouse) -> dict[str, Any]:
    (found,) = house.list("apps/v1/deployments")
    return dict(found["spec"]["template"])

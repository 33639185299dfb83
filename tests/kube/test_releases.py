"""Releases on a real cluster by the real program: rolling, blue-green, canary and the way back, with real requests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.fleet import pinned
from tests.e2e.running import PATIENCE
from tests.kube.house import KubeHouse
from tests.support.cluster import Given

ROLLING = {"strategy": "rolling", "progressDeadline": "10m"}
CANARY = {
    "strategy": "canary",
    "progressDeadline": "10m",
    "steps": [{"weight": 25, "soak": "2s"}, {"weight": 50, "soak": "2s"}],
}
BLUE_GREEN = {"strategy": "blueGreen", "progressDeadline": "10m", "hold": "10m"}


@pytest.fixture
def house(tmp_path: Path, cluster: Given, namespace: str) -> KubeHouse:
    return KubeHouse(tmp_path, cluster.kubeconfig, namespace, gateway=False)


@pytest.mark.parametrize("rollout", [ROLLING, CANARY, BLUE_GREEN], ids=lambda rollout: rollout["strategy"])
def test_a_release_and_its_revert_lose_no_request(house: KubeHouse, image, rollout: dict[str, object]) -> None:
    replicas = 4 if rollout is CANARY else 2
    first = house.release(image("1.0"), rollout=rollout, replicas=replicas)
    with house.daemon() as daemon:
        daemon.synced(first)
        with house.asked() as running:
            second = house.release(image("2.0"), rollout=rollout, replicas=replicas)
            daemon.synced(second)
            running.reached(running.so_far().answered + 100, PATIENCE)
            seen = running.so_far()
            third = house.release(image("1.0"), rollout=rollout, replicas=replicas)
            daemon.synced(third)
        assert {"1.0", "2.0"} <= seen.versions.keys()
        held = {pinned(image("2.0"))} if rollout is BLUE_GREEN else set()
        assert set(house.images()) == {pinned(image("1.0"))} | held
        assert daemon.stop() == 0
    said = house.command("audit", "list", "--json", "--limit", "200")
    entries = [record.get("entry", record) for record in json.loads(said.stdout)]
    assert [each["what"] for each in entries].count("Promoted") == 3
    assert house.command("audit", "verify").returncode == 0

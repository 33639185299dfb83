"""The sample's environment on Kubernetes, as it stands in the repository, by the real program on a real cluster."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from tests.kube.house import KubeHouse
from tests.support import kustomize
from tests.support.cluster import Given, eventually

SAMPLE = Path(__file__).resolve().parents[2] / "sample-repo"
KUSTOMIZATION = "manifests/notices/kustomization.yaml"
EXAMPLE = re.compile(rb"registry\.example/hello:1\.0@(sha256:[0-9a-f]{64})")
"""Its image, which no registry has."""


class SampleHouse(KubeHouse):
    """A house that follows the environment `cluster`, with an image that can be pulled."""

    def __init__(self, root: Path, cluster: Given, namespace: str, image: str) -> None:
        super().__init__(root, cluster.kubeconfig, namespace, gateway=False)
        self.environments = ["cluster"]
        self.write_settings()
        files = {path.relative_to(SAMPLE).as_posix(): path.read_bytes() for path in SAMPLE.rglob("*") if path.is_file()}
        name, _, digest = image.encode().partition(b"@")
        (example,) = set(EXAMPLE.findall(files["environments/cluster/api.yaml"]))
        for path, data in files.items():
            real = EXAMPLE.sub(image.encode(), data)
            files[path] = real.replace(example, digest).replace(b"registry.example/hello", name.rpartition(b":")[0])
        self.files = files

    def answer(self) -> str:
        """What `notices` answers through its Service."""
        found = next(each["spec"] for each in self.list("v1/services") if each["metadata"]["name"] == "notices")
        with requests.Session() as session:
            session.trust_env = False
            return session.get(f"http://{found['clusterIP']}:{found['ports'][0]['port']}/", timeout=10).text


@pytest.fixture
def pinned(image: Callable[[str], str]) -> str:
    return image("1.0")


@pytest.fixture
def house(tmp_path: Path, cluster: Given, namespace: str, pinned: str, monkeypatch: pytest.MonkeyPatch) -> SampleHouse:
    monkeypatch.setenv("PATH", f"{kustomize.linked(tmp_path / 'tools')}:{os.environ['PATH']}")
    return SampleHouse(tmp_path, cluster, namespace, pinned)


def test_the_sample_runs_and_a_change_of_it_is_released_and_reverted(house: SampleHouse, pinned: str) -> None:
    with house.daemon() as daemon:
        daemon.synced(house.upstream.commit(house.files))
        assert house.images() == [pinned.replace(":1.0@", "@")] * 2
        eventually(lambda: house.answer().startswith("hello notices 1 "), during=requests.RequestException)

        edited = house.files[KUSTOMIZATION].replace(b"VERSION=notices 1", b"VERSION=notices 2")
        daemon.synced(house.upstream.commit({KUSTOMIZATION: edited}))
        eventually(lambda: house.answer().startswith("hello notices 2 "), during=requests.RequestException)

        daemon.synced(house.upstream.commit({KUSTOMIZATION: house.files[KUSTOMIZATION]}))
        eventually(lambda: house.answer().startswith("hello notices 1 "), during=requests.RequestException)
        assert daemon.stop() == 0
    assert house.command("audit", "verify").returncode == 0

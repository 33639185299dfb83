"""Plain manifests by the real program on a real cluster: a merge, a revert, a version that fails, hands, and deaths."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reconciler.core.kubernetes_labels import label
from reconciler.core.names import LABEL_SERVICE
from tests.e2e.running import PATIENCE
from tests.kube.house import KubeHouse
from tests.support import kustomize
from tests.support.cluster import Given, eventually
from tests.support.shop import Object, config, deployment, written

Image = Callable[[str], str]
HEAD = {"apiVersion": "reconciler.dev/v1", "kind": "Environment"}
FLUX = {"kustomize.toolkit.fluxcd.io/name": "apps", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"}


class Shop(KubeHouse):
    """A house whose one bundle, `shop`, is the directory apps/shop."""

    def merge(self, *objects: Object, deadline: str = "10m", **files: str) -> str:
        """Merge a version with these objects, and further files beside them; the revision."""
        place = f"environments/{self.namespace}"
        manifest = {
            "apiVersion": "reconciler.dev/v1",
            "kind": "Manifests",
            "metadata": {"name": "shop"},
            "spec": {"path": "apps/shop", "progressDeadline": deadline},
        }
        rest = {**manifest, "metadata": {"name": "rest"}, "spec": {"path": "apps/rest"}}
        written_files = {
            f"{place}/rest.yaml": json.dumps(rest).encode(),
            "apps/rest/all.yaml": written(config("rest")).encode(),
            f"{place}/environment.yaml": json.dumps({**HEAD, "metadata": {"name": self.namespace}}).encode(),
            f"{place}/shop.yaml": json.dumps(manifest).encode(),
            "apps/shop/all.yaml": written(*objects).encode(),
            **{f"apps/shop/{name}.yaml": text.encode() for name, text in files.items()},
        }
        return self.upstream.commit(written_files)

    def remove(self) -> str:
        """Merge its end; another bundle stays."""
        confirmed = "the shop closes\n\nReconciler-Confirm: removals\n"
        return self.upstream.commit({f"environments/{self.namespace}/shop.yaml": None}, subject=confirmed)

    def maps(self) -> dict[str, dict[str, str]]:
        """The data of the bundle's ConfigMaps by name."""
        mine = [each for each in self.list("v1/configmaps") if label(each, LABEL_SERVICE) == "shop"]
        named = {each["metadata"]["name"]: each.get("data", {}) for each in mine}
        return {name: data for name, data in named.items() if name != "shop-inventory"}

    def told(self) -> list[str]:
        said = self.command("audit", "list", "--json", "--limit", "500")
        return [str(record.get("entry", record)["what"]) for record in json.loads(said.stdout)]

    def status(self) -> dict[str, Any]:
        found = json.loads(self.command("status", "--json").stdout)[0]["plan"]["services"]
        return dict(found["shop"])


@pytest.fixture
def house(tmp_path: Path, cluster: Given, namespace: str) -> Shop:
    return Shop(tmp_path, cluster.kubeconfig, namespace, gateway=False)


def test_from_a_merge_over_a_revert_to_the_end(house: Shop, image: Image) -> None:
    first = (deployment("shop", image("1.0")), config("settings", size="1"), config("old", a="b"))
    second = (deployment("shop", image("2.0")), config("settings", size="2"), config("new", c="d"))
    with house.daemon() as daemon:
        daemon.synced(house.merge(*first))
        assert house.maps() == {"settings": {"size": "1"}, "old": {"a": "b"}}
        daemon.synced(house.merge(*second))
        assert house.maps() == {"settings": {"size": "2"}, "new": {"c": "d"}}
        assert house.images() == [image("2.0")]
        assert house.status()["health"] == "Healthy"

        daemon.synced(house.merge(*first))
        assert house.maps() == {"settings": {"size": "1"}, "old": {"a": "b"}}
        assert house.images() == [image("1.0")]

        daemon.synced(house.remove())
        assert house.maps() == {}
        assert house.images() == []
        assert daemon.stop() == 0
    told = house.told()
    assert (told.count("Promoted"), told.count("ServiceRemoved")) == (4, 1)
    assert house.command("audit", "verify").returncode == 0


def test_a_version_that_does_not_become_well_goes_back(house: Shop, image: Image) -> None:
    good = (deployment("shop", image("1.0")), config("settings", size="1"))
    bad = (deployment("shop", image("2.0"), port=9), config("settings", size="2"), config("more", c="d"))
    with house.daemon() as daemon:
        daemon.synced(house.merge(*good))
        house.merge(*bad, deadline="20s")
        daemon.log("reconciled", lambda line: "Quarantined" in line["services"].get("shop", ""))
        eventually(lambda: house.maps() == {"settings": {"size": "1"}} and house.images() == [image("1.0")])
        eventually(lambda: house.status()["health"] == "Healthy")
        assert daemon.stop() == 0
    assert "RolledBack" in house.told()


def test_what_hands_did_is_recorded_and_undone(house: Shop) -> None:
    with house.daemon() as daemon:
        daemon.synced(house.merge(config("settings", size="1"), config("more", a="b")))
        path = f"/api/v1/namespaces/{house.namespace}/configmaps"
        house.api.call("DELETE", f"{path}/more")
        eventually(lambda: "more" in house.maps())
        eventually(lambda: house.told().count("DriftRepaired") == 1)  # or both are one drift
        body = {"metadata": {"name": "settings"}, "data": {"size": "9"}}
        house.api.call("PATCH", f"{path}/settings", body=body, content_type="application/merge-patch+json")
        eventually(lambda: house.maps()["settings"] == {"size": "1"})
        eventually(lambda: house.told().count("DriftRepaired") == 2)
        assert daemon.stop() == 0


def test_a_kustomization_is_rendered_by_its_program(house: Shop, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", f"{kustomize.linked(tmp_path / 'tools')}:{os.environ['PATH']}")
    own = "resources: [all.yaml]\nnamePrefix: my-\nconfigMapGenerator: [{name: made, literals: [a=b]}]\n"
    with house.daemon() as daemon:
        daemon.synced(house.merge(config("settings", size="1"), kustomization=own))
        made, mine = sorted(house.maps())
        assert (mine, made.startswith("my-made-")) == ("my-settings", True)
        assert daemon.stop() == 0


DEATHS = ("apply", "apply:3", "adopt", "remove")
"""The calls around which the program dies: to the inventory first, then to the objects, and on the way out."""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_version_is_applied_to_the_end_after_a_death_around_each_call(house: Shop, image: Image, moment: str) -> None:
    with house.daemon() as daemon:
        daemon.synced(house.merge(config("one", a="0"), config("two", a="0"), config("gone", a="b"), config("old")))
    for number, call in enumerate(DEATHS, 1):
        name, _, nth = call.partition(":")
        moved = config(f"moved{number}", size="1")
        moved["metadata"] |= {"labels": FLUX, "namespace": house.namespace}
        path = f"/api/v1/namespaces/{house.namespace}/configmaps/moved{number}"
        house.api.apply(path, moved, manager="kustomize-controller")
        size = str(number)
        revision = house.merge(
            config("one", a=size), config("two", a=size), config(f"moved{number}", size=size), config(f"new{number}")
        )
        house.failpoint = f"kubernetes.{moment}_{name}:{nth or 1}"
        with house.daemon() as daemon:
            assert daemon.process.wait(PATIENCE) == -signal.SIGKILL, call
        house.failpoint = ""
        with house.daemon() as daemon:
            daemon.synced(revision)
        assert house.maps() == {
            "one": {"a": size},
            "two": {"a": size},
            f"moved{number}": {"size": size},
            f"new{number}": {},
        }, call
    assert house.command("audit", "verify").returncode == 0

"""The rights that deploy/kubernetes gives for plain manifests: enough for each kind in them, and none unused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client

from tests.kube import seen
from tests.kube.house import KubeHouse, in_force
from tests.support import kustomize
from tests.support.cluster import Given, eventually
from tests.support.shop import Object, config, deployment, job, written
from tools import cluster as tool

Image = Callable[[str], str]
Right = tuple[str, str, str]
ACCOUNT = "bundles"
HEAD = {"apiVersion": "reconciler.dev/v1"}


def rules(name: str) -> list[Any]:
    (role,) = [one for one in kustomize.rendered(f"kubernetes/{name}") if one["kind"] == "Role"]
    return list(role["rules"])


def granted(name: str) -> set[Right]:
    return {
        (g, r, v) for rule in rules(name) for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]
    }


class Rights(KubeHouse):
    """A house whose program has an account with the rights of some parts of deploy/kubernetes and no others."""

    def __init__(self, root: Path, cluster: Given, kube: client.ApiClient, namespace: str) -> None:
        self.rights = client.RbacAuthorizationV1Api(kube)
        core = client.CoreV1Api(kube)
        core.create_namespaced_service_account(namespace, {"metadata": {"name": ACCOUNT}})
        token = core.create_namespaced_service_account_token(ACCOUNT, namespace, {"spec": {}}).status.token
        found = yaml.safe_load(cluster.kubeconfig.read_text())
        found["users"] = [{"name": user["name"], "user": {"token": token}} for user in found["users"]]
        own = root / "kubeconfig"
        own.write_text(yaml.safe_dump(found))
        own.chmod(0o600)
        super().__init__(root, own, namespace, gateway=False)

    def give(self, *parts: str) -> None:
        """The rights of these directories of deploy/kubernetes."""
        for part in parts:
            self.allow(part, rules(part))

    def allow(self, name: str, allowed: list[dict[str, Any]]) -> None:
        """A Role of that name with these rules."""
        about = {"name": name}
        self.rights.create_namespaced_role(self.namespace, {"metadata": about, "rules": allowed})
        bound = {
            "metadata": about,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": self.namespace}],
        }
        self.rights.create_namespaced_role_binding(self.namespace, bound)
        in_force(self.rights.api_client, ACCOUNT, self.namespace, allowed)

    def merge(self, objects: Iterable[Object]) -> str:
        """Merge the bundles `shop`, with these objects, and `rest`; without any of them `rest` alone. The revision."""
        mine, place = list(objects), f"environments/{self.namespace}"
        files: dict[str, bytes | None] = {
            f"{place}/environment.yaml": _declared("Environment", self.namespace, {}),
            f"{place}/rest.yaml": _declared("Manifests", "rest", {"path": "apps/rest"}),
            "apps/rest/all.yaml": written(config("rest", a="b")).encode(),
            f"{place}/shop.yaml": _declared("Manifests", "shop", {"path": "apps/shop"}) if mine else None,
            "apps/shop/all.yaml": written(*mine).encode() if mine else None,
        }
        return self.upstream.commit(files)

    def status(self) -> dict[str, Any]:
        found = json.loads(self.command("status", "--json").stdout)[0]["plan"]["services"]
        return dict(found["shop"])


def _declared(kind: str, name: str, spec: object) -> bytes:
    return json.dumps({**HEAD, "kind": kind, "metadata": {"name": name}, "spec": spec}).encode()


@pytest.fixture
def house(tmp_path: Path, cluster: Given, kube: client.ApiClient, namespace: str) -> Rights:
    return Rights(tmp_path, cluster, kube, namespace)


def everything(image: str, release: str) -> list[Object]:
    """An object of each kind that the rights are for, and of some that services need, too."""
    shop = deployment("shop", image)
    pod, selector = shop["spec"]["template"], shop["spec"]["selector"]
    nowhere = {**pod, "spec": {**pod["spec"], "nodeSelector": {"dev.reconciler/test": "nowhere"}}}
    labels = {"app": "set"}
    own = {**pod, "metadata": {"labels": labels}}
    found = [
        shop,
        config("settings", size=release),
        job("once", 60, image),
        _object("v1", "Service", "shop", {"selector": selector["matchLabels"], "ports": [{"port": 8080}]}),
        _object("v1", "PersistentVolumeClaim", "data", CLAIM, {"reconciler.dev/prune": "true"}),
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "shop"}},
        _object("apps/v1", "DaemonSet", "agent", {"selector": selector, "template": nowhere}),
        _object(
            "apps/v1",
            "StatefulSet",
            "set",
            {"serviceName": "set", "selector": {"matchLabels": labels}, "template": own},
        ),
        _object(
            "batch/v1",
            "CronJob",
            "nightly",
            {"schedule": "0 3 * * *", "jobTemplate": {"spec": job("x", 60, image)["spec"]}},
        ),
        _object(
            "networking.k8s.io/v1",
            "Ingress",
            "shop",
            {"defaultBackend": {"service": {"name": "shop", "port": {"number": 8080}}}},
        ),
        _object("networking.k8s.io/v1", "NetworkPolicy", "shop", {"podSelector": selector, "policyTypes": ["Ingress"]}),
    ]
    for each in found:
        each["metadata"].setdefault("annotations", {})["example.com/release"] = release
    return found


CLAIM = {
    "accessModes": ["ReadWriteOnce"],
    "storageClassName": "nobody-makes-it",
    "resources": {"requests": {"storage": "1Gi"}},
}


def _object(version: str, kind: str, name: str, spec: Object, notes: dict[str, str] | None = None) -> Object:
    about = {"name": name, **({"annotations": notes} if notes else {})}
    return {"apiVersion": version, "kind": kind, "metadata": about, "spec": spec}


def used(own: tool.Cluster, namespace: str) -> tuple[set[Right], list[str]]:
    """What the account asked for in its namespace, and what was refused to it."""
    who, asked, refused = f"system:serviceaccount:{namespace}:{ACCOUNT}", set(), []
    for event in seen.events(own):
        target = event.get("objectRef") or {}
        if event["user"].get("username") != who or target.get("namespace") != namespace:
            continue
        if target["resource"] == "namespaces":  # the look at the namespace itself may be refused
            continue
        if event.get("responseStatus", {}).get("code") == 403:
            refused.append(f"{event['verb']} {target['resource']}")
        asked.add((target.get("apiGroup", ""), target["resource"], event["verb"]))
    return asked, refused


def test_each_kind_is_applied_followed_and_removed(house: Rights, own_cluster: tool.Cluster, image: Image) -> None:
    house.give("managed-namespace", "managed-bundles")
    with house.daemon() as daemon:
        daemon.synced(house.merge(everything(image("1.0"), "1")))
        daemon.synced(house.merge(everything(image("1.0"), "2")))
        assert house.status()["health"] == "Healthy"
        daemon.synced(house.merge([]))
        assert daemon.stop() == 0
    asked, refused = used(own_cluster, house.namespace)
    assert refused == []
    given = granted("managed-bundles")
    assert asked <= given | granted("managed-namespace")
    # An apply that makes an object is told as `patch`; the API asks for the right to create it as well.
    assert {verb for _, _, verb in given - asked} == {"create"}


@pytest.mark.parametrize(
    ("thing", "lacking"),
    [
        (config("settings", a="b"), "Allow patch on configmaps in a Role of namespace {}"),
        (
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "shop"}},
            "not allowed to get serviceaccounts",
        ),
    ],
    ids=["of-the-inventory", "of-a-kind"],
)
def test_without_them_it_says_which_is_lacking_and_goes_on_when_it_has_it(
    house: Rights, thing: Object, lacking: str
) -> None:
    house.give("managed-namespace")
    with house.daemon() as daemon:
        revision = house.merge([thing, config("other", c="d")])
        told = daemon.log("reconciled", lambda line: "Forbidden" in line.get("services", {}).get("shop", ""))
        assert lacking.format(house.namespace) in told["services"]["shop"]
        assert {each["metadata"]["name"] for each in house.list("v1/configmaps")} == {"kube-root-ca.crt"}
        house.give("managed-bundles")
        eventually(lambda: house.status()["sync"] == "Synced")
        daemon.synced(revision)
        assert daemon.stop() == 0


def test_nothing_is_applied_where_a_right_lacks_for_the_last_object(house: Rights, image: Image) -> None:
    house.give("managed-namespace")
    read = ["get", "list", "watch"]
    house.allow("maps", [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["patch"]}])
    house.allow("jobs", [{"apiGroups": ["batch"], "resources": ["jobs"], "verbs": read}])
    with house.daemon() as daemon:
        house.merge([config("first", c="d"), job("last", 30, image("1.0"))])
        told = daemon.log("reconciled", lambda line: "Forbidden" in line.get("services", {}).get("shop", ""))
        assert "not allowed to patch jobs.batch last" in told["services"]["shop"]
        assert "first" not in {each["metadata"]["name"] for each in house.list("v1/configmaps")}
        assert daemon.stop() == 0

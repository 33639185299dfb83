"""The daemon's image as pods of a real cluster, installed by deploy/kubernetes, with exactly the rights it gives."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from kubernetes import client

from tests.kube.installed import HOME, Installation, way
from tests.support import kustomize
from tests.support.cluster import Given, eventually
from tests.support.daemon_image import publish
from tests.support.database import Place
from tools import cluster as tool
from tools import database as server

Image = Callable[[str], str]
ACCOUNT = f"system:serviceaccount:{HOME}:reconciler"
OBJECTS = {("apps", "deployments"), ("", "services"), ("", "configmaps"), ("policy", "poddisruptionbudgets")}
SCALERS = ("autoscaling", "horizontalpodautoscalers")
ROUTES = ("gateway.networking.k8s.io", "httproutes")
NOT_IN_THE_STORY = {
    *((*ROUTES, verb) for verb in ("get", "list", "watch", "create", "patch", "delete")),  # needs a Gateway
    *((*SCALERS, verb) for verb in ("get", "create", "patch", "delete")),
    *((*one, "get") for one in OBJECTS),  # only where somebody else has the name
    ("", "secrets", "create"),  # the story has none
    ("", "pods/log", "get"),  # only of a version that fails
}
"""Rights that the test below does not use; the releases of the other tests do."""


@pytest.fixture(scope="module")
def published(engine: str, daemon_image: str, cluster: Given) -> str:
    return publish(engine, daemon_image, cluster.registry)


@pytest.fixture
def install(
    tmp_path: Path, cluster: Given, kube: client.ApiClient, namespace: str, published: str, raw: docker.APIClient
) -> Iterator[Callable[[str], Installation]]:
    made: list[Installation] = []
    tmp_path.chmod(0o755)

    def installation(overlay: str) -> Installation:
        (tmp_path / overlay).mkdir()
        made.append(Installation(tmp_path / overlay, cluster, kube, namespace, published, overlay))
        return made[-1]

    yield installation
    for one in made:
        one.uninstall()


def used(own: tool.Cluster, namespace: str) -> tuple[set[tuple[str, str, str]], list[str]]:
    """What the daemon asked for in its namespace as (group, resource, verb), and what was refused to it anywhere."""
    asked, refused = set(), []
    for line in own.audit.read_text().splitlines():
        event = json.loads(line)
        target = event.get("objectRef")
        if event["user"]["username"] != ACCOUNT or target is None:
            continue
        resource = "/".join(filter(None, (target["resource"], target.get("subresource"))))
        if event.get("responseStatus", {}).get("code") == 403:
            refused.append(f"{event['verb']} {resource} in {target.get('namespace')}")
        elif target.get("namespace") == namespace and resource != "namespaces":
            asked.add((target.get("apiGroup", ""), resource, event["verb"]))
    return asked, refused


def granted() -> set[tuple[str, str, str]]:
    (role,) = [one for one in kustomize.rendered("kubernetes/managed-namespace") if one["kind"] == "Role"]
    rules = role["rules"]
    return {
        (g, r, verb) for rule in rules for g in rule["apiGroups"] for r in rule["resources"] for verb in rule["verbs"]
    }


def digests(*images: str) -> list[str]:
    return sorted(image.partition("@")[2] for image in images)


def versions(daemon: Installation) -> list[str]:
    """Of what image each deployment of the namespace is."""
    return digests(*daemon.images())


def other(install: Installation, image: str, **spec: Any) -> str:
    """A commit with one more service, which has all that a service can have."""
    head = {"apiVersion": "reconciler.dev/v1", "kind": "Service", "metadata": {"name": "other"}}
    full = {
        "image": image,
        "replicas": 2,
        "security": {"user": "65532:65532"},
        "ports": [{"name": "http", "container": 8080}],
        "drain": {"deadline": "1s", "grace": "1s"},
        **spec,
    }
    name = f"environments/{install.environment}"
    return install.upstream.commit(
        {f"{name}/other.yaml": json.dumps({**head, "spec": full}).encode(), f"{name}/motd": b"hello\n"}
    )


def test_with_exactly_its_role_it_looks_after_a_namespace(
    install: Callable[[str], Installation], own_cluster: tool.Cluster, image: Image
) -> None:
    daemon = install("single")
    daemon.release(image("1.0"))
    files = [{"path": "/etc/motd", "source": "./motd"}]
    first = other(daemon, image("1.0"), files=files)
    daemon.install(daemon.daemon_settings(), {})
    daemon.ready(1)
    daemon.synced(first)
    second = daemon.release(image("2.0"))
    daemon.synced(second)
    assert versions(daemon) == digests(image("1.0"), image("2.0"))
    gone = daemon.upstream.commit({f"environments/{daemon.environment}/other.yaml": None})
    daemon.synced(gone)
    eventually(lambda: versions(daemon) == digests(image("2.0")))
    files_of = "v1/configmaps"
    eventually(lambda: {one["metadata"]["name"] for one in daemon.list(files_of)} == {"kube-root-ca.crt"})
    asked, refused = used(own_cluster, daemon.namespace)
    assert [what for what in refused if "namespaces" not in what] == []
    assert asked <= granted()
    assert granted() - asked <= NOT_IN_THE_STORY
    (pod,) = daemon.pods()
    assert daemon.asked(pod, "/readyz").status_code == 200
    assert "reconciler_service_info{" in daemon.asked(pod, "/metrics").text


def test_of_two_one_acts_and_the_other_takes_over(
    install: Callable[[str], Installation], own_cluster: tool.Cluster, image: Image, database: Place
) -> None:
    daemon = install("highly-available")
    first = daemon.release(image("1.0"))
    with way(own_cluster.machine, database.server.port) as port:
        journal = f"postgresql://{server.USER}@{own_cluster.machine}:{port}/{server.DATABASE}"
        settings = daemon.daemon_settings(journal=f"{journal}?schema={database.schema}&sslmode=disable")
        del settings["journalTls"]
        daemon.install(settings, {"journal-password": server.PASSWORD})
        daemon.ready(2)
        daemon.synced(first)
        (leader,) = daemon.leaders()
        lease = client.CoordinationV1Api(daemon.kube).read_namespaced_lease("reconciler", HOME)
        assert leader in lease.spec.holder_identity
        client.CoreV1Api(daemon.kube).delete_namespaced_pod(leader, HOME)
        second = daemon.release(image("2.0"))
        eventually(lambda: [name for name in daemon.leaders() if name != leader])
        daemon.synced(second)
        assert versions(daemon) == digests(image("2.0"))
        daemon.ready(2)
        assert len(daemon.leaders()) == 1

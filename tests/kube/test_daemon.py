"""The daemon's image as pods of a real cluster, installed by deploy/kubernetes, with exactly the rights it gives."""

from __future__ import annotations

import json
import os
import signal
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import docker
import pytest
from kubernetes import client

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.journal import SqlJournal
from reconciler.core.record import What
from reconciler.core.shards import shard_of
from reconciler.daemon import EXIT_NOT_LEADER
from tests.kube import seen
from tests.kube.installed import HOME, Installation, way
from tests.support import kustomize
from tests.support.cluster import DEADLINE, Given, eventually
from tests.support.daemon_image import publish
from tests.support.database import Place, Wire
from tools import cluster as tool
from tools import database as server

Image = Callable[[str], str]
LEADER = {"runtime": "here", "duration": "12s", "renew": "9s", "retry": "500ms"}
"""Nobody waits for long, and nobody loses it to a busy machine."""
ACCOUNT = f"system:serviceaccount:{HOME}:reconciler"
PODS = f"system:serviceaccounts:{HOME}"
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
    for event in seen.events(own):
        target = event.get("objectRef")
        if event["user"].get("username") != ACCOUNT or target is None:
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


def versions(daemon: Installation, environment: str = "") -> list[str]:
    """Of what image each deployment of the namespace is."""
    return digests(*daemon.images(environment=environment))


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
    eventually(lambda: granted() - used(own_cluster, daemon.namespace)[0] <= NOT_IN_THE_STORY)
    asked, refused = used(own_cluster, daemon.namespace)
    assert [what for what in refused if "namespaces" not in what] == []
    assert asked <= granted()
    (pod,) = daemon.pods()
    assert daemon.asked(pod, "/readyz").status_code == 200
    assert "reconciler_service_info{" in daemon.asked(pod, "/metrics").text


@pytest.fixture
def journal(own_cluster: tool.Cluster, database: Place, wire: Wire) -> Iterator[str]:
    """A journal in PostgreSQL, as pods reach it, by `wire`."""
    with way(own_cluster.machine, wire.port) as port:
        there = f"postgresql://{server.USER}@{own_cluster.machine}:{port}/{server.DATABASE}"
        yield f"{there}?schema={database.schema}&sslmode=disable"


def start(daemon: Installation, journal: str) -> None:
    settings = daemon.daemon_settings(journal=journal, leader=LEADER)
    del settings["journalTls"]
    daemon.install(settings, {"journal-password": server.PASSWORD})


def changed(daemon: Installation, own: tool.Cluster) -> list[seen.Change]:
    """What the daemon's pods changed in the namespace they look after."""
    return seen.changes(own, daemon.namespace, group=PODS)


def at_rest(database: Place) -> bool:
    """Whether the journal knows of no effect that is under way."""
    with closing(SqlJournal.open(database.url, SystemClock(), "a test", act=False)) as journal:
        told = Counter(record.entry.what for record in journal.records())
    return told[What.INTENT] == told[What.DONE] + told[What.FAILED]


def stand_still(daemon: Installation, own: tool.Cluster, database: Place, leader: str, image: str) -> str:
    """Stop the leader's program in the midst of a release, past its lease. The pod that leads then."""
    # The release goes no further until then: the leader is stopped while it waits, and not in a call.
    tool.pause(own, "controllers")
    try:
        revision = daemon.release(image)
        eventually(lambda: versions(daemon) == digests(image))
        eventually(lambda: at_rest(database))
        os.kill(daemon.program(leader), signal.SIGSTOP)
    finally:
        tool.resume(own, "controllers")
    (other,) = [pod.metadata.name for pod in daemon.pods() if pod.metadata.name != leader]
    daemon.said(other, event="leading")
    holder = daemon.said(other, event="lease won")["identity"]
    daemon.said(other, event="reconciled", result="synced", revision=revision[:12])
    before = len(changed(daemon, own))
    os.kill(daemon.program(leader), signal.SIGCONT)
    ended = eventually(lambda: daemon.ended(leader) or "acting no more" in daemon.events(leader))
    # Its step may end in what is left of the lease, which is nothing, or not.
    assert ended is True or ended.exit_code == EXIT_NOT_LEADER
    daemon.said(leader, event="standing by", leader=holder)
    daemon.ready(2)
    assert changed(daemon, own)[before:] == []
    return other


def lose_it_in_a_step(daemon: Installation, wire: Wire, leader: str, image: str) -> str:
    """Take the lease from a leader whose step hangs in the journal: it ends, and kubelet starts it again."""
    wire.at("client", b"commit", "hold")
    revision = daemon.release(image)
    assert wire.reached.wait(DEADLINE)
    lease = client.CoordinationV1Api(daemon.kube)
    lease.patch_namespaced_lease("reconciler", HOME, {"spec": {"holderIdentity": "somebody"}})
    ended = eventually(lambda: daemon.ended(leader))
    assert (ended.exit_code, ended.reason) == (EXIT_NOT_LEADER, "Error")
    wire.release()
    daemon.said(event="reconciled", result="synced", revision=revision[:12])
    daemon.ready(2)
    return daemon.leader()


def test_of_two_one_acts_and_the_other_takes_over(
    install: Callable[[str], Installation],
    own_cluster: tool.Cluster,
    image: Image,
    journal: str,
    database: Place,
    wire: Wire,
) -> None:
    """The leader stands still, loses its lease in the midst of a step, and is told to end, one after the other."""
    daemon = install("highly-available")
    revision = daemon.release(image("1.0"))
    start(daemon, journal)
    daemon.ready(2)
    daemon.synced(revision)
    first = daemon.leader()
    with daemon.holders() as holders:
        second = stand_still(daemon, own_cluster, database, first, image("2.0"))
        assert holders.known(2) == [first, second]
        third = lose_it_in_a_step(daemon, wire, second, image("1.0"))
        assert holders.known(4) == [first, second, "somebody", third]
        client.CoreV1Api(daemon.kube).delete_namespaced_pod(third, HOME)
        holders.known(6)
        last = daemon.release(image("2.0"))
        daemon.synced(last)
    assert holders.names[3:-1] == [third, ""], "it let go, and nobody had to wait"
    assert holders.names[-1] != third
    assert versions(daemon) == digests(image("2.0"))
    daemon.ready(2)
    assert daemon.leader() == holders.names[-1]
    order = iter(holders.names)
    acted = seen.turns(one.who for one in changed(daemon, own_cluster))
    assert all(name in order for name in acted), "nobody acted again after another had"
    assert acted[-1] == holders.names[-1]


@pytest.fixture
def shards(kube: client.ApiClient, namespace: str) -> Iterator[tuple[str, str]]:
    """Two namespaces, one for each of two shards."""
    mine = shard_of(namespace, 2)
    other = next(name for name in (f"t-{uuid.uuid4().hex[:12]}" for _ in range(100)) if shard_of(name, 2) != mine)
    core = client.CoreV1Api(kube)
    core.create_namespace({"metadata": {"name": other}})
    yield (other, namespace) if mine else (namespace, other)
    core.delete_namespace(other, grace_period_seconds=0)


def test_a_shard_looks_after_its_own_and_the_other_may_be_gone(
    install: Callable[[str], Installation],
    own_cluster: tool.Cluster,
    image: Image,
    journal: str,
    shards: tuple[str, str],
) -> None:
    daemon = install("sharded")
    daemon.environments[:] = shards
    first = [daemon.release(image("1.0"), name) for name in shards][-1]
    start(daemon, journal)
    daemon.ready(4)
    for name in shards:
        daemon.synced(first, name)
    daemon.scale("reconciler-1", 0)
    before = seen.changes(own_cluster, shards[1])
    second = [daemon.release(image("2.0"), name) for name in shards][-1]
    daemon.synced(second, shards[0])
    daemon.ready(2)
    assert versions(daemon, shards[0]) == digests(image("2.0"))
    assert versions(daemon, shards[1]) == digests(image("1.0"))
    assert seen.changes(own_cluster, shards[1]) == before
    daemon.scale("reconciler-1", 2)
    daemon.synced(second, shards[1])
    assert versions(daemon, shards[1]) == digests(image("2.0"))
    for index, name in enumerate(shards):
        acted = {one.who.rpartition("-")[0].rpartition("-")[0] for one in seen.changes(own_cluster, name, group=PODS)}
        assert acted == {f"reconciler-{index}"}

"""The cluster of the tests is a real one: pods, Services, controllers, admission, authorization, and what may break.

It proves the ground for the tests of the program; the program itself is not used here.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException

from tests.kube import seen
from tests.support import cluster as support
from tests.support.cluster import DEADLINE, eventually
from tools import cluster as tool
from tools import cluster_build, engine

Image = Callable[[str], str]


def _pod_spec(image: str, **more: object) -> dict[str, Any]:
    probe = {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1}
    container = {"name": "hello", "image": image, "readinessProbe": probe, **more}
    return {"containers": [container], "terminationGracePeriodSeconds": 2}


def _deployment(image: str, replicas: int = 2) -> dict[str, Any]:
    labels = {"app": "hello"}
    template = {"metadata": {"labels": labels}, "spec": _pod_spec(image)}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"metadata": {"name": "hello"}, "spec": spec}


def _service() -> dict[str, Any]:
    ports = [{"port": 80, "targetPort": 8080}]
    return {"metadata": {"name": "hello"}, "spec": {"selector": {"app": "hello"}, "ports": ports}}


def _rolled_out(kube: client.ApiClient, namespace: str, replicas: int) -> None:
    def done() -> bool:
        it = client.AppsV1Api(kube).read_namespaced_deployment("hello", namespace)
        counts = (it.status.ready_replicas, it.status.updated_replicas, it.status.replicas)
        return it.status.observed_generation == it.metadata.generation and counts == (replicas,) * 3

    eventually(done)


def _said(address: str) -> str:
    with requests.Session() as session:
        session.trust_env = False
        return session.get(f"http://{address}/", timeout=5, headers={"Connection": "close"}).text


def _authority(running: tool.Cluster) -> str:
    return str(running.directory / "pki" / "ca.crt")


def test_a_deployment_serves_behind_its_service_and_rolls(kube: client.ApiClient, namespace: str, image: Image) -> None:
    core, apps = client.CoreV1Api(kube), client.AppsV1Api(kube)
    apps.create_namespaced_deployment(namespace, _deployment(image("1.0")))
    address = core.create_namespaced_service(namespace, _service()).spec.cluster_ip
    _rolled_out(kube, namespace, 2)
    eventually(lambda: _said(address).startswith("hello 1.0 "), during=requests.ConnectionError)
    asked = _pod_spec(image("1.0"), command=["/hello", "get", address, "80", "/", "3"])
    core.create_namespaced_pod(namespace, {"metadata": {"name": "asks"}, "spec": {**asked, "restartPolicy": "Never"}})
    eventually(lambda: core.read_namespaced_pod("asks", namespace).status.phase == "Succeeded")
    assert core.read_namespaced_pod_log("asks", namespace).endswith("3 answered, 0 failed\n")
    # Nothing drains here: who asks from now on may ask a pod that has ended.
    apps.patch_namespaced_deployment("hello", namespace, _deployment(image("2.0")))
    _rolled_out(kube, namespace, 2)
    eventually(lambda: all(_said(address).startswith("hello 2.0 ") for _ in range(4)), during=requests.ConnectionError)


def test_a_pod_finds_a_service_by_its_name(kube: client.ApiClient, namespace: str, image: Image) -> None:
    core = client.CoreV1Api(kube)
    core.create_namespaced_pod(
        namespace, {"metadata": {"name": "hello", "labels": {"app": "hello"}}, "spec": _pod_spec(image("1.0"))}
    )
    core.create_namespaced_service(namespace, _service())
    command = ["/hello", "get", f"hello.{namespace}.svc.cluster.local", "80", "/", "1"]
    spec = {**_pod_spec(image("1.0"), command=command), "restartPolicy": "OnFailure"}
    core.create_namespaced_pod(namespace, {"metadata": {"name": "asks"}, "spec": spec})
    eventually(lambda: core.read_namespaced_pod("asks", namespace).status.phase == "Succeeded")


def test_the_api_server_comes_back_and_a_watch_after_it_works(
    own_cluster: tool.Cluster, kube: client.ApiClient, namespace: str
) -> None:
    core = client.CoreV1Api(kube)
    core.create_namespaced_config_map(namespace, {"metadata": {"name": "before"}})
    tool.kill(own_cluster, "apiserver")
    try:
        with pytest.raises(requests.ConnectionError):
            requests.get(own_cluster.server, timeout=5, verify=_authority(own_cluster))
    finally:
        tool.start(own_cluster, "apiserver")
    seen: list[str] = []
    both = threading.Event()

    def look() -> None:
        for event in watch.Watch().stream(core.list_namespaced_config_map, namespace, timeout_seconds=int(DEADLINE)):
            seen.append(event["object"].metadata.name)
            if {"before", "after"} <= set(seen):
                both.set()
                return

    looking = threading.Thread(target=look)
    looking.start()
    core.create_namespaced_config_map(namespace, {"metadata": {"name": "after"}})
    looking.join()
    assert both.is_set(), seen
    assert set(own_cluster.states().values()) == {"runs"}


def test_a_paused_api_server_answers_nothing_until_it_is_resumed(own_cluster: tool.Cluster) -> None:
    tool.pause(own_cluster, "apiserver")
    try:
        with pytest.raises(requests.ReadTimeout):
            requests.get(f"{own_cluster.server}/readyz", timeout=(1, 1), verify=_authority(own_cluster))
    finally:
        tool.resume(own_cluster, "apiserver")
    assert requests.get(f"{own_cluster.server}/readyz", timeout=DEADLINE, verify=_authority(own_cluster)).text == "ok"


def test_a_node_whose_kubelet_is_gone_is_not_ready_until_it_is_back(
    own_cluster: tool.Cluster, kube: client.ApiClient
) -> None:
    def ready() -> str:
        node = client.CoreV1Api(kube).read_node(own_cluster.node)
        return next(one.status for one in node.status.conditions if one.type == "Ready")

    tool.kill(own_cluster, "controllers")
    tool.start(own_cluster, "controllers", "--node-monitor-grace-period=5s")
    tool.stop(own_cluster, "kubelet")
    try:
        eventually(lambda: ready() == "Unknown")
    finally:
        tool.start(own_cluster, "kubelet")
        tool.kill(own_cluster, "controllers")
        tool.start(own_cluster, "controllers")
    eventually(lambda: ready() == "True")


def _as_account(kube: client.ApiClient, namespace: str, account: str) -> client.ApiClient:
    """A client with a token of the service account, as a pod would have."""
    asked = client.CoreV1Api(kube).create_namespaced_service_account_token(account, namespace, {"spec": {}})
    configuration = client.Configuration()
    configuration.host, configuration.ssl_ca_cert = kube.configuration.host, kube.configuration.ssl_ca_cert
    configuration.api_key["authorization"] = f"Bearer {asked.status.token}"
    return client.ApiClient(configuration)


def test_an_account_may_do_what_its_role_says_and_nothing_more(kube: client.ApiClient, namespace: str) -> None:
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]
    rights = client.RbacAuthorizationV1Api(kube)
    rights.create_namespaced_role(namespace, {"metadata": {"name": "reads"}, "rules": rules})
    subject = {"kind": "ServiceAccount", "name": "default", "namespace": namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reads"}
    binding = {"metadata": {"name": "reads"}, "roleRef": role, "subjects": [subject]}
    rights.create_namespaced_role_binding(namespace, binding)
    with _as_account(kube, namespace, "default") as account:
        core = client.CoreV1Api(account)
        eventually(lambda: core.list_namespaced_config_map(namespace).items, during=ApiException)
        with pytest.raises(ApiException) as refused:
            core.list_namespaced_secret(namespace)
    assert refused.value.status == 403
    assert "cannot list resource" in refused.value.body


def test_a_quota_and_pod_security_refuse_pods(kube: client.ApiClient, namespace: str) -> None:
    core = client.CoreV1Api(kube)
    core.patch_namespace(namespace, {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}})
    core.create_namespaced_resource_quota(namespace, {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}})
    eventually(lambda: core.read_namespaced_resource_quota("none", namespace).status.hard)

    def answer(**more: object) -> str:
        """What the API says to a pod that it would make, or not."""
        pod = {"metadata": {"name": "x"}, "spec": _pod_spec("x", **more)}
        try:
            core.create_namespaced_pod(namespace, pod, dry_run="All")
        except ApiException as refused:
            return f"{refused.status} {refused.body}"
        return "made"

    # Who refuses hears of a label, and of what a quota counts, a little after the API has them.
    for more, said in (({}, "exceeded quota"), ({"securityContext": {"privileged": True}}, "violates PodSecurity")):
        eventually(lambda more=more, said=said: (told := answer(**more)).startswith("403 ") and said in told)


def test_an_eviction_is_answered_by_the_disruption_budget(kube: client.ApiClient, namespace: str, image: Image) -> None:
    core = client.CoreV1Api(kube)
    client.AppsV1Api(kube).create_namespaced_deployment(namespace, _deployment(image("1.0"), replicas=1))
    budget = {"minAvailable": 1, "selector": {"matchLabels": {"app": "hello"}}}
    policy = client.PolicyV1Api(kube)
    policy.create_namespaced_pod_disruption_budget(namespace, {"metadata": {"name": "hello"}, "spec": budget})
    _rolled_out(kube, namespace, 1)
    eventually(lambda: policy.read_namespaced_pod_disruption_budget("hello", namespace).status.current_healthy == 1)
    pod = core.list_namespaced_pod(namespace).items[0].metadata.name
    with pytest.raises(ApiException) as refused:
        core.create_namespaced_pod_eviction(pod, namespace, {"metadata": {"name": pod}})
    assert refused.value.status == 429
    assert "disruption budget" in refused.value.body


def test_the_autoscaler_looks_and_says_that_it_has_no_figures(kube: client.ApiClient, namespace: str) -> None:
    client.AppsV1Api(kube).create_namespaced_deployment(namespace, _deployment("unused", replicas=0))
    scaling = client.AutoscalingV2Api(kube)
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "hello"}
    spec = {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 3}
    scaling.create_namespaced_horizontal_pod_autoscaler(namespace, {"metadata": {"name": "hello"}, "spec": spec})
    eventually(lambda: scaling.read_namespaced_horizontal_pod_autoscaler("hello", namespace).status.conditions)


def test_the_gateway_api_can_be_installed(kube: client.ApiClient, namespace: str, gateway_api: None) -> None:
    weights = [{"name": "one", "port": 80, "weight": 90}, {"name": "two", "port": 80, "weight": 10}]
    route = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "hello"},
        "spec": {"parentRefs": [{"name": "gate"}], "rules": [{"backendRefs": weights}]},
    }
    custom = client.CustomObjectsApi(kube)
    place = ("gateway.networking.k8s.io", "v1", namespace, "httproutes")
    made = custom.create_namespaced_custom_object(*place, route)
    assert [one["weight"] for one in made["spec"]["rules"][0]["backendRefs"]] == [90, 10]
    route["spec"]["rules"][0]["backendRefs"][0]["weight"] = -1
    with pytest.raises(ApiException) as refused:
        custom.create_namespaced_custom_object(*place, {**route, "metadata": {"name": "wrong"}})
    assert refused.value.status == 422
    assert len(cluster_build.gateway_definitions()) >= 3


def test_calls_to_the_api_can_be_counted(own_cluster: tool.Cluster, kube: client.ApiClient, namespace: str) -> None:
    client.CoreV1Api(kube).list_namespaced_config_map(namespace)

    def calls() -> list[str]:
        return [
            one["verb"] for one in seen.events(own_cluster) if one.get("objectRef", {}).get("namespace") == namespace
        ]

    eventually(lambda: "list" in calls())


def _left(running: tool.Cluster) -> list[str]:
    """What of a cluster can be seen on this machine beside its directory."""
    programs = [words for words in engine.command_lines() if os.fsencode(running.directory) in words]
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(running.directory) in line]
    groups = [*Path("/sys/fs/cgroup").glob(running.plan.name), *Path("/sys/fs/cgroup").glob(f"*/{running.plan.name}")]
    link = Path("/sys/class/net") / running.plan.name
    return [*map(repr, programs), *mounts, *map(str, groups), *([str(link)] if link.exists() else [])]


def test_the_cluster_of_a_killed_run_is_ended_by_the_next_and_leaves_nothing(
    cluster: support.Given, image: Image
) -> None:
    """A second cluster beside the first, with a pod in it, as its run left it when it was killed."""
    with tempfile.TemporaryDirectory() as home:
        directory = Path(home) / f"{support.PREFIX}dead"
        running = tool.up(directory, registry=cluster.registry)
        try:
            users = directory.with_suffix(".users")
            users.write_text("1 0\n")  # who started it is not there any more
            with config.new_client_from_config(config_file=str(running.kubeconfig)) as api:
                core = client.CoreV1Api(api)
                core.create_namespaced_pod("default", {"metadata": {"name": "hello"}, "spec": _pod_spec(image("1.0"))})
                eventually(lambda: core.read_namespaced_pod("hello", "default").status.phase == "Running")
            assert len(_left(running)) > 5
            assert tool.up(directory, registry=cluster.registry) == running
            support.end_forgotten(Path(home), Path(home) / "mine")
            assert _left(running) == []
            assert list(Path(home).iterdir()) == []
        finally:
            tool.down(directory)
    assert cluster.own is None or set(cluster.own.states().values()) == {"runs"}


def test_the_room_keeps_this_machine_as_it_is(own_cluster: tool.Cluster) -> None:
    """Mounts, packet filter and settings of the kernel that a node needs are the room's own."""
    held = (own_cluster.directory / "hold.pid").read_text()
    for kind in ("net", "mnt", "pid"):
        assert Path(f"/proc/{held}/ns/{kind}").readlink() != Path(f"/proc/self/ns/{kind}").readlink()
    assert str(own_cluster.directory) not in Path("/proc/self/mounts").read_text()
    assert not Path("/run/netns").exists() or not list(Path("/run/netns").glob("cni-*"))


def test_without_go_and_without_a_binary_it_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert cluster_build.missing() == ""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    old = tmp_path / "go"
    old.write_text("#!/bin/sh\necho go1.21.0\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert "is needed to build the cluster of the tests, and here is go1.21.0" in cluster_build.missing()
    with pytest.raises(SystemExit, match="RECONCILER_TEST_KUBECONFIG"):
        cluster_build.binary()

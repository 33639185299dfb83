"""The settings of Kubernetes clusters, namespaces and Gateways: values, what follows from them, and every mistake."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from reconciler import settings
from reconciler.core.errors import Rejected
from reconciler.core.policy import Allow
from reconciler.settings import DockerSettings, EnvironmentSettings, GatewaySettings, KubernetesSettings

HERE = Path("/etc/rec")
BY_FILE = "kubernetes: {kubeconfig: kube}"
EITHER = "a runtime is either docker or kubernetes; write exactly one of them"
REACHED = "a cluster is reached either by kubeconfig, with context and runPlugins, or by inCluster: true alone"


def parse(*environments: str, cluster: str = BY_FILE, more: str = "") -> settings.Settings:
    """Settings with environments a, b, …, which run on the runtime `kube` unless they say where."""
    lines = [f"{{repository: fleet, runtime: kube, {text}}}" for text in environments or ("",)]
    lines = [line.replace("runtime: kube, runtime:", "runtime:") for line in lines]
    text = f"""data: data
repositories: {{fleet: {{url: "https://git.test/fleet.git"}}}}
runtimes: {{kube: {{{cluster}}}, local: {{docker: {{}}}}{more}}}
environments: {{{", ".join(f"{name}: {line}" for name, line in zip("abcdefgh", lines, strict=False))}}}
"""
    return settings.parse(text.encode(), HERE / "settings.yaml")


def problems(*environments: str, cluster: str = BY_FILE, more: str = "") -> list[str]:
    with pytest.raises(Rejected) as caught:
        parse(*environments, cluster=cluster, more=more)
    return [line.removeprefix("/etc/rec/settings.yaml:") for line in str(caught.value).splitlines()]


@pytest.mark.parametrize(
    ("text", "expected", "address"),
    [
        ("{kubeconfig: kube}", KubernetesSettings("kube", HERE / "kube"), "/etc/rec/kube"),
        (
            "{kubeconfig: /k, context: 'arn:aws:eks:eu-1:12:cluster/x', inCluster: false, runPlugins: true, "
            "timeout: 5s, relist: 1h, requests: 50}",
            KubernetesSettings(
                "kube",
                Path("/k"),
                "arn:aws:eks:eu-1:12:cluster/x",
                run_plugins=True,
                timeout=timedelta(seconds=5),
                relist=timedelta(hours=1),
                requests=50,
            ),
            "context arn:aws:eks:eu-1:12:cluster/x of /k",
        ),
        (
            "{inCluster: true, requests: 9}",
            KubernetesSettings("kube", in_cluster=True, requests=9),
            "the cluster that Reconciler runs in",
        ),
    ],
)
def test_a_cluster_has_its_values(text: str, expected: KubernetesSettings, address: str):
    found = parse(cluster=f"kubernetes: {text}").runtimes["kube"]
    assert found == expected
    assert found.address == address


def test_an_environment_on_a_cluster_has_a_namespace_and_a_gateway():
    one, other, docker = parse(
        "", "namespace: shop, gateway: {name: public, namespace: gates, section: https}", "runtime: local"
    ).environments.values()
    assert one == EnvironmentSettings(
        "a", "fleet", "kube", "environments/a", allow=Allow(native=True, namespace="a"), namespace="a", gateway=None
    )
    assert (other.namespace, other.gateway) == ("shop", GatewaySettings("public", "gates", "https"))
    assert other.allow == Allow(native=True, gateway=True, namespace="shop")
    assert (docker.namespace, docker.allow) == ("", Allow())
    assert parse("gateway: {name: public}").environments["a"].gateway == GatewaySettings("public")


def test_an_engine_says_where_it_is():
    assert DockerSettings("local").address == "unix:///var/run/docker.sock"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [f"3:18: {EITHER}"]),
        ("docker: {}, kubernetes: {kubeconfig: kube}", [f"3:18: {EITHER}"]),
        ("kubernetes: {}", [f"3:31: {REACHED}"]),
        ("kubernetes: {inCluster: false}", [f"3:31: {REACHED}"]),
        ("kubernetes: {kubeconfig: kube, inCluster: true}", [f"3:31: {REACHED}"]),
        ("kubernetes: {inCluster: true, context: x}", [f"3:31: {REACHED}"]),
        ("kubernetes: {inCluster: true, runPlugins: false}", [f"3:31: {REACHED}"]),
        ("kubernetes: {kubeconfig: ~/kube}", ['3:44: "~/kube" is not valid here: write the path as it is']),
        ("kubernetes: {kubeconfig: k, context: ' x'}", ['3:56: " x" is not valid here: write the name of a context']),
        ("kubernetes: {kubeconfig: k, timeout: 1ms}", ['3:56: "1ms" is too small; at least 1s']),
        ("kubernetes: {kubeconfig: k, requests: 0}", ["3:57: 0 is too small; at least 1"]),
        ("kubernetes: {kubeconfig: k, host: x}", ['3:47: unknown field "host"']),
    ],
)
def test_a_mistake_in_a_cluster_is_named_with_its_place(text: str, expected: list[str]):
    found = problems(cluster=text)
    assert len(found) == len(expected), found
    for line, beginning in zip(found, expected, strict=True):
        assert line.startswith(beginning)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ("namespace: Shop", '"Shop" is not valid here: a namespace has at most 63 lower-case letters'),
        ("gateway: {}", 'missing field "name" in gateway; add it'),
        ("gateway: {name: a_b}", '"a_b" is not valid here: write the name of a Gateway'),
        ("gateway: {name: a, section: ''}", '"" is not valid here: write the name of a listener'),
        (
            "proxy: {image: h, http: '127.0.0.1:80'}",
            "proxy goes with a docker runtime only; remove it (on Kubernetes: gateway)",
        ),
        ("allow: {hostPorts: ['80']}", "host ports go with a docker runtime only; remove it"),
        ("runtime: local, namespace: x", "namespace goes with a kubernetes runtime only; remove it or change runtime"),
        ("runtime: local, gateway: {name: x}", "gateway goes with a kubernetes runtime only; remove it or change"),
    ],
)
def test_what_does_not_go_with_the_engine_is_refused(environment: str, expected: str):
    (found,) = problems(environment)
    assert found.startswith("4:")
    assert found.partition(": ")[2].startswith(expected)


def test_nothing_more_is_said_of_an_engine_that_is_wrong_itself():
    assert len(problems("namespace: x", "namespace: x", cluster="kubernetes: {}")) == 1
    assert len(problems("runtime: five, namespace: x", more=", five: {podman: {}}")) == 2


OTHER = ", same: {kubernetes: {kubeconfig: ./kube}}, context: {kubernetes: {kubeconfig: kube, context: x}}"
INSIDE = ", in: {kubernetes: {inCluster: true}}, in2: {kubernetes: {inCluster: true, requests: 5}}"


@pytest.mark.parametrize(
    ("environments", "expected"),
    [
        (("", "namespace: b"), []),
        (("namespace: x", "runtime: context, namespace: x"), []),
        (("namespace: x", "runtime: in, namespace: x"), []),
        (
            ("", "namespace: a"),
            [
                "4:48: namespace a of this cluster is also that of b; give each its own (namespace)",
                "4:106: namespace a of this cluster is also that of a; give each its own (namespace)",
            ],
        ),
        (
            ("namespace: x", "runtime: same, namespace: x", "namespace: x"),
            [
                "4:65: namespace x of this cluster is also that of b, c; give each its own (namespace)",
                "4:118: namespace x of this cluster is also that of a, c; give each its own (namespace)",
                "4:171: namespace x of this cluster is also that of a, b; give each its own (namespace)",
            ],
        ),
        (
            ("runtime: in, namespace: x", "runtime: in2, namespace: x"),
            [
                "4:63: namespace x of this cluster is also that of b; give each its own (namespace)",
                "4:115: namespace x of this cluster is also that of a; give each its own (namespace)",
            ],
        ),
    ],
)
def test_two_environments_do_not_share_a_namespace_of_one_cluster(environments: tuple[str, ...], expected: list[str]):
    if expected:
        assert problems(*environments, more=OTHER + INSIDE) == expected
    else:
        assert len(parse(*environments, more=OTHER + INSIDE).environments) == len(environments)


def test_programs_out_of_a_kubeconfig_are_warned_of():
    assert parse().warnings == ()
    assert parse(cluster="kubernetes: {kubeconfig: k, runPlugins: true}").warnings == (
        "runtime kube: runPlugins runs what the kubeconfig says, as this user; prefer a token in it",
    )

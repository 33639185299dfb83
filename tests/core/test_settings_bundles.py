"""What the operator allows plain manifests, as it stands in the settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.core.errors import Rejected
from reconciler.settings import parse

TEXT = """data: /var/lib/rec
repositories: {{fleet: {{url: "https://git.example/fleet.git"}}}}
runtimes: {{engine: {{docker: {{}}}}, cluster: {{kubernetes: {{kubeconfig: kube}}}}}}
environments:
  prod: {{repository: fleet, runtime: {}}}
"""


def read(environment: str):
    return parse(TEXT.format(environment).encode(), Path("/etc/rec/settings.yaml")).environments["prod"].allow


@pytest.mark.parametrize(
    ("environment", "namespace", "namespaces", "cluster_scoped"),
    [
        ("cluster", "prod", (), False),
        ("cluster, namespace: shop", "shop", (), False),
        ("cluster, allow: {namespaces: [a, b-c], clusterScoped: true}", "prod", ("a", "b-c"), True),
        ("engine", "", (), False),
    ],
)
def test_where_objects_may_lie(environment, namespace, namespaces, cluster_scoped):
    found = read(environment)
    assert (found.namespace, found.namespaces, found.cluster_scoped) == (namespace, namespaces, cluster_scoped)


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        (
            "engine, allow: {namespaces: []}",
            "namespaces goes with a kubernetes runtime only; remove it or change runtime",
        ),
        ("engine, allow: {clusterScoped: false}", "clusterScoped goes with a kubernetes runtime only"),
        ("cluster, allow: {namespaces: [A]}", "a namespace has at most 63 lower-case letters, digits and hyphens"),
    ],
)
def test_what_is_wrong_is_said(environment, problem):
    with pytest.raises(Rejected) as caught:
        read(environment)
    assert problem in str(caught.value)

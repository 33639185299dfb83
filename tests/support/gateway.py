"""A real Gateway before the services of one namespace: `tests/kube/gateway`, a program on loopback of this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from tests.support.cluster import Given, eventually, install_definitions
from tools import gateway

GROUP = "gateway.networking.k8s.io"
Json = dict[str, Any]


@dataclass(frozen=True)
class Front:
    """The Gateway `front` of a namespace, which the program at `address` serves as soon as it is there."""

    kube: client.ApiClient
    namespace: str
    address: tuple[str, int]

    def make(self, hostname: str = "*.example") -> None:
        """Make the Gateway with one listener for these hosts, and wait until it is served."""
        spec = {"gatewayClassName": self.namespace, "listeners": _listeners(hostname)}
        body = {"apiVersion": f"{GROUP}/v1", "kind": "Gateway", "metadata": {"name": "front"}, "spec": spec}
        self._objects.create_namespaced_custom_object(GROUP, "v1", self.namespace, "gateways", body)
        eventually(self._programmed)

    def listen(self, hostname: str) -> None:
        """Change for which hosts it listens."""
        patch = {"spec": {"listeners": _listeners(hostname)}}
        self._objects.patch_namespaced_custom_object(GROUP, "v1", self.namespace, "gateways", "front", patch)

    def weights(self, service: str = "web") -> dict[str, int]:
        """What the HTTPRoute of a service declares."""
        route = self._objects.get_namespaced_custom_object(GROUP, "v1", self.namespace, "httproutes", service)
        return {each["name"]: each["weight"] for each in route["spec"]["rules"][0]["backendRefs"]}

    @property
    def _objects(self) -> client.CustomObjectsApi:
        return client.CustomObjectsApi(self.kube)

    def _programmed(self) -> bool:
        found = self._objects.get_namespaced_custom_object(GROUP, "v1", self.namespace, "gateways", "front")
        conditions = found.get("status", {}).get("conditions", [])
        return any(each["type"] == "Programmed" and each["status"] == "True" for each in conditions)


def _listeners(hostname: str) -> list[Json]:
    return [{"name": "web", "protocol": "HTTP", "port": gateway.PORT, "hostname": hostname}]


@pytest.fixture
def front(cluster: Given, kube: client.ApiClient, namespace: str, gateway_api: None, tmp_path: Path) -> Iterator[Front]:
    """The program and its GatewayClass, both for one namespace only; the Gateway is the test's to make."""
    install_definitions(kube, gateway.definitions())
    marks = {"reconciler-test": namespace}
    body = {
        "apiVersion": f"{GROUP}/v1",
        "kind": "GatewayClass",
        "metadata": {"name": namespace, "labels": marks},
        "spec": {"controllerName": gateway.CONTROLLER},
    }
    objects = client.CustomObjectsApi(kube)
    objects.create_cluster_custom_object(GROUP, "v1", "gatewayclasses", body)
    chosen = ",".join(f"{key}={value}" for key, value in marks.items())
    try:
        with gateway.running(cluster.kubeconfig, namespace, chosen, tmp_path / "gateway.log") as address:
            host, _, port = address.rpartition(":")
            yield Front(kube, namespace, (host, int(port)))
    finally:
        with contextlib.suppress(ApiException):
            objects.delete_cluster_custom_object(GROUP, "v1", "gatewayclasses", namespace)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the program before the first test begins: a build takes longer than any test may."""
    if session.config.option.collectonly or gateway.missing():
        return
    if any("front" in getattr(item, "fixturenames", ()) for item in session.items):
        gateway.program()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs it where it cannot be had, and say so from one place."""
    if "front" in getattr(item, "fixturenames", ()) and gateway.missing():
        pytest.skip(gateway.missing())

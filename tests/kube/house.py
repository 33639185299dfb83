"""The real program on a real cluster: one namespace, one repository, and clients that ask through kube-proxy."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kubernetes import client

from bench import load
from reconciler.adapters.kubernetes_client import Api
from reconciler.settings import KubernetesSettings
from tests.e2e.running import PATIENCE, House
from tests.support.cluster import eventually

HOST = "web.example"


def in_force(kube: client.ApiClient, account: str, namespace: str, rules: Iterable[Mapping[str, Any]]) -> None:
    """Wait until the API lets a service account of a namespace do the last thing of each rule.

    Who decides that hears of a Role, and of its binding, a little after they were made.
    """
    reviews = client.AuthorizationV1Api(kube)
    for rule in rules:
        resource, _, part = rule["resources"][-1].partition("/")
        asked = {"group": rule["apiGroups"][-1], "resource": resource, "subresource": part, "verb": rule["verbs"][-1]}
        about = {**asked, "namespace": namespace, "name": rule.get("resourceNames", [""])[-1]}
        spec = {"user": f"system:serviceaccount:{namespace}:{account}", "resourceAttributes": about}
        eventually(lambda spec=spec: reviews.create_subject_access_review({"spec": spec}).status.allowed)


class KubeHouse(House):
    """A house whose one environment is the namespace `environment` of a cluster."""

    def __init__(self, root: Path, kubeconfig: Path, namespace: str, *, gateway: bool) -> None:
        self.kubeconfig = kubeconfig
        self.namespace = namespace
        self.gateway = gateway
        self.failpoint = ""
        self.prometheus = ""
        self.api = Api(KubernetesSettings("test", kubeconfig=kubeconfig))
        super().__init__(root, "")
        self.environments = [namespace]
        self.write_settings()

    def write_settings(self, extra: str = "") -> None:
        more = ", gateway: {name: front}" if self.gateway else ""
        more += f', prometheus: {{url: "{self.prometheus}"}}' if self.prometheus else ""
        lines = [
            f"name: {self.owner}",
            "data: data",
            'http: {listen: "127.0.0.1:0"}',
            f'repositories: {{fleet: {{url: "file://{self.upstream.path}", allowFile: true, poll: 30s}}}}',
            f'runtimes: {{cluster: {{kubernetes: {{kubeconfig: "{self.kubeconfig}"}}}}}}',
            "environments:",
            *(
                f"  {name}: {{repository: fleet, runtime: cluster, namespace: {self.namespace}{more}}}"
                for name in self.environments
            ),
            extra,
        ]
        self.settings.write_text("\n".join(lines) + "\n")

    def release(self, image: str, environment: str = "", **spec: object) -> str:
        """Merge a version of `web` that Pod Security "restricted" takes; the revision."""
        plain: dict[str, Any] = {
            "security": {"user": "65532:65532"},
            "health": {"http": {"port": "http", "path": "/healthz"}, "interval": "1s", "healthyAfter": 1},
            "drain": {"deadline": "10s", "grace": "5s"},  # kube-proxy may take that long to lead no more requests here
        }
        return super().release(image, environment, **{**plain, **spec})

    def variables(self, **more: str) -> dict[str, str]:
        """With the failpoint, where one is set."""
        return super().variables(**({"RECONCILER_FAILPOINT": self.failpoint} if self.failpoint else {}), **more)

    def list(self, kind: str) -> list[dict[str, Any]]:
        """All objects of a kind (`apps/v1/deployments`, `v1/pods`) in the namespace."""
        group, _, plural = kind.rpartition("/")
        path = f"/{'apis' if '/' in group else 'api'}/{group}/namespaces/{self.namespace}/{plural}"
        found: list[dict[str, Any]] = self.api.call("GET", path)["items"]
        return found

    def address(self) -> tuple[str, int]:
        """Where kube-proxy leads requests for the service."""
        spec = next(each["spec"] for each in self.list("v1/services") if each["metadata"]["name"] == "web")
        return spec["clusterIP"], spec["ports"][0]["port"]

    @contextmanager
    def asked(self) -> Iterator[load.LoadThread]:
        """Clients that never retry, before the block and a little after it; none of their requests failed."""
        eventually(self._answers, during=OSError)  # kube-proxy learns of a new Service a little later
        kinds = [load.new_connection(4, 25), load.keep_alive(2, 25), load.slow(2, 300)]
        with load.LoadThread(load.Load(self.address(), HOST, *kinds)) as running:
            running.reached(100, PATIENCE)
            yield running
            running.reached(running.so_far().answered + 100, PATIENCE)
        tally = running.stop()
        assert tally.failed == 0, str(tally)

    def _answers(self) -> bool:
        with contextlib.closing(http.client.HTTPConnection(*self.address(), timeout=2)) as connection:
            connection.request("GET", "/")
            return connection.getresponse().status == 200

    def images(self, raw: Any = None, environment: str = "") -> list[str]:
        """The image of each deployment."""
        found = self.list("apps/v1/deployments")
        return sorted(each["spec"]["template"]["spec"]["containers"][0]["image"] for each in found)

"""Replicas of the daemon as programs of this machine: a Lease and a namespace of a real cluster, one journal."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client

from tests.kube.house import KubeHouse, in_force
from tests.support import kustomize

LEASE = "reconciler"
DURATION, RENEW = 12, 9
"""Of the Lease, in seconds: nobody loses it to a busy machine, and its end can still be waited for."""
TOKEN_SECONDS = 3600


class Replicas(KubeHouse):
    """A house of which each replica has settings, data and an account of its own, with the rights of deploy/."""

    def __init__(self, root: Path, kubeconfig: Path, namespace: str, kube: client.ApiClient, journal: str) -> None:
        self.kube = kube
        self.administrator = kubeconfig
        self.journal = journal
        self.stopping = ""
        super().__init__(root, kubeconfig, namespace, gateway=False)

    def write_settings(self, extra: str = "") -> None:
        """As `KubeHouse.write_settings`, with the candidacy."""
        lines = [
            f"name: {self.owner}",
            f"data: {self.settings.stem}-data",
            f"journal: {self.journal}",
            'http: {listen: "127.0.0.1:0"}',
            f'repositories: {{fleet: {{url: "file://{self.upstream.path}", allowFile: true, poll: 2s}}}}',
            f'runtimes: {{cluster: {{kubernetes: {{kubeconfig: "{self.kubeconfig}"}}}}}}',
            f"leader: {{runtime: cluster, namespace: {self.namespace}, lease: {LEASE},"
            f" duration: {DURATION}s, renew: {RENEW}s, retry: 300ms}}",
            f"environments: {{{self.namespace}: {{repository: fleet, runtime: cluster}}}}",
            extra,
        ]
        self.settings.write_text("\n".join(lines) + "\n")

    def variables(self, **more: str) -> dict[str, str]:
        """With the failpoint at which this replica stands still."""
        still = {"RECONCILER_FAILPOINT": self.stopping, "RECONCILER_FAILPOINT_SIGNAL": "SIGSTOP"}
        return super().variables(**more) | (still if self.stopping else {})

    def replica(self, name: str, *, stopping: str = "") -> Replicas:
        """The same house with other settings, data and account; it stands still at the failpoint `stopping`."""
        found = copy.copy(self)
        found.settings, found.stopping = self.root / f"{name}.yaml", stopping
        found.kubeconfig = self.root / f"{name}.kubeconfig"
        if not found.kubeconfig.exists():
            found.kubeconfig.write_text(yaml.safe_dump(self._account(name)))
            found.kubeconfig.chmod(0o600)
        found.write_settings()
        return found

    def _account(self, name: str) -> dict[str, Any]:
        """A kubeconfig for a new account with the rights that deploy/ gives, by which the API tells who called."""
        core, rights = client.CoreV1Api(self.kube), client.RbacAuthorizationV1Api(self.kube)
        core.create_namespaced_service_account(self.namespace, {"metadata": {"name": name}})
        roles = [*kustomize.rendered("kubernetes/managed-namespace"), *kustomize.rendered("kubernetes/base")]
        for role in (one for one in roles if one["kind"] == "Role"):
            about = {"name": f"{name}-{role['metadata']['name']}"}
            rights.create_namespaced_role(self.namespace, {**role, "metadata": about})
            bound = {
                "metadata": about,
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": about["name"]},
                "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": self.namespace}],
            }
            rights.create_namespaced_role_binding(self.namespace, bound)
            in_force(self.kube, name, self.namespace, role["rules"])
        asked = {"spec": {"audiences": [], "expirationSeconds": TOKEN_SECONDS}}
        token = core.create_namespaced_service_account_token(name, self.namespace, asked).status.token
        found: dict[str, Any] = yaml.safe_load(self.administrator.read_text())
        return {**found, "users": [{"name": user["name"], "user": {"token": token}} for user in found["users"]]}

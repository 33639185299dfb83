"""The daemon in a cluster as deploy/kubernetes installs it, with a repository of this machine and one namespace."""

from __future__ import annotations

import base64
import copy
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import requests
import yaml
from kubernetes import client, utils
from kubernetes.client.exceptions import ApiException

from reconciler.adapters.kubernetes_client import Api, ApiError
from tests.kube.house import KubeHouse
from tests.support import kustomize
from tests.support.cluster import Given, eventually
from tests.support.daemon_image import give

HOME = "reconciler"
"""The namespace of the daemon, as it stands in deploy/."""
TOKEN = "of-the-test-only"
Json = dict[str, Any]


class Installation(KubeHouse):
    """One overlay, with the settings that a test needs, applied by an administrator."""

    def __init__(
        self, root: Path, cluster: Given, kube: client.ApiClient, namespace: str, image: str, overlay: str
    ) -> None:
        self.kube = kube
        self.cluster = cluster
        self.overlay = overlay
        self.image = image
        self.made: list[str] = []
        super().__init__(root, cluster.kubeconfig, namespace, gateway=False)

    def daemon_settings(self, **changes: object) -> Json:
        """The overlay's own settings with the test's repository and namespace."""
        file = kustomize.DEPLOY / "kubernetes" / "overlays" / self.overlay / "reconciler.yaml"
        found: Json = yaml.safe_load(file.read_text())
        found["name"] = self.owner
        found["http"]["tokenFile"] = "credentials/http-token"
        found["repositories"] = {"fleet": {"url": "file:///srv/fleet.git", "allowFile": True, "poll": "2s"}}
        found["environments"] = {name: {"repository": "fleet", "runtime": "here"} for name in self.environments}
        return found | changes

    def install(self, settings: Json, secrets: dict[str, str]) -> None:
        """Everything of the overlay and what it needs beside it; the daemon's pods begin to start."""
        give(self.upstream.path)
        folder = self.root / "kustomization"
        folder.mkdir()
        (folder / "reconciler.yaml").write_text(yaml.safe_dump(settings))
        name, _, digest = self.image.partition("@")
        top = {
            "resources": [
                os.path.relpath(kustomize.DEPLOY / "kubernetes" / "overlays" / self.overlay, folder.resolve())
            ],
            "configMapGenerator": [
                {"name": "reconciler-settings", "namespace": HOME, "behavior": "replace", "files": ["reconciler.yaml"]}
            ],
            "images": [{"name": "registry.example/reconciler", "newName": name, "digest": digest}],
            "patches": [{"target": {"kind": "Deployment"}, "patch": yaml.safe_dump(_FLEET)}],
        }
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(top))
        wanted = list(yaml.safe_load_all(kustomize.text(folder)))
        rights = kustomize.rendered("kubernetes/managed-namespace")
        for name in self.environments:
            wanted += [{**one, "metadata": {**one["metadata"], "namespace": name}} for one in rights]
        wanted += self._volumes()
        data = {
            key: base64.b64encode(value.encode()).decode() for key, value in (secrets | {"http-token": TOKEN}).items()
        }
        about = {"name": "reconciler-credentials", "namespace": HOME}
        wanted.append({"apiVersion": "v1", "kind": "Secret", "metadata": about, "data": data})
        for one in sorted(wanted, key=lambda each: each["kind"] not in ("Namespace", "ServiceAccount")):
            utils.create_from_dict(self.kube, one, namespace=one["metadata"].get("namespace", HOME))

    def _volumes(self) -> list[Json]:
        """The repository, and the journal where it is in SQLite: directories of this machine, bound by name."""
        journal = self.root / "journal"
        journal.mkdir()
        give(journal)
        found = [*_volume(f"fleet-{self.owner}", self.upstream.path, "fleet")]
        self.made.append(f"fleet-{self.owner}")
        if self.overlay == "single":
            found += _volume(f"journal-{self.owner}", journal, "reconciler")[:1]
            self.made.append(f"journal-{self.owner}")
        return found

    def uninstall(self) -> None:
        """Nothing of it is left when this returns."""
        core, apps = client.CoreV1Api(self.kube), client.AppsV1Api(self.kube)
        # Where pods or claims are left in a namespace, its controller looks again only after some ten seconds.
        apps.delete_collection_namespaced_deployment(HOME)
        apps.delete_collection_namespaced_replica_set(HOME)
        core.delete_collection_namespaced_persistent_volume_claim(HOME)
        eventually(lambda: self._empty(core))
        with suppress(ApiException):
            core.delete_namespace(HOME)
        for name in self.made:
            with suppress(ApiException):
                core.delete_persistent_volume(name)

        def gone() -> bool:
            names = {each.metadata.name for each in core.list_namespace().items}
            return HOME not in names

        eventually(gone)

    def images(self, raw: Any = None, environment: str = "") -> list[str]:
        """The image of each deployment in any of the namespaces."""
        there = copy.copy(self)
        there.namespace = environment or self.namespace
        return super(Installation, there).images()

    def scale(self, name: str, count: int) -> None:
        """So many pods of one of the daemon's Deployments, and none beside them that still ends."""
        apps, core = client.AppsV1Api(self.kube), client.CoreV1Api(self.kube)
        apps.patch_namespaced_deployment_scale(name, HOME, {"spec": {"replicas": count}})

        def settled() -> bool:
            there = [pod.metadata.name for pod in core.list_namespaced_pod(HOME).items]
            return len([one for one in there if one.startswith(f"{name}-")]) == count

        # Nobody deletes pods by hand here: their controller would make others until it hears of the new number, and
        # what is forced out of the API may still run. Kubelet takes a pod out of it once its programs have ended.
        eventually(settled)

    @staticmethod
    def _empty(core: client.CoreV1Api) -> bool:
        core.delete_collection_namespaced_pod(HOME, grace_period_seconds=0)
        return not core.list_namespaced_pod(HOME).items + core.list_namespaced_persistent_volume_claim(HOME).items

    def pods(self) -> list[Any]:
        found = client.CoreV1Api(self.kube).list_namespaced_pod(HOME).items
        return [pod for pod in found if pod.metadata.deletion_timestamp is None]

    def ready(self, count: int) -> None:
        """Wait until so many pods of the daemon are ready."""

        def done() -> bool:
            conditions = [{one.type: one.status for one in pod.status.conditions or []} for pod in self.pods()]
            return [each.get("Ready") for each in conditions] == ["True"] * count

        try:
            eventually(done)
        except AssertionError as error:
            raise AssertionError(self.told()) from error

    def lines(self, name: str = "") -> list[Json]:
        """The log of a pod of the daemon, or of all."""
        core, found = client.CoreV1Api(self.kube), []
        for pod in self.pods():
            if name not in ("", pod.metadata.name):
                continue
            with suppress(ApiException):
                text = core.read_namespaced_pod_log(pod.metadata.name, HOME)
                whole = text.rpartition("\n")[0]  # the last line may just be being written
                found += [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
        return found

    def events(self, pod: str) -> list[str]:
        """What a pod logged, by name."""
        return [line["event"] for line in self.lines(pod)]

    def told(self) -> str:
        """For failures: what the cluster says of the pods, and what they said last, before a restart, too."""
        core = client.CoreV1Api(self.kube)
        found = [f"{one.reason}: {one.message}" for one in core.list_namespaced_event(HOME).items][-10:]
        for pod in self.pods():
            for previous in (True, False):
                with suppress(ApiException):
                    text = core.read_namespaced_pod_log(pod.metadata.name, HOME, previous=previous)
                    found += [f"{pod.metadata.name}{' before' if previous else ''}: {text[-3000:]}"]
        return "\n".join(found)

    def synced(self, revision: str, environment: str = "") -> None:
        wanted = {"event": "reconciled", "result": "synced", "revision": revision[:12]}
        self.said(**wanted, environment=environment or self.environment)

    def said(self, pod: str = "", **wanted: object) -> Json:
        """Wait until a pod, any by default, logs a line that has all of `wanted`."""

        def found() -> Json:
            lines = self.lines(pod)
            return next((line for line in lines if wanted.items() <= line.items()), {})

        try:
            return eventually(found)
        except AssertionError as error:
            raise AssertionError(f"nobody said {wanted}:\n{self.told()}") from error

    def ended(self, pod: str) -> Any:
        """How the program of a pod ended before it was started again, if it was."""
        status = client.CoreV1Api(self.kube).read_namespaced_pod(pod, HOME).status.container_statuses[0]
        assert status.restart_count <= 1
        return status.last_state.terminated

    def program(self, pod: str) -> int:
        """The daemon of a pod, as this machine numbers it; the node is this machine, too."""
        uid = client.CoreV1Api(self.kube).read_namespaced_pod(pod, HOME).metadata.uid
        for folder in Path("/proc").iterdir():
            with suppress(OSError):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                # Beside it there is tini, which starts it and has the same arguments.
                if b"run" in words and b"python" in words[0] and uid in (folder / "cgroup").read_text():
                    return int(folder.name)
        raise AssertionError(f"the daemon of {pod} does not run")

    def holders(self) -> Holders:
        """Who holds the lease from now on, as the API tells it."""
        return Holders(Api(self.api.settings))

    def asked(self, pod: Any, path: str) -> requests.Response:
        """What a pod of the daemon answers."""
        with requests.Session() as session:
            session.trust_env = False
            headers = {"Authorization": f"Bearer {TOKEN}"}
            return session.get(f"http://{pod.status.pod_ip}:8480{path}", timeout=60, headers=headers)

    def leader(self) -> str:
        """The one pod that says that it leads, as soon as one does."""
        (found,) = eventually(self.leaders)
        return found

    def leaders(self) -> list[str]:
        """The pods that say that they lead."""
        found = []
        for pod in self.pods():
            with suppress(requests.RequestException):
                if "\nreconciler_leader 1.0\n" in self.asked(pod, "/metrics").text:
                    found.append(pod.metadata.name)
        return found


class Holders:
    """The pods that held the lease one after the other, "" for nobody, while the block runs."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.all: list[tuple[str, float]] = []
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        eventually(lambda: self.all)
        return self

    def __exit__(self, *_: object) -> None:
        self._api.close()

    @property
    def names(self) -> list[str]:
        """In the order of time."""
        return [name for name, _ in self.all]

    def known(self, count: int) -> list[str]:
        """All of them, as soon as they are so many: the watch tells of each a little later."""
        eventually(lambda: len(self.all) >= count)
        return self.names

    def _follow(self) -> None:
        path = f"/apis/coordination.k8s.io/v1/namespaces/{HOME}/leases"
        with suppress(ApiError):
            for kind, found in self._api.watch(path, "0", 600, {"fieldSelector": "metadata.name=reconciler"}):
                # The host name of a pod is its name.
                holder = str(found.get("spec", {}).get("holderIdentity") or "").partition("_")[0]
                if kind != "BOOKMARK" and (not self.all or self.all[-1][0] != holder):
                    self.all.append((holder, time.monotonic()))


_FLEET = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "any"},
    "spec": {
        "template": {
            "spec": {
                "containers": [
                    {
                        "name": "reconciler",
                        # A test stops a program and waits for what the others do, kubelet being none of them.
                        "livenessProbe": {"failureThreshold": 60},
                        "volumeMounts": [{"name": "fleet", "mountPath": "/srv/fleet.git", "readOnly": True}],
                    }
                ],
                "volumes": [{"name": "fleet", "persistentVolumeClaim": {"claimName": "fleet"}}],
            }
        }
    },
}


def _volume(name: str, path: Path, claim: str) -> list[Json]:
    size = {"storage": "10Gi"}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": size,
            "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": str(path), "type": "Directory"},
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": HOME, "name": claim},
            "persistentVolumeReclaimPolicy": "Retain",
        },
    }
    asked = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": claim, "namespace": HOME},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": size}, "volumeName": name},
    }
    return [volume, asked]


@contextmanager
def way(address: str, port: int) -> Iterator[int]:
    """A port at `address` that leads to `port` of this machine's loopback, for pods."""
    with socket.create_server((address, 0)) as listener:
        threading.Thread(target=_accept, args=(listener, port), daemon=True).start()
        yield int(listener.getsockname()[1])


def _accept(listener: socket.socket, port: int) -> None:
    with suppress(OSError):
        while True:
            near = listener.accept()[0]
            far = socket.create_connection(("127.0.0.1", port))
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=_pass, args=(source, sink), daemon=True).start()


def _pass(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)

"""The lease of leader election as a Lease of the Kubernetes API (coordination.k8s.io/v1).

It reads and writes one object, with optimistic concurrency by its resourceVersion. It decides nothing, and reckons with
no time that stands in the object: those are for people and other programs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from reconciler.adapters.kubernetes_client import Api, ApiError, translated
from reconciler.core.lease import Found, LeaseRecord
from reconciler.settings import KubernetesSettings, LeaderSettings, Settings

LOOKS = "dev.reconciler/looks"
"""The annotation in which daemons that stand by ask the leader for a look at environments: names, by comma."""
_MOST = 64 * 1024
_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class KubernetesLease:
    """`leadership.Lease`. It has an Api of its own, so that no other calls come before a renewal."""

    def __init__(self, api: Api, namespace: str, name: str) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._all = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._object: Mapping[str, Any] = {}

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return f"{self._namespace}/{self._name} of {self._api.where}"

    def read(self, seconds: float) -> Found:
        """See `leadership.Lease`."""
        try:
            found = self._api.call("GET", f"{self._all}/{self._name}", seconds=seconds)
        except ApiError as error:
            if error.status == 404 and error.details.get("kind") != "namespaces":
                return Found(None)
            raise translated(error, self.place) from error
        return self._found(found)

    def write(self, found: Found, seconds: float) -> Found | None:
        """See `leadership.Lease`. What others wrote into the object stays."""
        known = self._object if self._version(self._object) == found.version else {}
        body = self._body(known, found)
        try:
            if found.version:
                written = self._api.call("PUT", f"{self._all}/{self._name}", body=body, seconds=seconds)
            else:
                written = self._api.call("POST", self._all, body=body, seconds=seconds)
        except ApiError as error:
            # 404: the object is gone, or (to a POST) the namespace is.
            if error.status == 409 or (error.status == 404 and found.version):
                return None
            raise translated(error, self.place) from error
        return self._found(written)

    def close(self) -> None:
        """End a call under way."""
        self._api.close()

    def _found(self, written: Mapping[str, Any]) -> Found:
        self._object = written
        return Found(record_of(written.get("spec")), _looks(written), self._version(written))

    @staticmethod
    def _version(written: Mapping[str, Any]) -> str:
        return str(_table(written.get("metadata")).get("resourceVersion", ""))

    def _body(self, known: Mapping[str, Any], found: Found) -> dict[str, Any]:
        metadata = {"name": self._name, "namespace": self._namespace, **_table(known.get("metadata"))}
        if found.version:
            metadata["resourceVersion"] = found.version
        notes = {key: value for key, value in _table(metadata.get("annotations")).items() if key != LOOKS}
        if found.looks:
            notes[LOOKS] = ",".join(sorted(found.looks))
        metadata["annotations"] = notes
        metadata.pop("managedFields", None)
        spec = dict(_table(known.get("spec")))
        if found.record is not None:
            spec |= spec_of(found.record)
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


def record_of(spec: object) -> LeaseRecord:
    """The record in a Lease's `spec`; what is missing or odd there is as if nobody had written it."""
    found = _table(spec)
    seconds, transitions = found.get("leaseDurationSeconds"), found.get("leaseTransitions")
    return LeaseRecord(
        holder=str(found.get("holderIdentity") or ""),
        duration=float(seconds) if isinstance(seconds, int) else 0.0,
        acquired=str(found.get("acquireTime") or ""),
        renewed=str(found.get("renewTime") or ""),
        transitions=transitions if isinstance(transitions, int) else 0,
    )


def spec_of(record: LeaseRecord) -> dict[str, Any]:
    """A record as the `spec` of a Lease."""
    times = {"acquireTime": record.acquired, "renewTime": record.renewed}
    return {
        "holderIdentity": record.holder,
        "leaseDurationSeconds": max(round(record.duration), 1),
        "leaseTransitions": record.transitions,
        **{name: time for name, time in times.items() if time},
    }


def _looks(written: Mapping[str, Any]) -> frozenset[str]:
    text = _table(_table(written.get("metadata")).get("annotations")).get(LOOKS, "")
    return frozenset(str(text).split(",")) - {""}


def _table(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def open_lease(settings: Settings, leader: LeaderSettings) -> KubernetesLease:
    """The lease of this daemon and its shard. Nothing is asked of the API yet."""
    runtime = settings.runtimes[leader.runtime]
    assert isinstance(runtime, KubernetesSettings), "the settings were checked"
    name = leader.lease if settings.shard is None else f"{leader.lease}-{settings.shard.index}"
    return KubernetesLease(Api(runtime), leader.namespace or _namespace(runtime), name)


def _namespace(runtime: KubernetesSettings) -> str:
    """The pod's own namespace, or that of the kubeconfig's context, or `default`. A bad file is for `Api` to refuse."""
    with contextlib.suppress(OSError, ValueError, yaml.YAMLError):
        if runtime.in_cluster:
            return _OWN_NAMESPACE.read_text(encoding="utf-8").strip() or "default"
        if runtime.kubeconfig is not None:
            with runtime.kubeconfig.open("rb") as file:
                content = _table(yaml.safe_load(file.read(_MOST)))
            wanted = runtime.context or content.get("current-context")
            for entry in content.get("contexts") or ():
                if _table(entry).get("name") == wanted:
                    return str(_table(_table(entry).get("context")).get("namespace") or "default")
    return "default"

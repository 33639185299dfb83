"""What an API server would answer: applied objects with their managedFields, changes by others, pods and their makers.

Made after Kubernetes' documentation of server-side apply; tests/kube hold the same against a real API server.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import count
from typing import Any

from reconciler.core.kubernetes_read import Seen

Json = dict[str, Any]
FIELDS = {
    "Deployment": "deployments",
    "ReplicaSet": "replica_sets",
    "Pod": "pods",
    "Service": "services",
    "HTTPRoute": "routes",
    "ConfigMap": "config_maps",
    "Secret": "secrets",
    "PodDisruptionBudget": "budgets",
    "HorizontalPodAutoscaler": "autoscalers",
}
"""Where objects of a kind are in a Seen."""
GONE = object()
MADE = "2026-01-01T00:00:00Z"
NOW = datetime(2026, 1, 1, 1, tzinfo=UTC)

_UIDS = count(1)
_BY_KEYS = {
    "containers": ["name"],
    "env": ["name"],
    "volumes": ["name"],
    "volumeMounts": ["mountPath"],
    "topologySpreadConstraints": ["topologyKey", "whenUnsatisfiable"],
}
_ATOMIC = {"selector", "labelSelector", "secretKeyRef"}
_NOBODYS = {"name", "namespace"}


def seen(objects: Iterable[Json]) -> Seen:
    """All objects of a namespace."""
    found: dict[str, list[Json]] = {field: [] for field in FIELDS.values()}
    for each in objects:
        found[FIELDS[each["kind"]]].append(each)
    return Seen(**found)


def answered(rendered: Json, manager: str = "reconciler") -> Json:
    """The answer to the first apply of an object."""
    live = copy.deepcopy(rendered)
    fields = {f"f:{key}": _fields(key, each) for key, each in rendered.items() if key not in ("apiVersion", "kind")}
    for key in _NOBODYS:
        fields["f:metadata"].pop(f"f:{key}", None)
    live["metadata"] |= {
        "uid": f"uid-{next(_UIDS)}",
        "resourceVersion": "1",
        "generation": 1,
        "creationTimestamp": MADE,
        "managedFields": [entry(manager, "Apply", fields)],
    }
    return live


def entry(manager: str, operation: str, fields: Json, *, subresource: str = "", time: str = MADE) -> Json:
    """One entry of managedFields."""
    found = {"manager": manager, "operation": operation, "time": time, "fieldsType": "FieldsV1", "fieldsV1": fields}
    return {**found, "subresource": subresource} if subresource else found


def _fields(name: str, value: object) -> Json:
    if isinstance(value, dict) and name not in _ATOMIC:
        return {f"f:{key}": _fields(key, each) for key, each in value.items()}
    keys = _BY_KEYS.get(name)
    if name == "ports" and isinstance(value, list):
        keys = ["containerPort" if "containerPort" in value[0] else "port", "protocol"]
    if keys and isinstance(value, list):
        found = {}
        for each in value:
            name = json.dumps({key: each[key] for key in keys}, separators=(",", ":"))
            found[f"k:{name}"] = {".": {}, **_fields("", each)}
        return found
    return {}


def changed(
    live: Json, path: list[str], value: object, by: str, *, subresource: str = "", time: str = "2026-01-01T00:30:00Z"
) -> Json:
    """The object after somebody else set (or removed: GONE) the field at `path`, in elements of FieldsV1."""
    live = copy.deepcopy(live)
    holder: Any = live
    for element in path[:-1]:
        holder = _inside(holder, element)
    name = path[-1].removeprefix("f:")
    if value is GONE:
        del holder[name]
    else:
        holder[name] = value
    for each in live["metadata"]["managedFields"]:
        _forget(each["fieldsV1"], path)
    if value is not GONE:
        fields: Json = {}
        for element in reversed(path):
            fields = {element: fields}
        live["metadata"]["managedFields"].append(entry(by, "Update", fields, subresource=subresource, time=time))
    return live


def _inside(value: Any, element: str) -> Any:
    if element.startswith("f:"):
        return value.setdefault(element[2:], {})
    keys = json.loads(element[2:])
    return next(each for each in value if keys.items() <= each.items())


def _forget(fields: Json, path: list[str]) -> None:
    """Take a field out, and what holds nothing any more."""
    if len(path) > 1 and path[0] in fields:
        _forget(fields[path[0]], path[1:])
        if not fields[path[0]].keys() - {"."}:
            del fields[path[0]]
    else:
        fields.pop(path[0], None)


def replica_set(deployment: Json, *, available: int = 0, replicas: int = 1, **changes: Any) -> Json:
    """A ReplicaSet of a Deployment, with its labels and what it says of itself."""
    about, template = deployment["metadata"], deployment["spec"]["template"]
    return {
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{about['name']}-1",
            "uid": f"uid-{next(_UIDS)}",
            "labels": {**template["metadata"]["labels"], "pod-template-hash": "1"},
            "annotations": dict(about["annotations"]),
            "ownerReferences": [{"kind": "Deployment", "uid": about["uid"], "controller": True}],
        },
        "spec": {"replicas": replicas, "template": copy.deepcopy(template)},
        "status": {"availableReplicas": available, "replicas": replicas},
        **changes,
    }


def pod(maker: Json, name: str = "web-1-a", *, status: Json | None = None, **metadata: Any) -> Json:
    """A pod of a ReplicaSet; running and ready by default."""
    template = copy.deepcopy(maker["spec"]["template"])
    return {
        "kind": "Pod",
        "metadata": {
            "name": name,
            "uid": f"uid-{next(_UIDS)}",
            "creationTimestamp": MADE,
            "labels": template["metadata"]["labels"],
            "annotations": template["metadata"]["annotations"],
            "ownerReferences": [{"kind": "ReplicaSet", "uid": maker["metadata"]["uid"], "controller": True}],
            **metadata,
        },
        "spec": template["spec"],
        "status": status if status is not None else running(),
    }


def running(ready: str = "True", since: str = MADE, **more: Any) -> Json:
    """The status of a pod whose container runs. `since`: when it began to be ready, or ceased."""
    state = {"running": {"startedAt": MADE}}
    return status(state, conditions=[condition("Ready", ready), condition("ContainersReady", ready, since)], **more)


def status(state: Json, *, last: Json | None = None, restarts: int = 0, **more: Any) -> Json:
    """The status of a pod whose container is in `state`, and was in `last` before."""
    main = {"name": "main", "state": state, "lastState": last or {}, "restartCount": restarts}
    return {"phase": "Running", "podIP": "10.1.1.1", "containerStatuses": [main], **more}


def condition(kind: str, value: str, since: str = MADE, reason: str = "", message: str = "") -> Json:
    return {"type": kind, "status": value, "lastTransitionTime": since, "reason": reason, "message": message}


def settled(deployment: Json, replicas: int) -> Json:
    """The Deployment after Kubernetes was done with it."""
    counts = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
    found = {"observedGeneration": deployment["metadata"]["generation"], **dict.fromkeys(counts, replicas)}
    progress = condition("Progressing", "True", reason="NewReplicaSetAvailable")
    return {**deployment, "status": {**found, "conditions": [progress]}}

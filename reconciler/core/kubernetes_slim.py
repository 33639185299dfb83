"""What is kept of an object as an API server answered it: all that is read of it, in a fraction of the memory. Pure.

What is costly to tell is told here once: how it differs from what was applied, what it refers to, whether the number of
instances is ours. Objects that were not made smaller can be asked the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from reconciler.core.added_fields import added, touched
from reconciler.core.errors import Reason
from reconciler.core.kubernetes_json import Json, items, table, text
from reconciler.core.kubernetes_labels import APPLIED, MANAGER, Ref, annotation
from reconciler.core.live import Difference
from reconciler.core.managed_fields import SHAPE, drifted, holds

_METADATA = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "ownerReferences",
    "labels",
)
_SPEC = {
    "Deployment": ("replicas", "selector"),
    "ReplicaSet": ("replicas",),
    "Service": ("clusterIP", "selector"),
    "HTTPRoute": ("parentRefs", "rules"),
}
"""The fields of `spec` that are read, by kind."""
_MADE_BY_OTHERS = ("ReplicaSet", "Pod")


def slim(live: Json, kind: str = "") -> Json:
    """The part of an object that is read. Objects in the answer to a list do not say their `kind`.

    Beside the object's own fields it has `differences`, `added` (those of them that others added), `touched` (others
    own parts of what we declared), `references` and `counts`, told by the functions below.
    """
    kind = kind or text(live, "kind")
    metadata = {key: live["metadata"][key] for key in _METADATA if key in table(live, "metadata")}
    notes = {key: value for key, value in table(live, "metadata", "annotations").items() if key != APPLIED}
    found: Json = {"kind": kind, "metadata": {**metadata, "annotations": notes}}
    spec = {key: value for key, value in table(live, "spec").items() if key in _SPEC.get(kind, ())}
    if kind == "Pod":
        spec["containers"] = [{key: each.get(key) for key in ("name", "image")} for each in _containers(live)]
    if kind in ("Deployment", "ReplicaSet", "Pod", "HTTPRoute"):
        found["status"] = dict(table(live, "status"))
    more = additions(live, kind)
    told = {"differences": differences({**live, "added": more}, kind), "added": more, "touched": is_touched(live, kind)}
    return {**found, "spec": spec, **told, "references": references(live), "counts": counts(live)}


def differences(live: Json, kind: str) -> tuple[Difference, ...]:
    """How an object of ours is no longer as it was applied; nothing for those that others make."""
    return tuple(live["differences"]) if "differences" in live else (*changes(live, kind), *additions(live, kind))


def additions(live: Json, kind: str) -> tuple[Difference, ...]:
    """What others added to an object of ours: an apply alone does not take it away."""
    if "added" in live:
        return tuple(live["added"])
    return () if kind in _MADE_BY_OTHERS else added(live, MANAGER, kind)


def is_touched(live: Json, kind: str) -> bool:
    """Whether others own parts of an object of ours, so that an apply would leave something of theirs in it."""
    if "touched" in live:
        return bool(live["touched"])
    return kind not in _MADE_BY_OTHERS and touched(live)


def changes(live: Json, kind: str) -> tuple[Difference, ...]:
    """How the fields that we applied to an object are no longer so."""
    if kind in _MADE_BY_OTHERS:
        return ()
    if not annotation(live, SHAPE) and not items(live, "metadata", "managedFields"):
        return (Difference(Reason.DRIFT_CHANGED, "nothing says what was applied to it"),)
    return drifted(live, MANAGER, kind)


def counts(live: Json) -> bool:
    """Whether the number of instances in a Deployment is what we applied: it has to be handed over before it is left to
    an autoscaler."""
    return bool(live["counts"]) if "counts" in live else holds(live, MANAGER, ("spec", "replicas"))


def references(live: Json) -> frozenset[Ref]:
    """The ConfigMaps and Secrets that the pods of a Deployment or ReplicaSet, or a pod, need."""
    if "references" in live:
        return frozenset(live["references"])
    inside = table(live, "spec", "template", "spec") or table(live, "spec")
    return frozenset(Ref(kind, name) for kind, name in _named(inside) if name)


def _named(pod: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for volume in items(pod, "volumes"):
        yield "ConfigMap", text(volume, "configMap", "name")
        yield "Secret", text(volume, "secret", "secretName")
    for container in items(pod, "containers"):
        for variable in items(container, "env"):
            yield "Secret", text(variable, "valueFrom", "secretKeyRef", "name")


def _containers(live: Json) -> list[Mapping[str, Any]]:
    return items(live, "spec", "containers")

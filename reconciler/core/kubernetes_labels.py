"""How objects in a cluster are marked as ours and found again: labels, annotations, names. Pure.

Labels hold at most 63 characters: they carry what is selected by. What is longer is an annotation with the same prefix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from reconciler.core import names
from reconciler.core.kubernetes_json import Json, table, text

MANAGER = "reconciler"
"""The field manager of all that is applied."""
COUNT_MANAGER = "reconciler-count"
"""The field manager that keeps the number of instances while it goes over to an autoscaler."""

GROUP = names.LABEL + "group"
OPERATED = names.LABEL + "operated"
APPLIED = names.LABEL + "applied"
COMPANIONS = names.LABEL + "companions"
SECRET = names.LABEL + "secret"

API = {
    "ConfigMap": ("v1", "configmaps"),
    "Secret": ("v1", "secrets"),
    "Service": ("v1", "services"),
    "Deployment": ("apps/v1", "deployments"),
    "PodDisruptionBudget": ("policy/v1", "poddisruptionbudgets"),
    "HorizontalPodAutoscaler": ("autoscaling/v2", "horizontalpodautoscalers"),
    "HTTPRoute": ("gateway.networking.k8s.io/v1", "httproutes"),
}
"""What is written: each kind with its apiVersion and the word for it in addresses."""


COMPANION_KINDS = ("HorizontalPodAutoscaler", "PodDisruptionBudget")
"""What a Deployment may have beside it, under its name."""


class Ref(NamedTuple):
    """An object in a namespace."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where objects go, and whose they are."""

    owner: str
    namespace: str


def ownership(owner: str, environment: str) -> dict[str, str]:
    """The labels without which nothing is ever touched."""
    return {names.LABEL_OWNER: owner, names.LABEL_ENVIRONMENT: environment}


def labels(live: object) -> dict[str, Any]:
    """The labels of an object."""
    return dict(table(live, "metadata", "labels"))


def annotation(live: object, key: str) -> str:
    """An annotation of an object; empty when there is none."""
    return text(live, "metadata", "annotations", key)


def label(live: object, key: str) -> str:
    """A label of an object; empty when there is none."""
    return text(live, "metadata", "labels", key)


def is_owned(live: object, owner: str, environment: str) -> bool:
    """Whether an object carries the labels of this owner and environment."""
    return ownership(owner, environment).items() <= labels(live).items()


def ref(live: Json, kind: str = "") -> Ref:
    """Which object it is. Objects in the answer to a list do not say their `kind`."""
    return Ref(kind or text(live, "kind"), text(live, "metadata", "name"))


def orphan_name(found: Ref) -> str:
    """What a leftover is called in a live state, and in the order to sweep it."""
    return f"{found.kind}/{found.name}"


def orphan_ref(name: str) -> Ref | None:
    """The object of that name; None when it is of no kind that we write."""
    kind, _, found = name.partition("/")
    return Ref(kind, found) if kind in API and found else None


def rendered(
    found: Ref, place: Place, environment: str, service: str, marks: dict[str, str], notes: dict[str, str], body: Json
) -> Json:
    """An object of ours: `marks` are further labels, `notes` its annotations, `body` all beside the metadata."""
    metadata: Json = {
        "name": found.name,
        "namespace": place.namespace,
        "labels": {**ownership(place.owner, environment), names.LABEL_SERVICE: service, **marks},
    }
    if notes:
        metadata["annotations"] = notes
    return {"apiVersion": API[found.kind][0], "kind": found.kind, "metadata": metadata, **body}

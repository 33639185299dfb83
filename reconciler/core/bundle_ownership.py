"""Whose an object is that exists where a bundle wants one, and what may be removed. Pure.

What carries the labels of this owner, environment and service is ours. What carries those of another one is not, and is
left alone. What carries none is taken over in two cases only: the object in Git says `reconciler.dev/adopt: "true"`, or
the marks of Flux or of Argo CD say that it comes from Git already: it is what moves. Nothing else is adopted, also not
what was applied by kubectl or installed by Helm: that it has the same name says nothing about whose it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from reconciler.core import names
from reconciler.core.added_fields import united
from reconciler.core.kubernetes_identity import group_of
from reconciler.core.kubernetes_json import Json, items, table, text
from reconciler.core.kubernetes_labels import MANAGER, annotation, label, labels
from reconciler.core.managed_fields import is_of, our_entry, owners_patch

ADOPT = "reconciler.dev/adopt"
REPLACE = "reconciler.dev/replace"
PRUNE = "reconciler.dev/prune"

_OURS = (names.LABEL_OWNER, names.LABEL_ENVIRONMENT, names.LABEL_SERVICE)
_FLUX_LABELS = ("kustomize.toolkit.fluxcd.io/name", "helm.toolkit.fluxcd.io/name")
_ARGO = ("argocd.argoproj.io/tracking-id", "argocd.argoproj.io/instance")
_KEPT = (
    ("kustomize.toolkit.fluxcd.io/prune", "disabled"),
    ("kustomize.toolkit.fluxcd.io/reconcile", "disabled"),
    ("helm.sh/resource-policy", "keep"),
)
"""Flux reads its own ones as annotations and as labels, and all without regard to case."""
_ARGO_OPTIONS = "argocd.argoproj.io/sync-options"
_ARGO_KEPT = frozenset({"prune=false", "prune=confirm", "delete=false", "delete=confirm"})
"""What must not go, or not without somebody who says so: with its application, or without it."""
_METADATA = "f:metadata"
_BEFORE = frozenset(
    {
        "argocd-application-controller",
        "argocd-controller",
        "before-first-apply",
        "flux",
        "helm",
        "helm-controller",
        "kubectl",
        "kubectl-client-side-apply",
        "kubectl-create",
        "kubectl-last-applied",
        "kubectl-replace",
        "kustomize-controller",
    }
)
"""Who applied an object before it came to us: the field managers of the tools that teams come from."""
_DATA = frozenset(
    {
        ("", "Namespace"),
        ("", "PersistentVolume"),
        ("", "PersistentVolumeClaim"),
        ("apiextensions.k8s.io", "CustomResourceDefinition"),
    }
)
"""With one of these goes data, or everything in it."""


class Whose(StrEnum):
    """Whether an object that exists may be applied to. MOVES: it may be taken over."""

    OURS = "ours"
    MOVES = "moves"
    FOREIGN = "foreign"


def whose(live: Json, wanted: Json) -> Whose:
    """Whose the object is that exists under the name of `wanted`."""
    mine = {key: label(wanted, key) for key in _OURS}
    theirs = {key: value for key, value in labels(live).items() if key in _OURS}
    if theirs == mine:
        return Whose.OURS
    asked = annotation(wanted, ADOPT) == "true"
    if theirs:
        alike = {**theirs, names.LABEL_SERVICE: mine[names.LABEL_SERVICE]} == mine
        return Whose.MOVES if asked and alike else Whose.FOREIGN
    return Whose.MOVES if asked or _is_from_git(live) else Whose.FOREIGN


def _is_from_git(live: Json) -> bool:
    marked = any(label(live, key) for key in (*_FLUX_LABELS, _ARGO[1]))
    return marked or any(annotation(live, key) for key in _ARGO)


def is_member(live: Json, marks: Mapping[str, str]) -> bool:
    """Whether an object still carries all our labels."""
    return marks.items() <= labels(live).items()


def takeover(live: Json, api_version: str) -> list[Json]:
    """The JSON patch by which the fields that the tool before applied become ours.

    The next apply then takes away what is no longer declared, the marks of that tool among it: with them gone, Flux and
    Argo CD do not remove the object when they are told to forget it.
    """
    mine: Json = {}
    rest: list[Mapping[str, Any]] = []
    for entry in items(live, "metadata", "managedFields"):
        fields = table(entry, "fieldsV1")
        if text(entry, "subresource") or not (text(entry, "manager") in _BEFORE or is_of(entry, MANAGER)):
            rest.append(entry)
        elif text(entry, "apiVersion") == api_version:
            mine = united(mine, fields)
        else:  # the fields of another version of the kind mean nothing in this one, but for the metadata
            mine = united(mine, {key: below for key, below in fields.items() if key == _METADATA})
            left = {key: below for key, below in fields.items() if key != _METADATA}
            rest += [{**entry, "fieldsV1": left}] if left else []
    if mine:
        rest.append(our_entry(api_version, mine))
    return owners_patch(live, rest)


def kept_because(live: Json) -> str:
    """Why an object must not be removed although nothing declares it any more; empty when it may be."""
    asked = annotation(live, PRUNE).strip().lower()
    if asked == "false":
        return f'it says {PRUNE}: "false"'
    for key, value in _KEPT:
        if value in (annotation(live, key).strip().lower(), label(live, key).lower()):
            return f"it says {key}: {value}"
    for option in annotation(live, _ARGO_OPTIONS).split(","):
        if option.strip().lower() in _ARGO_KEPT:
            return f"it says {_ARGO_OPTIONS}: {option.strip()}"
    if asked != "true" and (group_of(text(live, "apiVersion")), text(live, "kind")) in _DATA:
        return f'with it would go data; {PRUNE}: "true" on it allows that'
    return ""

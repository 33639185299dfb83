"""Whose an object is that a bundle wants, what comes over from the tool before, and what is never removed."""

from __future__ import annotations

import copy

import pytest

from reconciler.core import names
from reconciler.core.bundle_inventory import MEMBER, rendered
from reconciler.core.bundle_ownership import ADOPT, PRUNE, Whose, is_member, kept_because, takeover, whose
from reconciler.core.kubernetes_identity import Identity
from reconciler.core.kubernetes_labels import Place
from tests.support.kube_answers import answered, entry
from tests.support.kube_fields import patch

MARKS = {names.LABEL_OWNER: "default", names.LABEL_ENVIRONMENT: "production", names.LABEL_SERVICE: "edge"}
FLUX = "kustomize.toolkit.fluxcd.io/name"
LABEL = {"f:metadata": {"f:labels": {f"f:{FLUX}": {}}}}
IMAGE = {"f:spec": {"f:image": {}}}


def declared(**annotations: str) -> dict:
    found = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "annotations": annotations}}
    about = Identity("apps", "Deployment", "shop", "web")
    return rendered({**found, "spec": {"image": "a"}}, about, Place("default", "shop"), "production", "edge")


def live(labels: dict | None = None, annotations: dict | None = None, **more: object) -> dict:
    metadata = {"name": "web", "uid": "u1", "resourceVersion": "7"}
    found = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, **more}
    return {**found, "metadata": {**metadata, "labels": labels or {}, "annotations": annotations or {}}}


def test_what_carries_our_labels_is_ours() -> None:
    assert whose(answered(declared()), declared()) is Whose.OURS
    assert whose(live(MARKS), declared()) is Whose.OURS


@pytest.mark.parametrize("key", MARKS)
def test_what_carries_the_labels_of_another_is_not(key: str) -> None:
    other = live({**MARKS, key: "another", FLUX: "apps"})
    assert whose(other, declared()) is Whose.FOREIGN
    bare = live({each: value for each, value in MARKS.items() if each != key})
    assert whose(bare, declared()) is Whose.FOREIGN


@pytest.mark.parametrize(
    ("key", "taken"),
    [(names.LABEL_OWNER, False), (names.LABEL_ENVIRONMENT, False), (names.LABEL_SERVICE, True)],
)
def test_only_another_service_of_the_same_environment_gives_an_object_away(key: str, *, taken: bool) -> None:
    asked = declared(**{ADOPT: "true"})
    assert whose(live({**MARKS, key: "another"}), asked) is (Whose.MOVES if taken else Whose.FOREIGN)


@pytest.mark.parametrize(
    ("labels", "annotations"),
    [
        ({FLUX: "apps"}, {}),
        ({"helm.toolkit.fluxcd.io/name": "web"}, {}),
        ({"argocd.argoproj.io/instance": "web"}, {}),
        ({}, {"argocd.argoproj.io/instance": "web"}),
        ({}, {"argocd.argoproj.io/tracking-id": "web:apps/Deployment:shop/web"}),
    ],
)
def test_what_came_from_git_by_another_tool_moves(labels: dict, annotations: dict) -> None:
    assert whose(live(labels, annotations), declared()) is Whose.MOVES


@pytest.mark.parametrize(
    ("labels", "annotations"),
    [
        ({}, {}),
        ({"app.kubernetes.io/managed-by": "Helm", "app.kubernetes.io/instance": "web"}, {}),
        ({}, {"kubectl.kubernetes.io/last-applied-configuration": "{}", "meta.helm.sh/release-name": "web"}),
        ({FLUX: ""}, {}),
    ],
)
def test_nothing_else_moves_unless_git_says_so(labels: dict, annotations: dict) -> None:
    assert whose(live(labels, annotations), declared()) is Whose.FOREIGN
    assert whose(live(labels, annotations), declared(**{ADOPT: "yes"})) is Whose.FOREIGN
    assert whose(live(labels, annotations), declared(**{ADOPT: "true"})) is Whose.MOVES
    assert whose(live(labels, {**annotations, ADOPT: "true"}), declared()) is Whose.FOREIGN


def test_a_member_carries_all_our_labels() -> None:
    marks = {**MARKS, names.LABEL_ROLE: MEMBER}
    assert is_member(answered(declared()), marks)
    assert not is_member(live(MARKS), marks)
    assert is_member(live(MARKS), {})


def owned(*entries: dict) -> dict:
    found = live()
    found["metadata"]["managedFields"] = list(entries)
    return found


def by(manager: str, fields: dict, operation: str = "Update", version: str = "apps/v1", **more: str) -> dict:
    return {**entry(manager, operation, fields, **more), "apiVersion": version}


def taken(*entries: dict) -> list[dict]:
    """The entries after a takeover; each step of the patch has to fit."""
    before = owned(*entries)
    found = copy.deepcopy(before)
    for step in takeover(before, "apps/v1"):
        patch(found, step)
    assert {**found, "metadata": {**found["metadata"], "managedFields": list(entries)}} == before
    return found["metadata"]["managedFields"]


def mine(fields: dict) -> dict:
    about = {"manager": "reconciler", "operation": "Apply", "apiVersion": "apps/v1", "fieldsType": "FieldsV1"}
    return {**about, "fieldsV1": fields}


@pytest.mark.parametrize(
    "manager",
    ["kustomize-controller", "helm", "argocd-controller", "kubectl-client-side-apply", "kubectl-replace", "kubectl"],
)
@pytest.mark.parametrize("operation", ["Apply", "Update"])
def test_the_fields_of_the_tool_before_become_ours(manager: str, operation: str) -> None:
    assert taken(by(manager, IMAGE | LABEL, operation)) == [mine(IMAGE | LABEL)]


def test_what_several_of_them_and_we_have_comes_together() -> None:
    ours = by("reconciler", {"f:metadata": {"f:labels": {".": {}, "f:a": {}}}, "f:spec": {}}, "Apply")
    assert taken(by("helm", LABEL), ours, by("kubectl-create", IMAGE)) == [
        mine({"f:metadata": {"f:labels": {".": {}, "f:a": {}, f"f:{FLUX}": {}}}, **IMAGE})
    ]


def test_what_others_set_stays_theirs() -> None:
    others = (
        by("kubectl-edit", IMAGE),
        by("kube-controller-manager", {"f:status": {}}, subresource="status"),
        by("helm", {"f:spec": {"f:replicas": {}}}, subresource="scale"),
        by("reconciler", IMAGE),
    )
    assert taken(*others) == list(others)
    assert taken(*others, by("flux", LABEL)) == [*others, mine(LABEL)]


def test_of_another_version_of_the_kind_only_the_metadata_come() -> None:
    old = by("kustomize-controller", IMAGE | LABEL, version="apps/v1beta1")
    assert taken(old) == [{**old, "fieldsV1": IMAGE}, mine(LABEL)]
    assert taken(by("kustomize-controller", LABEL, version="apps/v1beta1")) == [mine(LABEL)]


def test_a_takeover_holds_for_this_state_of_the_object_only() -> None:
    patch_of_it = takeover(owned(by("helm", IMAGE)), "apps/v1")
    assert {"op": "replace", "path": "/metadata/resourceVersion", "value": "7"} in patch_of_it


def test_an_object_without_owners_can_be_taken_over() -> None:
    assert takeover(live(), "apps/v1")[1] == {"op": "add", "path": "/metadata/managedFields", "value": []}


def kept(
    annotations: dict | None = None, labels: dict | None = None, version: str = "v1", kind: str = "Service"
) -> str:
    return kept_because({**live(labels, annotations), "apiVersion": version, "kind": kind})


def test_most_objects_may_be_removed() -> None:
    assert kept() == ""
    assert kept({PRUNE: "true"}) == ""
    assert kept(version="example.org/v1", kind="Namespace") == ""


def test_an_object_that_says_so_is_kept() -> None:
    assert kept({PRUNE: "false"}) == f'it says {PRUNE}: "false"'
    assert kept({PRUNE: "False "})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kustomize.toolkit.fluxcd.io/prune", "disabled"),
        ("kustomize.toolkit.fluxcd.io/prune", "Disabled"),
        ("kustomize.toolkit.fluxcd.io/reconcile", "disabled"),
        ("helm.sh/resource-policy", "keep"),
        ("helm.sh/resource-policy", " Keep"),
        ("argocd.argoproj.io/sync-options", "Prune=false"),
        ("argocd.argoproj.io/sync-options", "Validate=false, Prune=confirm"),
        ("argocd.argoproj.io/sync-options", "Delete=false,Replace=true"),
    ],
)
def test_the_marks_of_other_tools_hold(key: str, value: str) -> None:
    assert kept({key: value}).startswith(f"it says {key}: ")
    assert kept({key: value, PRUNE: "true"}) != ""


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kustomize.toolkit.fluxcd.io/prune", "enabled"),
        ("kustomize.toolkit.fluxcd.io/prune", ""),
        ("helm.sh/resource-policy", "delete"),
        ("argocd.argoproj.io/sync-options", "Prune=true,PruneLast=false"),
    ],
)
def test_other_values_of_these_marks_keep_nothing(key: str, value: str) -> None:
    assert kept({key: value}) == ""


def test_flux_reads_labels_as_well() -> None:
    assert kept(labels={"kustomize.toolkit.fluxcd.io/prune": "disabled"})


@pytest.mark.parametrize(
    ("version", "kind"),
    [
        ("v1", "Namespace"),
        ("v1", "PersistentVolume"),
        ("v1", "PersistentVolumeClaim"),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
    ],
)
def test_what_data_goes_with_is_kept_unless_it_says_otherwise(version: str, kind: str) -> None:
    assert "data" in kept(version=version, kind=kind)
    assert kept({PRUNE: "true"}, version=version, kind=kind) == ""
    assert kept({PRUNE: "false"}, version=version, kind=kind).startswith("it says")

"""A bundle as a group: settled when all of its objects are current, and what is told when one is not or was changed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core import bundle_live
from reconciler.core.bundle_inventory import Entry, Inventory, entry_of, held, rendered
from reconciler.core.bundle_live import TOLD, group, small
from reconciler.core.errors import Reason, ReconcilerError, Stalled
from reconciler.core.kstatus import State
from reconciler.core.kubernetes_identity import Identity
from reconciler.core.kubernetes_labels import Place
from reconciler.core.live import Difference
from reconciler.core.managed_fields import MAX_DIFFERENCES
from tests.support.kube_answers import GONE, answered, changed, entry

PLACE = Place("default", "shop")
EARLY, LATE = "2025-12-31T23:59:59Z", "2026-01-01T00:30:00Z"
REPLICAS = ["f:spec", "f:replicas"]
MAIN = ["f:spec", "f:template", "f:spec", "f:containers", 'k:{"name":"main"}']


def made(kind: str, name: str, version: str = "v1", **more: object) -> dict:
    """The answer to the apply of an object of the bundle `edge`."""
    declared = {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **more}
    about = Identity(version.rpartition("/")[0], kind, "shop", name)
    return answered(rendered(declared, about, PLACE, "production", "edge"))


def line(live: dict) -> Entry:
    group_, version = live["apiVersion"].rpartition("/")[::2]
    about = Identity(group_, live["kind"], "shop", live["metadata"]["name"])
    return Entry(about, version, entry_of(live, about, "1").applied, held(live))


CONTAINER = {"name": "main", "image": "web:1", "env": [{"name": "PASSWORD", "value": "old"}]}
WEB = made("Deployment", "web", "apps/v1", spec={"replicas": 2, "template": {"spec": {"containers": [CONTAINER]}}})
COUNTS = dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas", "readyReplicas"), 2)
WEB["status"] = {"observedGeneration": 1, **COUNTS, "conditions": [{"type": "Available", "status": "True"}]}
FILES = made("ConfigMap", "files", data={"a": "1", "b": "2"})
OLD = made("ConfigMap", "old", data={})
ALL = {line(each).identity: each for each in (WEB, FILES, OLD)}
BUNDLE = Inventory("edge", "1" * 64, "r", "manifests/edge@sha256:1", "op", True, (line(FILES), line(WEB)), (line(OLD),))


def shown(inventory: Inventory = BUNDLE, **instead: dict | ReconcilerError | None):
    """The group of a bundle of which these objects, by their name, are as given; `old` is gone."""

    def look(about: Entry) -> dict | ReconcilerError | None:
        found = instead.get(about.identity.name, ALL[about.identity] if about.identity.name != "old" else None)
        return small(found) if isinstance(found, dict) else found

    return group(inventory, look)


def conditions(*found: dict) -> dict:
    return {**WEB, "status": {**WEB["status"], "conditions": list(found)}}


def test_what_is_not_waited_for_may_be_ill_but_has_to_be_there() -> None:
    ill = {**WEB, "status": {}}
    ignored = {**ill, "metadata": {**ill["metadata"], "annotations": {"reconciler.dev/health": "ignore"}}}
    assert not shown(web=ill).settled
    assert shown(web=ignored).settled
    assert not shown(web=None).settled
    assert not shown(
        web={**ill, "metadata": {**ill["metadata"], "annotations": {"reconciler.dev/health": "x"}}}
    ).settled


def test_a_bundle_whose_objects_are_current_is_settled() -> None:
    found = shown()
    assert (found.name, found.service, found.version, found.image) == ("edge", "edge", "1" * 64, BUNDLE.image)
    assert (found.operated, found.revision, found.created_at) == ("op", "r", BUNDLE.created_at)
    assert (found.settled, found.ready, found.replicas) == (True, 1, 1)
    assert (found.reason, found.detail, found.differences) == (None, "", ())
    assert found.inventory == ("/ConfigMap/shop/files", "apps/Deployment/shop/web")
    assert found.leftovers == ()


def test_what_an_older_version_left_is_told_and_waited_for_by_nobody() -> None:
    found = shown(old=OLD)
    assert found.leftovers == ("/ConfigMap/shop/old",)
    assert found.inventory[-1:] == found.leftovers
    assert found.settled
    unknown = shown(old=Stalled(Reason.FORBIDDEN, "no right to list"))
    assert unknown.leftovers == found.leftovers


def test_what_is_not_this_bundles_any_more_is_no_leftover() -> None:
    other = rendered(OLD, line(OLD).identity, PLACE, "production", "another")
    assert shown(old=answered(other)).leftovers == ()


def test_a_bundle_that_is_being_applied_is_not_settled_and_has_no_drift() -> None:
    applying = replace(BUNDLE, operated="")
    assert not shown(applying).settled
    found = shown(applying, files=None, web=changed(WEB, REPLICAS, 5, "kubectl-scale"))
    assert (found.differences, found.reason) == ((), None)
    assert found.detail == "ConfigMap shop/files: not applied yet"


def test_an_object_that_is_gone_is_drift() -> None:
    found = shown(files=None)
    assert found.differences == (Difference(Reason.DRIFT_MISSING, "ConfigMap shop/files is gone"),)
    assert (found.settled, found.ready, found.detail) == (False, 0, "ConfigMap shop/files: gone")


def test_an_object_that_became_another_ones_is_gone() -> None:
    other = rendered(FILES, line(FILES).identity, PLACE, "production", "another")
    assert [each.reason for each in shown(files=answered(other)).differences] == [Reason.DRIFT_MISSING]


def test_an_object_that_nobody_can_know_of_keeps_the_bundle_from_being_settled() -> None:
    found = shown(files=Stalled(Reason.FORBIDDEN, "no right to list configmaps", remedy="Grant it"))
    assert (found.settled, found.reason) == (False, Reason.FORBIDDEN)
    assert found.detail == "ConfigMap shop/files: no right to list configmaps. Grant it"
    assert found.differences == ()


def test_an_object_that_is_on_its_way_is_waited_for() -> None:
    web = {**WEB, "status": {**WEB["status"], "readyReplicas": 1}}
    found = shown(web=web)
    assert (found.settled, found.reason) == (False, None)
    assert found.detail == "Deployment shop/web: 1 of 2 ready"


def test_what_failed_is_told_before_what_is_waited_for() -> None:
    files = {**FILES, "metadata": {**FILES["metadata"], "deletionTimestamp": LATE}}
    assert shown(files=files).detail == "ConfigMap shop/files: is being deleted"
    late = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"}
    found = shown(files=files, web=conditions(late))
    assert (found.settled, found.reason) == (False, Reason.UNHEALTHY)
    assert found.detail == "Deployment shop/web: ProgressDeadlineExceeded: timed out"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ('pods "web" is forbidden: exceeded quota: q, requested: cpu=1', Reason.QUOTA_EXCEEDED),
        ("failed quota: q: must specify limits.cpu", Reason.QUOTA_EXCEEDED),
        ('pods "web" is forbidden: violates PodSecurity "restricted"', Reason.POLICY_DENIED),
        ('admission webhook "x" denied the request', Reason.POLICY_DENIED),
        ("connection refused", Reason.ENGINE_REFUSED),
    ],
)
def test_why_no_pod_can_be_made(message: str, reason: Reason) -> None:
    web = conditions({"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message})
    assert shown(web=web).reason is reason


def test_a_pod_that_fits_on_no_node() -> None:
    pod = made("Pod", "one", spec={})
    pod["status"] = {
        "phase": "Pending",
        "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}],
    }
    found = group(replace(BUNDLE, objects=(line(pod),), leaving=()), lambda _: small(pod))
    assert (found.reason, found.detail) == (Reason.UNSCHEDULABLE, "Pod shop/one: Unschedulable: 0/1 nodes")


def details(**instead: dict) -> list[str]:
    found = shown(**instead)
    assert all(each.reason is Reason.DRIFT_CHANGED for each in found.differences)
    return [each.detail for each in found.differences]


def test_what_was_changed_is_told_with_who_did_it() -> None:
    scaled = changed(WEB, REPLICAS, 5, "kubectl", subresource="scale")
    assert details(web=scaled) == ["Deployment shop/web: spec.replicas: now 5 by kubectl (scale)"]
    image = changed(WEB, [*MAIN, "f:image"], "evil:1", "kubectl-edit")
    where = "spec.template.spec.containers[name=main]"
    assert details(web=image) == [f'Deployment shop/web: {where}.image: now "evil:1" by kubectl-edit']


def test_the_entry_of_a_scale_has_no_time() -> None:
    scaled = changed(WEB, REPLICAS, 5, "kubectl", subresource="scale")
    del scaled["metadata"]["managedFields"][-1]["time"]
    assert details(web=scaled) == ["Deployment shop/web: spec.replicas: now 5 by kubectl (scale)"]


def test_drift_does_not_keep_a_bundle_from_being_settled() -> None:
    assert shown(files=changed(FILES, ["f:data", "f:a"], "9", "me")).settled


def test_what_may_be_a_secret_or_is_long_is_not_shown() -> None:
    assert details(files=changed(FILES, ["f:data", "f:a"], "9", "me")) == [
        "ConfigMap shop/files: data.a was changed by me"
    ]
    password = changed(WEB, [*MAIN, "f:env", 'k:{"name":"PASSWORD"}', "f:value"], "hunter2", "me")
    assert "hunter2" not in str(shown(web=password))
    assert details(web=password)[0].endswith("env[name=PASSWORD].value was changed by me")
    for value in ("x" * 81, "", ["a"]):
        assert details(web=changed(WEB, [*MAIN, "f:image"], value, "me"))[0].endswith("image was changed by me")


def test_what_was_removed_is_told_as_a_change() -> None:
    assert details(web=changed(WEB, REPLICAS, GONE, "me")) == ["Deployment shop/web: it is no longer as it was applied"]


def test_what_others_added_is_no_drift() -> None:
    assert details(web=changed(WEB, ["f:metadata", "f:labels", "f:team"], "a", "kubectl-label")) == []


def with_entry(*found: dict) -> dict:
    """WEB, changed by somebody, with these further entries in its managedFields."""
    live = changed(WEB, REPLICAS, GONE, "me")
    live["metadata"]["managedFields"] += found
    return live


@pytest.mark.parametrize(
    "other",
    [
        entry("kubectl-edit", "Update", {"f:spec": {"f:paused": {}}}, time=EARLY),
        entry("kube-controller-manager", "Update", {"f:status": {"f:replicas": {}}}, subresource="status", time=LATE),
        entry("reconciler", "Update", {"f:spec": {"f:paused": {}}}, time=LATE),
        entry("kube-controller-manager", "Update", {"f:metadata": {"f:annotations": {".": {}, "f:a": {}}}}, time=LATE),
        entry("me", "Update", {".": {}}, time=LATE),
    ],
)
def test_what_is_not_told_as_a_change(other: dict) -> None:
    assert details(web=with_entry(other)) == ["Deployment shop/web: it is no longer as it was applied"]


def test_only_a_few_changes_are_told_of_one_object_and_of_a_bundle() -> None:
    fields = {f"f:x{number}": {} for number in range(TOLD + 1)}
    found = details(web=with_entry(entry("me", "Update", {"f:spec": fields}, time=LATE)))
    assert found == [f"Deployment shop/web: spec.x{number} was changed by me" for number in range(TOLD)]
    lives = [
        changed(made("ConfigMap", f"c{number}", data={"a": "1"}), ["f:data", "f:a"], "9", "me") for number in range(9)
    ]
    byname = {live["metadata"]["name"]: small(live) for live in lives}
    many = replace(BUNDLE, objects=tuple(line(live)._replace(held="other") for live in lives), leaving=())
    assert len(group(many, lambda about: byname[about.identity.name]).differences) == MAX_DIFFERENCES


def test_fields_that_go_too_deep_are_told_as_a_whole() -> None:
    fields: dict = {}
    for _ in range(bundle_live.MAX_DEPTH + 10):
        fields = {"f:x": fields}
    live = with_entry(entry("me", "Update", fields, time=LATE))
    assert details(web=live) == [f"Deployment shop/web: {'.'.join(['x'] * bundle_live.MAX_DEPTH)} was changed by me"]


def test_little_is_kept_of_an_object() -> None:
    found = small(WEB)
    assert found["metadata"] == {key: WEB["metadata"][key] for key in ("name", "uid", "resourceVersion")}
    assert (found["kind"], found["service"], found["changes"]) == ("Deployment", "edge", ())
    assert found["held"] == line(WEB).held
    assert found["standing"].state is State.CURRENT
    assert "web:1" not in str(found)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
ELEMENTS = st.sampled_from([".", "f:spec", "f:a", "k:{", 'k:{"name":"a"}', "k:[]", "v:1", "v:x", "f:", "", "f:data"])
FIELDS = st.recursive(JUNK, lambda inner: st.dictionaries(ELEMENTS, inner, max_size=3), max_leaves=8)
MANAGED = st.lists(
    JUNK
    | st.fixed_dictionaries(
        {"manager": st.just("reconciler") | JUNK, "operation": st.just("Apply") | JUNK, "fieldsV1": FIELDS},
        optional={"time": st.just(LATE) | JUNK, "subresource": JUNK},
    ),
    max_size=3,
)


@given(
    kind=JUNK | st.sampled_from(["Secret", "Deployment", "ConfigMap"]),
    metadata=JUNK | st.fixed_dictionaries({"managedFields": JUNK | MANAGED}, optional={"labels": JUNK, "uid": JUNK}),
    spec=JUNK | st.fixed_dictionaries({"a": JUNK | st.lists(st.fixed_dictionaries({"name": JUNK}))}),
    data=JUNK,
)
def test_nothing_that_stands_in_an_object_raises(kind: object, metadata: object, spec: object, data: object) -> None:
    live = {"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": spec, "data": data, "a": spec}
    found = small(live)
    assert len(found["held"]) == 16
    assert all(isinstance(each, str) for each in (*found["metadata"].values(), *found["changes"], found["service"]))

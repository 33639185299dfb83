"""What a namespace shows as groups, routes, leftovers and things in the way."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.delivery import Scaling
from reconciler.core.errors import Reason
from reconciler.core.kubernetes_objects import Gateway, group_objects, route_objects
from reconciler.core.kubernetes_read import live_state, slim
from reconciler.core.kubernetes_slim import counts
from reconciler.core.live import Difference, Foreign, Group, GroupRoute, ImageStatus, LiveState
from reconciler.core.model import ServiceSpec
from tests.support.kube_answers import (
    FIELDS,
    GONE,
    MADE,
    NOW,
    answered,
    changed,
    condition,
    pod,
    replica_set,
    seen,
    settled,
)
from tests.support.kube_specs import ENVIRONMENT, OTHER, PLACE, PLAIN, RICH, SECRETS, VERSION, ensure, lead, specs

GATEWAY = Gateway("public")
SCALED = replace(PLAIN, scaling=Scaling(2, 5, cpu=0.25))
MINE, THEIRS = "web-" + "a" * 12, "web-" + "b" * 12


def look(objects: list[dict]) -> LiveState:
    whole = live_state(seen(objects), "default", ENVIRONMENT, NOW, {}, [PLAIN.image.pinned])
    small = live_state(seen([slim(each) for each in objects]), "default", ENVIRONMENT, NOW, {}, [PLAIN.image.pinned])
    assert whole == small, "what is kept of the objects is all that is read"
    return whole


def group_of(spec: ServiceSpec, replicas: int | None = 1, **changes: object) -> list[dict]:
    return [answered(each) for each in group_objects(ensure(spec, replicas, **changes), PLACE, SECRETS)]


def only(objects: list[dict]) -> Group:
    (found,) = look(objects).groups
    return found


def route_of(spec: ServiceSpec, shares: dict[str, int], gateway: Gateway | None = None, **more: object) -> list[dict]:
    return [answered(each) for each in route_objects(lead(spec, shares, **more), PLACE, gateway)]  # type: ignore[arg-type]


def way(objects: list[dict], service: str = "web") -> GroupRoute:
    return look(objects).routes[service]


def without(objects: list[dict], kind: str) -> list[dict]:
    return [each for each in objects if each["kind"] != kind]


def test_a_group_is_what_was_declared() -> None:
    effect = ensure(RICH, 3)
    found = only(group_of(RICH, 3))
    assert (found.name, found.service, found.version, found.revision) == ("web", "web", VERSION, "r1")
    assert (found.image, found.operated, found.replicas) == (RICH.image.pinned, effect.operated, 3)
    assert (found.ready, found.settled, found.reason, found.differences) == (0, False, None, ())
    assert found.created_at.isoformat() == "2026-01-01T00:00:00+00:00"


@settings(max_examples=40)
@given(specs, st.integers(0, 5))
def test_what_was_rendered_is_read_back(spec: ServiceSpec, replicas: int) -> None:
    effect = ensure(spec, replicas)
    found = only(group_of(spec, replicas))
    assert (found.name, found.service, found.version, found.revision, found.operated, found.replicas) == (
        effect.name,
        spec.name,
        VERSION,
        "r1",
        effect.operated,
        replicas,
    )
    assert found.differences == ()


def test_those_that_are_ready_are_of_the_declared_version() -> None:
    deployment = group_of(PLAIN, 3)[0]
    old = group_of(PLAIN, 3, version=OTHER)[0]
    old["metadata"]["uid"] = deployment["metadata"]["uid"]
    stranger = group_of(PLAIN, 3)[0]
    sets = [replica_set(deployment, available=2), replica_set(old, available=3), replica_set(stranger, available=9)]
    found = look([deployment, *sets, pod(sets[0], "new"), pod(sets[1], "old")])
    assert found.groups[0].ready == 2
    assert {each.name: (each.version, each.revision) for each in found.instances} == {
        "production/new": (VERSION, "r1"),
        "production/old": (OTHER, "r1"),
    }
    assert found.images[PLAIN.image.pinned].status is ImageStatus.PRESENT


def test_a_group_without_uid_has_no_makers() -> None:
    deployment = group_of(PLAIN)[0]
    orphan = replica_set(deployment, available=1, metadata={})
    del deployment["metadata"]["uid"]
    assert only([deployment, {**replica_set(group_of(PLAIN)[0], available=1)}, orphan]).ready == 0


COUNTS = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")


def test_it_is_settled_when_nothing_is_left_to_do() -> None:
    done = settled(group_of(PLAIN, 2)[0], 2)
    assert only([done]).settled
    for name in COUNTS:
        for count in (1, 3, None):
            assert not only([{**done, "status": {**done["status"], name: count}}]).settled
    assert only([settled(group_of(PLAIN, 0)[0], 0)]).settled


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([], True),
        ([condition("Progressing", "True", reason="ReplicaSetUpdated")], False),
        ([condition("Progressing", "False", reason="ProgressDeadlineExceeded")], False),
        ([condition("Progressing", "Unknown", reason="DeploymentPaused")], False),
        ([condition("Available", "True")], True),
    ],
)
def test_it_is_settled_by_its_progress(conditions: list[dict], expected: bool) -> None:
    done = settled(group_of(PLAIN, 1)[0], 1)
    done["status"]["conditions"] = conditions
    assert only([done]).settled is expected


def test_it_is_not_settled_before_the_last_declaration_was_seen() -> None:
    done = settled(group_of(PLAIN, 1)[0], 1)
    done["metadata"]["generation"] = 2
    assert not only([done]).settled


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ('pods "x" is forbidden: exceeded quota: small, requested: pods=1', Reason.QUOTA_EXCEEDED),
        ('pods "x" is forbidden: failed quota: q: must specify limits.cpu', Reason.QUOTA_EXCEEDED),
        ('pods "x" is forbidden: violates PodSecurity "restricted:latest"', Reason.POLICY_DENIED),
        ('admission webhook "policy" denied the request', Reason.POLICY_DENIED),
        ("Internal error occurred", Reason.ENGINE_REFUSED),
    ],
)
def test_why_no_pod_is_made(message: str, reason: Reason) -> None:
    deployment = settled(group_of(PLAIN, 1)[0], 0)
    deployment["status"]["conditions"].append(condition("ReplicaFailure", "True", message=message))
    found = only([deployment])
    assert (found.reason, found.detail, found.settled) == (reason, message, False)


def test_why_a_pod_does_not_start() -> None:
    deployment = group_of(PLAIN)[0]
    maker = replica_set(deployment)
    stuck = {"conditions": [condition("PodScheduled", "False", reason="Unschedulable", message="0/1 nodes")]}
    found = only([deployment, maker, pod(maker, status=stuck), pod(maker, "b")])
    assert (found.reason, found.detail) == (Reason.UNSCHEDULABLE, "0/1 nodes")
    other = replica_set(group_of(PLAIN, version=OTHER)[0])
    assert only([deployment, maker, pod(other, status=stuck)]).reason is None


def test_what_belongs_to_a_group_must_be_there() -> None:
    objects = group_of(replace(RICH, scaling=SCALED.scaling), None)
    assert only(objects).differences == ()
    for kind in ("PodDisruptionBudget", "HorizontalPodAutoscaler"):
        assert only(without(objects, kind)).differences == (Difference(Reason.DRIFT_MISSING, f"{kind}/web is gone"),)
    gone = only(without(objects, "ConfigMap")).differences
    assert [each.reason for each in gone] == [Reason.DRIFT_MISSING]
    assert gone[0].detail.startswith("ConfigMap/web-files-")
    assert len(only(without(objects, "Secret")).differences) == 2


def test_what_does_not_belong_to_it_any_more_is_told() -> None:
    one, several = group_of(PLAIN, 1), group_of(PLAIN, 2)
    found = only([*one, *without(several, "Deployment")])
    assert found.differences == (Difference(Reason.DRIFT_EXTRA, "PodDisruptionBudget/plain is not wanted any more"),)


def test_a_declaration_that_was_cut_off_is_none() -> None:
    before, after = group_of(PLAIN, 2), group_of(PLAIN, 3)
    assert only(after).operated == ensure(PLAIN, 3).operated
    assert only([after[0], before[1]]).operated == ""


def test_changes_by_hand_are_told_of_all_that_belongs_to_it() -> None:
    deployment, budget = group_of(PLAIN, 2)
    scaled = changed(deployment, ["f:spec", "f:replicas"], 5, "kubectl")
    loose = changed(budget, ["f:spec", "f:maxUnavailable"], "100%", "kubectl-edit")
    assert [each.detail for each in only([scaled, loose]).differences] == [
        "spec.replicas: 2 -> 5 by kubectl",
        "PodDisruptionBudget/plain: spec.maxUnavailable: 1 -> 100% by kubectl-edit",
    ]
    assert only([scaled, loose]).replicas == 5


def test_an_object_of_which_nobody_says_what_was_applied() -> None:
    deployment = group_of(PLAIN)[0]
    del deployment["metadata"]["managedFields"]
    del deployment["metadata"]["annotations"]
    found = only([deployment])
    assert (found.version, found.operated, found.settled) == ("", "", False)
    assert found.differences == (Difference(Reason.DRIFT_CHANGED, "nothing says what was applied to it"),)


def test_whose_the_number_is() -> None:
    ours, theirs = group_of(PLAIN, 2)[0], group_of(SCALED, None)[0]
    assert (counts(ours), counts(theirs)) == (True, False)
    assert (counts(slim(ours)), counts(slim(theirs))) == (True, False)


def test_a_route_by_weights_is_read_back() -> None:
    objects = route_of(RICH, {VERSION: 10, OTHER: 90, "": 0}, GATEWAY, preview=MINE)
    found = way(objects)
    assert found.weights == {MINE: 10, THEIRS: 90, "web": 0}
    assert (found.preview, found.differences) == (MINE, ())
    assert found.operated == lead(RICH, {}).operated


def test_a_route_to_one_group_or_to_all_is_read_back() -> None:
    assert way(route_of(RICH, {VERSION: 100, OTHER: 0})).weights == {MINE: 100}
    assert way(route_of(RICH, {})).weights == {}
    assert way(route_of(RICH, {"": 100}, mixed=True)).weights is None
    assert way(route_of(RICH, {"": 100}, GATEWAY, mixed=True)).weights is None
    assert way(route_of(RICH, {VERSION: 100}, GATEWAY)).preview == ""


def test_a_part_of_a_route_that_is_gone_is_told() -> None:
    objects = route_of(RICH, {VERSION: 10, OTHER: 90}, GATEWAY, preview=MINE)
    left = without(objects, "HTTPRoute")
    assert [each.detail for each in way(left).differences] == ["HTTPRoute/web is gone", "HTTPRoute/web.preview is gone"]
    nameless = [each for each in objects if each["metadata"]["name"] != "web" or each["kind"] != "Service"]
    assert way(nameless) == GroupRoute("web", {}, "")
    backend = [each for each in objects if each["metadata"]["name"] != MINE]
    assert way(backend).weights == {MINE: 10, THEIRS: 90}
    assert [each.reason for each in way(backend).differences] == [Reason.DRIFT_MISSING]


def test_a_part_of_a_route_that_is_left_over_is_told_and_not_believed() -> None:
    before, after = route_of(RICH, {VERSION: 10, OTHER: 90}, GATEWAY), route_of(RICH, {VERSION: 100})
    found = way([*after, *(each for each in before if each["metadata"]["name"] != "web" or each["kind"] != "Service")])
    assert found.weights == {MINE: 100}
    assert [each.detail for each in found.differences] == [
        "HTTPRoute/web is not wanted any more",
        f"Service/{MINE} is not wanted any more",
        f"Service/{THEIRS} is not wanted any more",
    ]


def test_a_route_that_was_being_changed_is_operated_as_nothing() -> None:
    before = route_of(RICH, {VERSION: 100}, GATEWAY)
    after = [answered(e) for e in route_objects(replace(lead(RICH, {VERSION: 100}), operated="x"), PLACE, GATEWAY)]
    assert way(after).operated == "x"
    assert way([*without(after, "HTTPRoute"), *without(before, "Service")]).operated == ""


def test_changes_of_a_route_by_hand_are_told() -> None:
    objects = route_of(RICH, {VERSION: 10, OTHER: 90}, GATEWAY)
    objects[2] = changed(objects[2], ["f:spec", "f:type"], "NodePort", "me")
    objects[3] = changed(objects[3], ["f:spec", "f:hostnames"], GONE, "me")
    assert [each.detail for each in way(objects).differences] == [
        "spec.type: ClusterIP -> NodePort by me",
        'HTTPRoute/web: spec.hostnames: ["www.example.org","*.shop.example.org"] -> none',
    ]


def test_files_and_secrets_that_nobody_refers_to_are_leftovers() -> None:
    objects = group_of(RICH)
    named = sorted(f"{each['kind']}/{each['metadata']['name']}" for each in objects if each["kind"] != "Deployment")
    assert look(objects).orphans == ()
    assert list(look(without(objects, "Deployment")).orphans) == named
    assert look(without(objects, "Deployment")).groups == ()
    deployment = next(each for each in objects if each["kind"] == "Deployment")
    rest = without(objects, "Deployment")
    assert look([*rest, replica_set(deployment, replicas=1)]).orphans == ()
    assert list(look([*rest, replica_set(deployment, replicas=0)]).orphans) == named
    assert look([*rest, pod(replica_set(deployment))]).orphans == ()


def test_a_young_one_may_still_be_waited_for() -> None:
    (config, *_) = group_of(RICH)
    config["metadata"]["creationTimestamp"] = "2026-01-01T00:59:30Z"
    assert look([config]).orphans == ()
    config["metadata"]["creationTimestamp"] = None
    assert len(look([config]).orphans) == 1


def test_a_budget_without_a_group_is_a_leftover() -> None:
    objects = group_of(SCALED, None)
    assert look(without(objects, "Deployment")).orphans == (
        "HorizontalPodAutoscaler/plain",
        "PodDisruptionBudget/plain",
    )


def test_what_is_not_ours_is_not_seen() -> None:
    objects = [*group_of(RICH), *route_of(RICH, {VERSION: 100}, GATEWAY)]
    maker = replica_set(next(each for each in objects if each["kind"] == "Deployment"))
    objects += [maker, pod(maker)]
    for each in objects:
        each["metadata"]["labels"]["dev.reconciler.owner"] = "another"
    assert look(objects) == look([])


def test_what_is_ours_only_by_half_is_left_alone() -> None:
    deployment = group_of(PLAIN)[0]
    maker = replica_set(deployment)
    nameless, renamed = group_of(PLAIN)[0], group_of(PLAIN)[0]
    del nameless["metadata"]["labels"]["dev.reconciler.service"]
    renamed["metadata"]["name"] = "other"
    naked = pod(maker, "naked", ownerReferences=[])
    unknown = pod(maker, "unknown", annotations={})
    found = look([nameless, renamed, maker, naked, unknown])
    half = "it carries only some of our labels"
    assert found.foreign == (
        Foreign("Deployment/other", Reason.DRIFT_UNLABELLED, "it has our labels, but is none of our groups"),
        Foreign("Deployment/plain", Reason.DRIFT_UNLABELLED, half),
        Foreign("Pod/naked", Reason.DRIFT_EXTRA, "it carries our labels, but no group of ours made it"),
        Foreign("Pod/unknown", Reason.DRIFT_UNLABELLED, half),
    )
    assert (found.groups, found.instances) == ((), ())
    del naked["metadata"]["labels"]["dev.reconciler.service"]
    assert "Pod/naked" in [each.name for each in look([naked]).foreign]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=5,
)
OURS = {
    "dev.reconciler.owner": "default",
    "dev.reconciler.environment": ENVIRONMENT,
    "dev.reconciler.service": "web",
    "dev.reconciler.group": "web",
}
METADATA = JSON | st.fixed_dictionaries(
    {"name": st.just("web")},
    optional={
        "labels": st.just(OURS) | JSON.map(lambda value: {**OURS, "x": value}) | JSON,
        "annotations": JSON
        | st.dictionaries(
            st.sampled_from([f"dev.reconciler.{k}" for k in ("version", "companions", "operated")]), JSON
        ),
        "creationTimestamp": JSON | st.just(MADE),
        "ownerReferences": JSON | st.just([{"controller": True, "uid": "u"}]),
        "uid": JSON,
    },
)
SPECS = JSON | st.dictionaries(
    st.sampled_from(["replicas", "selector", "rules", "template", "containers", "volumes", "paused"]),
    JSON | st.lists(st.fixed_dictionaries({"backendRefs": JSON | st.lists(st.fixed_dictionaries({"name": JSON}))})),
)


@given(st.sampled_from(sorted(FIELDS)), METADATA, SPECS, JSON)
def test_nothing_strange_raises(kind: str, metadata: object, spec: object, status: object) -> None:
    strange = {"kind": kind, "metadata": metadata, "spec": spec, "status": status}
    proper = [*group_of(PLAIN, 2), *route_of(RICH, {VERSION: 100}, GATEWAY)]
    assert {each.name for each in look([strange, *proper]).groups} >= {"plain"}

"""Drift is told by field: what we applied and no longer own, or is no longer as applied, and who has it now."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core import managed_fields as fields
from reconciler.core.errors import Reason
from reconciler.core.kubernetes_labels import APPLIED, MANAGER
from reconciler.core.kubernetes_objects import filled, group_objects, route_objects, secret_of
from tests.support.kube_answers import GONE, answered, changed, entry
from tests.support.kube_specs import PLACE, RICH, SECRETS, VERSION, ensure, lead, specs

OBJECTS = {each["kind"]: each for each in group_objects(ensure(RICH, 3), PLACE, SECRETS)}
LIVE = answered(OBJECTS["Deployment"])
MAIN = ["f:spec", "f:template", "f:spec", "f:containers", 'k:{"name":"main"}']
REPLICAS = ["f:spec", "f:replicas"]


def details(live: dict) -> list[str]:
    found = fields.drifted(live)
    assert all(each.reason is Reason.DRIFT_CHANGED for each in found)
    return [each.detail for each in found]


def test_what_was_just_applied_is_as_it_was_applied() -> None:
    for each in (*OBJECTS.values(), *route_objects(lead(RICH, {VERSION: 100}), PLACE, None)):
        assert details(answered(each)) == []


def test_a_number_that_was_changed() -> None:
    assert details(changed(LIVE, REPLICAS, 5, "kubectl", subresource="scale")) == [
        "spec.replicas: 3 -> 5 by kubectl (scale)"
    ]
    assert details(changed(LIVE, REPLICAS, 3, "kubectl-edit")) == ["spec.replicas is no longer ours by kubectl-edit"]


def test_the_last_one_is_named() -> None:
    live = changed(LIVE, REPLICAS, 5, "first", time="2026-01-01T00:10:00Z")
    live["metadata"]["managedFields"].append(
        entry("second", "Apply", {"f:spec": {"f:replicas": {}}}, time="2026-01-01T00:20:00Z")
    )
    live["metadata"]["managedFields"].append(
        entry("third", "Update", {"f:spec": {".": {}}}, subresource="status", time="2026-01-01T00:30:00Z")
    )
    assert details(live) == ["spec.replicas: 3 -> 5 by second"]


def test_an_image_is_shown_and_a_variable_is_not() -> None:
    live = changed(LIVE, [*MAIN, "f:image"], "evil:1", "kubectl-patch")
    live = changed(live, [*MAIN, "f:env", 'k:{"name":"A"}', "f:value"], "secret", "kubectl-patch")
    live = changed(live, [*MAIN, "f:env", 'k:{"name":"B"}', "f:name"], GONE, "kubectl-patch")
    assert details(live) == [
        "spec.template.spec.containers[name=main].env[name=A].value was changed by kubectl-patch",
        "spec.template.spec.containers[name=main].env[name=B].name was removed",
        f"spec.template.spec.containers[name=main].image: {RICH.image.pinned} -> evil:1 by kubectl-patch",
    ]


def test_long_values_are_not_shown() -> None:
    rendered = group_objects(ensure(replace(RICH, args=("x" * 500,))), PLACE, SECRETS)
    live = answered(next(each for each in rendered if each["kind"] == "Deployment"))
    args = [*MAIN, "f:args"]
    where = "spec.template.spec.containers[name=main].args"
    assert details(changed(live, args, ["y" * 500], "me")) == [f"{where} was changed by me"]
    assert details(changed(live, args, ["y"], "me")) == [f'{where}: a long text -> ["y"] by me']
    assert details(changed(live, args, GONE, "me")) == [f"{where}: a long text -> none"]


def test_at_most_five_are_told() -> None:
    probe = [*MAIN, "f:readinessProbe"]
    live = changed(LIVE, probe, GONE, "kubectl-patch")
    assert len(details(live)) == 5
    assert details(live)[-1] == "and 3 more fields"
    assert details(live)[0].endswith("readinessProbe.failureThreshold: 3 -> none")


def test_what_others_add_is_theirs() -> None:
    live = changed(LIVE, ["f:metadata", "f:labels", "f:theirs"], "x", "somebody")
    live = changed(live, [*MAIN, "f:tty"], True, "webhook")
    assert details(live) == []


def test_a_paused_deployment_is_told_though_the_field_is_left_out_where_it_is_false() -> None:
    without = json.loads(json.dumps(LIVE))
    del without["spec"]["paused"]
    for live in (LIVE, without):
        assert details(live) == []
        paused = changed(live, ["f:spec", "f:paused"], True, "kubectl-rollout")
        assert details(paused) == ["spec.paused: false -> true by kubectl-rollout"]
        assert details(changed(paused, REPLICAS, 1, "me")) == [
            "spec.paused: false -> true by kubectl-rollout",
            "spec.replicas: 3 -> 1 by me",
        ]


def test_our_own_annotations_are_ours_too() -> None:
    notes = ["f:metadata", "f:annotations"]
    assert details(changed(LIVE, [*notes, "f:dev.reconciler.revision"], "r9", "me")) == [
        "metadata.annotations.dev.reconciler.revision: r1 -> r9 by me"
    ]
    assert details(changed(LIVE, [*notes, f"f:{fields.SHAPE}"], "x", "me")) == [
        "what says how it was applied was changed by me"
    ]
    assert details(changed(LIVE, [*notes, f"f:{fields.SHAPE}"], GONE, "me")) == [
        "what says how it was applied was changed"
    ]
    assert details(changed(LIVE, [*notes, f"f:{APPLIED}"], GONE, "me")) == []


@pytest.mark.parametrize("record", ["{", "[]", '"x"', "[" * 5000, "{}", None])
def test_without_the_record_a_change_is_still_told(record: str | None) -> None:
    live = changed(LIVE, REPLICAS, 5, "me")
    live["metadata"]["annotations"][APPLIED] = record
    assert details(live) == ["it is no longer as it was applied"]


def test_a_damaged_record_is_read_no_deeper_than_it_can_be() -> None:
    live = changed(LIVE, REPLICAS, 5, "me")
    live["metadata"]["annotations"][APPLIED] = '{"a":' * 200 + "1" + "}" * 200
    assert details(live) == ["it is no longer as it was applied"]
    live["metadata"]["annotations"][APPLIED] = '{"f:spec":{"f:replicas":"3"},"x":"1","v:[1]":"2"}'
    assert details(live)[0] == "spec.replicas: 3 -> 5 by me"


def test_a_record_that_would_be_too_long_is_left_out() -> None:
    many = replace(RICH, env={f"VARIABLE_{index}": "x" for index in range(500)})
    rendered = next(e for e in group_objects(ensure(many, 3), PLACE, SECRETS) if e["kind"] == "Deployment")
    assert APPLIED not in rendered["metadata"]["annotations"]
    assert details(answered(rendered)) == []
    assert details(changed(answered(rendered), REPLICAS, 5, "me")) == ["it is no longer as it was applied"]


def test_fields_that_belong_to_nobody_are_not_ours() -> None:
    live = {**LIVE, "metadata": {**LIVE["metadata"], "managedFields": []}}
    assert details(live) == ["no field of it is ours any more"]
    assert details({"metadata": {}}) == ["no field of it is ours any more"]


def test_what_somebody_applies_under_our_name_is_told() -> None:
    live = json.loads(json.dumps(LIVE))
    live["spec"]["minReadySeconds"] = 7
    live["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:minReadySeconds"] = {}
    assert details(live) == ["spec.minReadySeconds: none -> 7 by reconciler"]


def test_what_admission_made_of_a_field_of_ours_is_told() -> None:
    live = json.loads(json.dumps(LIVE))
    live["spec"]["template"]["spec"]["containers"][0]["image"] = "mirror.test/web"
    assert details(live) == [f"spec.template.spec.containers[name=main].image: {RICH.image.pinned} -> mirror.test/web"]


def test_the_content_of_a_secret_is_nowhere() -> None:
    skeleton = OBJECTS["Secret"]
    assert secret_of(skeleton) is not None
    made = filled(skeleton, b"very secret")
    value = made["data"]["content"]
    live = answered(made)
    assert value not in json.dumps(live["metadata"])
    assert details(live) == []
    assert filled(skeleton, b"other")["metadata"] == made["metadata"]
    renamed = {**live, "kind": ""}
    assert fields.drifted(renamed, kind="Secret") == ()
    assert details(changed(live, ["f:data", "f:content"], GONE, "me")) == ["data.content was changed"]


@settings(max_examples=40)
@given(specs)
def test_the_set_of_fields_is_that_of_an_apply(spec: object) -> None:
    for each in group_objects(ensure(spec), PLACE, SECRETS):  # type: ignore[arg-type]
        assert fields.field_set(each) == answered(each)["metadata"]["managedFields"][0]["fieldsV1"]


def test_who_holds_what() -> None:
    live = changed(LIVE, [*MAIN, "f:image"], "evil:1", "me")
    assert fields.holds(live, MANAGER, ("spec", "replicas"))
    assert not fields.holds(live, "me", ("spec", "replicas"))
    assert not fields.holds(live, MANAGER, ("spec", "minReadySeconds"))
    assert fields.holder(live, (*MAIN, "f:image")) == "me"
    assert fields.holder(live, ("f:spec", "f:template")) == "me"
    assert fields.holder(live, (*MAIN, "f:image", "f:inside")) == "me"
    assert fields.holder(live, ("f:status",)) == ""
    assert fields.holder(LIVE, ("f:spec",)) == ""


def test_items_are_found_by_their_keys_and_values() -> None:
    live = {
        "metadata": {
            "finalizers": ["a", "b"],
            "managedFields": [
                entry(
                    MANAGER,
                    "Apply",
                    {
                        "f:metadata": {"f:finalizers": {'v:"a"': {}, 'v:"c"': {}}},
                        "f:spec": {
                            "f:list": {
                                'k:{"name":"x"}': {".": {}, "f:at": {}},
                                "k:[]": {},
                                "k:broken": {},
                                'k:{"name":"y"}': {"f:at": {}},
                            },
                            "f:text": {'k:{"name":"x"}': {}},
                            "f:none": {"f:below": None},
                        },
                    },
                ),
                "strange",
                {"manager": MANAGER, "operation": "Apply", "fieldsV1": "strange"},
            ],
        },
        "spec": {"list": ["strange", {"name": "x", "at": 1}], "text": "strange"},
    }
    found = {" ".join(path): value for path, value in fields.owned(live).items()}
    assert found == {
        'f:metadata f:finalizers v:"a"': "a",
        'f:metadata f:finalizers v:"c"': None,
        'f:spec f:list k:{"name":"x"} f:at': 1,
        "f:spec f:list k:[]": None,
        "f:spec f:list k:broken": None,
        'f:spec f:list k:{"name":"y"} f:at': None,
        'f:spec f:text k:{"name":"x"}': None,
        "f:spec f:none f:below": None,
    }
    assert fields.drifted(live)[0].detail == "it is no longer as it was applied"
    live["metadata"]["annotations"] = {APPLIED: json.dumps({"f:l": {"k:broken": "1", 'v:"a"': "2"}})}
    assert [each.detail for each in fields.drifted(live)][:2] == ["l[broken]: 1 -> none", 'l["a"]: 2 -> none']


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
STRANGE = st.fixed_dictionaries(
    {},
    optional={
        "metadata": JSON
        | st.fixed_dictionaries(
            {},
            optional={
                "annotations": JSON | st.dictionaries(st.sampled_from([APPLIED, fields.SHAPE]), st.text() | JSON),
                "managedFields": JSON
                | st.lists(
                    st.fixed_dictionaries(
                        {"manager": st.just(MANAGER) | JSON, "operation": st.just("Apply")},
                        optional={
                            "fieldsV1": JSON
                            | st.dictionaries(
                                st.sampled_from(["f:spec", ".", "k:{}", 'k:{"name":1}', "v:1", "i:0", "", "f:"]), JSON
                            )
                        },
                    )
                ),
            },
        ),
        "spec": JSON,
        "kind": JSON,
    },
)


@given(STRANGE)
def test_nothing_strange_raises(live: dict) -> None:
    found = fields.drifted(live)
    assert len(found) <= 5
    assert all(len(each.detail) < 2000 for each in found)
    fields.holds(live, MANAGER, ("spec",))
    fields.holder(live, ("f:spec", "k:{}"))


@settings(max_examples=50)
@given(specs, st.integers(0, 5))
def test_nothing_that_is_rendered_drifts_by_itself_and_every_changed_number_is_found(spec: object, count: int) -> None:
    for each in group_objects(ensure(spec, count), PLACE, SECRETS):  # type: ignore[arg-type]
        live = answered(each)
        assert details(live) == []
        if each["kind"] == "Deployment":
            assert details(changed(live, REPLICAS, count + 1, "me")) in (
                [f"spec.replicas: {count} -> {count + 1} by me"],
                ["it is no longer as it was applied"],
            )

"""What others add to what we declared is told with who did it, and made ours so that an apply takes it away."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given

from reconciler.core import added_fields as fields
from reconciler.core.errors import Reason
from reconciler.core.kubernetes_labels import APPLIED
from reconciler.core.kubernetes_objects import group_objects, route_objects
from reconciler.core.kubernetes_slim import additions, differences, is_touched, slim
from tests.core.test_managed_fields import LIVE, MAIN, STRANGE
from tests.support.kube_answers import GONE, answered, changed, entry
from tests.support.kube_fields import applied, patch
from tests.support.kube_specs import PLACE, RICH, SECRETS, VERSION, ensure, lead

Json = dict[str, Any]
POD = ["f:spec", "f:template", "f:spec"]
ENV = [*MAIN, "f:env"]
PATH = "spec.template.spec"
VARIABLE = {"name": "FOO", "value": "bar"}


def item(live: Json, path: list[str], keys: Json, each: Json, by: str, operation: str = "Update") -> Json:
    """The object after somebody put an item into the list at `path`."""
    live = copy.deepcopy(live)
    holder: Any = live
    for element in path:
        name = element[2:]
        if element.startswith("k:"):
            holder = next(one for one in holder if json.loads(name).items() <= one.items())
        else:
            holder = holder.setdefault(name, [] if element == path[-1] else {})
    holder.append(each)
    mine: Json = {f"k:{json.dumps(keys, separators=(',', ':'))}": {".": {}, **{f"f:{key}": {} for key in each}}}
    for element in reversed(path):
        mine = {element: mine}
    live["metadata"]["managedFields"].append(entry(by, operation, mine))
    return live


FOO = item(LIVE, ENV, {"name": "FOO"}, VARIABLE, "kubectl-set")


def details(live: Json) -> list[str]:
    found = fields.added(live)
    assert all(each.reason is Reason.DRIFT_CHANGED for each in found)
    return [each.detail for each in found]


def claimed(live: Json) -> Json:
    """The object after the patch; each step has to fit."""
    found = copy.deepcopy(live)
    for step in fields.claim(live, live["apiVersion"]):
        patch(found, step)
    before = live["metadata"]["managedFields"]
    assert {**found, "metadata": {**found["metadata"], "managedFields": before}} == live
    return found


def repaired(live: Json) -> Json:
    """The object after the patch and an apply of what was declared."""
    wanted = next(one for one in group_objects(ensure(RICH, 3), PLACE, SECRETS) if one["kind"] == "Deployment")
    return applied(claimed(live), wanted, "reconciler")


def test_nothing_is_added_to_what_was_just_applied() -> None:
    for each in (
        *group_objects(ensure(RICH, 3), PLACE, SECRETS),
        *route_objects(lead(RICH, {VERSION: 100}), PLACE, None),
    ):
        live = answered(each)
        assert (fields.added(live), fields.touched(live), fields.claim(live, "v1")) == ((), False, [])


def test_a_variable_is_told_and_taken_away() -> None:
    assert details(FOO) == [f"{PATH}.containers[name=main].env[name=FOO] was added by kubectl-set"]
    assert fields.touched(FOO)
    assert [one["manager"] for one in claimed(FOO)["metadata"]["managedFields"]] == ["reconciler"]
    assert repaired(FOO)["spec"] == LIVE["spec"]


@pytest.mark.parametrize(
    ("live", "told"),
    [
        (item(LIVE, [*POD, "f:containers"], {"name": "x"}, {"name": "x", "image": "y"}, "me"), "containers[name=x]"),
        (item(LIVE, [*POD, "f:initContainers"], {"name": "x"}, {"name": "x"}, "me"), "initContainers"),
        (item(LIVE, [*POD, "f:volumes"], {"name": "x"}, {"name": "x", "emptyDir": {}}, "me"), "volumes[name=x]"),
        (
            item(LIVE, [*MAIN, "f:volumeMounts"], {"mountPath": "/x"}, {"mountPath": "/x", "name": "x"}, "me"),
            "containers[name=main].volumeMounts[mountPath=/x]",
        ),
        (changed(LIVE, [*POD, "f:nodeSelector"], {"a": "b"}, "me"), "nodeSelector"),
        (
            changed(LIVE, [*MAIN, "f:securityContext", "f:runAsUser"], 0, "me"),
            "containers[name=main].securityContext.runAsUser",
        ),
    ],
)
def test_whatever_is_added_to_the_instances_is_told_and_taken_away(live: Json, told: str) -> None:
    assert details(live) == [f"{PATH}.{told} was added by me"]
    assert fields.added(repaired(live)) == ()
    assert told.rpartition(".")[2].partition("[")[0] in json.dumps(live["spec"])
    assert repaired(live)["spec"] in (LIVE["spec"], {**LIVE["spec"], **_without_empty_lists(live)})


def _without_empty_lists(live: Json) -> Json:
    """A list that only others had items in is left empty; an API server would leave it out."""
    spec = copy.deepcopy(LIVE["spec"])
    if "initContainers" in live["spec"]["template"]["spec"]:
        spec["template"]["spec"]["initContainers"] = []
    return spec


def test_what_others_may_do_is_not_told() -> None:
    live = changed(LIVE, ["f:metadata", "f:annotations", "f:team"], "blue", "kubectl-annotate")
    live = changed(live, ["f:metadata", "f:labels", "f:team"], "blue", "kubectl-label")
    notes = ["f:spec", "f:template", "f:metadata", "f:annotations"]
    live = changed(live, [*notes, f"f:{fields.RESTARTED}"], "2026-01-01T00:00:00Z", "kubectl-rollout")
    live = changed(live, ["f:spec", "f:replicas"], 5, "kube-controller-manager", subresource="scale")
    live = changed(live, ["f:spec", "f:paused"], True, "kubectl-rollout")
    live = changed(live, ["f:status", "f:replicas"], 5, "kube-controller-manager", subresource="status")
    assert (fields.added(live), fields.touched(live), fields.claim(live, "v1")) == ((), False, [])
    assert details(changed(live, [*notes, "f:other"], "x", "me")) == [
        "spec.template.metadata.annotations.other was added by me"
    ]


def test_what_admission_and_defaulting_set_belongs_to_nobody() -> None:
    live = copy.deepcopy(LIVE)
    live["spec"]["template"]["spec"]["containers"][0]["env"].append(VARIABLE)
    live["spec"]["template"]["spec"]["schedulerName"] = "default-scheduler"
    assert (fields.added(live), fields.touched(live)) == ((), False)


def test_what_was_changed_is_not_told_as_added() -> None:
    live = changed(LIVE, [*MAIN, "f:image"], "evil:1", "me")
    live = changed(live, ["f:spec", "f:selector"], {"matchLabels": {}}, "me")
    assert details(live) == []
    assert fields.touched(live)
    kept = claimed(live)["metadata"]["managedFields"]
    assert [one["manager"] for one in kept] == ["reconciler"]
    assert fields.added(repaired(live)) == ()


def test_another_kind_of_value_is_told_beside_the_one_that_went() -> None:
    gone = changed(LIVE, [*ENV, 'k:{"name":"A"}', "f:value"], GONE, "me")
    live = changed(gone, [*ENV, 'k:{"name":"A"}', "f:valueFrom"], {"fieldRef": {}}, "me")
    assert details(live) == [f"{PATH}.containers[name=main].env[name=A].valueFrom was added by me"]
    assert repaired(live)["spec"] == LIVE["spec"]


def test_what_others_own_with_us_is_no_drift_but_would_stay() -> None:
    live = copy.deepcopy(LIVE)
    live["metadata"]["managedFields"].append(entry("theirs", "Apply", LIVE["metadata"]["managedFields"][0]["fieldsV1"]))
    assert (fields.added(live), fields.touched(live)) == ((), True)
    rest = claimed(live)["metadata"]["managedFields"][0]
    assert (rest["manager"], rest["fieldsV1"].keys()) == ("theirs", {"f:metadata", "f:spec"})
    assert rest["fieldsV1"]["f:spec"] == {"f:replicas": {}, "f:paused": {}}


def test_what_is_others_stays_theirs_when_the_rest_becomes_ours() -> None:
    live = copy.deepcopy(FOO)
    more = {"f:metadata": {"f:annotations": {"f:team": {}}}}
    live["metadata"]["annotations"]["team"] = "blue"
    live["metadata"]["managedFields"][1]["fieldsV1"] |= more
    live["metadata"]["managedFields"].append(entry("k", "Update", {"f:status": {"f:x": {}}}, subresource="status"))
    theirs, status, ours = claimed(live)["metadata"]["managedFields"]
    assert (theirs["manager"], theirs["operation"], theirs["fieldsV1"]) == ("kubectl-set", "Update", more)
    assert status == live["metadata"]["managedFields"][2]
    assert (ours["operation"], ours["apiVersion"]) == ("Apply", "apps/v1")
    assert repaired(live)["metadata"]["annotations"]["team"] == "blue"


def test_where_nothing_is_ours_all_becomes_ours() -> None:
    """As after somebody emptied the list of owners, and we applied again."""
    live = copy.deepcopy(FOO)
    everything = live["metadata"]["managedFields"][0]["fieldsV1"]
    live["metadata"]["managedFields"] = [entry("before-first-apply", "Update", everything)]
    assert claimed(live)["metadata"]["managedFields"][-1]["manager"] == "reconciler"
    del live["metadata"]["annotations"][APPLIED]
    assert details(live) == []


def test_without_the_record_a_field_that_was_lost_is_not_said_to_be_added() -> None:
    live = changed(FOO, [*MAIN, "f:image"], "evil:1", "me")
    assert details(live) == [f"{PATH}.containers[name=main].env[name=FOO] was added by kubectl-set"]
    del live["metadata"]["annotations"][APPLIED]
    assert details(live) == [
        f"{PATH}.containers[name=main].env[name=FOO] was set by kubectl-set",
        f"{PATH}.containers[name=main].image was set by me",
    ]
    whole = copy.deepcopy(FOO)
    del whole["metadata"]["annotations"][APPLIED]
    assert details(whole) == [f"{PATH}.containers[name=main].env[name=FOO] was added by kubectl-set"]


def test_at_most_five_are_told() -> None:
    live = LIVE
    for number in range(7):
        live = item(live, ENV, {"name": f"V{number}"}, {"name": f"V{number}", "value": ""}, "me")
    assert len(details(live)) == 5
    assert details(live)[0].endswith("env[name=V0] was added by me")
    assert details(live)[-1] == "and 3 more fields were added"


def test_fields_of_another_version_of_a_kind_are_not_there() -> None:
    live = copy.deepcopy(LIVE)
    live["metadata"]["managedFields"].append(entry("old", "Update", {"f:spec": {"f:rollbackTo": {"f:revision": {}}}}))
    assert (fields.added(live), fields.touched(live)) == ((), False)


def test_what_is_kept_of_an_object_tells_changes_and_additions_apart() -> None:
    live = changed(FOO, ["f:spec", "f:replicas"], 5, "me")
    kept = slim(live)
    assert [each.detail.partition(" ")[0] for each in kept["differences"]] == [
        "spec.replicas:",
        f"{PATH}.containers[name=main].env[name=FOO]",
    ]
    assert (kept["added"], kept["touched"]) == (kept["differences"][1:], True)
    assert slim(kept) == kept
    assert differences(live, "Deployment") == differences(kept, "Deployment") == kept["differences"]
    for kind in ("ReplicaSet", "Pod"):
        assert (differences(live, kind), additions(live, kind), is_touched(live, kind)) == ((), (), False)


@given(STRANGE)
def test_nothing_strange_raises(live: Json) -> None:
    found = fields.added(live)
    assert len(found) <= 5
    assert all(len(each.detail) < 2000 for each in found)
    assert not found or fields.touched(live)

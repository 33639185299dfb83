"""A group as objects of a cluster: Deployment, budget, autoscaler, and which of them must not be there."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core import names
from reconciler.core.delivery import Rollout, Scaling, Strategy
from reconciler.core.kubernetes_labels import API, Ref, is_owned, orphan_name, orphan_ref, ref
from reconciler.core.kubernetes_objects import (
    group_objects,
    group_refs,
    handover,
    must_be_remade,
    unwanted_of_group,
)
from reconciler.core.model import Health, HttpCheck, ServiceSpec
from reconciler.core.steps import EnsureGroup
from tests.support.kube_specs import ENVIRONMENT, PLACE, PLAIN, RICH, SECRETS, VERSION, ensure, specs

SCALED = replace(PLAIN, scaling=Scaling(2, 5, cpu=0.25, stabilization=timedelta(minutes=2)))
CHECKED = replace(PLAIN, health=Health(HttpCheck(80)))
CHOSEN = {
    "dev.reconciler.owner": "default",
    "dev.reconciler.environment": ENVIRONMENT,
    "dev.reconciler.service": "plain",
    "dev.reconciler.group": "plain",
}


def objects(effect: EnsureGroup) -> dict[str, dict]:
    return {each["kind"]: each for each in group_objects(effect, PLACE, SECRETS)}


def deployment(spec: ServiceSpec, replicas: int | None = 1, **changes: object) -> dict:
    return objects(ensure(spec, replicas, **changes))["Deployment"]


def test_what_is_needed_comes_first() -> None:
    found = [
        each["kind"] for each in group_objects(ensure(replace(RICH, scaling=SCALED.scaling), None), PLACE, SECRETS)
    ]
    expected = ["ConfigMap", "Secret", "Secret", "Deployment", "PodDisruptionBudget", "HorizontalPodAutoscaler"]
    assert found == expected


def test_a_deployment_says_what_it_is() -> None:
    found = deployment(PLAIN, 2, revision="c0ffee")
    about = found["metadata"]
    assert (found["apiVersion"], about["name"], about["namespace"]) == ("apps/v1", "plain", "shop")
    assert about["labels"] == {**CHOSEN, "dev.reconciler.version": "a" * 12}
    notes = about["annotations"]
    assert {key: notes[key] for key in notes if key not in (names.LABEL_SHAPE, "dev.reconciler.applied")} == {
        "dev.reconciler.version": VERSION,
        "dev.reconciler.revision": "c0ffee",
        "dev.reconciler.image": PLAIN.image.pinned,
        "dev.reconciler.operated": ensure(PLAIN, 2).operated,
        "dev.reconciler.companions": "PodDisruptionBudget/plain",
    }
    assert is_owned(found, "default", ENVIRONMENT)
    assert not is_owned(found, "default", "another")
    assert not is_owned(None, "default", ENVIRONMENT)


def test_a_deployment_keeps_to_the_rollout() -> None:
    spec = deployment(replace(CHECKED, rollout=Rollout(surge=2, unavailable=1)), 4)["spec"]
    assert (spec["replicas"], spec["paused"], spec["revisionHistoryLimit"]) == (4, False, 2)
    assert spec["selector"] == {"matchLabels": CHOSEN}
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 2, "maxUnavailable": 1}}
    assert spec["progressDeadlineSeconds"] == 660
    assert "minReadySeconds" not in spec


@pytest.mark.parametrize(
    ("rollout", "strategy"),
    [
        (Rollout(Strategy.RECREATE), {"type": "Recreate"}),
        (Rollout(surge=0), {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}),
        (
            Rollout(surge=0, unavailable=1),
            {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
        ),
    ],
)
def test_pods_can_always_be_replaced(rollout: Rollout, strategy: dict) -> None:
    assert deployment(replace(PLAIN, rollout=rollout))["spec"]["strategy"] == strategy


def test_without_a_check_an_instance_has_to_run_for_a_while() -> None:
    health = Health(None, interval=timedelta(milliseconds=2500), healthy_after=3)
    spec = deployment(replace(PLAIN, health=health, rollout=Rollout(progress_deadline=timedelta(seconds=1))))["spec"]
    assert spec["minReadySeconds"] == 8
    assert spec["progressDeadlineSeconds"] == 68


def test_a_budget_only_where_there_are_several() -> None:
    assert "PodDisruptionBudget" not in objects(ensure(PLAIN, 1))
    assert "PodDisruptionBudget" not in objects(ensure(PLAIN, 0))
    found = objects(ensure(replace(PLAIN, rollout=Rollout(unavailable=2)), 3))["PodDisruptionBudget"]
    assert found["spec"] == {
        "maxUnavailable": 2,
        "selector": {"matchLabels": CHOSEN},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    assert objects(ensure(PLAIN, 2))["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1


def test_an_autoscaler_is_the_only_one_who_sets_the_number() -> None:
    found = objects(ensure(SCALED, None))
    assert "replicas" not in found["Deployment"]["spec"]
    assert "PodDisruptionBudget" in found
    assert found["HorizontalPodAutoscaler"]["spec"] == {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "plain"},
        "minReplicas": 2,
        "maxReplicas": 5,
        "metrics": [
            {
                "type": "Resource",
                "resource": {"name": "cpu", "target": {"type": "AverageValue", "averageValue": "250m"}},
            }
        ],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 120}},
    }
    assert "PodDisruptionBudget" not in objects(ensure(replace(SCALED, scaling=Scaling(1, 1, cpu=1.0)), None))
    # With a number of ours there is none, whatever the service declares.
    assert "HorizontalPodAutoscaler" not in objects(ensure(SCALED, 3))
    with pytest.raises(AssertionError, match="only an autoscaler"):
        group_objects(ensure(PLAIN, None), PLACE, {})


def test_what_must_not_be_there_is_named() -> None:
    both = (Ref("HorizontalPodAutoscaler", "plain"), Ref("PodDisruptionBudget", "plain"))
    assert unwanted_of_group(group_objects(ensure(PLAIN, 1), PLACE, {}), "plain") == both
    assert unwanted_of_group(group_objects(ensure(PLAIN, 2), PLACE, {}), "plain") == both[:1]
    assert unwanted_of_group(group_objects(ensure(SCALED, None), PLACE, {}), "plain") == ()
    assert group_refs("plain") == (*both, Ref("Deployment", "plain"))


def test_the_handover_holds_the_number_and_nothing_else() -> None:
    assert handover("plain", PLACE, 3) == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "plain", "namespace": "shop"},
        "spec": {"replicas": 3},
    }


def test_a_selector_that_differs_can_only_be_made_anew() -> None:
    wanted = deployment(PLAIN)
    assert not must_be_remade(wanted, wanted)
    assert must_be_remade({**wanted, "spec": {"selector": {"matchLabels": {}}}}, wanted)
    assert must_be_remade({}, wanted)


def test_leftovers_are_called_by_kind_and_name() -> None:
    found = Ref("ConfigMap", "web-files-1")
    assert orphan_ref(orphan_name(found)) == found
    assert orphan_ref("web-files-1") is None
    assert orphan_ref("ConfigMap/") is None
    assert orphan_ref("Node/web") is None


@settings(max_examples=40)
@given(specs, st.integers(0, 5) | st.none())
def test_rendering_is_deterministic_and_plain_json(spec: ServiceSpec, replicas: int | None) -> None:
    effect = ensure(spec, 1 if replicas is None and spec.scaling is None else replicas)
    found = group_objects(effect, PLACE, SECRETS)
    assert found == group_objects(effect, PLACE, SECRETS)
    assert json.loads(json.dumps(found)) == list(found)
    assert all(each["apiVersion"] == API[each["kind"]][0] for each in found)
    assert len({ref(each) for each in found}) == len(found)
    notes = next(each for each in found if each["kind"] == "Deployment")["metadata"]["annotations"]
    assert sum(len(key) + len(value) for key, value in notes.items()) < 256 * 1024


@settings(max_examples=40)
@given(specs, st.integers(0, 5), st.integers(0, 5), st.text("abc", min_size=1, max_size=5))
def test_another_number_or_revision_replaces_no_pod(spec: ServiceSpec, one: int, two: int, revision: str) -> None:
    before = deployment(spec, one)["spec"]["template"]
    assert before == deployment(spec, two, revision=revision)["spec"]["template"]

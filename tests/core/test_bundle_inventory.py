"""What belongs to a bundle, written into a ConfigMap and read again; objects as they are applied, and their lines."""

from __future__ import annotations

import base64
import copy
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core import names
from reconciler.core.bundle_inventory import (
    INVENTORY,
    MEMBER,
    PRUNE,
    Defined,
    Entry,
    Inventory,
    defined,
    entry_of,
    held,
    inventory_of,
    is_inventory,
    rendered,
    same,
    written,
)
from reconciler.core.kubernetes_identity import Identity, identity
from reconciler.core.kubernetes_labels import OPERATED, Place
from reconciler.core.kubernetes_read_pods import EPOCH
from tests.support.kube_answers import GONE, MADE, answered, changed

PLACE = Place("default", "shop")
ENVIRONMENT = "production"
WEB = Entry(Identity("apps", "Deployment", "shop", "web"), "v1", "a" * 16, "b" * 16)
ROLE = Entry(Identity("rbac.authorization.k8s.io", "ClusterRole", "", "system:reader"), "v1")
OLD = Entry(Identity("", "ConfigMap", "shop", "old"), "v1", "c" * 16, "d" * 16)
BUNDLE = Inventory("edge", "1" * 64, "f" * 40, "manifests/edge@sha256:1", "op", True, (WEB, ROLE), (OLD,))
MARKS = {names.LABEL_OWNER: "default", names.LABEL_ENVIRONMENT: ENVIRONMENT, names.LABEL_SERVICE: "edge"}
DECLARED = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web", "namespace": "other", "labels": {"app": "web"}, "annotations": {"a": "b"}},
    "spec": {"replicas": 2},
}
SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}}

WORDS = st.text("abcdefghijklmnopqrstuvwxyz0123456789.-:", min_size=1, max_size=20)
DIGESTS = st.just("") | st.text("0123456789abcdef", min_size=16, max_size=16)
ENTRIES = st.builds(
    Entry, st.builds(Identity, st.just("") | WORDS, WORDS, st.just("") | WORDS, WORDS), WORDS, DIGESTS, DIGESTS
)
INVENTORIES = st.builds(
    Inventory,
    name=WORDS,
    version=WORDS,
    revision=WORDS,
    image=WORDS,
    operated=st.just("") | WORDS,
    prune=st.booleans(),
    objects=st.lists(ENTRIES, max_size=4).map(tuple),
    leaving=st.lists(ENTRIES, max_size=4).map(tuple),
)


@given(INVENTORIES)
def test_what_was_written_is_read_again(inventory: Inventory) -> None:
    found = written(inventory, PLACE, ENVIRONMENT)
    assert is_inventory(found)
    assert inventory_of(found) == inventory
    assert same(inventory_of(answered(found)), inventory)


def test_the_config_map_says_what_it_stands_for() -> None:
    found = written(BUNDLE, PLACE, ENVIRONMENT)
    assert (found["apiVersion"], found["kind"]) == ("v1", "ConfigMap")
    assert (found["metadata"]["name"], found["metadata"]["namespace"]) == ("edge-inventory", "shop")
    assert found["metadata"]["name"] == "edge-inventory"
    assert found["metadata"]["labels"] == {**MARKS, names.LABEL_ROLE: INVENTORY}
    assert found["metadata"]["annotations"][OPERATED] == "op"
    assert found["data"]["leaving"] == f"/ConfigMap/shop/old\tv1\t{'c' * 16}\t{'d' * 16}\n"
    assert found["data"]["objects"].splitlines()[1].split("\t")[1:] == ["v1", "-", "-"]


def test_another_config_map_of_ours_is_no_inventory() -> None:
    assert not is_inventory({"metadata": {"labels": {**MARKS, names.LABEL_ROLE: MEMBER}}})
    assert not is_inventory({"metadata": {"labels": MARKS}})


def test_when_it_was_made_does_not_make_a_difference() -> None:
    live = inventory_of(answered(written(BUNDLE, PLACE, ENVIRONMENT)))
    assert live.created_at == datetime.fromisoformat(MADE).astimezone(UTC) != EPOCH
    assert live != BUNDLE
    assert same(live, BUNDLE)
    assert not same(live, replace(BUNDLE, operated=""))
    assert not same(live, replace(BUNDLE, leaving=()))


def test_all_entries_are_those_of_the_version_and_those_that_leave() -> None:
    assert list(BUNDLE.entries()) == [WEB, ROLE, OLD]


def test_lines_that_nobody_of_us_wrote_are_left_out() -> None:
    found = written(BUNDLE, PLACE, ENVIRONMENT)
    found["data"]["objects"] += (
        "nonsense\n\n/ConfigMap/shop/short\tv1\n/ConfigMap/shop/long\tv1\t-\t-\t-\n///\tv1\t-\t-\n"
    )
    assert inventory_of(found) == BUNDLE


def test_an_inventory_that_says_nothing_of_pruning_prunes_nothing() -> None:
    found = written(BUNDLE, PLACE, ENVIRONMENT)
    for value in ("", "yes", "True"):
        found["metadata"]["annotations"][PRUNE] = value
        assert not inventory_of(found).prune
    del found["metadata"]["annotations"], found["data"]
    assert inventory_of(found) == Inventory("edge", "", "", "", "", False, ())


def test_an_entry_knows_by_which_version_it_is_applied() -> None:
    assert WEB.api_version == "apps/v1"
    assert OLD.api_version == "v1"


def test_an_object_gets_its_namespace_and_our_labels_and_nothing_else() -> None:
    before = copy.deepcopy(DECLARED)
    found = rendered(DECLARED, WEB.identity, PLACE, ENVIRONMENT, "edge")
    assert found["metadata"] == {
        "name": "web",
        "namespace": "shop",
        "labels": {"app": "web", **MARKS, names.LABEL_ROLE: MEMBER},
        "annotations": {"a": "b"},
    }
    assert found["spec"] == DECLARED["spec"]
    assert before == DECLARED


def test_an_object_in_no_namespace_has_none() -> None:
    declared = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n", "namespace": "shop"}}
    found = rendered(declared, Identity("", "Namespace", "", "n"), PLACE, ENVIRONMENT, "edge")
    assert "namespace" not in found["metadata"]
    assert found["metadata"]["labels"] == {**MARKS, names.LABEL_ROLE: MEMBER}


def test_a_job_has_no_time_to_live_and_what_makes_jobs_keeps_it() -> None:
    def spec(kind: str, spec: dict) -> dict:
        declared = {"apiVersion": "batch/v1", "kind": kind, "metadata": {"name": "a"}, "spec": spec}
        before = copy.deepcopy(declared)
        found = rendered(declared, Identity("batch", kind, "shop", "a"), PLACE, ENVIRONMENT, "edge")
        assert declared == before
        return found["spec"]

    assert spec("Job", {"ttlSecondsAfterFinished": 9, "suspend": True}) == {"suspend": True}
    jobs = {"jobTemplate": {"spec": {"ttlSecondsAfterFinished": 9}}}
    assert spec("CronJob", jobs) == jobs


def secret(**content: object) -> dict:
    return rendered({**SECRET, **content}, Identity("", "Secret", "shop", "keys"), PLACE, ENVIRONMENT, "edge")


def test_the_text_of_a_secret_goes_to_its_data() -> None:
    found = secret(data={"a": "b2xk", "b": "Yg=="}, stringData={"a": "nä"})
    assert found["data"] == {"a": base64.b64encode("nä".encode()).decode(), "b": "Yg=="}
    assert "stringData" not in found
    assert secret(data={"a": "eA=="})["data"] == {"a": "eA=="}


@pytest.mark.parametrize("value", [5, True, None, ["a"]])
def test_what_is_no_text_in_a_secret_is_left_to_the_api_server(value: object) -> None:
    found = secret(stringData={"a": "x", "b": value})
    assert found["stringData"] == {"a": "x", "b": value}
    assert "data" not in found


def test_only_a_secret_of_the_core_has_such_text() -> None:
    declared = {"apiVersion": "x.dev/v1", "kind": "Secret", "metadata": {"name": "a"}, "stringData": {"a": "b"}}
    found = rendered(declared, Identity("x.dev", "Secret", "shop", "a"), PLACE, ENVIRONMENT, "edge")
    assert found["stringData"] == {"a": "b"}


def test_the_line_of_an_object_depends_on_what_is_applied() -> None:
    body = rendered(DECLARED, WEB.identity, PLACE, ENVIRONMENT, "edge")
    found = entry_of(body, WEB.identity, "1")
    assert (found.identity, found.version, found.held) == (WEB.identity, "v1", "")
    assert len(found.applied) == 16
    assert entry_of({**body, "spec": {"replicas": 3}}, WEB.identity, "1") != found
    assert entry_of(dict(reversed(body.items())), WEB.identity, "2") == found


def test_the_line_of_a_secret_says_nothing_of_its_content() -> None:
    one, other = secret(data={"a": "MQ=="}), secret(data={"a": "Mg=="})
    about = identity(one)
    assert entry_of(one, about, "1") == entry_of(other, about, "1")
    assert entry_of(one, about, "1") != entry_of(one, about, "2")  # applied again with each version


def test_the_digest_of_our_values_tells_what_others_changed() -> None:
    live = answered(rendered(DECLARED, WEB.identity, PLACE, ENVIRONMENT, "edge"))
    assert len(held(live)) == 16
    assert held(changed(live, ["f:spec", "f:replicas"], 5, "kubectl")) != held(live)
    assert held(changed(live, ["f:metadata", "f:labels", "f:app"], GONE, "kubectl")) != held(live)
    assert held(changed(live, ["f:spec", "f:paused"], value=True, by="kubectl")) == held(live)


def test_the_digest_of_a_secret_says_only_which_fields_are_ours() -> None:
    live, other = answered(secret(data={"a": "MQ=="})), answered(secret(data={"a": "Mg=="}))
    assert held(live) == held(other)
    assert held(changed(live, ["f:data", "f:a"], "Mw==", "kubectl")) != held(live)


DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "things.x.dev"},
    "spec": {
        "group": "x.dev",
        "scope": "Namespaced",
        "names": {"kind": "Thing", "plural": "things"},
        "versions": [
            {"name": "v1", "served": True},
            {"name": "v1alpha1", "served": False},
            {"name": "v2", "served": True},
        ],
    },
}


def test_a_definition_adds_a_kind_in_each_version_that_is_served() -> None:
    assert list(defined(DEFINITION)) == [
        Defined("x.dev/v1", "Thing", True),
        Defined("x.dev/v2", "Thing", True),
    ]
    cluster = {**DEFINITION, "spec": {**DEFINITION["spec"], "scope": "Cluster"}}
    assert [each.namespaced for each in defined(cluster)] == [False, False]


def test_what_is_no_definition_adds_nothing() -> None:
    assert list(defined(DECLARED)) == []
    assert list(defined({**DEFINITION, "apiVersion": "x.dev/v1"})) == []
    assert list(defined({**DEFINITION, "spec": None})) == []

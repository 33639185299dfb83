"""Plain manifests on a real cluster: applied in order, settled by status, repaired, pruned, taken over, refused."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from reconciler.adapters import kubernetes_bundles
from reconciler.adapters.kubernetes_client import ApiError
from reconciler.adapters.kubernetes_followed import Scope
from reconciler.adapters.kubernetes_kinds import Resource
from reconciler.adapters.kubernetes_members import Members, Wanted
from reconciler.core import groups
from reconciler.core.bundle_inventory import entry_of, rendered
from reconciler.core.errors import Reason, Rejected, Retryable, Stalled
from reconciler.core.kubernetes_identity import Identity
from reconciler.core.kubernetes_labels import Place
from reconciler.core.live import Group
from reconciler.core.model import ServiceSpec
from reconciler.core.policy import Allow
from reconciler.core.steps import EnsureGroup, PruneGroup, RemoveGroup
from tests.support.bundles import CLUSTER, Bundles
from tests.support.cluster import Given, eventually
from tests.support.kube_world import ENVIRONMENT, PATIENCE, World, kube_world, version
from tests.support.shop import RESTRICTED, Object, config, deployment, job, written

Image = Callable[[str], str]


@pytest.fixture
def world(cluster: Given, namespace: str) -> Iterator[World]:
    with kube_world(cluster.kubeconfig, namespace, cluster_scoped=True) as built:
        yield built


def shop(*objects: Object, prune: bool = True, allow: Allow = CLUSTER) -> ServiceSpec:
    """A bundle as it is read from files."""
    spec = f"{{path: apps/shop, prune: {str(prune).lower()}}}"
    return Bundles({"apps/shop/all.yaml": written(*objects)}, spec).spec(allow)


def ensured(spec: ServiceSpec) -> EnsureGroup:
    return EnsureGroup(spec.name, ENVIRONMENT, spec, version(spec), "c" * 40, 1, 1, groups.operated(spec, 1))


def standing(world: World, spec: ServiceSpec) -> Group:
    """The group once the version stands."""

    def stands(group: Group) -> bool:
        return group.settled and group.version == version(spec)

    live = world.until(lambda live: any(stands(group) for group in live.groups))
    return live.groups[0]


def names(group: Group) -> list[str]:
    return [each.split("/")[1] + " " + each.split("/")[3] for each in group.inventory]


def test_a_bundle_is_applied_grows_shrinks_and_goes(world: World, image: Image) -> None:
    first = shop(deployment("shop", image("1.0")), config("settings", size="1"), config("old", a="b"))
    with world.full():
        world.runtime.apply(ensured(first))
        assert not world.group("shop").settled, "its pods cannot be there yet"
    group = standing(world, first)
    assert names(group) == ["ConfigMap settings", "ConfigMap old", "Deployment shop"]
    assert (group.ready, group.replicas, group.differences, group.leftovers) == (1, 1, (), ())
    assert group.image == first.image.pinned

    second = shop(deployment("shop", image("1.1")), config("settings", size="2"), config("new", c="d"))
    world.runtime.apply(ensured(second))
    group = standing(world, second)
    assert world.get("ConfigMap", "settings")["data"] == {"size": "2"}
    assert group.leftovers == (f"/ConfigMap/{world.namespace}/old",)
    assert world.there("ConfigMap", "old"), "it stays until the new version has proved itself"
    world.runtime.apply(PruneGroup("shop", ENVIRONMENT, group.version))
    assert not world.there("ConfigMap", "old")
    assert world.group("shop").leftovers == ()

    world.runtime.apply(RemoveGroup("shop", ENVIRONMENT))
    assert world.live().groups == ()
    for kind, name in (("Deployment", "shop"), ("ConfigMap", "settings"), ("ConfigMap", "shop-inventory")):
        assert not world.there(kind, name), name


def test_nothing_is_asked_where_nothing_changed(world: World) -> None:
    spec = shop(config("settings", size="1"))
    world.runtime.apply(ensured(spec))
    standing(world, spec)
    before = world.asked()
    for _ in range(3):
        assert world.group("shop").settled
    assert world.asked() == before


def test_a_definition_and_its_objects_come_in_one_bundle(
    world: World, custom: Object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_bundles, "GONE_WITHIN", PATIENCE)  # the objects of the kind go first
    kind, group = custom["spec"]["names"]["kind"], custom["spec"]["group"]
    thing = {"apiVersion": f"{group}/v1", "kind": kind, "metadata": {"name": "one"}, "spec": {"size": 3}}
    allowed = Allow(native=True, namespace="prod", cluster_scoped=True)
    spec = shop(thing, {**custom, "metadata": {**custom["metadata"], "annotations": PRUNABLE}}, allow=allowed)
    world.runtime.apply(ensured(spec))
    found = standing(world, spec)
    assert names(found) == [f"CustomResourceDefinition {custom['metadata']['name']}", f"{kind} one"]

    less = shop(config("rest", a="b"))
    world.runtime.apply(ensured(less))
    standing(world, less)
    world.runtime.apply(PruneGroup("shop", ENVIRONMENT, version(less)))
    assert world.group("shop").leftovers == ()
    with pytest.raises(ApiError) as gone:
        world.hands.call("GET", f"{DEFINITIONS}/{custom['metadata']['name']}")
    assert gone.value.status == 404


DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
PRUNABLE = {"reconciler.dev/prune": "true"}


@pytest.fixture
def custom(world: World) -> Iterator[Object]:
    """A definition of a kind of our own, removed at the end."""
    word = world.namespace.replace("-", "")
    group = f"{word}.example.com"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    yield {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"things.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": "Thing", "plural": "things", "singular": "thing"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }
    try:
        world.hands.call("DELETE", f"{DEFINITIONS}/things.{group}")
    except ApiError as error:
        assert error.status == 404


def test_a_kind_that_nobody_knows_holds_all_of_it(world: World) -> None:
    thing = {"apiVersion": "nobody.example.com/v1", "kind": "Thing", "metadata": {"name": "one"}, "spec": {}}
    with pytest.raises(Retryable, match=r"knows no kind Thing in nobody.example.com/v1"):
        world.runtime.apply(ensured(shop(config("settings", a="b"), thing)))
    assert world.live().groups == ()
    assert not world.there("ConfigMap", "settings")


def test_what_the_api_would_refuse_changes_nothing(world: World, image: Image) -> None:
    good = shop(config("settings", size="1"))
    world.runtime.apply(ensured(good))
    standing(world, good)
    broken = deployment("shop", image("1.0"))
    broken["spec"]["replicas"] = -1
    with pytest.raises(Rejected, match=r"spec.replicas"):
        world.runtime.apply(ensured(shop(config("settings", size="2"), broken)))
    unknown = deployment("shop", image("1.0"))
    unknown["spec"]["surprise"] = 1
    with pytest.raises(Rejected, match="surprise"):
        world.runtime.apply(ensured(shop(config("settings", size="2"), unknown)))
    assert world.get("ConfigMap", "settings")["data"] == {"size": "1"}
    assert world.group("shop").version == version(good)
    assert world.group("shop").settled


def test_hands_are_found_and_taken_back(world: World) -> None:
    spec = shop(config("settings", size="1"), config("more", a="b"))
    world.runtime.apply(ensured(spec))
    standing(world, spec)
    world.change("ConfigMap", "settings", {"data": {"size": "7"}})
    live = world.until(lambda live: live.groups[0].differences)
    told = [(each.reason, each.detail) for each in live.groups[0].differences]
    assert told == [
        (Reason.DRIFT_CHANGED, f"ConfigMap {world.namespace}/settings: data.size was changed by kubectl-edit")
    ]
    uid = world.get("ConfigMap", "more")["metadata"]["resourceVersion"]
    world.runtime.apply(ensured(spec))
    assert world.get("ConfigMap", "settings")["data"] == {"size": "1"}
    assert world.group("shop").differences == ()
    assert world.get("ConfigMap", "more")["metadata"]["resourceVersion"] == uid, "what is as it was is left alone"

    world.delete("ConfigMap", "more")
    live = world.until(lambda live: live.groups[0].differences)
    assert [each.reason for each in live.groups[0].differences] == [Reason.DRIFT_MISSING]
    world.runtime.apply(ensured(spec))
    assert world.get("ConfigMap", "more")["data"] == {"a": "b"}


def test_what_others_add_is_theirs(world: World) -> None:
    spec = shop(config("settings", size="1"), config("witness", a="b"))
    world.runtime.apply(ensured(spec))
    standing(world, spec)
    world.change("ConfigMap", "settings", {"metadata": {"annotations": {"somebody/says": "so"}}, "data": {"more": "1"}})
    world.change("ConfigMap", "witness", {"data": {"a": "c"}})
    live = world.until(lambda live: live.groups[0].differences)
    assert [each.detail for each in live.groups[0].differences] == [
        f"ConfigMap {world.namespace}/witness: data.a was changed by kubectl-edit"
    ]


def test_what_is_somebody_elses_is_left_alone(world: World) -> None:
    world.make("ConfigMap", config("settings", mine="yes"))
    with pytest.raises(Stalled) as refused:
        world.runtime.apply(ensured(shop(config("other", a="b"), config("settings", size="1"))))
    assert refused.value.reason is Reason.NOT_OWNED
    assert "reconciler.dev/adopt" in refused.value.remedy
    assert world.get("ConfigMap", "settings")["data"] == {"mine": "yes"}
    assert not world.there("ConfigMap", "other"), "nothing of it was applied"

    asked = shop(config("settings", {"reconciler.dev/adopt": "true"}, size="1"))
    world.runtime.apply(ensured(asked))
    assert world.get("ConfigMap", "settings")["data"] == {"mine": "yes", "size": "1"}
    standing(world, asked)


def test_what_flux_applied_moves(world: World) -> None:
    flux = {"kustomize.toolkit.fluxcd.io/name": "apps", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"}
    body = config("settings", size="1", gone="soon")
    body["metadata"] |= {"labels": flux, "namespace": world.namespace}
    path = f"/api/v1/namespaces/{world.namespace}/configmaps/settings"
    world.hands.apply(path, body, manager="kustomize-controller")
    before = world.get("ConfigMap", "settings")["metadata"]["uid"]
    world.runtime.apply(ensured(shop(config("settings", size="2"))))
    found = world.get("ConfigMap", "settings")
    assert found["metadata"]["uid"] == before
    assert found["data"] == {"size": "2"}, "what is no longer declared is gone"
    assert not flux.keys() & found["metadata"]["labels"].keys(), "Flux would remove it with its Kustomization"


def test_a_field_that_never_changes(world: World, image: Image) -> None:
    first = shop(job("once", 30, image("1.0")))
    world.runtime.apply(ensured(first))
    standing(world, first)
    with pytest.raises(Rejected) as refused:
        world.runtime.apply(ensured(shop(job("once", 60, image("1.0")))))
    assert "reconciler.dev/replace" in refused.value.remedy
    assert world.group("shop").version == version(first)

    asked = shop(job("once", 60, image("1.0"), {"reconciler.dev/replace": "true"}))
    path = f"/apis/batch/v1/namespaces/{world.namespace}/jobs/once"
    old = world.hands.call("GET", path)
    world.runtime.apply(ensured(asked))
    new = world.hands.call("GET", path)
    assert new["metadata"]["uid"] != old["metadata"]["uid"]
    assert new["spec"]["template"]["spec"]["activeDeadlineSeconds"] == 60


def test_a_job_runs_once_and_no_release_runs_it_again(world: World, image: Image) -> None:
    once = job("once", 600, image("1.0"))
    del once["spec"]["suspend"]
    once["spec"]["ttlSecondsAfterFinished"] = 0
    once["spec"]["template"]["spec"]["containers"][0] |= {
        "env": [{"name": "EXIT_AFTER_MS", "value": "0"}, {"name": "EXIT_CODE", "value": "0"}],
        "securityContext": RESTRICTED,
    }
    first = shop(once, config("settings", size="1"))
    world.runtime.apply(ensured(first))
    standing(world, first)
    ran = world.hands.call("GET", f"/apis/batch/v1/namespaces/{world.namespace}/jobs/once")
    assert ran["status"]["succeeded"] == 1

    second = shop(once, config("settings", size="2"))
    world.runtime.apply(ensured(second))
    assert standing(world, second).differences == ()
    found = world.hands.call("GET", f"/apis/batch/v1/namespaces/{world.namespace}/jobs/once")
    assert found["metadata"]["uid"] == ran["metadata"]["uid"]
    assert found["status"] == ran["status"]


def test_what_says_that_it_stays_stays(world: World) -> None:
    keeps = {"kustomize.toolkit.fluxcd.io/prune": "disabled"}
    world.runtime.apply(ensured(shop(config("kept", keeps, a="b"), config("rest", a="b"))))
    world.runtime.apply(RemoveGroup("shop", ENVIRONMENT))
    assert world.there("ConfigMap", "kept")
    assert not world.there("ConfigMap", "rest")
    assert world.live().groups == ()


def test_without_prune_nothing_is_removed(world: World) -> None:
    world.runtime.apply(ensured(shop(config("one", a="b"), config("two", a="b"), prune=False)))
    less = shop(config("one", a="b"), prune=False)
    world.runtime.apply(ensured(less))
    assert standing(world, less).leftovers == ()
    world.runtime.apply(RemoveGroup("shop", ENVIRONMENT))
    assert world.there("ConfigMap", "one")
    assert world.there("ConfigMap", "two")
    assert not world.there("ConfigMap", "shop-inventory")


def test_another_daemon_finds_all_of_it(world: World, image: Image) -> None:
    spec = shop(deployment("shop", image("1.0")), config("settings", size="1"))
    world.runtime.apply(ensured(spec))
    before = standing(world, spec)
    other = world.again()
    try:
        assert other.observe(ENVIRONMENT, {}, []).groups == (before,)
    finally:
        other.close()


def test_a_bundle_that_does_not_become_well_says_why(world: World, image: Image) -> None:
    spec = shop(deployment("shop", image("1.0").replace("hello", "nobody")))
    world.runtime.apply(ensured(spec))
    live = world.until(lambda live: "0 of 1 available" in live.groups[0].detail)
    assert not live.groups[0].settled


def test_one_that_comes_between_look_and_apply_is_not_taken(world: World) -> None:
    world.make("ConfigMap", config("settings", size="theirs"))
    members = Members(world.hands, threading.Event())
    about = Identity("", "ConfigMap", world.namespace, "settings")
    body = rendered(config("settings", size="1"), about, Place("test", world.namespace), ENVIRONMENT, "shop")
    scope = Scope(Resource("v1", "ConfigMap", "configmaps", namespaced=True), world.namespace)
    with pytest.raises(Stalled) as refused:
        members.ensure(Wanted(entry_of(body, about, ""), body), scope, None)
    assert refused.value.reason is Reason.NOT_OWNED
    assert world.get("ConfigMap", "settings")["data"] == {"size": "theirs"}


def test_what_a_finalizer_holds_is_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_bundles, "GONE_WITHIN", 0.5)
    first = shop(config("one", a="b"), config("held", a="b"))
    world.runtime.apply(ensured(first))
    world.change("ConfigMap", "held", {"metadata": {"finalizers": ["example.com/tidy"]}})
    less = shop(config("one", a="b"))
    world.runtime.apply(ensured(less))
    for step in (PruneGroup("shop", ENVIRONMENT, version(less)), RemoveGroup("shop", ENVIRONMENT)):
        with pytest.raises(Retryable, match=r"1 objects? .* not gone yet.*/held"):
            world.runtime.apply(step)
        assert world.group("shop").leftovers == (f"/ConfigMap/{world.namespace}/held",)
    world.change("ConfigMap", "held", {"metadata": {"finalizers": None}})
    world.runtime.apply(RemoveGroup("shop", ENVIRONMENT))
    assert world.live().groups == ()


def test_an_inventory_with_nonsense_in_it_is_written_anew(world: World) -> None:
    spec = shop(config("one", a="b"))
    world.runtime.apply(ensured(spec))
    standing(world, spec)
    world.change("ConfigMap", "shop-inventory", {"data": {"objects": "what\n\t\tis\tthis\n", "leaving": None}})
    world.until(lambda live: live.groups and not live.groups[0].inventory)
    world.runtime.apply(ensured(spec))
    assert names(standing(world, spec)) == ["ConfigMap one"]


def test_a_definition_that_went_is_told_of_its_objects_only(world: World, custom: Object) -> None:
    kind, group = custom["spec"]["names"]["kind"], custom["spec"]["group"]
    allowed = Allow(native=True, namespace="prod", cluster_scoped=True)
    thing = {"apiVersion": f"{group}/v1", "kind": kind, "metadata": {"name": "one"}, "spec": {}}
    spec = shop(custom, thing, allow=allowed)
    world.runtime.apply(ensured(spec))
    standing(world, spec)
    world.hands.call("DELETE", f"{DEFINITIONS}/{custom['metadata']['name']}")
    world.until(lambda live: any(each.reason is Reason.DRIFT_MISSING for each in live.groups[0].differences))

    def repaired() -> bool:
        """As the loop does: again for as long as something differs. The old definition has to be gone first."""
        if world.group("shop").differences:
            world.runtime.apply(ensured(spec))
        return world.group("shop").settled

    assert eventually(repaired, during=Retryable)

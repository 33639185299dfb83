"""The kustomizations: each renders to objects that fit together, with settings that are good, and few rights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reconciler.settings import Settings, parse
from tests.support.kustomize import rendered
from tools import daemon_image

OVERLAYS = {"single": (None,), "highly-available": (None,), "sharded": (0, 1)}
"""To each the shards that it has."""
Json = dict[str, Any]


def objects(overlay: str) -> tuple[Json, ...]:
    return rendered(f"kubernetes/overlays/{overlay}")


def of(overlay: str, kind: str) -> list[Json]:
    return [one for one in objects(overlay) if one["kind"] == kind]


def settings(overlay: str, shard: int | None) -> Settings:
    (found,) = [one for one in of(overlay, "ConfigMap") if one["metadata"]["name"].startswith("reconciler-settings-")]
    return parse(found["data"]["reconciler.yaml"].encode(), Path("/etc/reconciler/reconciler.yaml"), shard)


def pod(deployment: Json) -> Json:
    found: Json = deployment["spec"]["template"]
    return found


def selects(selector: Json, labels: Json) -> bool:
    return bool(selector) and selector.items() <= labels.items()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_names_are_unique_and_all_is_in_one_namespace(overlay: str) -> None:
    known = [(one["kind"], one["metadata"]["name"]) for one in objects(overlay)]
    assert len(set(known)) == len(known)
    spaces = {one["metadata"].get("namespace") for one in objects(overlay) if one["kind"] != "Namespace"}
    assert spaces == {"reconciler"}
    (space,) = of(overlay, "Namespace")
    labels = space["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize(("overlay", "shard"), [(name, shard) for name, all_ in OVERLAYS.items() for shard in all_])
def test_the_daemon_takes_the_settings(overlay: str, shard: int | None) -> None:
    found = settings(overlay, shard)
    assert found.http.host == "0.0.0.0"
    assert [warning for warning in found.warnings if "TLS proxy" not in warning] == []
    assert (found.leader is None) == (overlay == "single")
    assert found.journal.startswith("sqlite:" if overlay == "single" else "postgresql:")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_shard_has_its_daemons_and_its_lease(overlay: str) -> None:
    deployments = of(overlay, "Deployment")
    assert len(deployments) == len(OVERLAYS[overlay])
    leases = set()
    for deployment in deployments:
        variables = {one["name"]: one["value"] for one in pod(deployment)["spec"]["containers"][0].get("env", ())}
        shard = variables.get("RECONCILER_SHARD")
        found = settings(overlay, None if shard is None else int(shard))
        if found.leader is not None:
            leases.add(found.leader.lease if shard is None else f"{found.leader.lease}-{shard}")
    rules = [rule for one in of(overlay, "Role") for rule in one["rules"]]
    assert {name for rule in rules for name in rule.get("resourceNames", ())} == leases
    assert all(rule["resources"] == ["leases"] for rule in rules), "in its own namespace it needs nothing else"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_parts_find_each_other(overlay: str) -> None:
    names = {(one["kind"], one["metadata"]["name"]) for one in objects(overlay)}
    for deployment in of(overlay, "Deployment"):
        labels, spec = pod(deployment)["metadata"]["labels"], pod(deployment)["spec"]
        assert selects(deployment["spec"]["selector"]["matchLabels"], labels)
        for other in of(overlay, "Deployment"):
            same = other["metadata"]["name"] == deployment["metadata"]["name"]
            assert selects(other["spec"]["selector"]["matchLabels"], labels) is same, "no two own one pod"
        for constraint in spec.get("topologySpreadConstraints", ()):
            assert selects(constraint["labelSelector"]["matchLabels"], labels)
        assert ("ServiceAccount", spec["serviceAccountName"]) in names
        for volume in spec["volumes"]:
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in names
            if "persistentVolumeClaim" in volume:
                assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in names
        assert any(selects(service["spec"]["selector"], labels) for service in of(overlay, "Service"))
        for policy in of(overlay, "NetworkPolicy"):
            assert selects(policy["spec"]["podSelector"]["matchLabels"], labels)
        guarded = [
            one for one in of(overlay, "PodDisruptionBudget") if selects(one["spec"]["selector"]["matchLabels"], labels)
        ]
        assert len(guarded) == (deployment["spec"]["replicas"] > 1)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_may_and_can_do_nothing_that_it_need_not(overlay: str) -> None:
    for deployment in of(overlay, "Deployment"):
        spec = pod(deployment)["spec"]
        (container,) = spec["containers"]
        context, own = spec["securityContext"], container["securityContext"]
        assert (context["runAsNonRoot"], context["runAsUser"], context["fsGroup"]) == (True, *[daemon_image.USER] * 2)
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert own == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
        assert writable == {"/var/lib/reconciler", "/tmp"}
        probes = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
        assert probes == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}
        assert {"requests", "limits"} <= container["resources"].keys()
        assert spec["terminationGracePeriodSeconds"] > 30


def test_the_single_one_never_runs_twice() -> None:
    (deployment,) = of("single", "Deployment")
    assert (deployment["spec"]["replicas"], deployment["spec"]["strategy"]) == (1, {"type": "Recreate"})
    assert of("single", "PersistentVolumeClaim")[0]["spec"]["accessModes"] == ["ReadWriteOnce"]


def rights(part: str) -> dict[tuple[str, str], set[str]]:
    """The verbs by group and kind of a part that is applied in a managed namespace, which binds them to the daemon."""
    role, binding = rendered(f"kubernetes/{part}")
    assert (role["kind"], binding["roleRef"]["name"]) == ("Role", role["metadata"]["name"])
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "reconciler", "namespace": "reconciler"}]
    assert all("namespace" not in one["metadata"] for one in (role, binding)), "it is given when it is applied"
    return {
        (group, kind): set(rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for kind in rule["resources"]
    }


@pytest.mark.parametrize("part", ["managed-namespace", "managed-bundles"])
def test_in_a_managed_namespace_no_secret_is_read_and_nothing_is_said_of_all(part: str) -> None:
    found = rights(part)
    assert found.get(("", "secrets"), {"create"}) == {"create"}
    assert "*" not in {word for key, verbs in found.items() for word in (*key, *verbs)}
    assert not {kind for _, kind in found} & {"pods/exec", "pods/attach", "pods/portforward", "roles", "rolebindings"}


def test_for_plain_manifests_a_kind_can_be_followed_applied_and_removed_or_not_at_all() -> None:
    services, more = rights("managed-namespace"), rights("managed-bundles")
    whole = {"get", "list", "watch", "create", "patch", "delete"}
    assert [kind for kind, verbs in more.items() if verbs | services.get(kind, set()) != whole] == []
    doubled = {kind for kind, verbs in more.items() if verbs & services.get(kind, set())}
    assert doubled == set(), "each right stands in one place"
    names = {
        one["metadata"]["name"]
        for part in ("managed-namespace", "managed-bundles")
        for one in rendered(f"kubernetes/{part}")
    }
    assert names == {"reconciler", "reconciler-bundles"}, "both can be in one namespace"

"""The lease over HTTP, against a fake API of our own; `tests/kube/test_leader.py` asks the same of a real one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.adapters.kubernetes_client import Api
from reconciler.adapters.lease import KubernetesLease, open_lease, record_of
from reconciler.core.errors import Reason, ReconcilerError, Rejected, Retryable, Stalled
from reconciler.core.lease import Found, LeaseRecord
from reconciler.settings import KubernetesSettings, LeaderSettings, Settings, ShardSettings
from tests.support import lease_contract as contract
from tests.support.leases import LeaseApi, lease_api


@pytest.fixture
def api() -> Iterator[LeaseApi]:
    with lease_api() as found:
        yield found


@pytest.fixture
def leases(api: LeaseApi, tmp_path: Path) -> Iterator[tuple[KubernetesLease, KubernetesLease]]:
    settings = KubernetesSettings("here", kubeconfig=api.kubeconfig(tmp_path / "kubeconfig"))
    found = [KubernetesLease(Api(settings), api.NAMESPACE, "reconciler") for _ in range(2)]
    yield found[0], found[1]
    for lease in found:
        lease.close()


@pytest.fixture
def lease(leases: tuple[KubernetesLease, KubernetesLease]) -> KubernetesLease:
    return leases[0]


@pytest.mark.parametrize("law", contract.LAWS)
def test_a_lease(law: object, lease: KubernetesLease) -> None:
    law(lease)  # type: ignore[operator]


@pytest.mark.parametrize("law", contract.LAWS_OF_TWO)
def test_two_at_a_lease(law: object, leases: tuple[KubernetesLease, KubernetesLease]) -> None:
    law(*leases)  # type: ignore[operator]


def test_what_others_wrote_stays(api: LeaseApi, lease: KubernetesLease) -> None:
    contract.made(lease)
    known = api.objects["reconciler"]
    known["metadata"] |= {"labels": {"team": "x"}, "annotations": {"note": "kept"}}
    known["spec"]["strategy"] = "OldestEmulationVersion"
    found = lease.read(contract.SECONDS)
    assert (
        lease.write(Found(LeaseRecord("other", 15.0, "a", "b", 5), frozenset({"x"}), found.version), contract.SECONDS)
        is not None
    )
    after = api.objects["reconciler"]
    assert after["metadata"]["labels"] == {"team": "x"}
    assert after["metadata"]["annotations"]["note"] == "kept"
    assert after["spec"]["strategy"] == "OldestEmulationVersion"
    assert after["spec"]["holderIdentity"] == "other"


def test_a_removed_lease_is_no_error(api: LeaseApi, lease: KubernetesLease) -> None:
    written = contract.made(lease)
    api.objects.clear()
    assert lease.write(written, contract.SECONDS) is None
    assert lease.read(contract.SECONDS) == Found(None)
    assert contract.made(lease).record is not None


@pytest.mark.parametrize(
    ("refusal", "kind", "reason"),
    [
        ((403, "Forbidden"), Stalled, Reason.FORBIDDEN),
        ((401, "Unauthorized"), Retryable, Reason.FORBIDDEN),
        ((500, "InternalError"), Retryable, Reason.ENGINE_REFUSED),
        ((422, "Invalid"), Rejected, Reason.ENGINE_REFUSED),
    ],
)
def test_what_is_refused_is_told(
    api: LeaseApi, lease: KubernetesLease, refusal: tuple[int, str], kind: type[ReconcilerError], reason: Reason
) -> None:
    api.refuse = refusal
    with pytest.raises(kind) as told:
        lease.read(contract.SECONDS)
    assert told.value.reason is reason
    with pytest.raises(kind) as told:
        lease.write(Found(contract.RECORD), contract.SECONDS)
    assert told.value.reason is reason


def test_a_missing_namespace_is_told(api: LeaseApi, tmp_path: Path) -> None:
    settings = KubernetesSettings("here", kubeconfig=api.kubeconfig(tmp_path / "other"))
    lease = KubernetesLease(Api(settings), "elsewhere", "reconciler")
    assert lease.read(contract.SECONDS) == Found(None)
    with pytest.raises(Stalled) as told:
        lease.write(Found(contract.RECORD), contract.SECONDS)
    assert told.value.reason is Reason.NAMESPACE_MISSING
    lease.close()


def test_an_api_that_is_away_is_told(api: LeaseApi, lease: KubernetesLease, tmp_path: Path) -> None:
    contract.made(lease)
    with lease_api() as other:
        kubeconfig = other.kubeconfig(tmp_path / "gone")
    gone = KubernetesLease(Api(KubernetesSettings("gone", kubeconfig=kubeconfig)), api.NAMESPACE, "reconciler")
    with pytest.raises(Retryable) as told:
        gone.read(contract.SECONDS)
    assert told.value.reason is Reason.ENGINE_UNREACHABLE
    gone.close()


@pytest.mark.parametrize(
    "spec", [None, [], {"holderIdentity": None}, {"leaseDurationSeconds": "x"}, {"renewTime": None}]
)
def test_an_odd_object_names_nobody(spec: object) -> None:
    assert record_of(spec) == LeaseRecord()


@pytest.mark.parametrize(
    ("namespace", "shard", "place"),
    [
        ("", None, "reconciler/main of cluster here"),
        ("x", None, "x/main of cluster here"),
        ("", ShardSettings(1, 2), "reconciler/main-1 of cluster here"),
    ],
)
def test_which_lease_it_is(
    api: LeaseApi, tmp_path: Path, namespace: str, shard: ShardSettings | None, place: str
) -> None:
    runtime = KubernetesSettings("here", kubeconfig=api.kubeconfig(tmp_path / "kubeconfig"))
    leader = LeaderSettings("here", namespace, "main")
    settings = Settings(tmp_path, tmp_path, "", {}, {}, {"here": runtime}, leader=leader, shard=shard)
    assert open_lease(settings, leader).place == place


def test_a_context_without_a_namespace_means_default(api: LeaseApi, tmp_path: Path) -> None:
    file = api.kubeconfig(tmp_path / "kubeconfig")
    content = json.loads(file.read_text())
    del content["contexts"][0]["context"]["namespace"]
    file.write_text(json.dumps(content))
    runtime = KubernetesSettings("here", kubeconfig=file)
    settings = Settings(tmp_path, tmp_path, "", {}, {}, {"here": runtime})
    leader = LeaderSettings("here")
    assert open_lease(settings, leader).place == "default/reconciler of cluster here"
    other = replace(settings, runtimes={"here": replace(runtime, context="no such")})
    assert open_lease(other, leader).place == "default/reconciler of cluster here"

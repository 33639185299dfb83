"""The lease and the election on a real API server: the contract, two candidates, and a server that stands still."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.kubernetes_client import Api
from reconciler.adapters.lease import KubernetesLease
from reconciler.core.errors import Reason, Stalled
from reconciler.core.lease import Found, Terms
from reconciler.leadership import Election, Post
from reconciler.settings import KubernetesSettings
from tests.support import lease_contract as contract
from tests.support.cluster import Given, eventually
from tools import cluster as tool

TERMS = Terms(duration=12.0, renew=9.0, retry=0.3)
"""Nobody loses it to a busy machine, and its end can still be waited for."""


@pytest.fixture
def lease_of(cluster: Given) -> Iterator[Callable[[str], KubernetesLease]]:
    """Makes leases, each with a client of its own."""
    made: list[KubernetesLease] = []

    def make(namespace: str) -> KubernetesLease:
        made.append(KubernetesLease(Api(KubernetesSettings("kube", cluster.kubeconfig)), namespace, "reconciler"))
        return made[-1]

    yield make
    for lease in made:
        lease.close()


Make = Callable[[str], KubernetesLease]


@pytest.mark.parametrize("law", contract.LAWS)
def test_a_lease(law: Callable[[KubernetesLease], None], lease_of: Make, namespace: str) -> None:
    law(lease_of(namespace))


@pytest.mark.parametrize("law", contract.LAWS_OF_TWO)
def test_two_at_a_lease(
    law: Callable[[KubernetesLease, KubernetesLease], None], lease_of: Make, namespace: str
) -> None:
    law(lease_of(namespace), lease_of(namespace))


def test_a_missing_namespace_is_told(lease_of: Make) -> None:
    lease = lease_of("there-is-none")
    assert lease.read(contract.SECONDS) == Found(None)
    with pytest.raises(Stalled) as told:
        lease.write(Found(contract.RECORD), contract.SECONDS)
    assert told.value.reason is Reason.NAMESPACE_MISSING


@contextmanager
def candidate(lease: KubernetesLease, name: str) -> Iterator[Election]:
    """One that stands again as soon as it lost."""
    found = Election(
        lease,
        TERMS,
        name,
        SystemClock(),
        random.uniform,
        Post(lambda: found.stand() if found.hold is None else None, lambda _environment: None, lambda: None),
    )
    found.start()
    try:
        yield found
    finally:
        found.stop()


def test_one_leads_and_the_other_follows(lease_of: Make, namespace: str) -> None:
    with candidate(lease_of(namespace), "a") as a:
        eventually(lambda: a.hold)
        with candidate(lease_of(namespace), "b") as b:
            eventually(lambda: b.leader == "a")
            assert b.hold is None
            a.stop()
            a.release()
            eventually(lambda: b.hold)
            found = lease_of(namespace).read(contract.SECONDS).record
            assert found is not None
            assert (found.holder, found.transitions) == ("b", 1)


def test_a_server_that_stands_still_ends_the_leading(lease_of: Make, namespace: str, own_cluster: tool.Cluster) -> None:
    """Nobody may act while nobody can know who leads, and one does again when the server goes on."""
    with candidate(lease_of(namespace), "a") as a, candidate(lease_of(namespace), "b") as b:
        eventually(lambda: a.hold or b.hold)
        first = a.hold or b.hold
        assert first is not None
        tool.pause(own_cluster, "apiserver")
        try:
            eventually(lambda: not first.holds())
            eventually(lambda: a.hold is None and b.hold is None)
            eventually(lambda: a.problem and b.problem)
        finally:
            tool.resume(own_cluster, "apiserver")
        eventually(lambda: a.hold or b.hold)
        assert not first.holds()
        assert not (a.hold and b.hold)

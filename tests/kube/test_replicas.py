"""Two replicas of the daemon on a real cluster, a real Lease and a journal in PostgreSQL, killed and stopped."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from bench.fleet import pinned
from reconciler.adapters.clock import SystemClock
from reconciler.adapters.journal import SqlJournal
from reconciler.core.record import Record, What
from reconciler.daemon import EXIT_NOT_LEADER
from tests.e2e.running import PATIENCE, Daemon
from tests.kube import seen
from tests.kube.replicas import Replicas
from tests.support.cluster import Given, eventually
from tests.support.database import Place
from tests.support.pair import ask, leads
from tools import cluster as tool

CANARY = {"strategy": "canary", "progressDeadline": "10m", "steps": [{"weight": 50, "soak": "1s"}]}
ROLLING = {"strategy": "rolling", "progressDeadline": "10m"}
DRAIN = {"deadline": "1s", "grace": "2s"}
Image = Callable[[str], str]


@pytest.fixture
def house(tmp_path: Path, cluster: Given, kube: client.ApiClient, namespace: str, database: Place) -> Replicas:
    return Replicas(tmp_path, cluster.kubeconfig, namespace, kube, database.url)


def records(house: Replicas) -> list[Record]:
    with closing(SqlJournal.open(house.journal, SystemClock(), "a test", act=False)) as journal:
        assert journal.verify().problem == ""
        return list(journal.records())


def stands_still(daemon: Daemon) -> bool:
    """Whether all of a program stands still."""
    return "\nState:\tT" in Path(f"/proc/{daemon.process.pid}/status").read_text()


def leading(*daemons: Daemon) -> tuple[Daemon, ...]:
    """The one that acts, then the others; nothing while none does."""
    acts = [one for one in daemons if any(line["event"] == "leading" for line in one.logs)]
    return (*acts, *(one for one in daemons if one not in acts)) if acts else ()


def wait_until_ready(daemon: Daemon, *, leader: bool) -> None:
    daemon.log("ready", lambda line: line["leader"] is leader)


def gave_up(daemon: Daemon, *, after: int) -> bool:
    """Wait until one that lost its lease acts no more; whether it stands by.

    Its step may end in what is left of the lease, which is nothing. Where it does not, the program does.
    """

    def over() -> bool:
        return daemon.process.poll() is not None or any(line["event"] == "standing by" for line in daemon.logs[after:])

    eventually(over)
    if daemon.process.poll() is not None:
        assert daemon.process.returncode == EXIT_NOT_LEADER
        return False
    daemon.log("acting no more", after=after)
    return True


def test_both_killed_in_a_release_one_ends_it(house: Replicas, image: Image, own_cluster: tool.Cluster) -> None:
    """The one that leads stands still between two calls of one effect first, so that both end in the midst of it."""
    first = house.release(image("1.0"), rollout=CANARY, drain=DRAIN)
    with house.replica("a", stopping="kubernetes.after_create:4").daemon() as a:
        assert leads(a) == 1
        with house.replica("b").daemon() as b:
            wait_until_ready(b, leader=False)
            a.synced(first)
            second = house.release(image("2.0"), rollout=CANARY, drain=DRAIN)
            eventually(lambda: stands_still(a))
            for one in (a, b):
                one.process.kill()
            for one in (a, b):
                assert one.process.wait(PATIENCE) == -signal.SIGKILL
    before = seen.changes(own_cluster, house.namespace)
    with house.replica("a").daemon() as a, house.replica("b").daemon() as b:
        leader, other = eventually(lambda: leading(a, b))
        leader.synced(second)
        assert leads(leader) == 2
        assert ask(other, "/readyz")["leader"] is False
        assert other.stop() == 0
        assert leader.stop() == 0
    changes, found = seen.changes(own_cluster, house.namespace), records(house)
    assert house.images() == [pinned(image("2.0"))]
    assert {one.who for one in before} == {"a"}
    assert {one.who for one in changes[len(before) :]} == {"a" if leader is a else "b"}
    made = [one.what for one in changes if one.code == 201 and one.what.startswith("deployments/")]
    assert len(set(made)) == len(made) == 2, "one of each version, and none was made twice"
    assert [record.epoch for record in found] == sorted(record.epoch for record in found)
    told = Counter(record.entry.what for record in found)
    assert (told[What.ROLLOUT_STARTED], told[What.PROMOTED], told[What.ROLLOUT_FAILED]) == (2, 2, 0)
    assert told[What.INTENT] - told[What.DONE] == 1, "the one effect in which it was killed"


def test_one_that_stands_still_in_a_call_makes_it_and_no_other(
    house: Replicas, image: Image, own_cluster: tool.Cluster
) -> None:
    """Stopped right before a call to the API, past all looks at the lease. What comes of it late is taken back."""
    spec: dict[str, Any] = {"rollout": ROLLING, "drain": DRAIN, "replicas": 1}
    first = house.release(image("1.0"), **spec)
    with house.replica("a", stopping="kubernetes.before_apply").daemon() as a:
        assert leads(a) == 1
        with house.replica("b").daemon() as b:
            wait_until_ready(b, leader=False)
            a.synced(first)
            house.release(image("2.0"), **spec)
            eventually(lambda: stands_still(a))
            assert leads(b) == 2
            third = house.release(image("3.0"), **spec)
            b.synced(third)
            before, done = seen.changes(own_cluster, house.namespace), len(a.logs)
            assert {one.who for one in before} == {"a", "b"}
            assert seen.turns(one.who for one in before) == ["a", "b"]
            a.process.send_signal(signal.SIGCONT)
            stands_by = gave_up(a, after=done)
            late = [one for one in seen.changes(own_cluster, house.namespace)[len(before) :] if one.who == "a"]
            assert len(late) <= 1, "the call in which it stood still, and nothing after it"
            eventually(lambda: house.images() == [pinned(image("3.0"))])
            assert b.stop() == 0
        assert not stands_by or a.stop() == 0
    found = records(house)
    assert [one.epoch for one in found] == sorted(one.epoch for one in found)
    assert What.ROLLOUT_FAILED not in {one.entry.what for one in found}

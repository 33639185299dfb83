"""Two daemons on one Lease: real programs, a real engine, a journal that both can open; the Lease is kept by a fake."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.journal import SqlJournal
from reconciler.core.record import Record, What
from reconciler.core.shards import shard_of
from tests.e2e.running import Daemon
from tests.support.cluster import eventually
from tests.support.database import Place
from tests.support.leases import LeaseApi, lease_api
from tests.support.pair import Pair, apart, ask, gave_up, leads


@pytest.fixture
def api() -> Iterator[LeaseApi]:
    with lease_api() as found:
        yield found


@pytest.fixture
def pair(tmp_path: Path, engine: str, raw: docker.APIClient, api: LeaseApi) -> Iterator[Pair]:
    kubeconfig = api.kubeconfig(tmp_path / "kubeconfig")
    found = Pair(tmp_path, engine, kubeconfig, f"sqlite:///{tmp_path}/journal.db", namespace=api.NAMESPACE)
    yield found
    found.clean(raw)


@pytest.fixture
def shared(pair: Pair, database: Place) -> Pair:
    """With the journal in PostgreSQL, which a daemon that stands still cannot keep from the next one."""
    pair.journal = database.url
    return pair


def records(url: str) -> list[Record]:
    with closing(SqlJournal.open(url, SystemClock(), "a test", act=False)) as journal:
        assert journal.verify().problem == ""
        return list(journal.records())


def test_one_leads_and_the_other_follows_as_soon_as_it_lets_go(
    pair: Pair, hello: dict[str, str], raw: docker.APIClient
) -> None:
    pair.duration = 300
    first = pair.release(hello["1.0"])
    with pair.replica("a").daemon() as a:
        a.told("READY=1\nSTATUS=following")
        assert leads(a) == 1
        a.synced(first)
        with pair.replica("b").daemon() as b:
            b.told("READY=1\nSTATUS=standing by")
            leader = b.log("standing by")["leader"]
            assert leader == a.log("lease won")["identity"]
            b.log("ready", lambda line: line["leader"] is False)
            ready = ask(b, "/readyz")
            assert (ready["ok"], ready["leader"]) == (True, False)
            assert ask(a, "/readyz")["leader"] is True
            assert ask(b, "/livez")["ok"] is True
            status = eventually(lambda: _shown(b, leader))
            assert (status["reason"], status["revision"]) == ("NotLeader", first)
            assert ask(b, "/api/v1/records?limit=1")["records"][0]["what"] == "JournalBegan"
            assert _metric(a.log("ready")["port"]) == 1.0
            assert _metric(b.log("ready")["port"]) == 0.0
            before = pair.instances(raw)
            assert a.stop() == 0
            a.log("lease released")
            assert leads(b) == 2
            b.synced(first)
            b.log("ready", lambda line: line["leader"] is True)
            assert _metric(b.log("ready")["port"]) == 1.0
            assert b.stop() == 0
    assert pair.instances(raw) == before
    assert Counter(record.epoch for record in records(pair.journal)).keys() == {1, 2}


def _shown(daemon: Daemon, leader: str) -> dict[str, Any]:
    """The status of the one environment once it names the leader, who may have been unknown at the look before."""
    (environment,) = ask(daemon, "/api/v1/environments")["environments"]
    status = environment["status"] or {}
    return status if leader in status.get("message", "") else {}


def _metric(port: int) -> float:
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", headers={"authorization": "Bearer " + "t" * 40}).text
    return float(next(line for line in text.splitlines() if line.startswith("reconciler_leader ")).split()[1])


def test_a_look_that_the_other_is_asked_for_is_passed_on(pair: Pair, hello: dict[str, str]) -> None:
    first = pair.release(hello["1.0"])
    with pair.replica("a").daemon() as a, pair.replica("b").daemon() as b:
        leader, other = apart(a, b)
        leader.synced(first)
        assert ask(other, f"/api/v1/environments/{pair.environment}/reconcile", "POST")["requested"] is True
        leader.log("reconciled", lambda line: "peer" in line["cause"])


def test_one_that_is_killed_is_followed_when_the_lease_has_run_out(
    pair: Pair, hello: dict[str, str], raw: docker.APIClient
) -> None:
    first = pair.release(hello["1.0"])
    with pair.replica("a").daemon() as a:
        a.synced(first)
        before = pair.instances(raw)
        with pair.replica("b").daemon() as b:
            b.log("ready")
            a.process.kill()
            assert leads(b) == 2
            b.synced(first)
    assert pair.instances(raw) == before


@pytest.mark.parametrize("intent", [2, 4])
def test_one_that_stands_still_past_its_lease_does_nothing_more(
    shared: Pair, hello: dict[str, str], raw: docker.APIClient, intent: int
) -> None:
    """It stops itself between the intent to create an instance and the effect. Meanwhile the other releases another."""
    first = shared.release(hello["1.0"])
    stopping = {"RECONCILER_FAILPOINT": f"loop.after_intent:{intent}", "RECONCILER_FAILPOINT_SIGNAL": "SIGSTOP"}
    with shared.replica("a", **stopping).daemon() as a:
        assert leads(a) == 1
        with shared.replica("b").daemon() as b, ExitStack() as stack:
            assert leads(b) == 2
            b.synced(first)
            second = shared.release(hello["2.0"])
            b.synced(second)
            before, head, now = shared.instances(raw), records(shared.journal)[-1].index, time.time()
            a.process.send_signal(signal.SIGCONT)
            follows = a if gave_up(a) else stack.enter_context(shared.replica("a").daemon())
            follows.log("ready", lambda line: line["leader"] is False)
            assert ask(follows, "/readyz")["leader"] is False
            found = records(shared.journal)
            # Had it done its effect, the other would have undone it: what happened meanwhile counts, not how it ended.
            assert shared.events(raw, now) == []
            assert found[-1].index == head
            assert shared.instances(raw) == before
            taken = next(record.index for record in found if record.epoch == 2)
            assert all(record.epoch == 2 for record in found if record.index >= taken)
            assert sum(record.epoch == 1 and record.entry.what is What.INTENT for record in found) == intent
            seen = len(follows.logs)
            assert b.stop() == 0
            assert leads(follows, after=seen) == 3
            follows.synced(second)
            assert shared.instances(raw) == before
            assert follows.stop() == 0
    records(shared.journal)


def test_where_the_journal_is_locked_nobody_acts_until_its_holder_knows(
    pair: Pair, hello: dict[str, str], raw: docker.APIClient
) -> None:
    """A SQLite journal: one that stands still keeps the lock of its file."""
    first = pair.release(hello["1.0"])
    with pair.replica("a").daemon() as a, pair.replica("b").daemon() as b, ExitStack() as stack:
        still, other = apart(a, b)
        still.synced(first)
        before = pair.instances(raw)
        still.process.send_signal(signal.SIGSTOP)
        why = other.log("cannot lead")["reason"]
        assert "acts on this journal" in why
        unready = ask(other, "/readyz")
        assert (unready["ok"], unready["leader"]) == (False, False)
        assert other.stop() == 0
        seen = len(still.logs)
        still.process.send_signal(signal.SIGCONT)
        if not gave_up(still, after=seen):
            still, seen = stack.enter_context(pair.replica("a" if still is a else "b").daemon()), 0
        assert leads(still, after=seen) == 2
        second = pair.release(hello["2.0"])
        still.synced(second)
        assert still.stop() == 0
    assert len(pair.instances(raw)) == len(before)
    assert Counter(record.epoch for record in records(pair.journal)).keys() == {1, 2}


def test_without_the_api_nobody_leads_and_with_it_somebody_does_again(
    pair: Pair, hello: dict[str, str], raw: docker.APIClient, api: LeaseApi
) -> None:
    first = pair.release(hello["1.0"])
    with pair.replica("a").daemon() as a:
        a.synced(first)
        before = pair.instances(raw)
        api.refuse = (500, "InternalError")
        a.log("lease lost")
        a.log("acting no more")
        seen = len(a.logs)
        assert ask(a, "/readyz")["leader"] is False
        assert a.process.poll() is None
        api.refuse = None
        assert leads(a, after=seen) == 2
        assert a.stop() == 0
    assert pair.instances(raw) == before


def test_each_shard_has_its_own_environments_lease_and_journal(
    pair: Pair, hello: dict[str, str], raw: docker.APIClient, api: LeaseApi
) -> None:
    names = [f"{pair.owner}-{number}" for number in range(40)]
    pair.environments[:] = [next(name for name in names if shard_of(name, 2) == index) for index in range(2)]
    pair.journal = ""
    pair.release(hello["1.0"], pair.environments[0])
    revision = pair.release(hello["1.0"], pair.environments[1])
    zero, one = (pair.replica(f"s{index}", shard=f"index: {index}, count: 2") for index in range(2))
    with zero.daemon() as a, one.daemon() as b:
        for index, daemon in enumerate((a, b)):
            assert daemon.log("starting")["shard"] == f"{index} of 2"
            assert leads(daemon) == 1
            daemon.synced(revision)
            found = ask(daemon, "/api/v1/environments")["environments"]
            assert [each["name"] for each in found] == [pair.environments[index]]
            assert daemon.stop() == 0
    assert sorted(api.objects) == [f"{pair.owner}-0", f"{pair.owner}-1"]
    for index, name in enumerate(pair.environments):
        assert len(pair.instances(raw, name)) == 2
        journal = f"sqlite:///{pair.root}/s{index}-data/journal-{index}.db"
        assert {record.entry.environment for record in records(journal)} - {""} == {name}

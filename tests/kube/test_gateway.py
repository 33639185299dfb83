"""Releases by the weights of an HTTPRoute through a real Gateway: the shares as declared, no request lost or misled."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from bench import load
from bench.fleet import pinned
from tests.e2e.running import PATIENCE, Daemon
from tests.kube.house import HOST, KubeHouse
from tests.support.cluster import Given, eventually
from tests.support.gateway import Front

REPLICAS = 4
PROBABLY_NOT = 1e-9
"""How improbable a measured share has to be by chance to count as wrong."""
WORDS = ("ProxyUnreachable", "it has said nothing yet", "NoMatchingListenerHostname")
Image = Callable[[str], str]
Rollout = dict[str, object]

CANARY: Rollout = {
    "strategy": "canary",
    "progressDeadline": "10m",
    # One of four replicas would be 20 %: these shares cannot be had by numbers of pods.
    "steps": [{"weight": 10, "soak": "0s", "pause": True}, {"weight": 65, "soak": "0s", "pause": True}],
    "hold": "5m",
}
BLUE_GREEN: Rollout = {
    "strategy": "blueGreen",
    "progressDeadline": "10m",
    "preview": {"pause": True},
    "hold": "5m",
}


class GatewayHouse(KubeHouse):
    """Its clients ask the Gateway, which alone knows of the host."""

    def __init__(self, root: Path, cluster: Given, front: Front) -> None:
        self.front = front
        super().__init__(root, cluster.kubeconfig, front.namespace, gateway=True)

    def release(self, image: str, environment: str = "", **spec: object) -> str:
        traffic = {"port": "http", "hosts": [HOST], "preview": f"preview.{HOST}"}
        return super().release(image, environment, **{"traffic": traffic, "replicas": REPLICAS, **spec})

    def write_settings(self, extra: str = "") -> None:
        super().write_settings(extra or "log: {level: debug}")  # looks that change nothing are told, too: see `until`

    def address(self) -> tuple[str, int]:
        return self.front.address

    def _answers(self) -> bool:
        return not self.measured(1).failed

    def measured(self, count: int, host: str = HOST) -> load.Tally:
        """So many requests at once, by eight clients that keep their connections and never retry."""
        kind = load.keep_alive(min(count, 8), count=-(-count // 8))
        with load.LoadThread(load.Load(self.address(), host, kind)) as running:
            running.done(PATIENCE)
        return running.stop()

    def recorded(self) -> Counter[str]:
        """What the journal says how often."""
        said = self.command("audit", "list", "--json", "--limit", "200")
        return Counter(record.get("entry", record)["what"] for record in json.loads(said.stdout))

    @staticmethod
    def _share(tally: load.Tally, version: str) -> float:
        return tally.versions[version] / tally.answered

    def proves(self, version: str, weight: int) -> None:
        """Ask until it is certain whether a version gets its share, and nothing failed.

        A Gateway says that it has taken a route a moment before it leads requests by it.
        """
        eventually(lambda: self._may_be(self.measured(400), version, weight))
        tally = self.measured(4000)
        assert tally.failed == 0, str(tally)
        share = self._share(tally, version)
        assert self._may_be(tally, version, weight), f"{share:.3f} of {tally.answered} instead of {weight} %"

    def _may_be(self, tally: load.Tally, version: str, weight: int) -> bool:
        return plausible(self._share(tally, version), weight / 100, tally.answered)


def plausible(share: float, wanted: float, count: int) -> bool:
    """Whether `count` independent choices with the chance `wanted` can come to a share, but for `PROBABLY_NOT`.

    By the bound of Chernoff and Hoeffding: the chance of a share as far off is at most 2 exp(-count KL(share, wanted)).
    """
    pairs = ((share, wanted), (1 - share, 1 - wanted))
    if any(got and not due for got, due in pairs):
        return False
    distance = sum(got * math.log(got / due) for got, due in pairs if got)
    return count * distance <= math.log(2 / PROBABLY_NOT)


def until(daemon: Daemon, look: Callable[[], bool]) -> None:
    """Wait for what a command shows; it is asked again after each look of the daemon."""
    while True:
        seen = len(daemon.logs)
        if look():
            return
        daemon.log("reconciled", after=seen)


@pytest.fixture
def house(tmp_path: Path, cluster: Given, front: Front) -> GatewayHouse:
    return GatewayHouse(tmp_path, cluster, front)


def test_what_counts_as_a_share() -> None:
    assert plausible(0.1, 0.1, 4000)
    assert plausible(0.125, 0.1, 4000)
    assert not plausible(0.2, 0.1, 4000)
    assert not plausible(0.0, 0.1, 4000)
    assert plausible(0.0, 0.0, 4000)
    assert not plausible(0.0003, 0.0, 4000)
    assert plausible(1.0, 1.0, 4000)


@pytest.mark.parametrize(("rollout", "stages"), [(CANARY, [10, 65]), (BLUE_GREEN, [0])], ids=["canary", "blueGreen"])
def test_shares_are_the_declared_ones_and_no_request_is_lost(
    house: GatewayHouse, front: Front, image: Image, rollout: Rollout, stages: list[int]
) -> None:
    front.make()
    first = house.release(image("1.0"), rollout=rollout)
    with house.daemon() as daemon:
        daemon.synced(first)
        with house.asked():
            second = house.release(image("2.0"), rollout=rollout)
            for number, weight in enumerate(stages, start=1):
                until(daemon, lambda number=number: house.recorded()["Paused"] == number)
                assert sorted(front.weights().values()) == sorted([weight, 100 - weight])
                house.proves("2.0", weight)
                eventually(lambda: house.measured(8, f"preview.{HOST}").versions.keys() == {"2.0"})
                assert house.command("promote", f"{house.environment}/web", "--why", "as declared").returncode == 0
            daemon.synced(second)
            house.proves("2.0", 100)
            third = house.release(image("1.0"), rollout=rollout)
            daemon.synced(third)
            house.proves("1.0", 100)
        assert set(house.images()) == {pinned(image("1.0")), pinned(image("2.0"))}
        assert daemon.stop() == 0
    assert house.recorded()["Promoted"] == 3
    assert house.command("audit", "verify").returncode == 0


@contextmanager
def prometheus(value: Callable[[], float]) -> Iterator[str]:
    """The one answer of a Prometheus that gates read, over HTTP; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            result = [{"metric": {}, "value": [0, str(value())]}]
            body = json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_canary_that_a_gate_finds_bad_gives_its_share_back(house: GatewayHouse, front: Front, image: Image) -> None:
    front.make()
    query = {"name": "complaints", "promql": 'complaints{version="{version}"}', "max": 10}
    rollout: Rollout = {
        "strategy": "canary",
        "progressDeadline": "10m",
        "steps": [{"weight": 20, "soak": "1m"}],
        "gate": {"against": "stable", "errors": False, "queries": [query]},
    }
    first = house.release(image("1.0"), rollout=rollout)
    asked: list[load.LoadThread] = []
    with prometheus(lambda: float(asked[0].so_far().versions["2.0"]) if asked else 0.0) as house.prometheus:
        house.write_settings()
        with house.daemon() as daemon:
            daemon.synced(first)
            with house.asked() as running:
                asked.append(running)
                house.release(image("2.0"), rollout=rollout)
                until(daemon, lambda: house.recorded()["RolledBack"] == 1)
                eventually(lambda: set(house.images()) == {pinned(image("1.0"))})
                house.proves("2.0", 0)
            assert running.stop().versions["2.0"] > 10
            assert daemon.stop() == 0
    assert house.recorded()["Promoted"] == 1


def test_no_release_is_claimed_that_the_gateway_does_not_take(house: GatewayHouse, front: Front, image: Image) -> None:
    def told() -> set[str]:
        said = house.command("status", house.environment).stdout
        return {words for words in WORDS if words in said}

    house.release(image("1.0"), rollout=BLUE_GREEN)
    with house.daemon() as daemon:
        until(daemon, lambda: {"ProxyUnreachable", "it has said nothing yet"} <= told())
        front.make("*.elsewhere")
        until(daemon, lambda: {"ProxyUnreachable", "NoMatchingListenerHostname"} <= told())
        assert house.recorded()["Promoted"] == 0
        front.listen("*.example")
        until(daemon, lambda: house.recorded()["Promoted"] == 1)
        house.proves("1.0", 100)
        assert daemon.stop() == 0

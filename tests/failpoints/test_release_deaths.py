"""The real program dies by SIGKILL at every failpoint of the proxy and of its traffic, in the middle of releases.

In each release it dies at one failpoint after the other: a run goes on where the run before died, and the last one
finishes. Clients ask without a break and without retries, and not one request is lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import docker
import pytest

from bench import load
from reconciler.adapters.clock import SystemClock
from reconciler.adapters.docker_connection import Connection
from reconciler.adapters.docker_proxy import ManagedFront
from reconciler.adapters.haproxy import HaproxyTraffic
from reconciler.adapters.journal import SqlJournal
from reconciler.core import names
from reconciler.core.live import ServerMode
from reconciler.failpoints import PROXY_FAILPOINTS, TRAFFIC_FAILPOINTS
from reconciler.settings import DockerSettings, ProxySettings
from tests.support.fleet_house import PATIENCE, FleetHouse
from tests.support.runtime_house import demolish
from tools.ports import free_port

HOST = "web.example"
STRATEGIES = {"rolling": "{surge: 1}", "blueGreen": "{strategy: blueGreen, hold: 0s}"}
OTHERS = {f"proxy.{when}_{do}" for when in ("before", "after") for do in ("create", "start", "stop", "remove")}
"""Those that make or replace the proxy's container: no release passes them, and they have tests beside the proxy."""
RELOAD = tuple(name for name in PROXY_FAILPOINTS if name not in OTHERS)
RELEASES = {"rolling": (TRAFFIC_FAILPOINTS, RELOAD), "blueGreen": (TRAFFIC_FAILPOINTS,)}
"""The deaths in each of the releases with a strategy."""


class House(FleetHouse):
    """A fleet of one service behind a proxy that the program runs."""

    http: tuple[str, int]

    def release(self, image: str, strategy: str, hosts: int) -> None:
        self.write(
            "web",
            f"""apiVersion: reconciler.dev/v1
kind: Service
metadata: {{name: web}}
spec:
  image: {image}
  replicas: 1
  ports: [{{name: http, container: 8080}}]
  health: {{http: {{port: http, path: /healthz}}, interval: 200ms, healthyAfter: 1}}
  drain: {{deadline: 20s, tail: 0s, grace: 5s}}
  traffic: {{port: http, hosts: {json.dumps([HOST, f"web{hosts}.example"])}}}
  rollout: {STRATEGIES[strategy]}
""",
        )
        self.push()

    def reconcile(self, failpoint: str = "") -> bool:
        """One run; whether it died there."""
        done = self.run("run", "--once", failpoint=failpoint)
        assert done.returncode in ((0, -9) if failpoint else (0,)), done.stdout + done.stderr
        return done.returncode != 0


@pytest.fixture
def house(
    engine: str, haproxy: str, raw: docker.APIClient, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[House]:
    found = House(tmp_path, f"rd-{request.param}".lower(), engine)
    object.__setattr__(found, "http", ("127.0.0.1", free_port()))
    proxy = f'{{image: "{haproxy}", http: "127.0.0.1:{found.http[1]}"}}'
    found.prepare(environment_extra=f"    proxy: {proxy}\n")
    yield found
    demolish(raw, found.environment)


def test_a_release_passes_all_but_those_of_the_container() -> None:
    assert set(PROXY_FAILPOINTS) == {*RELOAD, *OTHERS}


@pytest.mark.parametrize(("house", "strategy"), [(name, name) for name in STRATEGIES], indirect=["house"])
def test_deaths_in_releases_lose_no_request(
    house: House, strategy: str, hello: dict[str, str], raw: docker.APIClient
) -> None:
    images = hello["1.0"], hello["2.0"]
    house.release(images[0], strategy, 0)
    house.reconcile()
    kinds = load.keep_alive(2, 50), load.new_connection(1, 25)
    with load.LoadThread(load.Load(house.http, HOST, *kinds)) as running:
        for number, failpoints in enumerate(RELEASES[strategy], 1):
            image = images[number % 2]
            house.release(image, strategy, number if failpoints is RELOAD else 0)
            for failpoint in failpoints:
                assert house.reconcile(failpoint), f"{failpoint} is never hit: it guards nothing"
            house.reconcile()
            running.reached(running.so_far().answered + 20, PATIENCE)
            assert running.so_far().failed == 0, str(running.so_far())
            _settled(house, raw, image)
    assert running.stop().failed == 0, str(running.stop())
    with closing(SqlJournal.open(house.journal, SystemClock(), "test", act=False)) as journal:
        assert journal.verify().problem == ""
        assert journal.memory(house.environment).services["web"].rollout is None, "promoted"


def _settled(house: House, raw: docker.APIClient, image: str) -> None:
    """One instance of the image carries all the traffic, and nothing else has a place."""
    found = [box for box in house.containers(raw) if box["Labels"].get(names.LABEL_SERVICE) == "web"]  # type: ignore[attr-defined]
    assert [str(box["Image"]).partition("@")[2] for box in found] == [image.partition("@")[2]]
    settings = ProxySettings(image="x", http=house.http)
    connection = Connection(DockerSettings("test", house.host))
    front = ManagedFront(house.environment, settings, connection, "test", house.directory / "data", SystemClock())
    with closing(HaproxyTraffic({house.environment: front}, {house.environment: settings}, SystemClock())) as traffic:
        backend = traffic.observe(house.environment).backends[names.backend(house.environment, "web")]
    (box,) = found
    address = box["NetworkSettings"]["Networks"][names.network(house.environment)]["IPAddress"]  # type: ignore[index]
    (server,) = backend.servers
    assert (server.address, server.mode, server.up) == (address, ServerMode.READY, True)
    assert server.weight > 0

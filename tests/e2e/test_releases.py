"""Releases behind a real proxy, on a real engine, by the real program: clients of every kind lose no request.

The clients never retry, nor does the proxy. What each release did stands in the journal and in what clients saw.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import docker
import pytest

from bench import load
from tests.e2e.running import PATIENCE, Daemon, House
from tools.ports import free_port

HOST = "web.example"
GRACE = {"WS_GRACE_MS": "1000"}
DRAIN = {"deadline": "500ms", "tail": "1s", "grace": "20s"}


class Fronted:
    """A house with a proxy, and its service with traffic."""

    def __init__(self, house: House, raw: docker.APIClient, image: str) -> None:
        self.house = house
        self.raw = raw
        self.http = ("127.0.0.1", free_port())
        proxy = f'proxy: {{image: "{image}", http: "{self.http[0]}:{self.http[1]}"}}'
        text = house.settings.read_text().replace("runtime: local}", f"runtime: local, {proxy}}}")
        house.settings.write_text(text)

    def release(self, image: str, **spec: object) -> str:
        """Merge a version; the revision. It has two instances, unless demand says how many."""
        head = {"apiVersion": "reconciler.dev/v1", "kind": "Environment", "metadata": {"name": self.house.environment}}
        health = {"http": {"port": "http", "path": "/healthz"}, "interval": "500ms", "healthyAfter": 1}
        web = {
            "apiVersion": "reconciler.dev/v1",
            "kind": "Service",
            "metadata": {"name": "web"},
            "spec": {
                **({} if "scaling" in spec else {"replicas": 2}),
                "image": image,
                "ports": [{"name": "http", "container": 8080}],
                "health": health,
                "env": GRACE,
                "drain": DRAIN,
                "traffic": {"port": "http", "hosts": [HOST]},
                **spec,
            },
        }
        place = f"environments/{self.house.environment}"
        files = {f"{place}/environment.yaml": head, f"{place}/web.yaml": web}
        return self.house.upstream.commit({path: json.dumps(text).encode() for path, text in files.items()})

    @contextmanager
    def asked(self, *, websockets: bool = True, longest: int = 900) -> Iterator[load.LoadThread]:
        """Clients of every kind, before the block and a little after it; none of their requests failed."""
        kinds = [
            load.keep_alive(4, 50),
            load.new_connection(2, 25),
            load.http2(1, 4, 25),
            load.slow(2, 300),
            load.endless(2, longest),
            load.post(2, 25),
        ]
        if websockets:
            kinds.append(load.websocket(2))
        with load.LoadThread(load.Load(self.http, HOST, *kinds)) as running:
            running.reached(100, PATIENCE)
            yield running
            running.reached(running.so_far().answered + 100, PATIENCE)
        tally = running.stop()
        assert tally.failed == 0, str(tally)

    def alone(self, image: str, count: int = 2) -> None:
        """Wait until there are so many running instances, all of this image."""
        digest = image.partition("@")[2]
        until(lambda: [name.partition("@")[2] for name in self.instances()] == [digest] * count, f"{count} of {image}")

    def instances(self) -> list[str]:
        """The image of each running instance; the proxy is none."""
        wanted = [f"dev.reconciler.environment={self.house.environment}", "dev.reconciler.service=web"]
        return sorted(box["Image"] for box in self.raw.containers(filters={"label": wanted}))

    def records(self, what: str) -> list[dict[str, Any]]:
        """The details of all records of a kind."""
        said: subprocess.CompletedProcess[str] = self.house.command("audit", "list", "--json", "--limit", "1000")
        assert said.returncode == 0, said.stderr
        entries = [record.get("entry", record) for record in json.loads(said.stdout)]
        return [entry for entry in entries if entry["what"] == what]

    def get(self) -> int:
        """The status of one request on a connection of its own."""
        with closing(http.client.HTTPConnection(*self.http, timeout=PATIENCE)) as connection:
            connection.request("GET", "/", headers={"Host": HOST})
            return connection.getresponse().status


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"in vain: {what}"
        time.sleep(0.1)


@pytest.fixture
def fronted(house: House, raw: docker.APIClient, haproxy: str) -> Fronted:
    return Fronted(house, raw, haproxy)


@contextmanager
def running(fronted: Fronted, image: str, **spec: object) -> Iterator[Daemon]:
    """A daemon with a first version in sync."""
    first = fronted.release(image, **spec)
    with fronted.house.daemon() as daemon:
        daemon.synced(first)
        yield daemon


def test_a_rolling_release(fronted: Fronted, hello: dict[str, str]) -> None:
    with running(fronted, hello["1.0"]) as daemon, fronted.asked() as clients:
        daemon.synced(fronted.release(hello["2.0"]))
        fronted.alone(hello["2.0"])
    # Each was told to leave; where it came to the other old instance, the second one not being up yet, once more.
    assert 2 <= clients.stop().kinds["websocket"].reconnects <= 4
    assert not fronted.records("Failed")


def test_what_goes_on_in_the_worker_that_a_reload_left_behind(fronted: Fronted, hello: dict[str, str]) -> None:
    """The proxy that runs does not count it, and the grace alone would be too short for it."""
    patient = {"deadline": "8s", "tail": "4s", "grace": "200ms"}
    with running(fronted, hello["1.0"], drain=patient) as daemon, fronted.asked(websockets=False, longest=3000):
        more = {"port": "http", "hosts": [HOST, "more.example"]}
        daemon.synced(fronted.release(hello["2.0"], traffic=more, drain=patient, rollout={"surge": 2}))
        fronted.alone(hello["2.0"])
    assert "EnsureProxy" in [entry["details"]["effect"] for entry in fronted.records("Done")[-30:]]


def test_blue_green_and_a_revert_while_the_old_ones_are_held(fronted: Fronted, hello: dict[str, str]) -> None:
    rollout = {"strategy": "blueGreen", "hold": "10m"}
    with running(fronted, hello["1.0"], rollout=rollout) as daemon:
        with fronted.asked() as clients:
            daemon.synced(fronted.release(hello["2.0"], rollout=rollout))
            until(lambda: set(_now(clients)) == {"2.0"}, "all the traffic at 2.0")
            assert len(fronted.instances()) == 4, "the old ones are held"
            made = len(fronted.records("Done"))
            daemon.synced(fronted.release(hello["1.0"], rollout=rollout))
            until(lambda: set(_now(clients)) == {"1.0"}, "all the traffic at 1.0 again")
        effects = [entry["details"]["effect"] for entry in fronted.records("Done")]
    assert "CreateInstance" not in effects[made:], "those that were held came back"
    assert clients.stop().kinds["websocket"].reconnects == 0, "nobody had to leave"


def _now(clients: load.LoadThread) -> dict[str, int]:
    """Answers by version in the last moment, but for the long ones, which end where they began."""
    tally = clients.so_far()
    now = time.monotonic() - tally.started
    return {
        version: 1
        for name in ("keep-alive", "new-connection", "http2", "post")
        for version, at in tally.kinds[name].last_seen.items()
        if now - at < 0.3
    }


def test_a_canary(fronted: Fronted, hello: dict[str, str]) -> None:
    steps = [{"weight": 20, "soak": "1s"}, {"weight": 50, "soak": "500ms"}]
    with running(fronted, hello["1.0"]) as daemon, fronted.asked() as clients:
        daemon.synced(fronted.release(hello["2.0"], rollout={"strategy": "canary", "steps": steps}))
        fronted.alone(hello["2.0"])
    tables = [entry["details"]["shares"] for entry in fronted.records("Done") if "stage" in entry["details"]]
    assert len(tables) == 3, "a share for each step, and all of it"
    seen = [set(counts) for _, counts in clients.stop().split()]
    assert {"1.0", "2.0"} in seen
    assert {"1.0"} in seen


def test_a_canary_that_is_stopped_by_its_gate(fronted: Fronted, hello: dict[str, str]) -> None:
    gate = {"against": "stable", "minimumRequests": 30, "latency": {"slowerThan": "500ms"}}
    rollout = {"strategy": "canary", "steps": [{"weight": 50, "soak": "30s"}], "gate": gate}
    with running(fronted, hello["1.0"]) as daemon, fronted.asked():
        bad = fronted.release(hello["2.0"], rollout=rollout, env={**GRACE, "DELAY_MS": "1000"})
        daemon.log("reconciled", lambda line: line["revision"] == bad[:12] and "Quarantined" in str(line["services"]))
        fronted.alone(hello["1.0"])
    assert fronted.records("RolledBack") or fronted.records("RolloutFailed")


def test_from_sleep_to_work_and_back(fronted: Fronted, hello: dict[str, str]) -> None:
    scaling = {"min": 0, "max": 2, "sessionsPerInstance": 4, "stabilization": "2s"}
    with running(fronted, hello["1.0"], scaling=scaling):
        until(lambda: not fronted.instances(), "sleep")
        assert fronted.get() == 200, "the first request waits for its instance"
        with fronted.asked():
            until(lambda: len(fronted.instances()) == 2, "two instances under load")
        until(lambda: not fronted.instances(), "sleep again")


def test_sigterm_is_ignored(fronted: Fronted, hello: dict[str, str]) -> None:
    """Its websockets would have to be cut: they are left out."""
    short = {**DRAIN, "grace": "2s"}
    stubborn = {"env": {"IGNORE_TERM": "1"}, "drain": short}
    with running(fronted, hello["1.0"], **stubborn) as daemon, fronted.asked(websockets=False):
        daemon.synced(fronted.release(hello["2.0"], drain=short))
        fronted.alone(hello["2.0"])
    removed = [entry["details"] for entry in fronted.records("Done") if entry["details"]["effect"] == "RemoveInstance"]
    assert [(each["exitCode"], each["forced"]) for each in removed] == [(137, True)] * 2

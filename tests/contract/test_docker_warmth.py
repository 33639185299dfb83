"""A real engine and the ways to an instance: warm-up near and far, the host's network, and the meter."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import docker
import pytest

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.docker_connection import Connection
from reconciler.adapters.docker_meter import Meter, Sample, cores_between, sampled
from reconciler.adapters.docker_runtime import DockerRuntime
from reconciler.core import names
from reconciler.core.delivery import WarmRequest, WarmUp
from reconciler.core.errors import Reason, Stalled
from reconciler.core.live import LiveState, WarmthStatus
from reconciler.core.model import Port, Security
from reconciler.core.steps import RemoveInstance, WarmInstance
from tests.support.engine_roads import plain_port
from tests.support.runtime_house import House, Vault, docker_settings, healthy
from tools.ports import free_port

ASK = WarmUp((WarmRequest("/"),), count=3)
AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def remote(house: House, engine: str) -> Iterator[House]:
    """The same engine, reached over TCP: the instances' own addresses count as out of reach."""
    with plain_port(Path(engine.removeprefix("unix://"))) as port:
        house.runtime.close()
        house.runtime = DockerRuntime(docker_settings(f"tcp://127.0.0.1:{port}"), "house", Vault(), SystemClock())
        yield house
        house.runtime.close()


def warm(state: LiveState) -> bool:
    return any(i.warmth is not None and i.warmth.status is WarmthStatus.WARM for i in state.instances)


def test_a_remote_engine_is_warmed_through_published_ports(remote: House) -> None:
    name = remote.start()
    with pytest.raises(Stalled) as caught:
        remote.runtime.apply(WarmInstance(name, 8080, ASK))
    assert caught.value.reason is Reason.PROBE_UNREACHABLE
    assert "published" in caught.value.what
    remote.runtime.apply(RemoveInstance(name))
    name = healthy(remote, ports=(Port("http", 8080, host=free_port()),))
    remote.runtime.apply(WarmInstance(name, 8080, ASK))
    remote.settle(warm)


def answered(house: House, raw: docker.APIClient, address: str, port: int) -> str:
    """What a client inside the private network says of its requests."""
    client = f"client-{house.environment}"
    place = raw.create_host_config(network_mode=names.network(house.environment))
    raw.create_container(house.image.pinned, ["get", address, str(port), "/", "3"], name=client, host_config=place)
    raw.start(client)
    raw.wait(client)
    said = raw.logs(client).decode().splitlines()[-1]
    raw.remove_container(client)
    return said


def test_an_instance_in_the_hosts_network_has_the_hosts_address_there(house: House, raw: docker.APIClient) -> None:
    port = free_port()
    spec = house.spec(security=Security(host_network=True), env={"PORT": str(port)})
    name = house.start(spec)
    found = house.one(lambda i: bool(i.address))
    house.runtime.apply(WarmInstance(name, port, ASK))
    house.settle(warm)
    assert answered(house, raw, found.address, port) == "3 requests, 3 answered, 0 failed"


def test_the_address_is_the_one_in_the_private_network(house: House, raw: docker.APIClient) -> None:
    name = healthy(house)
    networks = raw.inspect_container(name)["NetworkSettings"]["Networks"]
    assert house.observe().instances[0].address == networks[names.network(house.environment)]["IPAddress"]


def test_a_command_that_does_not_stay_warms_nothing(house: House, engine: str) -> None:
    name = healthy(house)
    once = DockerRuntime(docker_settings(engine), "house", Vault(), SystemClock(), single_probe=True)
    once.apply(WarmInstance(name, 8080, ASK))
    assert [i.warmth for i in once.observe(house.environment, house.checks, ()).instances] == [None]
    once.close()


def test_the_meter_sees_what_a_busy_instance_uses(house: House, raw: docker.APIClient, engine: str) -> None:
    name = house.start()
    meter = Meter(Connection(docker_settings(engine)))
    identity = raw.inspect_container(name)["Id"]
    assert meter.cores("prod", [identity]) == {identity: None}
    assert meter.cores("prod", []) == {}
    assert meter.cores("prod", [identity, "0" * 64]) == {identity: None, "0" * 64: None}
    meter.close()


def test_an_engine_that_does_not_answer_is_no_error(tmp_path: Path) -> None:
    meter = Meter(Connection(docker_settings(f"unix://{tmp_path}/none.sock")))
    assert meter.cores("prod", ["a"]) == {"a": None}
    meter.close()


@pytest.mark.parametrize(
    ("before", "after", "cores"),
    [
        (None, Sample(AT, 1.0), None),
        (Sample(AT, 1.0), None, None),
        (Sample(AT, 1.0), Sample(AT + timedelta(seconds=4), 3.0), 0.5),
        (Sample(AT, 3.0), Sample(AT + timedelta(seconds=4), 1.0), None),
        (Sample(AT, 1.0), Sample(AT, 1.0), None),
    ],
)
def test_cores_are_used_time_by_time(before: Sample | None, after: Sample | None, cores: float | None) -> None:
    assert cores_between(before, after) == cores


@pytest.mark.parametrize(
    "stats",
    [
        {},
        {"read": "2026-01-01T00:00:00Z"},
        {"read": "0001-01-01T00:00:00Z", "cpu_stats": {"cpu_usage": {"total_usage": 0}}},
        {"read": "2026-01-01T00:00:00Z", "cpu_stats": {"cpu_usage": {"total_usage": "x"}}},
        {"read": "2026-01-01T00:00:00Z", "cpu_stats": None},
    ],
)
def test_an_answer_without_counters_is_no_sample(stats: dict[str, object]) -> None:
    assert sampled(stats) is None


def test_a_sample_is_in_seconds() -> None:
    stats = {"read": "2026-01-01T00:00:00.5Z", "cpu_stats": {"cpu_usage": {"total_usage": 2_500_000_000}}}
    assert sampled(stats) == Sample(AT + timedelta(seconds=0.5), 2.5)

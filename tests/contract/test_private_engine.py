"""The private engines of tests and demo live side by side on one host and leave it as it was."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import docker
import pytest

from tests.support.cluster import eventually
from tests.support.engine_roads import ending
from tools import engine as tool
from tools import images, packet_filter


@pytest.fixture
def places() -> Iterator[list[Path]]:
    directories = [Path(f"/tmp/rec-{side}-{os.getpid():x}") for side in "ab"]
    yield directories
    for directory in directories:
        if directory.exists():
            tool.down(directory)
            directory.rmdir()


def rules(words: str) -> list[str]:
    """The rules of every table that mention `words`; other engines of this host may come and go meanwhile."""
    command = ["iptables-save"]
    said = subprocess.run(command, env={"PATH": "/usr/sbin:/sbin"}, check=True, capture_output=True, text=True)
    return [line for line in said.stdout.splitlines() if words in line and not line.startswith(("#", ":"))]


def inhabit(own: tool.Engine) -> str:
    """Two containers in a network of their own, of which one asks the other; the subnet of the network."""
    reference = images.publish(own.host, own.registry, "1.0")
    with closing(docker.APIClient(own.host, version="auto")) as raw:
        raw.pull(reference)
        raw.create_network("street")
        config = raw.create_networking_config({"street": raw.create_endpoint_config(aliases=["web"])})
        raw.create_container(
            reference, name="web", host_config=raw.create_host_config(network_mode="street"), networking_config=config
        )
        raw.start("web")
        eventually(lambda: b"listens on" in raw.logs("web"))
        client = raw.create_container(
            reference, ["get", "web", "8080", "/", "3"], host_config=raw.create_host_config(network_mode="street")
        )
        raw.start(client)
        assert raw.wait(client)["StatusCode"] == 0, raw.logs(client)
        subnet: str = raw.inspect_network("street")["IPAM"]["Config"][0]["Subnet"]
        return subnet


def left(directory: Path, pool: str) -> list[str]:
    """Programs, mounts, routes and rules that belong to an engine."""
    found = [words.decode() for words in tool.command_lines() if os.fsencode(directory) in words]
    found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(directory) in line]
    routes = [line.split()[1] for line in Path("/proc/net/route").read_text().splitlines()[1:]]
    targets = [IPv4Address(int(route, 16).to_bytes(4, "little")) for route in routes]
    found += [str(target) for target in targets if target in IPv4Network(pool)]
    return found + rules(pool)


def test_a_second_engine_changes_nothing_for_the_first(places: list[Path]) -> None:
    first = tool.up(places[0], private=True)
    street = inhabit(first)
    assert IPv4Network(street).subnet_of(IPv4Network(first.pool))
    before = rules(first.pool)
    assert rules(street) == []
    second = tool.up(places[1], private=True)
    assert second.pool != first.pool
    assert rules(inhabit(second)) == []
    assert rules(first.pool) == before
    tool.down(places[1])
    assert left(places[1], second.pool) == []
    assert rules(first.pool) == before
    assert tool.answers(first.host)
    tool.down(places[0])
    assert left(places[0], first.pool) == []


def test_a_killed_engine_leaves_nothing_either(places: list[Path]) -> None:
    own = tool.up(places[0], private=True)
    assert own.dockerd is not None
    inhabit(own)
    assert left(places[0], own.pool) != []
    with ending(own.dockerd.pid):
        os.kill(own.dockerd.pid, signal.SIGKILL)
        os.waitpid(own.dockerd.pid, 0)
    tool.down(places[0])
    assert left(places[0], own.pool) == []


def test_the_rule_is_made_once_and_withdrawn() -> None:
    pool = "198.18.64.0/18"  # kept for tests of networks, so no engine has it
    try:
        packet_filter.accept(pool)
        made = rules(pool)
        packet_filter.accept(pool)
        assert rules(pool) == made
        assert len(made) <= 1
    finally:
        packet_filter.withdraw(pool)
    assert rules(pool) == []

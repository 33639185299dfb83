"""A real engine while a person uses the docker command beside us: names, ports and removals in the same moment."""

from __future__ import annotations

import socket
import threading

import docker
import pytest

from reconciler.core.errors import Stalled
from reconciler.core.live import HealthStatus, Phase
from reconciler.core.model import File, Port
from reconciler.core.steps import AttachTraffic, DetachTraffic, RemoveInstance, StartInstance
from tests.support.runtime_house import House


def test_a_service_called_files_keeps_its_files(house: House) -> None:
    files = (File("/config/a", b"first", 0o644), File("/data/b", b"second", 0o644))
    house.start(house.spec("files", files=files))
    state = house.settle(lambda s: any(i.health is HealthStatus.HEALTHY for i in s.instances))
    assert state.orphans == ()


def test_a_renamed_instance_stays_in_reach_when_another_takes_its_name(house: House, raw: docker.APIClient) -> None:
    name = house.start()
    house.one(lambda i: i.health is HealthStatus.HEALTHY)
    house.runtime.apply(AttachTraffic(name, "web"))
    house.hands.rename(name, f"{name}.old")
    house.hands.squat(house.environment, name)
    house.runtime.apply(DetachTraffic(name, "web"))
    house.one(lambda i: not i.serving)
    house.runtime.apply(RemoveInstance(name))
    house.settle(lambda state: not state.instances)
    assert raw.inspect_container(name)["Config"]["Labels"] == {"someone": "else"}
    with pytest.raises(Stalled, match="does not carry the labels"):
        house.runtime.apply(RemoveInstance(name))
    raw.remove_container(name, force=True)


def test_a_creation_while_the_same_name_is_being_removed_makes_a_new_one(house: House, raw: docker.APIClient) -> None:
    creation = house.creation(house.spec())
    for _ in range(5):
        name = house.start()
        before = raw.inspect_container(name)["Id"]
        remover = threading.Thread(target=raw.remove_container, args=(before,), kwargs={"force": True})
        remover.start()
        while (raw.containers(all=True, filters={"id": before}) or [{"State": ""}])[0]["State"] == "running":
            pass
        house.runtime.apply(creation)
        house.runtime.apply(StartInstance(name))
        remover.join()
        assert raw.inspect_container(name)["Id"] != before
        raw.remove_container(name, force=True)


def test_a_taken_host_port_is_no_fault_of_the_instance(house: House) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        name = house.create(house.spec(ports=(Port("http", 8080, host=taken.getsockname()[1]),)))
        with pytest.raises(Stalled, match="a host port is in use"):
            house.runtime.apply(StartInstance(name))
        assert house.one().phase is Phase.CREATED

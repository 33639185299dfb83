"""Drift made with the docker command on a real engine: each way is seen, told in words, and never seen by mistake."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import docker
import pytest

from reconciler.core import names
from reconciler.core.errors import Reason, Stalled
from reconciler.core.live import Instance
from reconciler.core.model import (
    File,
    Resources,
    Security,
    Tmpfs,
)
from reconciler.core.steps import (
    AttachTraffic,
    SweepOrphan,
)
from tests.support.runtime_house import House, healthy


def details(instance: Instance) -> list[str]:
    return [d.detail for d in instance.differences]


def reasons(instance: Instance) -> set[Reason]:
    return {d.reason for d in instance.differences}


def put(raw: docker.APIClient, container: str, path: str, text: bytes = b"by hand") -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo(path.lstrip("/"))
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text))
    raw.put_archive(container, "/", buffer.getvalue())


def test_docker_update_is_drift(house: House, raw: docker.APIClient) -> None:
    name = healthy(house, resources=Resources(memory=32 << 20))
    raw.update_container(name, mem_limit=64 << 20, memswap_limit=64 << 20)
    found = house.one(lambda i: bool(i.differences))
    assert "memory: 33554432 -> 67108864" in details(found)
    assert reasons(found) == {Reason.DRIFT_CHANGED}


def test_a_restart_policy_is_drift(house: House, raw: docker.APIClient) -> None:
    raw.update_container(healthy(house), restart_policy={"Name": "always"})
    assert details(house.one(lambda i: bool(i.differences))) == ["restart policy: no -> always"]


def test_leaving_the_network_is_drift_and_the_switch_mends_it(house: House, raw: docker.APIClient) -> None:
    name = healthy(house)
    raw.disconnect_container_from_network(name, names.network(house.environment))
    found = house.one(lambda i: bool(i.differences))
    assert details(found) == [f"networks: {names.network(house.environment)} -> none"]
    house.runtime.apply(AttachTraffic(name, "web"))
    found = house.one(lambda i: not i.differences)
    assert found.serving


def test_a_container_from_a_moved_tag_is_the_wrong_image(house: House, raw: docker.APIClient) -> None:
    name = healthy(house)
    labels = raw.inspect_container(name)["Config"]["Labels"]
    tag = f"{house.image.repository}:moved-{house.environment}"
    raw.tag(house.second.pinned, *tag.rsplit(":", 1))
    raw.remove_container(name, force=True)
    raw.create_container(tag, name=name, labels=labels)
    found = house.one(lambda i: bool(i.differences))
    assert Reason.DRIFT_WRONG_IMAGE in reasons(found)
    raw.remove_container(name, force=True)
    raw.remove_image(tag)


def test_a_container_beside_with_our_labels_is_a_leftover(house: House, raw: docker.APIClient) -> None:
    name = healthy(house)
    labels = raw.inspect_container(name)["Config"]["Labels"]
    twin = f"twin-{house.environment}"
    raw.create_container(house.image.pinned, name=twin, labels=labels)
    house.settle(lambda s: s.orphans == (twin,))
    house.runtime.apply(SweepOrphan(twin))
    state = house.observe()
    assert (state.orphans, [i.name for i in state.instances]) == ((), [name])


def test_an_unlabelled_container_in_our_network_is_foreign(house: House, raw: docker.APIClient) -> None:
    house.observe()
    name = f"stranger-{house.environment}"
    network = names.network(house.environment)
    raw.create_container(house.image.pinned, name=name, host_config=raw.create_host_config(network_mode=network))
    raw.start(name)
    state = house.settle(lambda s: bool(s.foreign))
    assert [(f.name, f.reason) for f in state.foreign] == [(name, Reason.DRIFT_UNLABELLED)]
    with pytest.raises(Stalled) as caught:
        house.runtime.apply(SweepOrphan(name))
    assert caught.value.reason is Reason.NOT_OWNED
    raw.remove_container(name, force=True)
    house.settle(lambda s: s.foreign == ())


def test_a_file_written_into_the_layer_of_a_read_only_instance_is_drift(house: House, raw: docker.APIClient) -> None:
    name = healthy(house, tmpfs=(Tmpfs("/var/tmp", 1 << 20),), files=(File("/config/a", b"a"),))
    upper = raw.inspect_container(name)["GraphDriver"]["Data"]["UpperDir"]
    (Path(upper) / "backdoor").write_text("by hand")
    exec_id = raw.exec_create(name, ["/hello", "check"])["Id"]
    raw.exec_start(exec_id)
    found = house.one(lambda i: bool(i.differences))
    assert [(d.reason, d.detail) for d in found.differences] == [(Reason.DRIFT_FILESYSTEM, "added /backdoor")]


def test_a_copy_into_a_writable_instance_is_drift_outside_its_own_paths(house: House, raw: docker.APIClient) -> None:
    name = healthy(house, security=Security(writable_root=True, writable_paths=("/data",)))
    put(raw, name, "/data/mine")
    put(raw, name, "/not-mine")
    found = house.one(lambda i: bool(i.differences))
    assert [(d.reason, d.detail) for d in found.differences] == [(Reason.DRIFT_FILESYSTEM, "added /not-mine")]

"""A real engine and what stays in it beside the instances: the volumes of services, and the container of the proxy."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping

import docker
import pytest

from reconciler.adapters import docker_create
from reconciler.adapters.docker_ownership import environment_of
from reconciler.core import names
from reconciler.core.delivery import Volume
from reconciler.core.errors import Reason, Stalled
from reconciler.core.live import HealthStatus
from reconciler.core.model import File, Security
from reconciler.core.steps import RemoveInstance, SweepOrphan
from tests.support.runtime_house import House, healthy


@pytest.fixture
def proxy(house: House, raw: docker.APIClient) -> Iterator[str]:
    """A container as the proxy's is, running in the private network."""
    name = names.proxy(house.environment)
    labels = docker_create.ownership("house", house.environment, docker_create.ROLE_PROXY)
    place = raw.create_host_config(network_mode=names.network(house.environment))
    raw.create_container(house.image.pinned, name=name, labels=labels, host_config=place)
    raw.start(name)
    yield name
    raw.remove_container(name, force=True)


def place(raw: docker.APIClient, container: str, path: str) -> tarfile.TarInfo:
    stream, _ = raw.get_archive(container, path)
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
        return tar.getmembers()[0]


def test_a_new_volume_belongs_to_the_user_of_the_instance(house: House, raw: docker.APIClient) -> None:
    volumes = (Volume("data", "/var/lib/web"), Volume("seen", "/seen", read_only=True))
    name = healthy(house, volumes=volumes, files=(File("/config/a", b"a"),))
    entry = place(raw, name, "/var/lib/web")
    assert (entry.uid, entry.gid, entry.mode & 0o777) == (65532, 65532, 0o755)
    assert place(raw, name, "/seen").uid == 0
    mounts = {m["Destination"]: (m["Name"], m["RW"]) for m in raw.inspect_container(name)["Mounts"]}
    assert mounts["/var/lib/web"] == (names.volume(house.environment, "web", "data"), True)
    assert mounts["/seen"] == (names.volume(house.environment, "web", "seen"), False)
    assert mounts["/config"][1] is False
    found = raw.inspect_volume(mounts["/var/lib/web"][0])["Labels"]
    assert found[names.LABEL_ROLE] == docker_create.ROLE_VOLUME
    assert found[names.LABEL_SERVICE] == "web"


def test_a_volume_that_has_an_owner_keeps_it(house: House, raw: docker.APIClient) -> None:
    volumes = (Volume("data", "/data"),)
    first = healthy(house, volumes=volumes, security=Security(user="1000:1000"))
    house.runtime.apply(RemoveInstance(first))
    second = healthy(house, volumes=volumes)
    assert place(raw, second, "/data").uid == 1000


def test_nothing_of_ours_removes_a_volume(house: House, raw: docker.APIClient) -> None:
    volume = names.volume(house.environment, "web", "data")
    name = healthy(house, volumes=(Volume("data", "/data"),))
    house.runtime.apply(RemoveInstance(name))
    house.runtime.apply(SweepOrphan(volume))
    assert house.observe().orphans == ()
    assert raw.inspect_volume(volume)["Name"] == volume


@pytest.mark.parametrize("service", ["web", "files"])
def test_the_names_of_volumes_and_of_files_cannot_collide(service: str) -> None:
    volume = names.volume("prod", service, "0")
    files = docker_create.volume_name(names.instance("prod", service, "a" * 64, 0), 0)
    assert volume != files
    assert environment_of(docker_create.instance_of(files)) == "prod"
    assert environment_of(docker_create.instance_of(volume)) == ""


def test_a_volume_with_the_labels_of_a_file_volume_is_not_taken(house: House, raw: docker.APIClient) -> None:
    volume = names.volume(house.environment, "web", "data")
    raw.create_volume(volume, labels=docker_create.ownership("house", house.environment, docker_create.ROLE_FILES))
    with pytest.raises(Stalled) as caught:
        house.create(house.spec(volumes=(Volume("data", "/data"),)))
    assert caught.value.reason is Reason.NAME_TAKEN


def test_what_a_program_writes_into_its_volume_is_no_drift(house: House, raw: docker.APIClient) -> None:
    name = healthy(house, volumes=(Volume("data", "/data"),))
    house.hands.write(name, "/data/deep", b"x")
    raw.exec_start(raw.exec_create(name, ["/hello", "check"])["Id"])  # makes the runtime look at the differences
    assert house.one(lambda i: i.health is HealthStatus.HEALTHY).differences == ()
    assert "/data" in {change["Path"] for change in raw.diff(name)}


def test_the_proxy_is_neither_an_instance_nor_a_leftover_nor_foreign(house: House, proxy: str) -> None:
    healthy(house)
    state = house.observe()
    assert ([i.service for i in state.instances], state.orphans, state.foreign) == (["web"], (), ())
    with pytest.raises(Stalled) as caught:
        house.runtime.apply(SweepOrphan(proxy))
    assert caught.value.reason is Reason.NOT_OWNED
    with pytest.raises(Stalled):
        house.runtime.apply(RemoveInstance(proxy))


def test_what_becomes_of_the_proxy_is_hinted(house: House, raw: docker.APIClient, proxy: str) -> None:
    house.observe()
    house.hints.clear()
    raw.kill(proxy)
    house.settle(lambda _: any(proxy in detail and "die" in detail for _, detail in house.hints))


def test_another_container_with_the_labels_of_the_proxy_is_foreign(
    house: House, raw: docker.APIClient, hello: Mapping[str, str]
) -> None:
    name = f"twin-{house.environment}"
    labels = docker_create.ownership("house", house.environment, docker_create.ROLE_PROXY)
    raw.create_container(hello["1.0"], name=name, labels=labels)
    state = house.settle(lambda s: bool(s.foreign))
    assert [(f.name, f.reason) for f in state.foreign] == [(name, Reason.DRIFT_UNLABELLED)]

"""What only a real Docker Engine can show: files, secrets, limits, the switch, faults of the engine."""

from __future__ import annotations

import http.client
import io
import os
import signal
import socket
import tarfile
import threading
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import docker
import pytest

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.docker_runtime import DockerRuntime
from reconciler.core import names
from reconciler.core.errors import Reason, Retryable, Stalled
from reconciler.core.live import HealthStatus, Phase
from reconciler.core.model import (
    ExecCheck,
    File,
    Health,
    Port,
    Resources,
    SecretTarget,
    SecretUse,
    TcpCheck,
    Tmpfs,
)
from reconciler.core.steps import (
    AttachTraffic,
    CreateInstance,
    DetachTraffic,
    EnsureNetwork,
    PullImage,
    RemoveInstance,
    StartInstance,
    SweepOrphan,
)
from tests.support.cluster import eventually
from tests.support.engine import image_ref
from tests.support.runtime_house import QUICK, House, Vault, demolish, docker_settings, healthy
from tools import engine as tool
from tools.ports import free_port


def content(raw: docker.APIClient, container: str, path: str) -> tuple[bytes, tarfile.TarInfo]:
    stream, _ = raw.get_archive(container, path)
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
        entry = tar.getmembers()[0]
        file = tar.extractfile(entry)
        assert file is not None
        return file.read(), entry


def test_files_and_secrets_are_there_read_only(house: House, raw: docker.APIClient) -> None:
    spec = house.spec(
        files=(
            File("/config/app.yaml", b"a: 1\n"),
            File("/config/deep/er/run.sh", b"#!", 0o555),
            File("/etc/app.conf", b"etc"),
        ),
        secrets=(
            SecretUse("password", SecretTarget.ENV, "PASSWORD"),
            SecretUse("key", SecretTarget.FILE, "/keys/tls.key"),
        ),
    )
    name = house.start(spec)
    assert house.one(lambda i: i.health is HealthStatus.HEALTHY).differences == ()
    assert content(raw, name, "/config/app.yaml")[0] == b"a: 1\n"
    text, entry = content(raw, name, "/config/deep/er/run.sh")
    assert (text, entry.mode & 0o777) == (b"#!", 0o555)
    assert content(raw, name, "/etc/app.conf")[0] == b"etc"
    secret, entry = content(raw, name, "/keys/tls.key")
    assert (secret, entry.mode & 0o777, entry.uid, entry.gid) == (b"-----BEGIN-----\n", 0o400, 65532, 65532)
    inspected = raw.inspect_container(name)
    assert "PASSWORD=hunter2" in inspected["Config"]["Env"]
    assert "hunter2" not in str(inspected["Config"]["Labels"])
    assert {m["Destination"]: m["RW"] for m in inspected["Mounts"]} == {"/config": False, "/etc": False, "/keys": False}
    assert house.observe().orphans == ()
    house.runtime.apply(RemoveInstance(name))
    assert raw.volumes(filters={"label": f"{names.LABEL_ENVIRONMENT}={house.environment}"})["Volumes"] in (None, [])


def test_leftovers_of_a_crash_are_orphans_and_can_be_swept(house: House, raw: docker.APIClient) -> None:
    effect = house.creation(house.spec(files=(File("/config/a", b"a"),)))
    labels = {names.LABEL_OWNER: "house", names.LABEL_ENVIRONMENT: house.environment}
    raw.create_volume(f"{effect.name}.files.0", labels={**labels, names.LABEL_ROLE: "files"})
    filler = {**labels, names.LABEL_ROLE: "filler"}
    raw.create_container(house.image.pinned, name=f"{effect.name}.filler", labels=filler)
    second = DockerRuntime(docker_settings(raw_host(house)), "house", Vault(), SystemClock())
    orphans = second.observe(house.environment, {}, ()).orphans
    assert orphans == (f"{effect.name}.files.0", f"{effect.name}.filler")
    for orphan in orphans:
        second.apply(SweepOrphan(orphan))
    assert second.observe(house.environment, {}, ()).orphans == ()
    second.close()


def raw_host(house: House) -> str:
    runtime = house.runtime
    assert isinstance(runtime, DockerRuntime)
    return runtime._connection.settings.host


def test_creation_begins_anew_on_leftovers(house: House, raw: docker.APIClient) -> None:
    effect = house.creation(house.spec(files=(File("/config/a", b"right"),)))
    labels = {names.LABEL_OWNER: "house", names.LABEL_ENVIRONMENT: house.environment}
    raw.create_volume(f"{effect.name}.files.0", labels=labels)
    raw.create_container(house.image.pinned, name=f"{effect.name}.filler", labels=labels)
    house.runtime.apply(effect)
    assert content(raw, effect.name, "/config/a")[0] == b"right"
    assert house.observe().orphans == ()


def test_the_defaults_are_immutable(house: House, raw: docker.APIClient) -> None:
    found = raw.inspect_container(healthy(house, tmpfs=(Tmpfs("/tmp", 1 << 20),)))
    host = found["HostConfig"]
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["Privileged"] is False
    assert host["Tmpfs"] == {"/tmp": "rw,noexec,nosuid,nodev,size=1048576"}
    assert host["PidsLimit"] == 512
    assert host["RestartPolicy"]["Name"] == "no"
    assert not host["PortBindings"]
    assert not host["Binds"]
    assert host["NetworkMode"] == names.network(house.environment)
    assert found["Config"]["User"] == "65532:65532"
    assert found["Config"]["Image"] == house.image.pinned


def test_command_arguments_and_limits(house: House, raw: docker.APIClient) -> None:
    limits = Resources(memory=64 << 20, nano_cpus=500_000_000, pids=50)
    name = house.create(house.spec(command=("/hello",), args=("check",), resources=limits))
    found = raw.inspect_container(name)
    assert (found["Config"]["Entrypoint"], found["Config"]["Cmd"]) == (["/hello"], ["check"])
    host = found["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (64 << 20, 64 << 20, 500_000_000)
    assert host["PidsLimit"] == 50
    assert house.one().differences == ()


def test_tcp_and_exec_checks(house: House) -> None:
    health = Health(check=TcpCheck(8080), interval=timedelta(milliseconds=200))
    house.runtime.apply(RemoveInstance(healthy(house, health=health)))
    exec_health = Health(check=ExecCheck(("/hello", "check")), interval=timedelta(milliseconds=200))
    name = healthy(house, health=exec_health)
    assert house.one().differences == ()
    house.runtime.apply(RemoveInstance(name))
    bad = Health(check=ExecCheck(("/nothing",)), interval=timedelta(milliseconds=200), startup=timedelta(0))
    house.start(house.spec(health=bad))
    assert "/nothing" in house.one(lambda i: i.health is HealthStatus.UNHEALTHY).detail


def test_memory_beyond_the_limit_is_told(house: House) -> None:
    house.start(house.spec(resources=Resources(memory=16 << 20), env={"ALLOCATE_MB": "64"}))
    found = house.one(lambda i: i.phase is Phase.EXITED)
    assert found.exit_code == 137
    # The engine may hear of the end before it hears that the memory was why, and then never says so.
    assert "memory" in found.detail


def test_a_program_that_cannot_run_is_an_instance_that_ended(house: House) -> None:
    house.start(house.spec(command=("/nothing",)))
    found = house.one(lambda i: i.phase is Phase.EXITED)
    assert "/nothing" in found.detail


def test_a_host_port_is_published_and_a_taken_one_is_told(house: House) -> None:
    with socket.socket() as taken:
        port = free_port()  # nobody else gets it between its two uses
        taken.bind(("127.0.0.1", port))
        taken.listen()
        name = house.create(house.spec(ports=(Port("http", 8080, host=port),)))
        with pytest.raises(Stalled) as caught:
            house.runtime.apply(StartInstance(name))
        assert caught.value.reason is Reason.PORT_TAKEN
        assert str(port) in caught.value.what
    house.runtime.apply(StartInstance(name))
    house.one(lambda i: i.health is HealthStatus.HEALTHY)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/")
    assert connection.getresponse().read().startswith(b"hello 1.0 ")


def test_an_established_connection_survives_the_switch(house: House, raw: docker.APIClient) -> None:
    name = healthy(house)
    network = names.network(house.environment)
    address = raw.inspect_container(name)["NetworkSettings"]["Networks"][network]["IPAddress"]
    connection = http.client.HTTPConnection(address, 8080, timeout=60)
    for effect in (None, AttachTraffic(name, "web"), DetachTraffic(name, "web")):
        if effect is not None:
            house.runtime.apply(effect)
        connection.request("GET", "/")
        assert connection.getresponse().read().startswith(b"hello 1.0 ")
        assert connection.sock is not None
    assert raw.inspect_container(name)["NetworkSettings"]["Networks"][network]["IPAddress"] == address


def test_the_service_is_found_by_name_only_while_attached(house: House, raw: docker.APIClient) -> None:
    name = healthy(house)
    host = raw.create_host_config(network_mode=names.network(house.environment))
    client = f"client-{house.environment}"

    def asked() -> tuple[int, str]:
        raw.create_container(house.image.pinned, ["get", "web", "8080", "/", "3"], name=client, host_config=host)
        raw.start(client)
        code = raw.wait(client)["StatusCode"]
        said = raw.logs(client).decode()
        raw.remove_container(client)
        return code, said

    assert "the name is not known" in asked()[1]
    house.runtime.apply(AttachTraffic(name, "web"))
    code, said = asked()
    assert (code, said.splitlines()[-1]) == (0, "3 requests, 3 answered, 0 failed")


def test_a_draft_of_the_network_is_finished(house: House, raw: docker.APIClient) -> None:
    environment = f"{house.environment}-draft"
    labels = {names.LABEL_OWNER: "house", names.LABEL_ENVIRONMENT: environment, names.LABEL_ROLE: "draft"}
    raw.create_network(names.network(environment), labels=labels)
    assert not house.runtime.observe(environment, {}, ()).network_ready
    house.runtime.apply(EnsureNetwork(environment))
    assert house.runtime.observe(environment, {}, ()).network_ready
    demolish(raw, environment)


def test_one_look_is_enough_for_a_command(house: House, engine: str) -> None:
    healthy(house)
    once = DockerRuntime(docker_settings(engine), "house", Vault(), SystemClock(), single_probe=True)
    state = once.observe(house.environment, house.checks, ())
    assert [i.health for i in state.instances] == [HealthStatus.HEALTHY]
    once.close()


def test_a_hung_engine_is_retried_in_bounded_time_and_found_again(tmp_path: Path, hello: Mapping[str, str]) -> None:
    directory = Path(f"/tmp/rec-hung-{os.getpid():x}")
    own = tool.up(directory, private=True)
    assert own.dockerd is not None
    heard = threading.Event()
    runtime = DockerRuntime(docker_settings(own.host, timeout=timedelta(seconds=3)), "house", Vault(), SystemClock())
    try:
        runtime.watch(lambda environment, detail: heard.set() if "answers" in detail else None)
        eventually(lambda: runtime.observe("prod", {}, ()), during=Retryable)
        os.kill(own.dockerd.pid, signal.SIGSTOP)
        with pytest.raises(Retryable) as caught:
            runtime.observe("prod", {}, ())
        assert caught.value.reason is Reason.ENGINE_UNREACHABLE
        os.kill(own.dockerd.pid, signal.SIGCONT)
        assert eventually(lambda: runtime.observe("prod", {}, ()), during=Retryable).instances == ()
        os.kill(own.dockerd.pid, signal.SIGKILL)
        with pytest.raises(Retryable) as gone:
            runtime.observe("prod", {}, ())
        assert gone.value.reason is Reason.ENGINE_UNREACHABLE
        assert "Docker daemon" in gone.value.remedy
    finally:
        runtime.close()
        tool.down(directory)
        directory.rmdir()


def test_no_engine_at_all(tmp_path: Path) -> None:
    runtime = DockerRuntime(docker_settings(f"unix://{tmp_path}/none.sock"), "house", Vault(), SystemClock())
    with pytest.raises(Retryable) as caught:
        runtime.observe("prod", {}, ())
    assert caught.value.reason is Reason.ENGINE_UNREACHABLE
    runtime.close()


def test_a_registry_that_stalls_hangs_nothing_else(engine: str, house: House, hello: Mapping[str, str]) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        where = f"127.0.0.1:{silent.getsockname()[1]}"
        stalled = f"{where}/hello@sha256:{'1' * 64}"
        house.runtime.apply(PullImage(stalled))
        assert house.observe(stalled).images[stalled].status == "pulling"
        other = image_ref(hello["3.0"]).pinned
        house.runtime.apply(PullImage(other))
        house.settle(lambda s: s.images[other].status == "present", other)
        assert house.observe(stalled).images[stalled].status == "pulling"


def test_a_second_creation_of_the_same_instance_changes_nothing(house: House, raw: docker.APIClient) -> None:
    name = healthy(house, health=QUICK)
    before = raw.inspect_container(name)["Id"]
    effect: CreateInstance = house.creation(house.spec(health=QUICK))
    house.runtime.apply(effect)
    assert raw.inspect_container(name)["Id"] == before

"""Every road to an engine, real on both sides: ssh, TCP with mutual TLS, plain TCP, and an engine that was killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import docker
import pytest

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.docker_connection import Connection
from reconciler.adapters.docker_runtime import DockerRuntime
from reconciler.adapters.docker_tunnel import address
from reconciler.core import names
from reconciler.core.errors import Reason, Retryable, Stalled
from reconciler.core.live import HealthStatus, Phase
from reconciler.settings import DockerSettings, parse
from tests.support.engine_roads import Papers, ending, papers, plain_port, ssh_road, tunnels
from tests.support.git_server import SshGit
from tests.support.runtime_house import Vault, docker_settings, real_house
from tools import engine as tool
from tools import images
from tools.ports import free_port

__all__ = ["ssh_road"]  # a fixture

PATIENCE = 60.0


@contextlib.contextmanager
def connected(host: str, **changes: object) -> Iterator[Connection]:
    connection = Connection(docker_settings(host, **changes))
    try:
        yield connection
    finally:
        connection.close()


class Heard:
    """The hints of a runtime; `wait` for one that comes after the last that was waited for."""

    def __init__(self) -> None:
        self._hints: list[str] = []
        self._news = threading.Condition()

    def __call__(self, environment: str, detail: str) -> None:
        with self._news:
            self._hints.append(detail)
            self._news.notify()

    def wait(self, words: str) -> None:
        with self._news:
            assert self._news.wait_for(lambda: any(words in hint for hint in self._hints), PATIENCE), self._hints
            self._hints.clear()


def unreachable(action: Callable[[], object]) -> Retryable:
    with pytest.raises(Retryable) as caught:
        action()
    assert caught.value.reason is Reason.ENGINE_UNREACHABLE
    assert caught.value.remedy
    return caught.value


def at(ssh: SshGit, engine: str) -> str:
    return ssh.url + engine.removeprefix("unix://")


def test_over_ssh_it_is_the_same_engine(engine: str, raw: docker.APIClient, ssh_road: SshGit) -> None:
    with connected(at(ssh_road, engine)) as connection:
        assert connection.client().api_version == raw.api_version
        assert connection.info()["ID"] == raw.info()["ID"]
        assert {n["Id"] for n in connection.client().networks()} & {n["Id"] for n in raw.networks()}
        assert connection.host_address() == "127.0.0.1"
        assert len(tunnels(os.getpid())) == 1


def test_events_come_through_the_tunnel_and_again_after_it_was_killed(
    engine: str, raw: docker.APIClient, ssh_road: SshGit
) -> None:
    environment = f"tunnel-{os.getpid():x}"
    runtime = DockerRuntime(docker_settings(at(ssh_road, engine)), "house", Vault(), SystemClock())
    heard = Heard()
    try:
        runtime.observe(environment, {}, ())
        runtime.watch(heard)
        heard.wait("answers")
        raw.create_network(names.network(environment))
        heard.wait("network create")
        (pid,) = tunnels(os.getpid())
        with ending(pid):
            os.kill(pid, signal.SIGKILL)
        heard.wait("answers")
        raw.remove_network(names.network(environment))
        heard.wait("network destroy")
        assert not runtime.observe(environment, {}, ()).network_ready
        (other,) = tunnels(os.getpid())
        assert other != pid
    finally:
        runtime.close()
        with contextlib.suppress(docker.errors.NotFound):
            raw.remove_network(names.network(environment))


def private_directory(pid: int) -> Path:
    """Where that ssh has its local socket."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return Path(os.fsdecode(words[words.index(b"-L") + 1]).partition(":")[0]).parent


def test_nothing_is_left_after_close_and_nothing_opens_again(engine: str, ssh_road: SshGit) -> None:
    with connected(at(ssh_road, engine)) as connection:
        connection.client()
        (pid,) = tunnels(os.getpid())
        directory = private_directory(pid)
        assert directory.stat().st_mode & 0o777 == 0o700
        with ending(pid):
            connection.close()
        assert tunnels(os.getpid()) == []
        assert not directory.exists()
        assert "closed" in unreachable(connection.client).what
        assert tunnels(os.getpid()) == []


def test_the_tunnel_dies_with_us_even_when_we_are_killed(engine: str, ssh_road: SshGit) -> None:
    program = (
        "import sys, threading\n"
        "from reconciler.adapters.docker_connection import Connection\n"
        "from reconciler.settings import DockerSettings\n"
        "connection = Connection(DockerSettings('test', sys.argv[1]))\n"
        "first = threading.Thread(target=connection.client)\n"
        "first.start(); first.join()\n"  # the tunnel outlives whoever asked first
        "print(connection.client().ping(), flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, at(ssh_road, engine)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "True\n"
        (pid,) = tunnels(child.pid)
        directory = private_directory(pid)
        with ending(pid):
            child.kill()
    shutil.rmtree(directory)


def test_a_wrong_or_unknown_host_key_is_refused(engine: str, ssh_road: SshGit) -> None:
    place = ssh_road.known_hosts.read_text().split()[0]
    other = " ".join((ssh_road.key.with_suffix(".pub")).read_text().split()[:2])
    for text in (f"{place} {other}\n", ""):
        ssh_road.known_hosts.write_text(text)
        with connected(at(ssh_road, engine)) as connection:
            assert "Host key verification failed" in unreachable(connection.client).what
        assert ssh_road.known_hosts.read_text() == text
    assert tunnels(os.getpid()) == []


def test_a_key_that_is_not_authorised_is_told(engine: str, ssh_road: SshGit) -> None:
    ssh_road.authorized.write_text("")
    with connected(at(ssh_road, engine)) as connection:
        assert "Permission denied" in unreachable(connection.client).what
        assert connection.settings.host in unreachable(connection.client).where


def test_a_socket_that_is_not_there_is_told_in_the_words_of_ssh(ssh_road: SshGit) -> None:
    with connected(f"{ssh_road.url}/nonexistent/docker.sock") as connection:
        said = {unreachable(connection.client).what for _ in range(3)}
        assert any("open failed" in what for what in said), said


def test_a_host_that_says_nothing_costs_a_bounded_time(ssh_road: SshGit) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        host = f"ssh://127.0.0.1:{silent.getsockname()[1]}"
        with connected(host, timeout=timedelta(seconds=1)) as connection:
            unreachable(connection.client)
    assert tunnels(os.getpid()) == []


def test_without_ssh_a_person_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with connected("ssh://127.0.0.1") as connection, pytest.raises(Stalled, match="ssh was not found"):
        connection.client()


@pytest.mark.parametrize(
    "host",
    [
        "ssh://-oProxyCommand=id",
        "ssh://-oProxyCommand=id@host",
        "ssh://user@-host",
        "ssh://user:password@host",
        "ssh://host:0",
        "ssh://host:65536",
        "ssh://host:22:22",
        "ssh://host/run/docker.sock:/etc/passwd",
        "ssh://host/run/%h",
        "ssh://ho st",
        "ssh://host\n",
        "ssh://",
    ],
)
def test_no_address_can_become_an_option_or_a_second_forwarding(host: str) -> None:
    with connected(host) as connection, pytest.raises(Stalled) as caught:
        connection.client()
    assert caught.value.reason is Reason.SETTINGS_INVALID
    assert tunnels(os.getpid()) == []


def test_user_port_and_path_are_optional() -> None:
    assert address("ssh://host") == address("ssh://host/") == replace(address("ssh://u@host:22"), user="", port="")
    full = address("ssh://ada@[::1]:2222/run/user/7/docker.sock")
    assert (full.user, full.host, full.port, full.path) == ("ada", "::1", "2222", "/run/user/7/docker.sock")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory for an engine of one test alone."""
    directory = Path(f"/tmp/rec-own-{os.getpid():x}")
    yield directory
    tool.down(directory)
    directory.rmdir()


def tls_settings(port: int, files: Papers, ca: Path) -> DockerSettings:
    host = f"tcp://127.0.0.1:{port}"
    return docker_settings(host, tls_ca=ca, tls_cert=files.cert, tls_key=files.key)


def test_mutual_tls_with_a_real_engine(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, client = papers(tmp_path / "right", "server", "client")
    (stranger,) = papers(tmp_path / "wrong", "stranger")
    port = free_port()
    options = ["--host", f"tcp://127.0.0.1:{port}", "--tlsverify"]
    options += ["--tlscacert", str(server.ca), "--tlscert", str(server.cert), "--tlskey", str(server.key)]
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(stranger.ca))  # meant for other programs
    own = tool.up(place, private=True, options=options)
    right = tls_settings(port, client, server.ca)
    with connected(own.host) as local, contextlib.closing(Connection(right)) as remote:
        assert remote.info()["ID"] == local.info()["ID"]
        assert remote.host_address() == "127.0.0.1"
    with contextlib.closing(Connection(tls_settings(port, stranger, server.ca))) as refused:
        unreachable(refused.client)  # whether TLS's alert or the end of the connection comes first is left to chance
    with contextlib.closing(Connection(tls_settings(port, client, stranger.ca))) as refusing:
        assert "CERTIFICATE_VERIFY_FAILED" in unreachable(refusing.client).what
    with connected(right.host) as plain, pytest.raises(Stalled, match="HTTPS"):
        plain.client()
    with contextlib.closing(Connection(replace(right, tls_key=None))) as half, pytest.raises(Stalled, match="TLS"):
        half.client()


def test_plain_tcp_works_and_is_warned_of(engine: str, raw: docker.APIClient) -> None:
    with plain_port(Path(engine.removeprefix("unix://"))) as port:
        written = (
            "data: data\n"
            "repositories: {fleet: {url: https://git.example.org/fleet.git}}\n"
            f"runtimes: {{far: {{docker: {{host: 'tcp://127.0.0.1:{port}'}}}}}}\n"
            "environments: {prod: {repository: fleet, runtime: far}}\n"
        )
        settings = parse(written.encode(), Path("/etc/reconciler.yaml"))
        assert len(settings.warnings) == 1
        assert "without tls" in settings.warnings[0]
        with contextlib.closing(Connection(settings.runtimes["far"])) as connection:
            assert connection.info()["ID"] == raw.info()["ID"]


def test_an_engine_killed_and_started_again_on_its_data_is_found_again(place: Path) -> None:
    own = tool.up(place, private=True)
    assert own.dockerd is not None
    with contextlib.closing(docker.APIClient(own.host, version="auto")) as raw:
        hello = {version: images.publish(own.host, own.registry, version) for version in ("1.0", "2.0")}
        house = real_house("killed", own.host, hello, raw).ready()
        name = house.start(house.spec())
        house.one(lambda i: i.health is HealthStatus.HEALTHY)
        heard = Heard()
        house.runtime.watch(heard)
        heard.wait("answers")
        with ending(own.dockerd.pid):
            os.kill(own.dockerd.pid, signal.SIGKILL)
            os.waitpid(own.dockerd.pid, 0)
        heard.wait("lost")
        unreachable(lambda: house.runtime.observe("killed", {}, ()))
        assert tool.revive(place).dockerd != own.dockerd
        heard.wait("answers")
        state = house.runtime.observe("killed", house.checks, (house.image.pinned,))
        assert [(i.name, i.phase) for i in state.instances] == [(name, Phase.EXITED)]
        assert state.network_ready
        assert state.images[house.image.pinned].status == "present"
        assert state.foreign == ()
        house.runtime.close()
        house.other.close()

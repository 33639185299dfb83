"""Probes against real sockets: what counts as success, and that no server can hold one beyond its timeout."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.probes import Prober, Target, check, http_check, once, tcp_check
from reconciler.core.errors import Reason
from reconciler.core.health import CheckResult, HealthState
from reconciler.core.live import HealthStatus
from reconciler.core.model import ExecCheck, Health, HttpCheck, TcpCheck

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@contextmanager
def server(answer: Callable[[socket.socket], None]) -> Iterator[tuple[tuple[str, int], list[bytes]]]:
    """A server that reads a request and lets `answer` do the rest; the requests it got."""
    got: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    got.append(connection.recv(65536))
                    answer(connection)
                except OSError:
                    continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname(), got
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(60)


def saying(answer: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(answer)


@pytest.mark.parametrize(
    ("answer", "ok"),
    [
        (OK, True),
        (b"HTTP/1.0 204 No Content\r\n\r\n", True),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", True),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK, True),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1_000_000, True),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", False),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", False),
        (b"SSH-2.0-OpenSSH\r\n", False),
        (b"HTTP/1.1\r\n\r\n", False),
        (b"HTTP/1.1 abc\r\n\r\n", False),
        (b"", False),
        (b"x" * 10_000, False),
    ],
)
def test_a_status_of_200_to_399_is_a_success(answer: bytes, ok: bool) -> None:
    with server(saying(answer)) as (address, got):
        assert http_check(address, "/healthz", 60).ok is ok
    assert got[0].startswith(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:")
    assert len(got) == 1


def test_a_server_that_drips_cannot_hold_a_probe() -> None:
    stop = threading.Event()

    def drip(connection: socket.socket) -> None:
        while not stop.is_set():
            connection.sendall(b"H")
            stop.wait(0.02)

    with server(drip) as (address, _):
        result = http_check(address, "/", 0.3)
        stop.set()
    assert result == CheckResult(ok=False, detail=f"GET / on port {address[1]}: no answer in time")


def test_a_silent_server_is_a_failure() -> None:
    done = threading.Event()
    with server(lambda _: done.wait(5) and None) as (address, _):
        result = http_check(address, "/", 0.2)
        done.set()
    assert "no answer in time" in result.detail


@pytest.mark.parametrize("path", ["/a b", "/a\r\nHost: evil", "/\x00", "/ü"])
def test_a_path_cannot_smuggle_anything(path: str) -> None:
    with server(saying(OK)) as (address, got):
        assert not http_check(address, path, 1).ok
    assert got == []


def test_tcp() -> None:
    with server(saying(b"")) as (address, _):
        assert tcp_check(address, 60).ok
    refused = tcp_check(address, 60)
    assert (refused.ok, "refused" in refused.detail) == (False, True)


def target(health: Health, port: int | None, name: str = "i", obstacle: str = "") -> Target:
    now = SystemClock().now()
    return Target((name, now), name, name, health, now, lambda _: ("127.0.0.1", port) if port else None, obstacle)


def never(*_: object) -> CheckResult:
    raise AssertionError("no exec was expected")


def test_what_is_out_of_reach_says_so() -> None:
    result = check(target(Health(check=TcpCheck(80)), None, obstacle="a remote engine"), never)
    assert result.detail == f"{Reason.PROBE_UNREACHABLE}: a remote engine"
    health = Health(check=HttpCheck(80), startup=timedelta(0))
    assert once(target(health, None, obstacle="far"), never, SystemClock().now()).status is HealthStatus.STARTING


def test_exec_is_left_to_the_engine() -> None:
    asked = []

    def execute(given: Target, wanted: ExecCheck, timeout: float) -> CheckResult:
        asked.append((given.name, wanted.command, timeout))
        return CheckResult(ok=True)

    health = Health(check=ExecCheck(("true",)), timeout=timedelta(seconds=3))
    assert check(target(health, None), execute).ok
    assert asked == [("i", ("true",), 3.0)]


@pytest.fixture
def changes() -> queue.Queue[tuple[str, str, HealthState]]:
    return queue.Queue()


@pytest.fixture
def prober(changes: queue.Queue[tuple[str, str, HealthState]]) -> Iterator[Prober]:
    made = Prober(SystemClock(), never, lambda *change: changes.put(change), workers=4)
    yield made
    made.close()


HEALTH = Health(check=HttpCheck(80), interval=timedelta(milliseconds=30), timeout=timedelta(seconds=60))


def test_the_prober_tells_each_change(prober: Prober, changes: queue.Queue[tuple[str, str, HealthState]]) -> None:
    answers = {"now": OK}
    with server(lambda connection: connection.sendall(answers["now"])) as (address, _):
        followed = target(HEALTH, address[1])
        prober.follow("prod", {followed.key: followed})
        environment, name, state = changes.get(timeout=60)
        assert (environment, name, state.status) == ("prod", "i", HealthStatus.HEALTHY)
        answers["now"] = b"HTTP/1.1 500 no\r\n\r\n"
        assert changes.get(timeout=60)[2].status is HealthStatus.UNHEALTHY
        answers["now"] = OK
        assert changes.get(timeout=60)[2].status is HealthStatus.HEALTHY
        assert prober.state("prod", followed.key).status is HealthStatus.HEALTHY


def test_what_is_gone_is_forgotten(prober: Prober, changes: queue.Queue[tuple[str, str, HealthState]]) -> None:
    with server(saying(OK)) as (address, _):
        followed = target(HEALTH, address[1])
        prober.follow("prod", {followed.key: followed})
        changes.get(timeout=60)
        prober.follow("prod", {})
        assert prober.state("prod", followed.key) == HealthState()
        prober.follow("prod", {followed.key: followed})
        assert changes.get(timeout=60)[2].status is HealthStatus.HEALTHY


def test_slow_instances_do_not_hold_up_others(
    prober: Prober, changes: queue.Queue[tuple[str, str, HealthState]]
) -> None:
    done = threading.Event()
    with server(lambda _: done.wait(20) and None) as (slow, _), server(saying(OK)) as (fast, _):
        targets = [target(HEALTH, slow[1], f"slow{i}") for i in range(3)]
        targets.append(target(HEALTH, fast[1], "fast"))
        prober.follow("prod", {one.key: one for one in targets})
        assert changes.get(timeout=60)[1] == "fast"
        done.set()

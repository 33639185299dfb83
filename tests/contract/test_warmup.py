"""Warm-ups against real HTTP servers: when an instance is warm, when it never is, and what no server can do to it."""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from reconciler.adapters.warmup import Cold, WarmUps, p95
from reconciler.core.delivery import WarmRequest, WarmUp
from reconciler.core.live import Warmth, WarmthStatus
from tools.ports import free_port

START = datetime(2026, 1, 1, tzinfo=UTC)
LONG = timedelta(seconds=30)
SHORT = timedelta(seconds=4)
"""How long a test lasts whose warm-up has to fail, and so long a machine may stand still in it."""
Ended = queue.Queue[tuple[str, str, Warmth]]


@dataclass
class Server:
    """An HTTP server: `answer(number)` gives status, header and body. Keeps what was asked, and from where."""

    address: tuple[str, int]
    asked: list[tuple[str, str, bytes, dict[str, str]]] = field(default_factory=list)
    connections: set[tuple[str, int]] = field(default_factory=set)


@contextmanager
def serving(answer: Callable[[int], tuple[int, dict[str, str], bytes]]) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one segment: else each answer waits for a delayed acknowledgement

        def handle_one(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            made.connections.add(self.client_address)
            made.asked.append((self.command, self.path, body, {k.lower(): v for k, v in self.headers.items()}))
            status, headers, content = answer(len(made.asked))
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(content))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = handle_one

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made = Server(("127.0.0.1", server.server_address[1]))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


@contextmanager
def raw_server(behave: Callable[[socket.socket], None]) -> Iterator[tuple[str, int]]:
    """A server that lets `behave` do all with each connection."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=handle, args=(connection,), daemon=True).start()

    def handle(connection: socket.socket) -> None:
        with connection:
            try:
                behave(connection)
            except OSError:
                return

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def fine(_: int) -> tuple[int, dict[str, str], bytes]:
    return 200, {}, b"hello"


@pytest.fixture
def ended() -> Ended:
    return queue.Queue()


@pytest.fixture
def warm_ups(ended: Ended) -> Iterator[WarmUps]:
    made = WarmUps(lambda *end: ended.put(end))
    yield made
    made.close()


def cold(address: tuple[str, int], wanted: WarmUp, name: str = "i", **changes: object) -> Cold:
    return Cold((name, START), "prod", name, address, wanted, **changes)  # type: ignore[arg-type]


def ask(path: str = "/", **changes: object) -> WarmUp:
    values: dict[str, object] = {"requests": (WarmRequest(path),), "count": 5, "deadline": LONG} | changes
    return WarmUp(**values)  # type: ignore[arg-type]


def test_the_p95_is_by_nearest_rank() -> None:
    assert p95([float(n) for n in range(100, 0, -1)]) == 95.0
    assert p95([float(n) for n in range(1, 21)]) == 19.0
    assert p95([3.0]) == 3.0


def test_warm_after_the_count_on_one_connection(warm_ups: WarmUps, ended: Ended) -> None:
    requests = (WarmRequest("/a"), WarmRequest("/b", "POST", (("Host", "shop.example"), ("X-Warm", "1")), "give"))
    with serving(fine) as server:
        one = cold(server.address, ask(requests=requests))
        assert warm_ups.warmth(one.key) is None
        warm_ups.begin(one)
        environment, name, warmth = ended.get(timeout=60)
    assert (environment, name, warmth.status, warmth.requests) == ("prod", "i", WarmthStatus.WARM, 5)
    assert warmth.p95 is not None
    assert warmth == warm_ups.warmth(one.key)
    assert [(method, path, body) for method, path, body, _ in server.asked] == [
        ("GET", "/a", b""),
        ("POST", "/b", b"give"),
        ("GET", "/a", b""),
        ("POST", "/b", b"give"),
        ("GET", "/a", b""),
    ]
    assert server.asked[1][3]["host"] == "shop.example"
    assert server.asked[1][3]["x-warm"] == "1"
    assert len(server.connections) == 1


def test_a_slow_beginning_is_forgiven_and_the_last_ones_count(warm_ups: WarmUps, ended: Ended) -> None:
    slow = threading.Event()

    def answer(number: int) -> tuple[int, dict[str, str], bytes]:
        if number <= 3:
            slow.wait(0.3)
        return fine(number)

    with serving(answer) as server:
        warm_ups.begin(cold(server.address, ask(p95=timedelta(milliseconds=250))))
        warmth = ended.get(timeout=60)[2]
    assert warmth.status is WarmthStatus.WARM
    assert warmth.requests >= 8
    assert warmth.p95 is not None
    assert warmth.p95 <= 0.25


def test_too_slow_until_the_deadline_has_failed_and_stays_so(warm_ups: WarmUps, ended: Ended) -> None:
    with serving(fine) as server:
        one = cold(server.address, ask(count=1, p95=timedelta(0), deadline=SHORT))
        warm_ups.begin(one)
        warmth = ended.get(timeout=60)[2]
        assert warmth.status is WarmthStatus.FAILED
        assert "not warm after 4 s" in warmth.said
        assert "at most 0 ms was asked for" in warmth.said
        warm_ups.begin(one)
        assert warm_ups.warmth(one.key) == warmth


@pytest.mark.parametrize("status", [200, 204, 302, 404, 499])
def test_any_status_below_500_is_a_success_and_nothing_is_followed(
    warm_ups: WarmUps, ended: Ended, status: int
) -> None:
    with serving(lambda _: (status, {"Location": "/elsewhere"}, b"")) as server:
        warm_ups.begin(cold(server.address, ask()))
        assert ended.get(timeout=60)[2].status is WarmthStatus.WARM
    assert {path for _, path, _, _ in server.asked} == {"/"}


def test_failures_do_not_count_and_begin_the_count_anew(warm_ups: WarmUps, ended: Ended) -> None:
    with serving(lambda number: (500 if number in (1, 2, 6) else 200, {}, b"")) as server:
        warm_ups.begin(cold(server.address, ask()))
        warmth = ended.get(timeout=60)[2]
    assert (warmth.status, warmth.requests) == (WarmthStatus.WARM, 11)


def test_what_always_fails_says_how(warm_ups: WarmUps, ended: Ended) -> None:
    with serving(lambda _: (503, {}, b"")) as server:
        warm_ups.begin(cold(server.address, ask("/warm", deadline=SHORT)))
        warm_ups.begin(cold(("127.0.0.1", free_port()), ask(deadline=SHORT), "nobody"))
        said = {name: warmth.said for _, name, warmth in (ended.get(timeout=60) for _ in range(2))}
        assert f"GET /warm on port {server.address[1]} answered 503" in said["i"]
    assert "refused" in said["nobody"]


def test_a_deadline_that_was_over_before_the_first_request_says_so(warm_ups: WarmUps, ended: Ended) -> None:
    with serving(fine) as server:
        warm_ups.begin(cold(server.address, ask(deadline=timedelta())))
        warmth = ended.get(timeout=60)[2]
    assert (warmth.status, warmth.said) == (
        WarmthStatus.FAILED,
        "not warm after 0 s and 0 requests: no answer in time",
    )


def test_too_few_answers_until_the_deadline_say_so(warm_ups: WarmUps, ended: Ended) -> None:
    wait = threading.Event()

    def answer(number: int) -> tuple[int, dict[str, str], bytes]:
        wait.wait(20 if number > 1 else 0)
        return fine(number)

    with serving(answer) as server:
        warm_ups.begin(cold(server.address, ask(deadline=SHORT)))
        said = ended.get(timeout=60)[2].said
        wait.set()
    assert "the p95 of the last 1 is" in said
    assert said.endswith("and 5 in a row are needed")


def test_it_is_compared_with_the_stable_version(warm_ups: WarmUps, ended: Ended) -> None:
    wait, pause = threading.Event(), 0.0

    def slowly(number: int) -> tuple[int, dict[str, str], bytes]:
        # More than twice as long as any of the fast ones before it, also where a busy machine took a second for those.
        wait.wait(pause or min(max(0.3, 2.5 * (time.monotonic() - began)), 2.5))
        return fine(number)

    with serving(slowly) as slow, serving(fine) as fast:
        against_fast = ask(count=3, relative=2.0, deadline=SHORT)
        began = time.monotonic()
        warm_ups.begin(cold(slow.address, against_fast, "slow", beside=fast.address))
        failed = ended.get(timeout=60)[2]
        assert failed.status is WarmthStatus.FAILED
        assert "of the stable version was asked for" in failed.said
        assert len(fast.asked) == 3
        pause = 0.3
        against_slow = ask(count=3, relative=2.0)
        warm_ups.begin(cold(fast.address, against_slow, "fast", beside=slow.address))
        assert ended.get(timeout=60)[2].status is WarmthStatus.WARM


def test_a_stable_version_that_does_not_answer_is_not_compared_with(warm_ups: WarmUps, ended: Ended) -> None:
    done = threading.Event()
    with serving(fine) as server, raw_server(lambda _: [done.wait(20), None][1]) as silent:
        wanted = ask(relative=1.0, deadline=SHORT)
        warm_ups.begin(cold(server.address, wanted, beside=silent))
        assert ended.get(timeout=60)[2].status is WarmthStatus.WARM
        done.set()


def drip(stop: threading.Event, head: bytes) -> Callable[[socket.socket], None]:
    def behave(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(head)
        while not stop.is_set():
            connection.sendall(b"x")
            stop.wait(0.02)

    return behave


@pytest.mark.parametrize(
    "head",
    [b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.0 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n"],
)
def test_a_server_that_drips_cannot_hold_it(warm_ups: WarmUps, ended: Ended, head: bytes) -> None:
    stop = threading.Event()
    with raw_server(drip(stop, head)) as address:
        warm_ups.begin(cold(address, ask(deadline=timedelta(milliseconds=300))))
        warmth = ended.get(timeout=60)[2]
        stop.set()
    assert warmth.status is WarmthStatus.FAILED
    assert "no answer in time" in warmth.said


def test_an_answer_without_end_is_read_up_to_the_bound(warm_ups: WarmUps, ended: Ended) -> None:
    def endless(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65536)

    with raw_server(endless) as address:
        warm_ups.begin(cold(address, ask()))
        assert ended.get(timeout=60)[2].status is WarmthStatus.WARM


def test_a_kept_connection_that_the_server_ends_is_no_failure(warm_ups: WarmUps, ended: Ended) -> None:
    def twice(connection: socket.socket) -> None:
        for _ in range(2):
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with raw_server(twice) as address:
        warm_ups.begin(cold(address, ask()))
        warmth = ended.get(timeout=60)[2]
    assert (warmth.status, warmth.requests) == (WarmthStatus.WARM, 5)


@pytest.mark.parametrize(
    "request_", [WarmRequest("/a b"), WarmRequest("/ü"), WarmRequest("/", headers=(("X", "\r\n"),))]
)
def test_what_http_does_not_allow_fails_at_once(warm_ups: WarmUps, ended: Ended, request_: WarmRequest) -> None:
    with serving(fine) as server:
        warm_ups.begin(cold(server.address, ask(requests=(request_,))))
        warmth = ended.get(timeout=60)[2]
    assert (warmth.status, server.asked) == (WarmthStatus.FAILED, [])
    assert "cannot be sent" in warmth.said


def test_asked_twice_is_once(warm_ups: WarmUps, ended: Ended) -> None:
    gate = threading.Event()

    def answer(number: int) -> tuple[int, dict[str, str], bytes]:
        gate.wait(60)
        return fine(number)

    with serving(answer) as server:
        one = cold(server.address, ask())
        warm_ups.begin(one)
        warm_ups.begin(one)
        running = warm_ups.warmth(one.key)
        assert running is not None
        assert running.status is WarmthStatus.RUNNING
        gate.set()
        ended.get(timeout=60)
    assert len(server.asked) == 5
    assert ended.empty()


def test_what_is_gone_or_started_again_is_forgotten_and_cut_off(warm_ups: WarmUps, ended: Ended) -> None:
    over = queue.Queue[bytes]()

    def hang(connection: socket.socket) -> None:
        over.put(connection.recv(65536))
        over.put(connection.recv(65536))  # empty: the other side is gone

    with raw_server(hang) as address:
        for name, present in (("gone", {}), ("again", {"again": START + timedelta(seconds=1)})):
            one = cold(address, ask(), name)
            warm_ups.begin(one)
            assert over.get(timeout=60).startswith(b"GET / ")
            warm_ups.keep("other", {})
            warm_ups.keep("prod", {name: START})
            warm_ups.keep("prod", {name: None})
            assert warm_ups.warmth(one.key) is not None
            warm_ups.keep("prod", present)
            assert warm_ups.warmth(one.key) is None
            assert over.get(timeout=60) == b""
    assert ended.empty()


def test_closing_cuts_off_what_is_under_way(ended: Ended) -> None:
    over = queue.Queue[bytes]()

    def hang(connection: socket.socket) -> None:
        over.put(connection.recv(65536))
        over.put(connection.recv(65536))

    with raw_server(hang) as address:
        warm_ups = WarmUps(lambda *end: ended.put(end))
        warm_ups.begin(cold(address, ask()))
        over.get(timeout=60)
        warm_ups.close()
        assert over.get(timeout=60) == b""
        warm_ups.begin(cold(address, ask(), "later"))
        assert warm_ups.warmth(("later", START)) is None
    assert ended.empty()


def test_more_than_the_pool_holds_are_warmed_in_turn(ended: Ended) -> None:
    warm_ups = WarmUps(lambda *end: ended.put(end), workers=2)
    with serving(fine) as server:
        for number in range(6):
            warm_ups.begin(cold(server.address, ask(), f"i{number}"))
        assert {ended.get(timeout=60)[1] for _ in range(6)} == {f"i{number}" for number in range(6)}
    warm_ups.close()

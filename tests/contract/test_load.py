"""The load of the benchmarks against the real `hello`, alone and behind a real HAProxy: it counts right, sees every
loss, and takes none for one where nothing was lost.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench import load
from bench.load_client import LostError
from bench.load_http1 import Chunks, read_head
from bench.load_ws import frame, unframe
from tests.support.cluster import eventually
from tests.support.load_house import HOST, LOCAL, Server, proxy, serving


def ask(server: Server, *kinds: load.Kind, timeout: float = 60) -> load.Tally:
    """Each kind's count of requests, asked directly."""
    with load.LoadThread(load.Load((LOCAL, server.port), HOST, *kinds)) as running:
        running.done(timeout)
        return running.stop()


KINDS = [
    load.keep_alive(3, count=20),
    load.new_connection(2, count=10),
    load.websocket(2, rate=None, count=15),
    load.slow(2, ms=30, count=3),
    load.endless(2, ms=250, count=2),
    load.post(2, count=10),
]


def test_every_request_is_counted_once(tmp_path: Path) -> None:
    with serving(tmp_path, "1.0") as server:
        tally = ask(server, *KINDS)
    assert {k.kind: k.requests for k in tally.kinds.values()} == {k.name: k.clients * (k.count or 0) for k in KINDS}
    assert (tally.answered, tally.failed, tally.reconnects) == (tally.requests, 0, 0), str(tally)
    assert tally.versions == {"1.0": tally.requests}
    assert sum(counts["1.0"] for _, counts in tally.split()) == tally.requests
    assert 0 <= tally.first_seen["1.0"] <= tally.last_seen["1.0"]


def test_an_answer_with_another_status_is_a_failure(tmp_path: Path) -> None:
    with serving(tmp_path, "1.0", FAIL_PERCENT="25") as server:
        tally = ask(server, load.keep_alive(1, count=200))
    assert (tally.answered, tally.failed, len(tally.failures)) == (150, 50, 20)
    assert {(f.kind, f.reason, f.status, f.version) for f in tally.failures} == {
        ("keep-alive", "unexpected status", 500, "1.0")
    }
    assert tally.versions == {"1.0": 200}, "the split shows where the traffic went, good or not"


def every_kind_loses(running: load.LoadThread) -> None:
    """Wait until each has lost a request: between an answer and the next request, none has one to lose."""
    eventually(lambda: all(kind.failed for kind in running.so_far().kinds.values()))


def test_a_killed_server_is_seen_by_every_kind(tmp_path: Path) -> None:
    kinds = [replace(kind, count=None, clients=2) for kind in KINDS]
    kinds = [replace(kind, path="/endless?ms=60000") if kind.name == "endless" else kind for kind in kinds]
    with (
        serving(tmp_path, "1.0") as server,
        load.LoadThread(load.Load((LOCAL, server.port), HOST, *kinds)) as running,
    ):
        running.reached(300, 60)  # those that end: an endless answer has long begun by then
        server.end(signal.SIGKILL)
        every_kind_loses(running)
        tally = running.stop()
    assert tally.requests == tally.answered + tally.failed
    assert tally.versions == {"1.0": tally.answered}, "a request that nobody answered belongs to no version"
    reasons = {failure.reason for failure in tally.failures if failure.kind == "endless"}
    assert any("in the middle of the answer" in reason for reason in reasons), reasons


def test_a_request_in_flight_at_a_kill_is_lost_and_at_a_graceful_stop_is_not(tmp_path: Path) -> None:
    outcomes = {}
    # A kill finds them on their way, however late it comes.
    for number, ms in ((signal.SIGTERM, 2000), (signal.SIGKILL, 60_000)):
        kinds = [load.slow(4, ms=ms, count=1), load.endless(2, ms=ms, count=1)]
        with (
            serving(tmp_path, "1.0") as server,
            load.LoadThread(load.Load((LOCAL, server.port), HOST, *kinds, load.keep_alive(1, count=50))) as running,
        ):
            running.reached(50, 60)  # those of the keep-alive client; the others are on their way
            code = server.end(number)
            running.done(60)
            outcomes[number] = (code, running.stop().failed)
    assert outcomes == {signal.SIGTERM: (0, 0), signal.SIGKILL: (-signal.SIGKILL, 6)}


def test_a_graceful_end_of_websockets_is_a_reconnect_and_a_cut_a_failure(tmp_path: Path) -> None:
    kind = load.websocket(5, rate=20)
    outcomes = {}
    for number in (signal.SIGTERM, signal.SIGKILL):
        with (
            serving(tmp_path, "1.0", WS_GRACE_MS="5000") as server,
            load.LoadThread(load.Load((LOCAL, server.port), HOST, kind)) as running,
        ):
            running.reached(50, 60)
            server.end(number)
            tally = running.stop()
        cut = [failure for failure in tally.failures if not failure.reason.startswith("no connection")]
        outcomes[number] = (tally.reconnects, len(cut))
    assert outcomes == {signal.SIGTERM: (5, 0), signal.SIGKILL: (0, 5)}


def test_a_function_answers_with_its_body_in_upper_case(tmp_path: Path) -> None:
    with serving(tmp_path, "1.0", "function") as server, socket.create_connection((LOCAL, server.port), 60) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\nConnection: close\r\n\r\nGr\xc3\xbcn 1")
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.endswith(b"\r\n\r\nGR\xc3\xbcN 1")


def test_the_first_requests_of_a_cold_server_are_slow(tmp_path: Path) -> None:
    """Slow enough to be cut by this timeout: exactly those which are cold."""
    with serving(tmp_path, "1.0", COLD_REQUESTS="3", COLD_MS="6000") as server:
        tally = ask(server, replace(load.keep_alive(1, count=10), timeout=2.0))
    assert (tally.failed, {failure.reason for failure in tally.failures}) == (3, {"timeout"})


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[Server, Server]]:
    with serving(tmp_path, "1.0", WS_GRACE_MS="5000") as a, serving(tmp_path, "2.0", WS_GRACE_MS="5000") as b:
        yield a, b


def test_every_kind_works_through_haproxy(tmp_path: Path, servers: tuple[Server, Server]) -> None:
    kinds = [
        *KINDS,
        load.http2(2, 3, count=10),
        load.http2_tls(2, 3, count=10),
        replace(load.http2(1, 2, count=5), name="h2-post", method="POST", body=b"a body"),
        replace(load.http2(1, 2, count=1), name="h2-endless", path="/endless?ms=250"),
    ]
    with proxy(tmp_path, *servers) as front, front.run(), front.load(*kinds) as running:
        running.done(60)
        tally = running.stop()
    expected = {k.name: k.clients * k.streams * (k.count or 0) for k in kinds}
    assert {k.kind: k.answered for k in tally.kinds.values()} == expected, str(tally)
    assert (tally.failed, set(tally.versions)) == (0, {"1.0", "2.0"})


def steady() -> list[load.Kind]:
    """Every kind but websockets, which no drain ends."""
    kinds = [kind for kind in load.every_kind(tls=True) if kind.protocol is not load.Protocol.WEBSOCKET]
    paths = {"slow": "/slow?ms=100", "endless": "/endless?ms=300"}
    return [replace(kind, rate=100, path=paths.get(kind.name, "/")) for kind in kinds]


def test_a_drained_server_is_stopped_under_load_without_a_loss(tmp_path: Path, servers: tuple[Server, Server]) -> None:
    a, _ = servers
    with proxy(tmp_path, *servers) as front, front.run(), front.load(*steady()) as running:
        running.reached(500, 60)
        front.command("set server web/a state drain")
        front.await_idle("a")
        front.command("set server web/a state maint")
        assert a.end() == 0
        before = running.so_far()
        running.reached(before.answered + 500, 60)
        tally = running.stop()
    assert (tally.failed, tally.requests) == (0, tally.answered), str(tally)
    assert min(tally.versions.values()) > 50
    assert tally.versions["1.0"] == before.versions["1.0"], "the stopped one got nothing more"
    assert {kind.kind for kind in tally.kinds.values() if kind.versions["2.0"]} == {kind.name for kind in steady()}


def test_a_server_stopped_without_a_drain_loses_requests(tmp_path: Path, servers: tuple[Server, Server]) -> None:
    """The same load sees what the order of a drain is good for."""
    with proxy(tmp_path, *servers) as front, front.run(), front.load(*steady()) as running:
        running.reached(500, 60)
        servers[0].end(signal.SIGKILL)
        every_kind_loses(running)
        tally = running.stop()
    assert {503} <= {failure.status for failure in tally.failures} <= {0, 200, 502, 503}


def test_websockets_move_by_close_frames(tmp_path: Path, servers: tuple[Server, Server]) -> None:
    kind = load.websocket(10, rate=20)
    with proxy(tmp_path, *servers) as front, front.run(), front.load(kind) as running:
        running.reached(50, 60)
        front.await_clients(10)
        front.command("set server web/a state maint")
        assert servers[0].end() == 0
        running.reached(running.so_far().answered + 50, 60)
        tally = running.stop()
    assert (tally.failed, tally.reconnects) == (0, 5), str(tally)


def test_idle_connections_that_the_proxy_closes_are_reconnects(tmp_path: Path, servers: tuple[Server, Server]) -> None:
    """The proxy's patience is a tenth of the time between two requests: most find their connection closed."""
    kind = load.keep_alive(3, rate=5, count=5)
    with proxy(tmp_path, *servers, idle="20ms") as front, front.run(), front.load(kind) as running:
        running.done(60)
        tally = running.stop()
    assert (tally.answered, tally.failed) == (15, 0), str(tally)
    assert 0 < tally.reconnects <= 12


def test_a_proxy_that_hands_over_its_doors_ends_http2_by_goaway(tmp_path: Path, servers: tuple[Server, Server]) -> None:
    """As a reload does it: a second HAProxy at the same doors, then the first one leaves."""
    kinds = [replace(kind, rate=20) for kind in (load.http2(4, 1), load.http2_tls(4, 1))]
    with proxy(tmp_path, *servers) as front, front.run() as first, front.load(*kinds) as running:
        running.reached(100, 60)
        front.await_clients(8)
        with front.run():
            front.await_other(first.pid)
            first.send_signal(signal.SIGUSR1)
            assert first.wait(60) == 0
            running.reached(running.so_far().answered + 100, 60)
            tally = running.stop()
    assert tally.reconnects == 8, str(tally)
    assert all("GOAWAY" in failure.reason for failure in tally.failures), str(tally)


def test_a_load_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="one name"):
        load.Load((LOCAL, 1), HOST, load.keep_alive(), load.keep_alive())
    with pytest.raises(ValueError, match="TLS"):
        load.Load((LOCAL, 1), HOST, load.http2_tls())
    with pytest.raises(ValueError, match="rate"):
        load.keep_alive(rate=0)
    with pytest.raises(ValueError, match="bodies"):
        replace(load.http2(streams=10), body=b"x" * 4000)


def test_an_answer_that_never_comes_is_a_failure_at_the_end() -> None:
    """A target that accepts and is silent: the load ends when its patience does."""

    async def silent() -> load.Tally:
        with socket.create_server((LOCAL, 0)) as listening:
            kinds = [load.keep_alive(2), load.http2(1, 3), load.websocket(1)]
            running = load.Load((LOCAL, listening.getsockname()[1]), HOST, *kinds)
            await running.start()
            while running.tally.requests < 6:
                await asyncio.sleep(0)
            return await running.stop(patience=0.1)

    tally = asyncio.run(silent())
    assert (tally.requests, tally.failed) == (6, 6)
    assert {failure.reason for failure in tally.failures} == {"no answer by the end of the load"}


def test_chunks_are_counted_off_however_they_are_cut() -> None:
    body = b"5\r\nhello\r\n1;x=y\r\n!\r\n0\r\nTrailer: 1\r\n\r\n"
    for size in range(1, len(body) + 1):
        chunks = Chunks()
        left = b"".join(chunks.feed(body[at : at + size]) for at in range(0, len(body), size))
        assert (chunks.done, left) == (True, b""), size
    assert Chunks().feed(body + b"more") == b"more"
    with pytest.raises(LostError, match="no number"):
        Chunks().feed(b"zz\r\n")


@pytest.mark.parametrize("head", [b"SSH-2.0\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"])
def test_what_is_no_answer_is_said_to_be_none(head: bytes) -> None:
    with pytest.raises(LostError):
        read_head(head)


def test_frames_of_every_length() -> None:
    """Masked on the way out; the way back is the server's, so the mask is taken off here by hand."""
    for size in (0, 1, 125, 126, 65_535):
        sent = frame(1, b"x" * size)
        begin = 2 if size < 126 else 4
        plain = bytes([sent[0], sent[1] & 127]) + sent[2:begin]
        mask, content = sent[begin : begin + 4], sent[begin + 4 :]
        plain += bytes(byte ^ mask[at % 4] for at, byte in enumerate(content))
        assert unframe(plain + b"next") == (1, b"x" * size, b"next")
        assert unframe(plain[:-1]) is None
    with pytest.raises(LostError, match="masked"):
        unframe(frame(1, b"x"))

"""What all clients of a load share: the kinds, the road to the target, one connection, one client's turn.

No client ever retries. A client whose request failed makes a new request after a short pause.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

from bench.load_tally import KindTally

PAUSE = 0.02
"""Seconds a client waits after a failure: a dead target is asked often, but not in a hot loop."""


class Protocol(Enum):
    """How a client speaks."""

    HTTP1 = "HTTP/1.1"
    HTTP2 = "HTTP/2"
    WEBSOCKET = "websocket"


@dataclass(frozen=True)
class Kind:
    """One kind of client, of which `clients` work side by side. `bench.load` has a function for each common kind.

    `rate` is requests per second, `count` the number of requests, both of each client; None: no bound. `streams` is
    how many requests an HTTP/2 client has open on its one connection. `timeout` (seconds) bounds each request.
    """

    name: str
    protocol: Protocol = Protocol.HTTP1
    clients: int = 1
    path: str = "/"
    method: str = "GET"
    body: bytes = b""
    rate: float | None = None
    count: int | None = None
    fresh: bool = False
    """A new connection for each request (HTTP/1.1 only)."""
    tls: bool = False
    streams: int = 1
    timeout: float = 10.0

    def __post_init__(self) -> None:
        if not 1 <= self.clients <= 10_000 or not 1 <= self.streams <= 100:
            raise ValueError(f"{self.name}: clients must be 1 to 10,000 and streams 1 to 100")
        if self.rate is not None and self.rate <= 0:
            raise ValueError(f"{self.name}: rate must be more than 0, or None for as fast as answers come")
        if len(self.body) * self.streams > 32_768:  # always fits into HTTP/2's first flow control window
            raise ValueError(f"{self.name}: the bodies of all streams together must be at most 32,768 bytes")


@dataclass(frozen=True)
class Tls:
    """The target's port for TLS, and how to check its certificate."""

    port: int
    context: ssl.SSLContext
    server_name: str


@dataclass
class Road:
    """The way to the target, and what all clients of one load see."""

    host: str
    port: int
    host_header: str
    tls: Tls | None
    stopping: asyncio.Event
    wires: set[Wire] = field(default_factory=set)


class LostError(Exception):
    """A request got no good answer. `status` is 0 when there was none at all."""

    def __init__(self, reason: str, status: int = 0, version: str = "") -> None:
        super().__init__(reason)
        self.reason, self.status, self.version = reason, status, version


@dataclass(frozen=True)
class Answer:
    """A whole answer. `keeps`: the connection may be used again."""

    status: int
    version: str
    keeps: bool = True


class Wire(asyncio.Protocol):
    """One connection, whose `sock` is set by `connect`. `closed`: no request may go on it any more."""

    sock: socket.socket
    transport: asyncio.Transport

    def __init__(self, road: Road) -> None:
        self.road = road
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.road.wires.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.road.wires.discard(self)
        self.lost(f"connection ended: {exc}" if exc else "connection closed")

    def eof_received(self) -> bool:
        self.closed = True
        return False

    def lost(self, reason: str) -> None:
        """The connection is gone, and so is every answer that was awaited on it."""
        raise NotImplementedError

    def expire(self, now: float) -> None:
        """Give up on each answer that is due before `now` on the loop's clock."""
        raise NotImplementedError

    def _peek(self) -> bytes | None:
        try:
            return self.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    async def ready(self) -> bool:
        """Whether a request may go out now. Whatever the server has sent by now, above all a close, is heeded first.

        This is what makes a close that came before the request a reconnect, and any later one a failure.
        """
        if not self.closed and self._peek():
            for _ in range(2):  # the loop looks for input once, and hands it to this protocol in its next round
                await asyncio.sleep(0)
        return not self.closed and self._peek() != b""

    def close(self) -> None:
        self.closed = True
        self.transport.close()


W = TypeVar("W", bound=Wire)


async def connect(road: Road, kind: Kind, make: Callable[[Road], W], alpn: str = "") -> W:
    """A connection of its own socket. Raises LostError with the reason when there is none."""
    tls = road.tls if kind.tls else None
    if kind.tls and tls is None:
        raise LostError("no TLS port was given for this load")
    sock = socket.socket(
        socket.AF_INET6 if ":" in road.host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP
    )
    sock.settimeout(0)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(kind.timeout):
            await loop.sock_connect(sock, (road.host, tls.port if tls else road.port))
            if tls:
                transport, wire = await loop.create_connection(
                    lambda: make(road), sock=sock, ssl=tls.context, server_hostname=tls.server_name
                )
            else:
                transport, wire = await loop.create_connection(lambda: make(road), sock=sock)
    except OSError as error:  # also TimeoutError and ssl.SSLError
        sock.close()
        raise LostError(f"no connection: {str(error) or 'timeout'}") from error
    except BaseException:
        sock.close()
        raise
    wire.sock = sock
    if tls and alpn:
        spoken = transport.get_extra_info("ssl_object").selected_alpn_protocol()
        if spoken != alpn:
            wire.close()
            raise LostError(f"the target chose {spoken} instead of {alpn}")
    return wire


class Client:
    """One client: takes its turns, and counts each request once, as good or as bad."""

    def __init__(self, kind: Kind, road: Road, tally: KindTally, started: float) -> None:
        self.kind, self.road, self.tally = kind, road, tally
        self._loop = asyncio.get_running_loop()
        self._started = started
        self._begun = 0
        self._next = 0.0
        self._open = False

    async def run(self) -> None:
        """Ask until the load stops or the count is reached."""
        raise NotImplementedError

    async def turn(self) -> bool:
        """Wait until the next request is due. False: there is none."""
        stopping, kind = self.road.stopping, self.kind
        if stopping.is_set() or (kind.count is not None and self._begun >= kind.count):
            return False
        if kind.rate is not None:
            wait = self._next - self._loop.time()
            if wait > 0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), wait)
            self._next = self._loop.time() + 1 / kind.rate  # no burst after a stall: it would be another load
        return not stopping.is_set()

    def begin(self) -> float:
        """A request begins; when its answer is due, on the loop's clock."""
        self._begun += 1
        self._open = True
        self.tally.requests += 1
        return self._loop.time() + self.kind.timeout

    def end(self, answer: Answer, expected: int = 200) -> None:
        """The request got this answer."""
        if answer.status == expected:
            self._open = False
            self.tally.good(answer.version, self._loop.time() - self._started)
        else:
            self.fail(LostError("unexpected status", answer.status, answer.version), whole=True)

    def fail(self, error: LostError, *, whole: bool = False) -> None:
        """The request failed; `whole`: by an answer that came, but was not a good one."""
        self._open = False
        at = self._loop.time() - self._started
        self.tally.bad(error.reason, at, error.status, error.version, whole=whole)

    def give_up(self) -> None:
        """The load ended before the answer came: a failure like any other."""
        if self._open:
            self.fail(LostError("no answer by the end of the load"))

    async def pause(self) -> None:
        """After a failure."""
        await asyncio.sleep(PAUSE)

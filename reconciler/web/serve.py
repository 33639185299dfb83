"""The server: uvicorn in a thread of its own with every wait and every size bounded. It knows no routes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from reconciler.core.errors import Reason, Stalled

MOST_CONNECTIONS = 256
MOST_REQUESTS = 192
HEADER_BYTES = 16 * 1024
HEADER_SECONDS = 10.0
IDLE_SECONDS = 15
READ_SECONDS = 30.0
TICK = 1.0
"""Seconds between two looks of the server at the date that its answers tell."""


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 with the limits that uvicorn lacks: how long headers take to come and answers to go, and how many wait.

    Without them a client that sends one byte now and then, or never reads its answer, keeps its connection for ever.
    """

    header_seconds = HEADER_SECONDS
    read_seconds = READ_SECONDS
    _header_timer: asyncio.TimerHandle | None = None
    _read_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept, or hang up at once when there are too many."""
        super().connection_made(transport)
        # asyncio does this only for sockets made with an explicit protocol number; without it each answer waits 40 ms
        # for a delayed acknowledgement between its head and its body.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
            return
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        """The clock for the headers of a following request starts with its first byte."""
        if self._header_timer is None and not self._answering():
            self._expect_headers()
        super().data_received(data)
        if self._answering() and self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadlines."""
        for timer in (self._header_timer, self._read_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read: it gets `read_seconds`."""
        super().pause_writing()
        if self._read_timer is None:
            self._read_timer = self.loop.call_later(self.read_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None

    def _answering(self) -> bool:
        # uvicorn declares `cycle` as always there, but it is None until the first request has arrived.
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _expect_headers(self) -> None:
        self._header_timer = self.loop.call_later(self.header_seconds, self.transport.abort)


class _Quiet(uvicorn.Server):
    """uvicorn wakes up ten times a second to see whether it shall end; this one is told."""

    _loop: asyncio.AbstractEventLoop | None = None
    _ended: asyncio.Event | None = None

    async def main_loop(self) -> None:
        """Until `end`."""
        self._ended, self._loop = asyncio.Event(), asyncio.get_running_loop()
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), TICK)

    def end(self) -> None:
        """Answer what is being asked, and end. For any thread."""
        self.should_exit = True
        if self._loop is not None and self._ended is not None:
            with contextlib.suppress(RuntimeError):  # it has ended already
                self._loop.call_soon_threadsafe(self._ended.set)


class Server:
    """Serves `app` at `host` and `port` (0: any free one) from `start` until `stop`."""

    def __init__(self, app: ASGIApp, host: str, port: int, protocol: type[BoundedProtocol] = BoundedProtocol) -> None:
        self._host = host
        self._wanted = port
        self._socket: socket.socket | None = None
        self._port = 0
        self._thread: threading.Thread | None = None
        self._server = _Quiet(
            uvicorn.Config(
                app,
                http=protocol,
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                limit_concurrency=MOST_REQUESTS,
                timeout_keep_alive=IDLE_SECONDS,
                timeout_graceful_shutdown=3,
                h11_max_incomplete_event_size=HEADER_BYTES,
                backlog=128,
            )
        )

    @property
    def port(self) -> int:
        """The port that is listened on; 0 before `start`."""
        return self._port

    def start(self) -> None:
        """Listen and serve. Raises Stalled(SETTINGS_INVALID) when the address cannot be had."""
        try:
            found = socket.getaddrinfo(self._host, self._wanted, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, _kind, _protocol, _name, address = found[0]
            self._socket = socket.create_server(address[:2], family=family, backlog=128)
        except OSError as error:
            raise Stalled(
                Reason.SETTINGS_INVALID,
                f"cannot listen: {error.strerror or error}",
                where=f"http {self._host}:{self._wanted}",
                remedy="Choose another http.host or http.port, or stop what listens there",
            ) from error
        listening = self._socket
        self._port = int(listening.getsockname()[1])
        self._thread = threading.Thread(target=lambda: self._server.run(sockets=[listening]), name="http", daemon=True)
        self._thread.start()

    def stop(self, timeout: float = 8.0) -> None:
        """Answer what is being asked, for 3 seconds at most, and end. Returns after `timeout` seconds at the latest."""
        self._server.end()
        if self._thread is not None:
            self._thread.join(timeout)
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()

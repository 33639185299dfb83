"""A load of real clients, all kinds side by side, without a single retry: what a release loses, shows here.

`Load` works in an event loop, `LoadThread` beside a synchronous benchmark. The clients share one thread: what they can
ask in a second is bounded by one core. Must not know what it asks: any server serves, one that says its version in the
header `X-Version` has its answers counted by version.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from bench.load_client import Client, Kind, Protocol, Road, Tls
from bench.load_h2 import Http2Client, Http2Group
from bench.load_http1 import Http1Client
from bench.load_tally import BUCKET, Failure, KindTally, Tally
from bench.load_ws import WebsocketClient

__all__ = ["BUCKET", "Failure", "Kind", "KindTally", "Load", "LoadThread", "Protocol", "Tally", "Tls"]

SWEEP = 0.1
"""Seconds between two looks for answers that are overdue."""
PATIENCE = 30.0
"""Seconds that requests which are open when the load stops have for their end."""
T = TypeVar("T")


def keep_alive(clients: int = 8, rate: float | None = None, count: int | None = None) -> Kind:
    """HTTP/1.1, one connection for all requests of a client."""
    return Kind("keep-alive", clients=clients, rate=rate, count=count)


def new_connection(clients: int = 2, rate: float | None = None, count: int | None = None) -> Kind:
    """HTTP/1.1, a connection for each request."""
    return Kind("new-connection", clients=clients, rate=rate, count=count, fresh=True)


def http2(clients: int = 1, streams: int = 4, rate: float | None = None, count: int | None = None) -> Kind:
    """HTTP/2 in clear text, by prior knowledge. `rate` and `count` are those of each stream."""
    return Kind("http2", Protocol.HTTP2, clients, streams=streams, rate=rate, count=count)


def http2_tls(clients: int = 1, streams: int = 4, rate: float | None = None, count: int | None = None) -> Kind:
    """HTTP/2 over TLS, agreed on by ALPN. `rate` and `count` are those of each stream."""
    return Kind("http2-tls", Protocol.HTTP2, clients, streams=streams, rate=rate, count=count, tls=True)


def websocket(clients: int = 4, rate: float | None = 20.0, count: int | None = None) -> Kind:
    """A websocket that echoes."""
    return Kind("websocket", Protocol.WEBSOCKET, clients, path="/ws", rate=rate, count=count)


def slow(clients: int = 2, ms: int = 800, count: int | None = None) -> Kind:
    """HTTP/1.1, answered after `ms`."""
    return Kind("slow", clients=clients, path=f"/slow?ms={ms}", count=count)


def endless(clients: int = 2, ms: int = 3000, count: int | None = None) -> Kind:
    """HTTP/1.1, an answer that takes `ms` from its first byte to its last."""
    return Kind("endless", clients=clients, path=f"/endless?ms={ms}", count=count)


def post(
    clients: int = 2, rate: float | None = None, count: int | None = None, body: bytes = b"never to be sent twice"
) -> Kind:
    """HTTP/1.1, POST with a body."""
    return Kind("post", clients=clients, method="POST", body=body, rate=rate, count=count)


def every_kind(*, tls: bool) -> list[Kind]:
    """One of each kind above, as they are by default; the one over TLS only if `tls`."""
    kinds = [keep_alive(), new_connection(), http2(), websocket(), slow(), endless(), post()]
    return [*kinds, http2_tls()] if tls else kinds


class Load:
    """Clients of all `kinds` that ask `target` (an address, a port) until `stop`, or until each has made its count.

    `tls` is needed for kinds over TLS. Raises ValueError when two kinds have one name.
    """

    def __init__(self, target: tuple[str, int], host_header: str, *kinds: Kind, tls: Tls | None = None) -> None:
        if len({kind.name for kind in kinds}) != len(kinds):
            raise ValueError("two kinds have one name. Rename one by dataclasses.replace(kind, name=...)")
        if tls is None and any(kind.tls for kind in kinds):
            raise ValueError("a kind needs TLS, but no port for it was given. Pass tls=Tls(...)")
        self._target, self._host_header, self._kinds, self._tls = target, host_header, kinds, tls
        self.tally = Tally(0.0, {kind.name: KindTally(kind.name) for kind in kinds})
        """Counted so far. Read it in the loop's thread only; `LoadThread.so_far` copies it."""
        self._road: Road | None = None
        self._clients: list[Client] = []
        self._groups: list[Http2Group] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start all clients. They connect when they first ask."""
        if self._road is not None:
            raise RuntimeError("this load was started before. Make a new one")
        self._road = Road(*self._target, self._host_header, self._tls, asyncio.Event())
        self.tally.started = time.monotonic()
        for kind in self._kinds:
            for _ in range(kind.clients):
                self._clients += self._made(kind, self._road)
        self._tasks = [asyncio.create_task(client.run()) for client in self._clients]
        self._sweeper = asyncio.create_task(self._sweep(self._road))

    def _made(self, kind: Kind, road: Road) -> list[Client]:
        tally, started = self.tally.kinds[kind.name], self.tally.started
        match kind.protocol:
            case Protocol.HTTP1:
                return [Http1Client(kind, road, tally, started)]
            case Protocol.WEBSOCKET:
                return [WebsocketClient(kind, road, tally, started)]
            case Protocol.HTTP2:
                group = Http2Group(kind, road, tally)
                self._groups.append(group)
                return [Http2Client(kind, road, tally, started, group) for _ in range(kind.streams)]

    @staticmethod
    async def _sweep(road: Road) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP)
            for wire in list(road.wires):
                wire.expire(loop.time())

    async def reached(self, answered: int) -> None:
        """Wait until so many requests of all kinds were answered."""
        while self.tally.answered < answered:
            await asyncio.sleep(0.01)

    async def done(self) -> None:
        """Wait until every client has made its count. Raises what a client raised."""
        if self._tasks:
            ended, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in ended:
                task.result()

    async def stop(self, patience: float = PATIENCE) -> Tally:
        """Ask no more; open requests have `patience` seconds for their end, then they are failures. Twice is once.

        Raises what a client raised: a fault of the load itself is never a count.
        """
        assert self._road is not None
        assert self._sweeper is not None
        self._road.stopping.set()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=patience)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        for client in self._clients:
            client.give_up()
        for group in self._groups:
            group.close()
        self._sweeper.cancel()
        await asyncio.sleep(0)  # transports close in the next round of the loop
        for task in self._tasks:
            if not task.cancelled():
                task.result()
        return self.tally

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop(PATIENCE if error is None else 0)


class LoadThread:
    """A load in a thread of its own, for callers without an event loop. `with LoadThread(load) as running: ...`"""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="load", daemon=True)
        self._final: Tally | None = None

    def _call(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout)

    def start(self) -> None:
        """Start all clients."""
        self._thread.start()
        self._call(self._load.start())

    def so_far(self) -> Tally:
        """The counts as they are now, a copy."""
        return self._final.copy() if self._final else self._call(self._copied())

    async def _copied(self) -> Tally:
        return self._load.tally.copy()

    def split(self, seconds: float = 1.0) -> dict[str, int]:
        """Answers by version in the last seconds: cheap enough to be drawn live."""
        return self._call(self._recent(seconds))

    async def _recent(self, seconds: float) -> dict[str, int]:
        now = time.monotonic() - self._load.tally.started
        found: dict[str, int] = {}
        for _, counts in self._load.tally.split(max(0.0, now - seconds)):
            for version, count in counts.items():
                found[version] = found.get(version, 0) + count
        return found

    def reached(self, answered: int, timeout: float) -> None:
        """Wait until so many requests were answered. Raises TimeoutError after `timeout` seconds."""
        self._call(asyncio.wait_for(self._load.reached(answered), timeout))

    def done(self, timeout: float) -> None:
        """Wait until every client has made its count. Raises TimeoutError after `timeout` seconds."""
        self._call(asyncio.wait_for(self._load.done(), timeout))

    def stop(self, patience: float = PATIENCE) -> Tally:
        """Ask no more, wait for the open requests, end the thread. Twice is once."""
        if self._final is None:
            try:
                self._final = self._call(self._load.stop(patience))
            finally:
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._thread.join()
                self._loop.close()
        return self._final

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(PATIENCE if error is None else 0)

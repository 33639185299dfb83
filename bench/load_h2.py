"""The HTTP/2 client of a load (RFC 9113), in clear text by prior knowledge or over TLS: one connection, some streams.

A GOAWAY between two requests is a reconnect. A request whose stream it refuses, or that is reset, is a failure: other
clients would send it again, this one does not.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, ResponseReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError

from bench.load_client import Answer, Client, Kind, LostError, Road, Wire, connect
from bench.load_tally import KindTally

FRAME_HEAD = 9
GOAWAY = 7


@dataclass
class _Stream:
    waiter: asyncio.Future[Answer]
    due: float
    status: int = 0
    version: str = ""


class Http2Wire(Wire):
    """One connection. `closed` also after a GOAWAY: open streams may end, new ones may not begin."""

    def __init__(self, road: Road) -> None:
        super().__init__(road)
        self._loop = asyncio.get_running_loop()
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._streams: dict[int, _Stream] = {}
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._h2.initiate_connection()
        self.transport.write(self._h2.data_to_send())

    def ask(self, headers: list[tuple[str, str]], body: bytes, due: float) -> asyncio.Future[Answer]:
        """Send a request on a new stream. The answer raises LostError when it does not come whole and before `due`."""
        waiter: asyncio.Future[Answer] = self._loop.create_future()
        try:
            number = self._h2.get_next_available_stream_id()
            self._h2.send_headers(number, headers, end_stream=not body)
            if body:
                self._h2.send_data(number, body, end_stream=True)
        except ProtocolError as error:
            self.closed = True
            raise LostError(f"the request could not be sent: {error}") from error
        self._streams[number] = _Stream(waiter, due)
        self.transport.write(self._h2.data_to_send())
        return waiter

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        # h2 closes its state at a GOAWAY and would refuse the answers which the server still owes. So frames are told
        # apart here, and h2 gets all the others.
        at = begin = 0
        whole = b""
        while len(data) >= at + FRAME_HEAD:
            end = at + FRAME_HEAD + int.from_bytes(data[at : at + 3])
            if len(data) < end:
                break
            if data[at + 3] == GOAWAY:
                whole += data[begin:at]
                begin = end
                self._go_away(data[at + FRAME_HEAD : end])
            at = end
        self._buffer = data[at:]
        whole += data[begin:at]
        try:
            events = self._h2.receive_data(whole)
        except ProtocolError as error:
            self.closed = True
            self.lost(f"not HTTP/2: {error}")
            self.transport.abort()
            return
        for event in events:
            self._heed(event)
        outgoing = self._h2.data_to_send()
        if outgoing:
            self.transport.write(outgoing)
        if self.closed and not self._streams:
            self.transport.close()

    def _go_away(self, content: bytes) -> None:
        self.closed = True
        last, code = int.from_bytes(content[:4]) & 0x7FFFFFFF, int.from_bytes(content[4:8])
        for number in [number for number in self._streams if number > last]:
            self._end(number, LostError(f"refused by GOAWAY, code {code}, last stream {last}, this one {number}"))

    def _heed(self, event: Event) -> None:
        if isinstance(event, ResponseReceived):
            stream = self._streams.get(event.stream_id or 0)
            if stream is not None:
                fields = {str(name): str(value) for name, value in event.headers or ()}
                stream.status, stream.version = int(fields[":status"]), fields.get("x-version", "")
        elif isinstance(event, DataReceived):
            self._h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
        elif isinstance(event, StreamEnded):
            stream = self._streams.get(event.stream_id or 0)
            if stream is not None:
                self._end(event.stream_id or 0, Answer(stream.status, stream.version))
        elif isinstance(event, StreamReset):
            self._end(event.stream_id or 0, LostError(f"stream reset, code {event.error_code}"))

    def _end(self, number: int, result: Answer | LostError) -> None:
        stream = self._streams.pop(number, None)
        if stream is None or stream.waiter.done():
            return
        if isinstance(result, Answer):
            stream.waiter.set_result(result)
        else:
            half = " in the middle of the answer" if stream.status else ""
            stream.waiter.set_exception(LostError(result.reason + half, stream.status, stream.version))

    def lost(self, reason: str) -> None:
        for number in list(self._streams):
            self._end(number, LostError(reason))

    def expire(self, now: float) -> None:
        for number in [number for number, stream in self._streams.items() if now > stream.due]:
            self._end(number, LostError("timeout"))
            self._h2.reset_stream(number)
            self.transport.write(self._h2.data_to_send())

    def leave(self) -> None:
        """Close as soon as no stream is open."""
        self.closed = True
        if not self._streams:
            self.transport.close()


class Http2Group:
    """The connection that the streams of one client share."""

    def __init__(self, kind: Kind, road: Road, tally: KindTally) -> None:
        self._kind, self._road, self._tally = kind, road, tally
        self._wire: Http2Wire | None = None
        self._lock = asyncio.Lock()

    async def wire(self) -> Http2Wire:
        """The connection, a new one if need be. Raises LostError."""
        async with self._lock:
            if self._wire is not None and not await self._wire.ready():
                self._tally.reconnects += 1
                self._wire.leave()
                self._wire = None
            if self._wire is None:
                self._wire = await connect(self._road, self._kind, Http2Wire, alpn="h2")
            return self._wire

    def drop(self, wire: Http2Wire) -> None:
        """A request failed: if its connection is of no more use, this is known already and is no reconnect."""
        if wire.closed and wire is self._wire:
            wire.leave()
            self._wire = None

    def close(self) -> None:
        if self._wire is not None:
            self._wire.leave()


class Http2Client(Client):
    """One stream of a group: one request after another."""

    def __init__(self, kind: Kind, road: Road, tally: KindTally, started: float, group: Http2Group) -> None:
        super().__init__(kind, road, tally, started)
        self._group = group

    async def run(self) -> None:
        kind = self.kind
        headers = [
            (":method", kind.method),
            (":scheme", "https" if kind.tls else "http"),
            (":authority", self.road.host_header),
            (":path", kind.path),
        ]
        if kind.body:
            headers.append(("content-length", str(len(kind.body))))
        while await self.turn():
            due = self.begin()
            wire: Http2Wire | None = None
            try:
                wire = await self._group.wire()
                answer = await wire.ask(headers, kind.body, due)
            except LostError as error:
                self.fail(error)
                if wire is not None:
                    self._group.drop(wire)
                await self.pause()
                continue
            self.end(answer)

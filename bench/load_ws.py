"""The websocket client of a load (RFC 6455): one message after another, each echoed before the next.

Each message is a request; its echo is the answer, of the version that answered the upgrade. The server may end the
talk with a Close frame between two messages: a reconnect. A connection that is cut without one is a failure even if no
message was on it, for a websocket's user loses what it stood for; it counts as a request that failed. An upgrade
that fails is a failed request; one that succeeds is none.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import math
import os
from itertools import count

from bench.load_client import Answer, Client, LostError, Road, Wire, connect
from bench.load_http1 import LARGEST_HEAD, field_of, read_head

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
LARGEST_FRAME = 65_536


def frame(opcode: int, content: bytes) -> bytes:
    """One whole frame of a client, masked as section 5.3 wants it; `content` is at most 65,535 bytes."""
    size = len(content)
    head = bytes([0x80 | opcode, 0x80 | size]) if size < 126 else bytes([0x80 | opcode, 0xFE]) + size.to_bytes(2)
    mask = os.urandom(4)
    repeated = (mask * (size // 4 + 1))[:size]
    masked = (int.from_bytes(content) ^ int.from_bytes(repeated)).to_bytes(size)
    return head + mask + masked


def unframe(data: bytes) -> tuple[int, bytes, bytes] | None:
    """The first frame of a server: opcode, content, what follows; None: not whole yet. Raises LostError."""
    if len(data) < 2:
        return None
    opcode, size, at = data[0] & 15, data[1] & 127, 2
    if data[1] & 0x80 or not data[0] & 0x80 or data[0] & 0x70:
        raise LostError("a masked, fragmented or extended frame, none of which was agreed on")
    if size >= 126:
        at = 4 if size == 126 else 10
        size = int.from_bytes(data[2:at])
    if size > LARGEST_FRAME:
        raise LostError(f"a frame of more than {LARGEST_FRAME} bytes")
    if len(data) < at + size:
        return None
    return opcode, data[at : at + size], data[at + size :]


class WebsocketWire(Wire):
    """One connection: first its upgrade is awaited, then one echo at a time."""

    def __init__(self, road: Road) -> None:
        super().__init__(road)
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[bytes] | None = None
        self._due = math.inf
        self._buffer = b""
        self._upgraded = False
        self.said_close = ""
        """The code of the server's Close frame."""
        self.cut = ""
        """How the connection ended, when it did so without one."""

    def send(self, content: bytes, due: float) -> asyncio.Future[bytes]:
        """Write bytes. What is awaited: the head of the upgrade's answer, then the content of the next text frame."""
        self._waiter = self._loop.create_future()
        self._due = due
        self.transport.write(content)
        return self._waiter

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            while self._step():
                pass
        except LostError as error:
            self.cut = error.reason
            self.close()
            self._settle(error)

    def _step(self) -> bool:
        if not self._upgraded:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > LARGEST_HEAD:
                    raise LostError(f"the answer's head was longer than {LARGEST_HEAD} bytes")
                return False
            head, self._buffer = self._buffer[: end + 4], self._buffer[end + 4 :]
            self._upgraded = True
            self._settle(head)
            return True
        found = unframe(self._buffer)
        if found is None:
            return False
        opcode, content, self._buffer = found
        if opcode == CLOSE:
            self.said_close = str(int.from_bytes(content[:2])) if len(content) >= 2 else "without a code"
            self.transport.write(frame(CLOSE, content[:2]))
            self.close()
            self._settle(LostError(f"Close frame {self.said_close} before the echo"))
            return False
        if opcode == PING:
            self.transport.write(frame(PONG, content))
        elif opcode == TEXT:
            self._settle(content)
        return True

    def _settle(self, result: bytes | LostError) -> None:
        waiter, self._waiter = self._waiter, None
        self._due = math.inf
        if waiter is None or waiter.done():
            return
        if isinstance(result, LostError):
            waiter.set_exception(result)
        else:
            waiter.set_result(result)

    def lost(self, reason: str) -> None:
        if not self.said_close:
            self.cut = self.cut or f"{reason} without a Close frame"
        self._settle(LostError(self.cut or reason))

    def expire(self, now: float) -> None:
        if now > self._due:
            self._settle(LostError("timeout"))
            self.closed = True
            self.transport.abort()


class WebsocketClient(Client):
    """One websocket after another, one message after another."""

    async def run(self) -> None:
        wire: WebsocketWire | None = None
        version = ""
        try:
            for number in count():
                going = await self.turn()
                if wire is not None and not await wire.ready():
                    await self._ended(wire, version)
                    wire = None
                    if going:
                        going = await self.turn()
                if not going:
                    break
                due = self.begin()
                try:
                    if wire is None:
                        wire, version = await self._upgrade(due)
                    message = f"{number} {self.kind.name}".encode()
                    echo = await wire.send(frame(TEXT, message), due)
                except LostError as error:
                    self.fail(LostError(error.reason, error.status, error.version or (version if wire else "")))
                    if wire is not None:
                        wire.close()
                        wire = None
                    await self.pause()
                    continue
                if echo == message:
                    self.end(Answer(200, version))
                else:
                    self.fail(LostError(f"the echo of another message: {echo[:40]!r}", 0, version))
        finally:
            if wire is not None:
                wire.transport.write(frame(CLOSE, (1000).to_bytes(2)))
                wire.close()

    async def _ended(self, wire: WebsocketWire, version: str) -> None:
        """The server ended the connection between two messages."""
        wire.close()
        if wire.said_close:
            self.tally.reconnects += 1
            return
        self.begin()
        self.fail(LostError(wire.cut or "connection closed without a Close frame", 0, version))
        await self.pause()

    async def _upgrade(self, due: float) -> tuple[WebsocketWire, str]:
        wire = await connect(self.road, self.kind, WebsocketWire)
        key = base64.b64encode(os.urandom(16))
        lines = (
            f"GET {self.kind.path} HTTP/1.1",
            f"Host: {self.road.host_header}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key.decode()}",
            "Sec-WebSocket-Version: 13",
        )
        try:
            raw = await wire.send("\r\n".join([*lines, "", ""]).encode(), due)
            head = read_head(raw)
            if head.status != 101:
                raise LostError("the upgrade was refused", head.status, head.version)
            expected = base64.b64encode(hashlib.sha1(key + GUID, usedforsecurity=False).digest())
            if field_of(raw, b"sec-websocket-accept") != expected:
                raise LostError("the upgrade's accept key is not the answer to ours", head.status, head.version)
        except BaseException:
            wire.close()
            raise
        return wire, head.version

"""The HTTP/1.1 client of a load (RFC 9112): keep-alive or one connection a request; slow, endless and POST alike.

Answers are delimited by length, chunks or close. Their bodies are counted off and forgotten.
"""

from __future__ import annotations

import asyncio
import functools
import math
import re
from dataclasses import dataclass

from bench.load_client import Answer, Client, Kind, LostError, Road, Wire, connect

LARGEST_HEAD = 16_384
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})[ \r]")


@dataclass(frozen=True)
class Head:
    """What the head of an answer says. `length` -1: until the connection closes."""

    status: int
    version: str
    length: int
    chunked: bool
    keeps: bool


def field_of(head: bytes, name: bytes) -> bytes:
    """The value of the field `name` (lower case); empty if there is none."""
    at = head.lower().find(b"\r\n" + name + b":")
    if at < 0:
        return b""
    at += len(name) + 3
    return head[at : head.index(b"\r\n", at)].strip()


@functools.lru_cache(maxsize=256)
def read_head(head: bytes) -> Head:
    """Parse a head, with its empty line; cached, for answers look alike. Raises LostError when it is no HTTP."""
    found = _STATUS.match(head)
    if not found:
        raise LostError(f"no HTTP answer: {head[:40]!r}")
    length = field_of(head, b"content-length")
    if length and not length.isdigit():
        raise LostError(f"a Content-Length that is no number: {length[:20]!r}")
    chunked = field_of(head, b"transfer-encoding").lower() == b"chunked"
    close = field_of(head, b"connection").lower() == b"close" or head.startswith(b"HTTP/1.0")
    size = int(length) if length else -1
    return Head(
        int(found[1]),
        field_of(head, b"x-version").decode("latin-1"),
        size,
        chunked,
        not close and (chunked or size >= 0),
    )


class Chunks:
    """Counts off a chunked body. `done` when its end was seen."""

    def __init__(self) -> None:
        self.done = False
        self._left = 0
        self._line = b""
        self._trailer = False

    def feed(self, data: bytes) -> bytes:
        """Take in bytes; those behind the end. Raises LostError when they are no chunks."""
        while data and not self.done:
            if self._left:
                taken = min(self._left, len(data))
                data, self._left = data[taken:], self._left - taken
                continue
            line, ended, rest = (self._line + data).partition(b"\r\n")
            if not ended:
                if len(line) > 1024:
                    raise LostError("a chunk's size was too long")
                self._line, data = line, b""
                continue
            self._line, data = b"", rest
            if self._trailer:
                self.done = not line
                continue
            try:
                size = int(line.split(b";")[0], 16)
            except ValueError:
                raise LostError(f"a chunk's size is no number: {line[:20]!r}") from None
            self._left = size + 2 if size else 0
            self._trailer = size == 0
        return data


class Http1Wire(Wire):
    """One connection with at most one request on it."""

    def __init__(self, road: Road) -> None:
        super().__init__(road)
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[Answer] | None = None
        self._due = math.inf
        self._buffer = b""
        self._head: Head | None = None
        self._left = 0
        self._chunks: Chunks | None = None

    def ask(self, request: bytes, due: float) -> asyncio.Future[Answer]:
        """Send a request. The answer raises LostError when it does not come whole and before `due`."""
        self._waiter = self._loop.create_future()
        self._due = due
        self.transport.write(request)
        return self._waiter

    def data_received(self, data: bytes) -> None:
        if self._waiter is None:  # nobody asked: a 408 before a close, say
            self.close()
            return
        try:
            self._take(data)
        except LostError as error:
            self.close()
            self._fail(error)

    def _take(self, data: bytes) -> None:
        if self._head is None:
            self._buffer += data
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > LARGEST_HEAD:
                    raise LostError(f"the answer's head was longer than {LARGEST_HEAD} bytes")
                return
            head = read_head(self._buffer[: end + 4])
            data, self._buffer = self._buffer[end + 4 :], b""
            if head.status < 200:
                if data:
                    self._take(data)
                return
            self._head, self._left = head, head.length
            self._chunks = Chunks() if head.chunked else None
        if self._chunks is not None:
            data = self._chunks.feed(data)
            if self._chunks.done:
                self._finish(data)
        elif self._left >= 0:
            taken = min(self._left, len(data))
            self._left -= taken
            if self._left == 0:
                self._finish(data[taken:])

    def _finish(self, behind: bytes) -> None:
        head, waiter = self._head, self._waiter
        assert head is not None
        assert waiter is not None
        self._head = self._waiter = None
        self._due = math.inf
        if behind or not head.keeps:
            self.close()
        if not waiter.done():
            waiter.set_result(Answer(head.status, head.version, keeps=head.keeps and not behind))

    def _fail(self, error: LostError) -> None:
        waiter, self._waiter = self._waiter, None
        self._due = math.inf
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)

    def lost(self, reason: str) -> None:
        if self._waiter is None:
            return
        if self._head is None:
            half = " in the middle of the answer's head" if self._buffer else " before the answer"
            self._fail(LostError(reason + half))
        elif self._chunks is None and self._left < 0 and reason == "connection closed":
            self._finish(b"")
        else:
            self._fail(LostError(f"{reason} in the middle of the answer", self._head.status, self._head.version))

    def expire(self, now: float) -> None:
        if now > self._due:
            head = self._head
            self._fail(LostError("timeout", head.status if head else 0, head.version if head else ""))
            self.closed = True
            self.transport.abort()


def request_of(kind: Kind, host_header: str) -> bytes:
    """The bytes of the kind's request."""
    lines = [f"{kind.method} {kind.path} HTTP/1.1", f"Host: {host_header}"]
    if kind.body or kind.method == "POST":
        lines.append(f"Content-Length: {len(kind.body)}")
    if kind.fresh:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode() + kind.body


class Http1Client(Client):
    """One connection after another, one request after another."""

    async def run(self) -> None:
        request = request_of(self.kind, self.road.host_header)
        wire: Http1Wire | None = None
        try:
            while await self.turn():
                if wire is not None and not await wire.ready():
                    self.tally.reconnects += 1
                    wire.close()
                    wire = None
                due = self.begin()
                try:
                    if wire is None:
                        wire = await connect(self.road, self.kind, Http1Wire)
                    answer = await wire.ask(request, due)
                except LostError as error:
                    self.fail(error)
                    if wire is not None:
                        wire.close()
                        wire = None
                    await self.pause()
                    continue
                self.end(answer)
                if not answer.keeps:
                    self.tally.reconnects += not self.kind.fresh
                    wire.close()
                    wire = None
        finally:
            if wire is not None:
                wire.close()

"""The requests of a warm-up at one address, and how long each takes. No server can hold them beyond their time.

Nothing is followed, and no answer is read beyond 1 MiB.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from typing import Self

from reconciler.core.delivery import WarmRequest

MAX_BODY = 1024 * 1024
PIECE = 65536
Address = tuple[str, int]


class UnansweredError(Exception):
    """A request failed; in words."""


class UnsendableError(Exception):
    """A request that can never be sent, because HTTP does not allow it; in words."""


class Caller:
    """The requests of a warm-up at one address, one after the other and round again, on one connection that is kept.

    A context manager: `seconds` after it was entered, whatever is under way is cut off.
    """

    def __init__(self, address: Address, requests: tuple[WarmRequest, ...], seconds: float) -> None:
        self._connection = http.client.HTTPConnection(*address)
        self._requests = requests
        self._turn = 0
        self._end = time.monotonic() + seconds
        self._socket: socket.socket | None = None
        self._cut = False
        # The library waits anew for each byte, so a server that drips them is stopped from outside.
        self._timer = threading.Timer(seconds, self.cut)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._connection.close()

    @property
    def left(self) -> float:
        """Seconds left, at most 0 when it is over."""
        return 0.0 if self._cut else self._end - time.monotonic()

    def cut(self) -> None:
        """End the request under way, and make no further one. From any thread."""
        self._cut = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def call(self) -> float:
        """Make the next request. The seconds from its first byte to the last one of the answer.

        Raises UnansweredError when it failed: no answer in time, none that is HTTP, or a status of 500 and more.
        Raises UnsendableError when it always would.
        """
        request = self._requests[self._turn % len(self._requests)]
        self._turn += 1
        where = f"{request.method} {request.path} on port {self._connection.port}"
        kept = self._connection.sock is not None
        try:
            try:
                status, seconds = self._exchange(request)
            except (http.client.BadStatusLine, ConnectionError):
                if not kept:
                    raise
                # A server may end a connection that it kept for long enough just when the next request comes.
                self._connection.close()
                status, seconds = self._exchange(request)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            words = _words(error) if self.left > 0 else "no answer in time"
            raise UnansweredError(f"{where}: {words}") from error
        if status >= 500:
            raise UnansweredError(f"{where} answered {status}")
        return seconds

    def _exchange(self, request: WarmRequest) -> tuple[int, float]:
        connection = self._connection
        left = self.left
        if left <= 0:
            raise TimeoutError
        began = time.monotonic()
        connection.timeout = left
        if connection.sock is None:
            connection.connect()
            self._socket = connection.sock
        else:
            connection.sock.settimeout(left)
        if self._cut:
            raise TimeoutError
        headers = {"User-Agent": "reconciler", "Accept": "*/*", **dict(request.headers)}
        try:
            connection.request(request.method, request.path, body=request.body.encode() or None, headers=headers)
        except (http.client.InvalidURL, ValueError) as error:
            raise UnsendableError(f"{request.method} {request.path!r} cannot be sent: {_words(error)}") from error
        response = connection.getresponse()
        room = MAX_BODY
        while room > 0 and (piece := response.read(min(room, PIECE))):
            room -= len(piece)
        seconds = time.monotonic() - began
        if self._cut:
            raise TimeoutError  # the answer may have been cut off by us
        if not response.isclosed() or response.status < 200:
            connection.close()  # what is left of it must not be taken for the next answer
        return response.status, seconds


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, http.client.RemoteDisconnected):
        return "the connection was closed without an answer"
    if isinstance(error, http.client.BadStatusLine):
        return "the answer is not HTTP"
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(said.split())[:200].lower()

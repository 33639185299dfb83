"""The sockets to one API server: the client library's pool, whose open connections can be ended from outside.

A thread that waits for a hung server must end when the runtime closes. And no more calls than settled: the bucket.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import weakref

import urllib3
from kubernetes.client.configuration import Configuration
from kubernetes.client.rest import RESTClientObject
from urllib3.connection import HTTPConnection, HTTPSConnection


class Pool:
    """One configuration and the connections made with it."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.host = str(configuration.host).rstrip("/")
        self._lock = threading.Lock()
        self._open: weakref.WeakSet[HTTPConnection] = weakref.WeakSet()
        self._closed = False
        self.manager: urllib3.PoolManager = RESTClientObject(configuration).pool_manager
        self.manager.pool_classes_by_scheme = {"http": self._plain(), "https": self._secure()}

    def headers(self) -> dict[str, str]:
        """Those that authenticate; the library reads a token of the pod anew when a minute has passed."""
        with self._lock:
            found = self.configuration.auth_settings().get("BearerToken")
        value = found["value"] if found else None
        return {"Authorization": value.strip()} if value else {}

    def close(self) -> None:
        """End all connections: whoever reads from one gets an error at once."""
        with self._lock:
            self._closed = True
            connections = list(self._open)
        for connection in connections:
            _end(connection)
        self.manager.clear()

    def _opened(self, connection: HTTPConnection) -> None:
        with self._lock:
            self._open.add(connection)
            closed = self._closed
        if closed:
            _end(connection)

    def _plain(self) -> type[urllib3.HTTPConnectionPool]:
        opened = self._opened

        class Plain(HTTPConnection):
            def connect(self) -> None:
                super().connect()
                opened(self)

        class PlainPool(urllib3.HTTPConnectionPool):
            ConnectionCls = Plain

        return PlainPool

    def _secure(self) -> type[urllib3.HTTPSConnectionPool]:
        opened = self._opened

        class Secure(HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                opened(self)

        class SecurePool(urllib3.HTTPSConnectionPool):
            ConnectionCls = Secure

        return SecurePool


def _end(connection: HTTPConnection) -> None:
    """End the socket below TLS: the reader in another thread then sees the end of the stream, and owns the rest."""
    if isinstance(connection.sock, socket.socket):
        with contextlib.suppress(OSError):
            socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)


class Bucket:
    """At most `rate` calls a second over time, and as many at once."""

    def __init__(self, rate: int) -> None:
        self._step = 1.0 / max(rate, 1)
        self._lock = threading.Lock()
        self._due = 0.0

    def wait(self, stop: threading.Event) -> None:
        """Return when it is the caller's turn, or when `stop` is set."""
        with self._lock:
            now = time.monotonic()
            self._due = max(self._due, now - 1.0) + self._step
            pause = self._due - now
        if pause > 0:
            stop.wait(pause)

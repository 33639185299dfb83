"""An operator's Prometheus: one PromQL instant query in, one number out, or the reason why there is none.

It must not judge the number, and never raises for the server's trouble: a gate holds without a value. It follows no
redirect, reads no proxy, credentials or authority from the environment, and ends every query within its timeout.

Source of the format: https://prometheus.io/docs/prometheus/latest/querying/api/ (`GET /api/v1/query`).
"""

from __future__ import annotations

import json
import math
import os
import socket
import threading
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from reconciler.redact import Redactor

MAX_ANSWER = 1024 * 1024
MAX_QUOTED = 200
_PIECE = 65536
_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",  # what is small on the wire could be large in memory
    "Connection": "close",
    "User-Agent": "reconciler",
}
_REDIRECTS = range(300, 400)


class Answer(NamedTuple):
    """A finite `value`, or None and the reason in `said`; with a value, `said` is a warning of the server, or empty."""

    value: float | None
    said: str = ""


class _Deadline:
    """Cuts the connections of one query when its time is up.

    A timeout of a socket starts anew with each byte, so that a server which drips could hold a query for hours, in
    the TLS handshake, the headers or the body. The duplicate reaches the connection also after TLS took the socket.
    """

    def __init__(self, seconds: float) -> None:
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self.passed = False
        self._timer = threading.Timer(seconds, self.cut)
        self._timer.daemon = True
        self._timer.start()

    def watch(self, connection: socket.socket) -> None:
        with self._lock:
            self._sockets.append(connection.dup())
        if self.passed:
            self.cut()

    def cut(self) -> None:
        with self._lock:
            self.passed = True
            for connection in self._sockets:
                with suppress(OSError):  # it is closed already
                    connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._timer.cancel()
        with self._lock:
            for connection in self._sockets:
                connection.close()
            self._sockets.clear()


_deadline: ContextVar[_Deadline] = ContextVar("deadline")


class _Http(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        connection = super()._new_conn()
        _deadline.get().watch(connection)
        return connection


class _Https(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        connection = super()._new_conn()
        _deadline.get().watch(connection)
        return connection


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _Https


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as the base class has it
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}


class Prometheus:
    """One server. `url` is its address, with a path if it has a prefix; `timeout` in seconds bounds a whole query.

    `token` is sent as `Authorization: Bearer`. `authority` is a PEM file to trust for https instead of those that the
    library brings. Any thread may ask. Two parts have bounds of their own: the system's for
    resolving the name, and `timeout` for each address of the server that a connection is tried to.
    """

    def __init__(self, url: str, timeout: float, token: bytes | None = None, *, authority: Path | None = None) -> None:
        self._url = url.rstrip("/") + "/api/v1/query"
        self._place = _without_credentials(url)
        self._timeout = timeout
        self._authority = authority
        self._headers: dict[str, str | bytes] = dict(_HEADERS)
        if token is not None:
            self._headers["Authorization"] = b"Bearer " + token.strip()
        self._redactor = Redactor([] if token is None else [token])
        self._lock = threading.Lock()
        self._running: set[_Deadline] = set()
        self._closed = False

    def query(self, promql: str) -> Answer:
        """The value of an expression now: a scalar, or a vector of exactly one sample."""
        deadline = _Deadline(self._timeout)
        with self._lock:
            self._running.add(deadline)
            closed = self._closed
        before = _deadline.set(deadline)
        try:
            return self._nothing("it is not asked any more") if closed else self._ask(promql, deadline)
        finally:
            _deadline.reset(before)
            with self._lock:
                self._running.discard(deadline)
            deadline.close()

    def close(self) -> None:
        """Ask no more; the queries under way end at once, without a value."""
        with self._lock:
            self._closed = True
            running = list(self._running)
        for deadline in running:
            deadline.cut()

    def _ask(self, promql: str, deadline: _Deadline) -> Answer:
        if self._authority is not None and not os.access(self._authority, os.R_OK):
            return self._nothing(f"the file of its authority, {self._authority}, cannot be read")
        try:
            with requests.Session() as session:
                session.trust_env = False
                session.mount("http://", _Adapter())
                session.mount("https://", _Adapter())
                with session.get(
                    self._url,
                    params={"query": promql},
                    headers=self._headers,
                    timeout=self._timeout,
                    verify=True if self._authority is None else str(self._authority),
                    allow_redirects=False,
                    stream=True,
                ) as response:
                    return self._read(response, deadline)
        # While a body is read, urllib3's own errors come through; what cannot be encoded is a ValueError.
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            late = deadline.passed or isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError)
            return self._cut_short() if late else self._nothing(_words(error))

    def _read(self, response: requests.Response, deadline: _Deadline) -> Answer:
        if response.status_code in _REDIRECTS:
            target = _without_credentials(response.headers.get("Location", "nowhere"))
            return self._nothing(f"it redirects to {target}: set the address that it redirects to")
        body = bytearray()
        while piece := response.raw.read1(_PIECE, decode_content=False):
            body += piece
            if len(body) > MAX_ANSWER:
                return self._nothing(f"its answer is longer than {MAX_ANSWER:,} bytes: aggregate in the query")
        # A connection that was cut looks like one that has ended.
        if deadline.passed:
            return self._cut_short()
        try:
            answer = json.loads(bytes(body))
        except (ValueError, RecursionError):
            answer = None
        if response.status_code != 200:
            return self._nothing(f"it answered {response.status_code}{_complaint(answer)}")
        return self._value(answer)

    def _value(self, answer: object) -> Answer:
        match answer:
            case {"status": "success", "data": {"resultType": "vector", "result": [{"value": [_, str(text)]}]}}:
                pass
            case {"status": "success", "data": {"resultType": "scalar", "result": [_, str(text)]}}:
                pass
            case {"status": "success", "data": {"resultType": "vector", "result": []}}:
                return self._nothing("the query found no data")
            case {"status": "success", "data": {"resultType": "vector", "result": [_, _, *_] as found}}:
                return self._nothing(f"the query found {len(found):,} series, and one is needed: aggregate them")
            case {"status": "success", "data": {"resultType": str(kind)}}:
                return self._nothing(f"the query gave a {kind}, and a scalar or a vector of one sample is needed")
            case _:
                return self._nothing(f"its answer is not one of a Prometheus{_complaint(answer)}")
        try:
            value = float(text)
        except ValueError:
            return self._nothing(f"its value is no number: {text}")
        if not math.isfinite(value):
            return self._nothing(f"the value is {text}")
        match answer:
            case {"warnings": [str(warning), *_]}:
                return Answer(value, self._said(f"it warns: {warning}"))
            case _:
                return Answer(value)

    def _cut_short(self) -> Answer:
        if self._closed:
            return self._nothing("it is not asked any more")
        return self._nothing(f"no complete answer within {self._timeout:g} s")

    def _nothing(self, why: str) -> Answer:
        return Answer(None, self._said(why))

    def _said(self, what: str) -> str:
        """One line with the place, free of secrets and of what cannot be printed."""
        text = self._redactor.text(f"Prometheus {self._place}: {what}")
        text = "".join(letter if letter.isprintable() else " " for letter in text)
        return text if len(text) <= 2 * MAX_QUOTED else text[: 2 * MAX_QUOTED - 1] + "…"


def _complaint(answer: object) -> str:
    match answer:
        case {"error": str(error)}:
            return f": {error[:MAX_QUOTED]}"
        case _:
            return ""


def _without_credentials(url: str) -> str:
    """Scheme, host and path of an address, for people."""
    try:
        parts = urlsplit(url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))[:MAX_QUOTED]
    except ValueError:
        return "(an address that cannot be read)"


_TROUBLE: tuple[tuple[type[Exception], str], ...] = (
    (requests.exceptions.InvalidSchema, "its address has to begin with http:// or https://"),
    (requests.exceptions.MissingSchema, "its address has to begin with http:// or https://"),
    (requests.exceptions.InvalidURL, "its address cannot be read"),
    (requests.exceptions.SSLError, "its certificate was not accepted, or it does not speak TLS"),
    (requests.exceptions.InvalidHeader, "its token holds a character that HTTP does not allow"),
)


def _words(error: Exception) -> str:
    """What a failed exchange means; the libraries' own words show memory addresses and pools."""
    for kind, words in _TROUBLE:
        if isinstance(error, kind):
            return words
    reason: BaseException | None = error
    while reason is not None:
        if isinstance(reason, OSError) and reason.strerror:
            return reason.strerror.lower()
        reason = reason.__cause__ or reason.__context__
    return "it cannot be reached, or does not speak HTTP"

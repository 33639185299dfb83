"""Leases without a cluster: one in memory for candidates that take turns by hand, and one behind a real HTTP port."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from reconciler.core.errors import Reason, Retryable
from reconciler.core.lease import Found

START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class HandClock:
    """`ports.Clock` moved by hand. `wall` is apart from `seconds`, so that the time of day can jump alone."""

    seconds: float = 1_000.0
    wall: datetime = START

    def now(self) -> datetime:
        return self.wall

    def monotonic(self) -> float:
        return self.seconds

    def pass_(self, seconds: float) -> None:
        self.seconds += seconds
        self.wall += timedelta(seconds=seconds)


@dataclass
class Store:
    """The one lease that all candidates share, with optimistic concurrency. `away`: the API does not answer."""

    found: Found = field(default_factory=lambda: Found(None))
    away: bool = False
    writes: int = 0


@dataclass
class StoredLease:
    """`leadership.Lease` of one candidate. `before` is called at each call, to let something happen meanwhile;
    `lost`: the answers of writes do not arrive."""

    store: Store
    before: Callable[[str], None] = lambda _call: None
    away: bool = False
    lost: bool = False

    def read(self, seconds: float) -> Found:
        assert seconds > 0
        self._reach("read")
        return self.store.found

    def write(self, found: Found, seconds: float) -> Found | None:
        assert seconds > 0
        self._reach("write")
        if found.version != self.store.found.version:
            return None
        self.store.writes += 1
        self.store.found = replace(found, version=str(self.store.writes))
        if self.lost:
            raise Retryable(Reason.ENGINE_UNREACHABLE, "the connection broke")
        return self.store.found

    def _reach(self, call: str) -> None:
        self.before(call)
        if self.away or self.store.away:
            raise Retryable(Reason.ENGINE_UNREACHABLE, "the API server does not answer")


class LeaseApi:
    """As much of the Kubernetes API as a Lease needs, on a port of loopback. `refuse`: what it answers instead."""

    NAMESPACE = "reconciler"

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.refuse: tuple[int, str] | None = None
        self.calls: list[tuple[str, str]] = []
        self._lock = threading.Lock()
        self._version = 0
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer()

            do_PUT = do_POST = do_DELETE = do_GET

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                status, content = api.answer(self.command, self.path, json.loads(body) if body else {})
                raw = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def kubeconfig(self, file: Path) -> Path:
        """A file that leads here."""
        host, port = self._server.server_address[:2]
        server = {"server": f"http://{host!s}:{port}"}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "here", "cluster": server}],
            "users": [{"name": "me", "user": {"token": "t"}}],
            "contexts": [{"name": "it", "context": {"cluster": "here", "user": "me", "namespace": self.NAMESPACE}}],
            "current-context": "it",
        }
        file.write_text(json.dumps(content))
        return file

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        match = re.fullmatch(r"/apis/coordination\.k8s\.io/v1/namespaces/([^/]+)/leases(?:/([^/?]+))?", path)
        if match is None:
            return (200, {"gitVersion": "v1.0.0"}) if path == "/version" else (404, _status(404, "NotFound", "", path))
        namespace, name = match[1], match[2] or str(body["metadata"]["name"])
        with self._lock:
            self.calls.append((method, name))
            if self.refuse is not None:
                return self.refuse[0], _status(*self.refuse, "leases", name)
            return self._do(method, namespace, name, body)

    def _do(self, method: str, namespace: str, name: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        known = self.objects.get(name) if namespace == self.NAMESPACE else None
        if method == "POST" and namespace != self.NAMESPACE:
            return 404, _status(404, "NotFound", "namespaces", namespace)
        if method == "POST" and known is not None:
            return 409, _status(409, "AlreadyExists", "leases", name)
        if method != "POST" and known is None:
            return 404, _status(404, "NotFound", "leases", name)
        stale = known is not None and body.get("metadata", {}).get("resourceVersion") != _version(known)
        if method == "PUT" and stale:
            return 409, _status(409, "Conflict", "leases", name)
        if method == "DELETE":
            return 200, self.objects.pop(name)
        if method in ("POST", "PUT"):
            self._version += 1
            metadata = {**body["metadata"], "resourceVersion": str(self._version)}
            self.objects[name] = {**body, "metadata": metadata}
        return 201 if method == "POST" else 200, self.objects[name]


def _version(known: dict[str, Any]) -> str:
    return str(known["metadata"]["resourceVersion"])


def _status(code: int, reason: str, kind: str, name: str) -> dict[str, Any]:
    details = {"name": name, "kind": kind, "group": "coordination.k8s.io"}
    return {
        "kind": "Status",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": reason,
        "details": details,
    }


@contextmanager
def lease_api() -> Iterator[LeaseApi]:
    """A fake API while the block runs."""
    api = LeaseApi()
    api.start()
    try:
        yield api
    finally:
        api.stop()

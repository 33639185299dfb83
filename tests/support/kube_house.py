"""A small fake of the Kubernetes API on loopback: lists in pages, watches, creations, applies, JSON patches, deletions.

It stores objects and knows no controllers. It can be told to refuse, to hang, to forget old versions and to cut its
streams. What it does is what the tests of the adapter need, and they run against a real API server too.
"""

from __future__ import annotations

import copy
import json
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from tests.support.kube_fields import applied, count, differing, fields_of, merge, own, patch

Json = dict[str, Any]
KINDS = {
    "deployments": ("Deployment", "apps/v1"),
    "replicasets": ("ReplicaSet", "apps/v1"),
    "pods": ("Pod", "v1"),
    "services": ("Service", "v1"),
    "configmaps": ("ConfigMap", "v1"),
    "secrets": ("Secret", "v1"),
    "poddisruptionbudgets": ("PodDisruptionBudget", "policy/v1"),
    "horizontalpodautoscalers": ("HorizontalPodAutoscaler", "autoscaling/v2"),
    "httproutes": ("HTTPRoute", "gateway.networking.k8s.io/v1"),
}
HANG = 0


class Refusal(Exception):
    """An answer that is a Status."""

    def __init__(self, status: int, reason: str, message: str, details: Json | None = None, after: str = "") -> None:
        super().__init__(message)
        self.status, self.after = status, after
        self.body = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "code": status,
            "reason": reason,
            "message": message,
            "details": details or {},
        }


@dataclass
class Fault:
    """What happens to the next `times` calls whose "METHOD path " contains `where`: a refusal, or they HANG."""

    where: str
    status: int
    reason: str = ""
    message: str = ""
    after: str = ""
    times: int = 1


@dataclass
class KubeHouse:
    """The server's state: `objects` by (namespace, plural, name), `calls` by "METHOD plural", what was `sent` by event.

    A watch lasts for `longest` seconds at most.
    """

    namespaces: set[str] = field(default_factory=set)
    objects: dict[tuple[str, str, str], Json] = field(default_factory=dict)
    events: list[tuple[int, str, str, str, Json]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    logs: dict[tuple[str, bool], str] = field(default_factory=dict)
    token: str = ""
    admission: Callable[[Json], None] = lambda found: None
    absent: set[str] = field(default_factory=set)
    version: int = 100
    oldest: int = 0
    cuts: int = 0
    mute: bool = False
    longest: float = 60.0
    sent: Counter[str] = field(default_factory=Counter)
    released: threading.Event = field(default_factory=threading.Event)
    news: threading.Condition = field(default_factory=threading.Condition)
    address: str = ""

    def kubeconfig(self, directory: Path, **user: object) -> Path:
        """A kubeconfig for this server."""
        path = directory / "kubeconfig"
        content = {
            "clusters": [{"name": "c", "cluster": {"server": self.address}}],
            "users": [{"name": "u", "user": user or {"token": "t0ken"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        path.write_text(yaml.safe_dump(content))
        return path

    def cut(self) -> None:
        """Break all watches without a word."""
        with self.news:
            self.cuts += 1
            self.news.notify_all()

    def forget(self) -> None:
        """Old versions cannot be watched or continued from any more."""
        with self.news:
            self.version += 1
            self.oldest = self.version

    def bookmark(self) -> None:
        """Tell all watches the current version."""
        with self.news:
            self.version += 1
            self.events.append((self.version, "BOOKMARK", "", "", {}))
            self.news.notify_all()

    def hush(self, muted: bool) -> None:
        """Keep all events back, or let them go."""
        with self.news:
            self.mute = muted
            self.news.notify_all()

    def store(self, event: str, namespace: str, plural: str, found: Json) -> Json:
        """Write an object, or take it away, and tell the watches."""
        with self.news:
            self.version += 1
            self.admission(found)
            found["metadata"]["resourceVersion"] = str(self.version)
            key = (namespace, plural, found["metadata"]["name"])
            if event == "DELETED":
                self.objects.pop(key, None)
            else:
                self.objects[key] = found
            self.events.append((self.version, event, namespace, plural, copy.deepcopy(found)))
            self.news.notify_all()
            return found


@contextmanager
def kube_house() -> Iterator[KubeHouse]:
    """A server with the namespace `prod`."""
    house = KubeHouse(namespaces={"prod"})

    class Handler(_Handler):
        state = house

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, *_: object) -> None:
            """Clients that go away are no news."""

    server = Server(("127.0.0.1", 0), Handler)
    house.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield house
    finally:
        house.released.set()
        house.cut()
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: KubeHouse

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        size = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(size)
        try:
            self._troubles(parts.path, query)
            answer = self._answer(parts.path, query, json.loads(raw) if raw else None)
        except Refusal as refusal:
            self._send(refusal.status, json.dumps(refusal.body).encode(), refusal.after)
            return
        if answer is not None:
            self._send(200, answer if isinstance(answer, bytes) else json.dumps(answer).encode())

    do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = _serve

    def _send(self, status: int, body: bytes, after: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if after:
            self.send_header("Retry-After", after)
        self.end_headers()
        self.wfile.write(body)

    def _troubles(self, path: str, query: Mapping[str, str]) -> None:
        house = self.state
        verb = "WATCH" if "watch" in query else self.command
        with house.news:
            fault = next((one for one in house.faults if one.where in f"{verb} {path} " and one.times > 0), None)
            if fault is not None:
                fault.times -= 1
        if house.token and self.headers.get("Authorization") != f"Bearer {house.token}":
            raise Refusal(401, "Unauthorized", "Unauthorized")
        if fault is None:
            return
        if fault.status == HANG:
            house.released.wait(60)
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            raise ConnectionAbortedError
        raise Refusal(fault.status, fault.reason, fault.message, after=fault.after)

    def _answer(self, path: str, query: Mapping[str, str], body: Any) -> Json | bytes | None:
        words = path.strip("/").split("/")
        rest = words[2:] if words[0] == "api" else words[3:]
        if len(rest) == 2:
            self.state.calls["GET namespaces"] += 1
            if rest[1] not in self.state.namespaces:
                raise Refusal(
                    404, "NotFound", f'namespaces "{rest[1]}" not found', {"kind": "namespaces", "name": rest[1]}
                )
            return {"kind": "Namespace", "metadata": {"name": rest[1]}}
        namespace, plural = rest[1], rest[2]
        name = rest[3] if len(rest) > 3 else ""
        verb = "WATCH" if "watch" in query else self.command
        self.state.calls[f"{verb} {plural}"] += 1
        if plural in self.state.absent:
            self._send(404, b"404 page not found")
            return None
        if len(rest) > 4:
            return self.state.logs.get((name, "previous" in query), "").encode()
        if self.command == "GET" and not name:
            chosen = _selector(query.get("labelSelector", ""))
            return (
                self._watch(namespace, plural, query, chosen)
                if "watch" in query
                else self._list(namespace, plural, query, chosen)
            )
        with self.state.news:
            return self._one(namespace, plural, name, query, body)

    def _list(self, namespace: str, plural: str, query: Mapping[str, str], chosen: Mapping[str, str]) -> Json:
        house = self.state
        with house.news:
            start, version = 0, house.version
            if "continue" in query:
                start, version = map(int, query["continue"].split("."))
                if version < house.oldest:
                    raise Refusal(410, "Expired", "The provided continue parameter is too old")
            found = [
                one
                for (ns, kind, _), one in sorted(house.objects.items())
                if (ns, kind) == (namespace, plural) and _matches(one, chosen)
            ]
            end = start + int(query.get("limit") or len(found) or 1)
            about = {"resourceVersion": str(version)} | ({"continue": f"{end}.{version}"} if end < len(found) else {})
            kind, api = KINDS[plural]
            page = [
                {key: value for key, value in one.items() if key not in ("kind", "apiVersion")}
                for one in found[start:end]
            ]
            return json.loads(json.dumps({"kind": f"{kind}List", "apiVersion": api, "metadata": about, "items": page}))

    def _watch(self, namespace: str, plural: str, query: Mapping[str, str], chosen: Mapping[str, str]) -> None:
        house, since = self.state, int(query["resourceVersion"])
        kind, api = KINDS[plural]
        with house.news:
            cuts = house.cuts
            house.sent["OPENED"] += 1
            if since < house.oldest:
                since = -1
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if since < 0:
            self._event("ERROR", Refusal(410, "Expired", "too old resource version").body)
        end = time.monotonic() + min(float(query["timeoutSeconds"]), house.longest)
        while since >= 0 and time.monotonic() < end:
            with house.news:
                while house.cuts == cuts and (house.mute or house.version <= since) and time.monotonic() < end:
                    house.news.wait(0.1)
                if house.cuts != cuts:
                    self.close_connection = True
                    return
                new = [
                    one for one in house.events if one[0] > since and (not one[3] or one[2:4] == (namespace, plural))
                ]
                since = house.version
            for version, event, _, _, found in new:
                if event == "BOOKMARK":
                    self._event(event, {"kind": kind, "apiVersion": api, "metadata": {"resourceVersion": str(version)}})
                elif _matches(found, chosen):
                    self._event(event, found)
                elif event == "MODIFIED":
                    self._event("DELETED", found)  # it left the selection
        self.wfile.write(b"0\r\n\r\n")

    def _event(self, event: str, found: Json) -> None:
        line = json.dumps({"type": event, "object": found}).encode() + b"\n"
        self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
        self.wfile.flush()
        with self.state.news:
            self.state.sent[event] += 1

    def _one(self, namespace: str, plural: str, name: str, query: Mapping[str, str], body: Any) -> Json:
        house = self.state
        if namespace not in house.namespaces:
            raise Refusal(
                404, "NotFound", f'namespaces "{namespace}" not found', {"kind": "namespaces", "name": namespace}
            )
        name = name or body["metadata"]["name"]
        known = house.objects.get((namespace, plural, name))
        kind, api = KINDS[plural]
        manager = query.get("fieldManager", "somebody")
        if self.command == "POST":
            if known is not None:
                raise Refusal(409, "AlreadyExists", f'{plural} "{name}" already exists')
            made = {"kind": kind, "apiVersion": api, **body}
            made["metadata"] = {**body["metadata"], **_born(namespace)}
            own(made, manager, "Update", fields_of(body))
            return house.store("ADDED", namespace, plural, made)
        if self.command == "PATCH" and "apply-patch" in self.headers["Content-Type"]:
            return self._apply(namespace, plural, known, body, manager)
        if known is None:
            raise Refusal(404, "NotFound", f'{plural} "{name}" not found', {"kind": plural, "name": name})
        return known if self.command == "GET" else self._changed(namespace, plural, known, body, manager)

    def _changed(self, namespace: str, plural: str, known: Json, body: Any, manager: str) -> Json:
        house = self.state
        if self.command == "DELETE":
            uid = ((body or {}).get("preconditions") or {}).get("uid")
            if uid and uid != known["metadata"]["uid"]:
                raise Refusal(409, "Conflict", "the UID in the precondition does not match")
            house.store("DELETED", namespace, plural, copy.deepcopy(known))
            status = {"kind": "Status", "status": "Success", "details": {"uid": known["metadata"]["uid"]}}
            return known if plural == "services" else status  # as the real one does
        changed = copy.deepcopy(known)
        if "json-patch" in self.headers["Content-Type"]:
            try:
                for step in body:
                    patch(changed, step)
            except ValueError as error:
                raise Refusal(422, "Invalid", f"the patch fails at {error}") from error
            if changed["metadata"]["resourceVersion"] != known["metadata"]["resourceVersion"]:
                raise Refusal(409, "Conflict", "the object has been modified")
            _same_uid(changed["metadata"]["uid"], known)
        else:
            merge(changed, body)
            own(changed, manager, "Update", differing(known, changed), known)
        count(known, changed)
        return house.store("MODIFIED", namespace, plural, changed)

    def _apply(self, namespace: str, plural: str, known: Json | None, body: Json, manager: str) -> Json:
        uid = body["metadata"].pop("uid", None)
        if known is None:
            if uid:
                raise Refusal(409, "Conflict", "uid mismatch: no existing object was found")
            known = {"metadata": _born(namespace)}
        elif uid:
            _same_uid(uid, known)
        changed = applied(known, body, manager)
        count(known, changed)
        return self.state.store("MODIFIED", namespace, plural, changed)


def _born(namespace: str) -> Json:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"namespace": namespace, "uid": str(uuid.uuid4()), "creationTimestamp": now, "generation": 1}


def _same_uid(uid: str, known: Json) -> None:
    if uid != known["metadata"]["uid"]:
        cause = {"field": "metadata.uid", "reason": "FieldValueInvalid"}
        raise Refusal(422, "Invalid", "metadata.uid: field is immutable", {"causes": [cause]})


def _selector(text: str) -> dict[str, str]:
    """By label its value; `name!` for a value that it must not have."""
    return dict(part.split("=", 1) for part in text.split(",") if part)


def _matches(found: Json, chosen: Mapping[str, str]) -> bool:
    marks = found["metadata"].get("labels", {})
    return all((marks.get(key.rstrip("!")) == value) != key.endswith("!") for key, value in chosen.items())

"""Calls to one Kubernetes API: plain JSON over the official client's configuration and pool, each with a deadline.

The library's models, its retries and its watch are not used: they build objects for every field, sleep without a
deadline, and end in silence. No knowledge of environments or of what is stored.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlencode

import urllib3

from reconciler import __version__
from reconciler.adapters.kubernetes_credentials import configuration, where
from reconciler.adapters.kubernetes_errors import UNANSWERED, ApiError, Target, target, translated
from reconciler.adapters.kubernetes_pool import Bucket, Pool
from reconciler.core.errors import innermost
from reconciler.core.kubernetes_json import Json
from reconciler.core.kubernetes_labels import MANAGER
from reconciler.failpoints import hit
from reconciler.settings import KubernetesSettings

APPLY, JSON_PATCH, MERGE_PATCH = (
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
)
MAX_ANSWER = 64 * 1024 * 1024
MAX_EVENT = 16 * 1024 * 1024
PAGE = 500
SILENCE = 90.0
"""Seconds without a word on a watch after which it counts as lost: the API sends a bookmark about every minute."""
CONNECT = 5.0
LISTS = 3
"""How often a list begins anew because its pages expired."""
RELOAD = 10.0
"""Seconds between two readings of credentials that are not accepted."""

T = TypeVar("T")


class Api:
    """One cluster's API. Thread-safe; the first call reads the credentials, so that none is needed to start.

    `counts` are the calls made so far by verb (get, list, watch, create, update, patch, delete).
    """

    def __init__(self, settings: KubernetesSettings) -> None:
        self.settings = settings
        self.where = where(settings)
        self.counts: Counter[str] = Counter()
        self._timeout = settings.timeout.total_seconds()
        self._bucket = Bucket(settings.requests)
        self._lock = threading.Lock()
        self._pool: Pool | None = None
        self._read_at = 0.0
        self._stop = threading.Event()

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = "application/json",
        seconds: float | None = None,
    ) -> Json:
        """One call and its JSON object. `seconds` bounds all of it, waits that the API asks for included.

        A GET or an apply is tried once more on a connection that broke. Raises ApiError, and Stalled(SETTINGS_INVALID).
        """
        asked = target(method, path, query)
        raw = self.read(method, path, query=query, body=body, content_type=content_type, seconds=seconds)
        try:
            found = json.loads(raw) if raw else {}
        except (ValueError, RecursionError) as error:
            raise ApiError(UNANSWERED, "NotJson", "the answer is no JSON", asked=asked) from error
        if not isinstance(found, dict):
            raise ApiError(UNANSWERED, "NotJson", "the answer is no JSON object", asked=asked)
        return found

    def read(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = "application/json",
        seconds: float | None = None,
        most: int = MAX_ANSWER,
    ) -> bytes:
        """As `call`, the answer as it came; one larger than `most` bytes is an ApiError."""
        asked = target(method, path, query)
        deadline = time.monotonic() + (self._timeout if seconds is None else seconds)
        again = 1 if method == "GET" or content_type == APPLY else 0
        renewed = False
        while True:
            try:
                return self._once(method, path, query, body, content_type, deadline, most, asked)
            except ApiError as error:
                if error.status == UNANSWERED and error.reason == "Broken" and again and not self._stop.is_set():
                    again -= 1
                elif error.status == 401 and not renewed and self._renew():
                    renewed = True
                elif not self._patient(error, deadline):
                    raise

    def apply(
        self, path: str, body: Mapping[str, Any], *, force: bool = True, dry_run: bool = False, manager: str = MANAGER
    ) -> Json:
        """Server-side apply of an object as a field manager; returns the object as it is then.

        A `metadata.uid` in `body` is a precondition. Fields that the API does not know are refused.
        """
        query = {"fieldManager": manager, "force": str(force).lower(), "fieldValidation": "Strict"}
        if dry_run:
            query["dryRun"] = "All"
        return self.call("PATCH", path, query=query, body=body, content_type=APPLY)

    def patch(self, path: str, steps: list[Json]) -> Json:
        """A JSON patch by us; returns the object as it is then."""
        return self.call("PATCH", path, query={"fieldManager": MANAGER}, body=steps, content_type=JSON_PATCH)

    def remove(self, path: str, uid: str) -> Json:
        """Delete an object, what belongs to it after it, if it is still the one with this uid.

        Returns the answer, empty where it is not.
        """
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid},
        }
        hit("kubernetes.before_remove")
        try:
            answer = self.call("DELETE", path, body=options)
        except ApiError as error:
            if error.status not in (404, 409):  # it went, or another one took its place
                raise
            answer = {}
        hit("kubernetes.after_remove")
        return answer

    def pages(
        self,
        path: str,
        query: Mapping[str, str] | None = None,
        limit: int = PAGE,
        keep: Callable[[Json], T | None] = lambda found: found,  # type: ignore[assignment, return-value]
    ) -> tuple[list[T], str]:
        """All objects of a list, page by page, and its resourceVersion to watch from.

        `keep` makes of each object what is stored, so that no more than a page is held whole; None leaves it out. When
        the pages expire in between (410), the list begins anew.
        """
        for left in reversed(range(LISTS)):
            try:
                return self._pages(path, dict(query or {}), limit, keep)
            except ApiError as error:
                if error.status != 410 or not left:
                    raise
        raise AssertionError  # the loop returns or raises

    def _pages(
        self, path: str, query: dict[str, str], limit: int, keep: Callable[[Json], T | None]
    ) -> tuple[list[T], str]:
        kept: list[T] = []
        query["limit"] = str(limit)
        while True:
            page = self.call("GET", path, query=query)
            described = {"apiVersion": page.get("apiVersion"), "kind": str(page.get("kind")).removesuffix("List")}
            for found in page.get("items") or ():
                one = keep({**described, **found})
                if one is not None:
                    kept.append(one)
            about = page.get("metadata") or {}
            if not about.get("continue"):
                return kept, str(about.get("resourceVersion") or "")
            query["continue"] = str(about["continue"])

    def watch(
        self,
        path: str,
        resource_version: str,
        seconds: float,
        query: Mapping[str, str] | None = None,
        opened: Callable[[], None] = lambda: None,
    ) -> Iterator[tuple[str, Json]]:
        """The events after `resource_version` as (type, object), bookmarks included, for about `seconds`.

        It ends when the server ends it; `opened` is called when it has begun. Raises ApiError: 410 when that version is
        too old, in an event or an answer; 0 when the connection breaks or is silent for 90 s.
        """
        asked = {
            **(query or {}),
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(max(1, round(seconds))),
        }
        about = target("GET", path, asked)
        with self._sent("GET", path, asked, None, "", self._timeout, about) as response:
            if response.status != 200:
                raise _refusal(response.status, response.headers, response.read(65536), about)
            socket = getattr(response.connection, "sock", None)
            if socket is not None:
                socket.settimeout(SILENCE)
            opened()
            for line in _lines(response.stream(65536), about):
                kind, found = _event(line, about)
                if kind == "ERROR":
                    raise _status(found, about)
                yield kind, found

    def close(self) -> None:
        """End every call under way; later ones fail."""
        self._stop.set()
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def _once(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: object,
        content_type: str,
        deadline: float,
        most: int,
        asked: Target,
    ) -> bytes:
        left = deadline - time.monotonic()
        if left <= 0:
            raise ApiError(UNANSWERED, "Timeout", "no answer in time", asked=asked)
        with self._sent(method, path, query, body, content_type, left, asked) as response:
            pieces, size = [], 0
            for piece in response.stream(65536):
                size += len(piece)
                if size > most:
                    raise ApiError(UNANSWERED, "TooLarge", f"the answer is larger than {most} bytes", asked=asked)
                if time.monotonic() > deadline:
                    raise ApiError(UNANSWERED, "Timeout", "the answer does not end in time", asked=asked)
                pieces.append(piece)
            found = b"".join(pieces)
            response.release_conn()
            if not 200 <= response.status < 300:
                raise _refusal(response.status, response.headers, found, asked)
        return found

    @contextmanager
    def _sent(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: object,
        content_type: str,
        seconds: float,
        asked: Target,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """The open answer to a call; whatever breaks while it is read becomes an ApiError of status 0."""
        self._bucket.wait(self._stop)
        pool = self._connected(asked)
        with self._lock:
            self.counts[asked.verb] += 1
        headers = {"User-Agent": f"reconciler/{__version__}", "Accept": "application/json", **pool.headers()}
        if body is not None:
            headers["Content-Type"] = content_type
        address = f"{pool.host}{path}" + (f"?{urlencode(query)}" if query else "")
        response = None
        try:
            response = pool.manager.request(
                method,
                address,
                body=None if body is None else json.dumps(body, separators=(",", ":")).encode(),
                headers=headers,
                timeout=urllib3.Timeout(connect=min(CONNECT, seconds), read=seconds),
                preload_content=False,
                redirect=False,
                retries=False,
            )
            yield response
        except (TimeoutError, urllib3.exceptions.TimeoutError) as error:
            raise ApiError(UNANSWERED, "Timeout", f"no answer in time: {innermost(error)}", asked=asked) from error
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            said = "the connection broke" if response is not None else innermost(error)
            raise ApiError(UNANSWERED, "Broken", said, asked=asked) from error
        finally:
            if response is not None:
                response.close()  # returned to the pool by now if it was read to its end

    def _connected(self, asked: Target) -> Pool:
        with self._lock:
            if self._stop.is_set():
                raise ApiError(UNANSWERED, "Closed", "the connection was closed", asked=asked)
            if self._pool is None:
                self._pool = Pool(configuration(self.settings))
                self._read_at = time.monotonic()
            return self._pool

    def _renew(self) -> bool:
        """Forget credentials that are not accepted, so that they are read anew: they may have been rotated."""
        with self._lock:
            if self._pool is None:
                return True  # another thread did
            if time.monotonic() - self._read_at < RELOAD:
                return False
            self._pool = None
            return True

    def _patient(self, error: ApiError, deadline: float) -> bool:
        """Wait for as long as a busy API asks for, if that is before the deadline; False if it is not."""
        if error.status not in (429, 503) or error.retry_after is None:
            return False
        pause = max(error.retry_after, 0.1) * random.uniform(1.0, 1.2)  # noqa: S311 - no secret
        if time.monotonic() + pause >= deadline:
            return False
        return not self._stop.wait(pause)


def _lines(pieces: Iterator[bytes], asked: Target) -> Iterator[bytes]:
    kept: list[bytes] = []
    size = 0
    for piece in pieces:
        *whole, rest = piece.split(b"\n")
        for part in whole:
            yield b"".join((*kept, part))
            kept, size = [], 0
        size += len(rest)
        if size > MAX_EVENT:
            raise ApiError(UNANSWERED, "TooLarge", f"an event is larger than {MAX_EVENT} bytes", asked=asked)
        if rest:
            kept.append(rest)


def _event(line: bytes, asked: Target) -> tuple[str, Json]:
    try:
        told = json.loads(line)
        kind, found = told["type"], told["object"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ApiError(UNANSWERED, "Broken", "an event is no JSON", asked=asked) from error
    if not isinstance(kind, str) or not isinstance(found, dict):
        raise ApiError(UNANSWERED, "Broken", "an event is no object", asked=asked)
    return kind, found


def _refusal(status: int, headers: Mapping[str, str], content: bytes, asked: Target) -> ApiError:
    """The error for an answer other than a success: a Status object, or a page of something in between."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    after = headers.get("Retry-After") or ""
    seconds = float(after) if after.isascii() and after.isdigit() else None
    if isinstance(found, dict) and found.get("kind") == "Status":
        return _status(found, asked, status, seconds)
    return ApiError(status, "", content[:300].decode("utf-8", "replace"), seconds, asked=asked)


def _status(found: Json, asked: Target, status: int = 0, after: float | None = None) -> ApiError:
    details = found.get("details")
    code = found.get("code")
    return ApiError(
        status or (code if isinstance(code, int) else 500),
        str(found.get("reason") or ""),
        str(found.get("message") or ""),
        after,
        details if isinstance(details, dict) else None,
        asked,
    )


__all__ = ["APPLY", "JSON_PATCH", "MANAGER", "MERGE_PATCH", "Api", "ApiError", "Json", "translated"]

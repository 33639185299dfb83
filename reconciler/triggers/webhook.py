"""Webhooks: an authentic delivery becomes a hint for the environments that follow the pushed branch.

All that a delivery can ever cause is `inbox.request`. Its payload chooses environments and is then forgotten; nothing
in it, least of all a SHA, is used for what is done. The body is bounded before anything looks at it.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from reconciler.ports import Cause, Clock
from reconciler.redact import Redactor
from reconciler.settings import RepositorySettings, Settings
from reconciler.telemetry import Metrics, Quiet
from reconciler.triggers.webhook_forges import FORGES, Delivery, Forge, MalformedError, normalise, parse

BODY_LIMIT = 1024 * 1024
DISCARD_LIMIT = 26 * 1024 * 1024
"""What is too large is read to its end up to here (GitHub sends 25 MB at most), so that the sender gets to see the 413:
hanging up on one who is still sending would destroy the answer on its way."""
HELD_LIMIT = 32 * BODY_LIMIT
"""Bytes of all bodies being read at one time."""
DELIVERIES_KEPT = 4096
IGNORED_SHOWN = 100
SILENCE = 0.25
"""Seconds without a delivery that end a burst. What comes in a burst is passed on together, once it is over."""
LONGEST_BURST = 5.0
"""Seconds. What was held back in a burst that does not end is passed on as often as this."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Answer:
    """`result` is the metric's label."""

    status: int
    result: str
    body: Mapping[str, object] = field(default_factory=dict)


_SEEN = _Answer(200, "duplicate", {"matched": [], "ignored": ["already seen: this delivery was answered before"]})


@dataclass(slots=True)
class _Burst:
    """Deliveries for one repository close to each other, by the event loop's clock; `waiting`: held back since then."""

    last: float = float("-inf")
    since: float = 0.0
    waiting: set[str] = field(default_factory=set)


class _RefusedError(Exception):
    """The delivery is not looked at any further."""

    def __init__(self, status: int, result: str, error: str, remedy: str = "") -> None:
        super().__init__(error)
        self.answer = _Answer(status, result, {"error": error, "remedy": remedy} if remedy else {"error": error})


class Webhook:
    """The endpoint `/webhook/{repository}`.

    `settings` and `secret` (of a repository, empty when there is none) are asked at each delivery, so that a reload
    counts at once. `request` is `Inbox.request`. `body_seconds` is the deadline for the whole body, `silence` see
    SILENCE.
    """

    def __init__(
        self,
        *,
        settings: Callable[[], Settings],
        secret: Callable[[str], bytes],
        request: Callable[[str, Cause], None],
        clock: Clock,
        metrics: Metrics,
        redactor: Redactor,
        body_seconds: float = 10.0,
        silence: float = SILENCE,
    ) -> None:
        self._settings = settings
        self._secret = secret
        self._request = request
        self._clock = clock
        self._metrics = metrics
        self._redactor = redactor
        self._body_seconds = body_seconds
        self._silence = silence
        self._bursts: dict[str, _Burst] = {}
        self._quiet = Quiet(clock.monotonic)
        self._lock = threading.Lock()
        self._seen: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._held = 0

    async def respond(self, request: Request) -> Response:
        """Answer one delivery: 202 matched, 200 fine but nothing to do, 4xx the sender's fault, 503 not set up."""
        name = str(request.path_params["repository"])
        repository = self._settings().repositories.get(name)
        try:
            answer = await self._answer(request, repository)
        except _RefusedError as refused:
            answer = refused.answer
        label = name if repository is not None else "unknown"
        self._metrics.webhook_requests.labels(label, answer.result).inc()
        self._tell(label, answer)
        # Escaping everything beyond ASCII keeps even lone surrogates, which JSON can carry, from breaking the answer.
        body = json.dumps(self._redactor.data(answer.body)).encode("ascii")
        return Response(body, answer.status, media_type="application/json", headers=_headers(answer))

    async def _answer(self, request: Request, repository: RepositorySettings | None) -> _Answer:
        if repository is None:
            raise _RefusedError(404, "unknown", "not found")
        hook = repository.webhook
        secret = self._secret(repository.name) if hook else b""
        if hook is None or not secret.strip():
            raise _RefusedError(
                503, "closed", f"repository {repository.name} has no webhook secret", "set webhook.secretFile for it"
            )
        forge = FORGES[hook.forge]
        body = await self._body(request)
        headers = {key.lower(): value for key, value in request.headers.items()}
        if not forge.proves(headers, body, secret):
            raise _RefusedError(401, "unauthorized", "the delivery does not prove that it knows the webhook secret")
        try:
            return self._admit(repository, forge, headers, body)
        except MalformedError as error:
            raise _RefusedError(400, "malformed", str(error)) from error

    def _admit(self, repository: RepositorySettings, forge: Forge, headers: Mapping[str, str], body: bytes) -> _Answer:
        """Read an authentic delivery and drop its hints."""
        event = headers.get(forge.event_header, "")[:64] if forge.event_header else ""
        if forge.event_header and not event:
            raise MalformedError(f"the header {forge.event_header} is missing")
        identity = next((headers[name] for name in forge.delivery_headers if headers.get(name)), "")
        if self._already(repository.name, identity):
            return _SEEN
        payload = parse(body, headers.get("content-type", ""))
        if not forge.delivery_headers and isinstance(payload.get("id"), str):
            identity = payload["id"]
            if self._already(repository.name, identity):
                return _SEEN
        delivery = forge.read(event, payload)
        matched: list[str] = []
        if why := delivery.ignored or _elsewhere(repository, delivery):
            ignored = [why]
        else:
            matched, ignored = self._match(repository, delivery)
        self._remember(repository.name, identity)
        if matched:
            self._hint(repository.name, matched)
        result = "accepted" if matched else "ignored"
        return _Answer(202 if matched else 200, result, {"matched": matched, "ignored": ignored[:IGNORED_SHOWN]})

    def _hint(self, repository: str, matched: Iterable[str]) -> None:
        """Pass the first delivery after a silence on at once, so that nobody waits; the others of a burst together.

        Fetches are often quicker than a burst is long: without this, each would be followed by another one.
        """
        loop = asyncio.get_running_loop()
        burst = self._bursts.setdefault(repository, _Burst())
        silent = loop.time() - burst.last >= self._silence
        burst.last = loop.time()
        if silent and not burst.waiting:
            self._pass_on(repository, matched)
            return
        if not burst.waiting:
            burst.since = burst.last
            loop.call_later(self._silence, self._end, repository)
        burst.waiting.update(matched)

    def _end(self, repository: str) -> None:
        """Pass on what was held back, if the burst is over."""
        loop, burst = asyncio.get_running_loop(), self._bursts[repository]
        left = min(burst.last + self._silence, burst.since + LONGEST_BURST) - loop.time()
        if left > 0:
            loop.call_later(left, self._end, repository)
            return
        waiting, burst.waiting = burst.waiting, set()
        self._pass_on(repository, sorted(waiting))

    def _pass_on(self, repository: str, environments: Iterable[str]) -> None:
        cause = Cause(kind="webhook", at=self._clock.now(), detail=repository, git=True)
        for environment in environments:
            self._request(environment, cause)

    def _match(self, repository: RepositorySettings, delivery: Delivery) -> tuple[list[str], list[str]]:
        """The environments that follow a pushed ref, and why the others do not care."""
        matched, ignored = [], []
        moved = {change.ref for change in delivery.changes if not change.deleted}
        ignored += [f"{c.ref} was deleted: what runs stays" for c in delivery.changes if c.deleted][:IGNORED_SHOWN]
        for environment in self._settings().environments.values():
            if environment.repository != repository.name:
                continue
            if {environment.ref, f"refs/heads/{environment.ref}"} & moved:
                matched.append(environment.name)
            elif moved:
                ignored.append(f"{environment.name} follows {environment.ref}, not {', '.join(sorted(moved)[:5])}")
        return matched, ignored or ([] if matched else [f"no environment follows repository {repository.name}"])

    async def _body(self, request: Request) -> bytes:
        """The raw body, refused when it is declared or found to be beyond the limits."""
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and (len(declared) > 18 or int(declared) > DISCARD_LIMIT):
            raise _too_large()
        body = bytearray()
        size = 0
        try:
            async with asyncio.timeout(self._body_seconds):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > DISCARD_LIMIT:
                        raise _too_large()
                    if size > BODY_LIMIT:
                        continue
                    self._held += len(chunk)
                    body += chunk
                    if self._held > HELD_LIMIT:
                        raise _RefusedError(503, "busy", "too many deliveries at one time", "deliver again later")
        except TimeoutError as error:
            raise _RefusedError(408, "timeout", f"no whole body within {self._body_seconds:g} s") from error
        except ClientDisconnect as error:
            raise _RefusedError(400, "disconnected", "the sender went away") from error
        finally:
            self._held -= len(body)
        if size > BODY_LIMIT:
            raise _too_large()
        return bytes(body)

    def _already(self, repository: str, identity: str) -> bool:
        with self._lock:
            return (repository, identity[:128]) in self._seen

    def _remember(self, repository: str, identity: str) -> None:
        if identity:
            with self._lock:
                self._seen[repository, identity[:128]] = None
                if len(self._seen) > DELIVERIES_KEPT:
                    self._seen.popitem(last=False)

    def _tell(self, repository: str, answer: _Answer) -> None:
        if answer.result in ("accepted", "duplicate", "ignored"):
            _log.info("webhook", repository=repository, result=answer.result, **answer.body)
        elif (held := self._quiet.allows(f"{repository} {answer.result}")) is not None:
            _log.warning("webhook_refused", security=True, repository=repository, result=answer.result, held_back=held)


def _headers(answer: _Answer) -> dict[str, str]:
    # What is left of a refused body is not worth reading: the connection ends with the answer.
    return {"connection": "close"} if answer.result in ("too_large", "timeout", "busy", "disconnected") else {}


def _too_large() -> _RefusedError:
    return _RefusedError(413, "too_large", f"a delivery may have at most {BODY_LIMIT} bytes")


def _elsewhere(repository: RepositorySettings, delivery: Delivery) -> str:
    """Why the delivery speaks of another repository than the configured one; empty when it is the same."""
    mine = normalise(repository.url)
    theirs = {normalise(url) for url in delivery.urls} - {""}
    if mine in theirs or any(mine.endswith("/" + path) for path in delivery.paths):
        return ""
    named = ", ".join(sorted(theirs)[:5]) or "no URL"
    return f"repository {repository.name} is configured as {mine}, but the delivery names {named[:500]}"

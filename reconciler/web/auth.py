"""The guard in front of every route: who may ask, under which name, for how long. Denies by default.

Open without a token are the health endpoints and the webhooks (which prove themselves); everything else, routes that do
not exist included, asks for the token first. It must not know what the routes do.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
from pathlib import Path

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reconciler.core.errors import Reason, Stalled
from reconciler.telemetry import Quiet
from reconciler.web.house import WebHouse, problem

REQUEST_SECONDS = 30.0
SECRET_LIMIT = 4096
OPEN = frozenset({"/livez", "/readyz"})
WEBHOOKS = "/webhook/"

SECURITY_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}

_log = structlog.get_logger(__name__)


def read_secret(file: Path | None) -> bytes:
    """The secret in `file` without surrounding white space; empty when there is no file or nothing in it.

    Raises Stalled(SETTINGS_INVALID) when it cannot be read or is longer than SECRET_LIMIT bytes.
    """
    if file is None:
        return b""
    try:
        with file.open("rb") as opened:
            content = opened.read(SECRET_LIMIT + 1)
    except OSError as error:
        raise Stalled(
            Reason.SETTINGS_INVALID,
            f"cannot be read: {error.strerror}",
            where=str(file),
            remedy="Create it, readable for the user the daemon runs as, or take it out of the settings",
        ) from error
    if len(content) > SECRET_LIMIT:
        raise Stalled(
            Reason.SETTINGS_INVALID,
            f"is longer than {SECRET_LIMIT} bytes",
            where=str(file),
            remedy="Put only the secret into it",
        )
    return content.strip()


def is_loopback(host: str) -> bool:
    """Whether `host` (a name or address without port) can only mean this machine."""
    host = host.strip("[]").rstrip(".").lower()
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host_name(header: str) -> str:
    """The Host header without its port."""
    if header.startswith("["):
        return header.partition("]")[0]
    return header.rpartition(":")[0] if ":" in header else header


def token_matches(header: str, token: bytes) -> bool:
    """Whether `header` is `Bearer TOKEN`. Digests are compared, so that the time tells nothing, not even the length."""
    kind, _, given = header.partition(" ")
    # Latin-1 is how ASGI servers decode headers; encoding back gives the bytes that were sent.
    digest = hashlib.sha256(given.strip().encode("latin-1", "replace")).digest()
    same = hmac.compare_digest(digest, hashlib.sha256(token).digest())
    return kind.lower() == "bearer" and bool(token) and same


class Guard:
    """ASGI middleware. A refused request reaches no route."""

    def __init__(self, app: ASGIApp, house: WebHouse, request_seconds: float = REQUEST_SECONDS) -> None:
        self._app = app
        self._house = house
        self._request_seconds = request_seconds
        self._quiet = Quiet(house.clock.monotonic)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or hand on within the deadline."""
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        whole = not _declares_body(headers)

        async def watched() -> Message:
            nonlocal whole
            message = await receive()
            whole = whole or (message["type"] == "http.request" and not message.get("more_body", False))
            return message

        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                seal(MutableHeaders(scope=message))
                if not whole:
                    # Nobody wants the rest of the body: without this a client could go on sending it for ever.
                    MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        refusal = self._refusal(scope, headers)
        if refusal is not None:
            status, error, remedy, extra = refusal
            await problem(self._house, status, error, remedy, extra)(scope, watched, sealed)
            return
        async with asyncio.timeout(self._request_seconds):
            await self._app(scope, watched, sealed)

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str, str, dict[str, str]] | None:
        """Status, error, remedy and headers of the refusal, or None."""
        path = scope["path"]
        denial = self._denial(path, headers)
        if denial is None and scope.get("raw_path", path.encode()).partition(b"?")[0] != path.encode():
            # Nothing here needs an encoded path, and an encoded slash would make two paths lead to one place.
            return (404, "not found", "", {})
        return denial

    def _denial(self, path: str, headers: Headers) -> tuple[int, str, str, dict[str, str]] | None:
        local = is_loopback(self._house.settings().http.host)
        host = headers.get("host", "")
        if local and not path.startswith(WEBHOOKS) and not is_loopback(_host_name(host)):
            # A page that rebinds its own name to 127.0.0.1 sends that name here.
            self._tell("host", path)
            return (421, "this name is not served here", "ask for 127.0.0.1 or localhost, or set http.host", {})
        if path in OPEN or path.startswith(WEBHOOKS):
            return None
        token = self._house.token()
        if not token:
            if path == "/metrics" and local:
                return None
            return (503, "no token is configured, so this is closed", "set http.tokenFile in the settings", {})
        if token_matches(headers.get("authorization", ""), token):
            return None
        self._tell("token", path)
        error = "the token is wrong" if "authorization" in headers else "a token is needed"
        remedy = "send the token of http.tokenFile in the header Authorization, after the word Bearer"
        return (401, error, remedy, {"www-authenticate": "Bearer"})

    def _tell(self, kind: str, path: str) -> None:
        if (held := self._quiet.allows(kind)) is not None:
            _log.warning("api_refused", security=True, because=kind, path=path[:200], held_back=held)


def seal(headers: MutableHeaders) -> None:
    """Add the security headers that are not set yet."""
    for name, value in SECURITY_HEADERS.items():
        headers.setdefault(name, value)


def _declares_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"

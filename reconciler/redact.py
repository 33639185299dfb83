"""The redactor: the one place that keeps secrets out of logs, records, API answers and exceptions.

It knows secret values it was told and the shapes secrets come in. It must not log, and it never raises on any input.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any
from urllib.parse import quote

JsonValue = dict[str, Any] | list[Any] | str | int | float | bool | None

HIDDEN = "[redacted]"
SHORTEST_SECRET = 4
DEEPEST = 32
TEXT_LIMIT = 8192
ITEMS_LIMIT = 100

_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # Each repetition is bounded, so that hostile text costs time in proportion to its length.
    (
        re.compile(
            r"-----BEGIN ([A-Z0-9 ]{0,40}PRIVATE KEY)-----(?:(?!-----END).){0,20000}(?:-----END \1-----)?", re.DOTALL
        ),
        HIDDEN,
    ),
    (re.compile(r"(?<![a-z0-9+.-])([a-z][a-z0-9+.-]{0,20}://)[^\s/@'\"<>]{1,2000}@", re.IGNORECASE), rf"\1{HIDDEN}@"),
    (
        re.compile(
            r"((?:proxy-)?authorization['\"]?\s{0,5}[:=]\s{0,5}(?:b?['\"])?)"
            r"(?:(?:basic|bearer|token|digest)\s{1,5})?[^\s'\",;]{1,8000}",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"\b(bearer|basic)\s{1,5}[a-z0-9+/=._~-]{8,8000}", re.IGNORECASE), rf"\1 {HIDDEN}"),
)
_SECRET_NAMES = re.compile(
    r"(?:^|[._-])(?:password|passwd|passphrase|token|secret|authorization|private[_-]?key|api[_-]?key|cookie)$",
    re.IGNORECASE,
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def _forms(value: str) -> Iterable[str]:
    """The ways in which a secret turns up: itself, each long line of it, in a URL, in a JSON text, in base64."""
    stripped = value.strip()
    yield stripped
    yield quote(stripped, safe="")
    yield json.dumps(stripped)[1:-1]
    yield json.dumps(stripped, ensure_ascii=False)[1:-1]
    yield base64.b64encode(stripped.encode("utf-8", "replace")).decode("ascii")
    lines = stripped.splitlines()
    if len(lines) > 1:
        yield from (line.strip() for line in lines if len(line.strip()) >= 16)


class Redactor:
    """Shared by all threads. Knows secrets by value (of at least SHORTEST_SECRET characters) and by shape."""

    def __init__(self, secrets: Iterable[str | bytes] = ()) -> None:
        self._lock = threading.Lock()
        self._known: frozenset[str] = frozenset()
        self._values: re.Pattern[str] | None = None
        self.add(*secrets)

    def add(self, *secrets: str | bytes) -> None:
        """Hide these values from now on. Too short ones are left out: hiding them would make everything unreadable."""
        found: set[str] = set()
        for secret in secrets:
            text = secret.decode("utf-8", "replace") if isinstance(secret, bytes) else secret
            if len(text.strip()) >= SHORTEST_SECRET:
                found.update(form for form in _forms(text) if len(form) >= SHORTEST_SECRET)
        with self._lock:
            if found <= self._known:
                return
            self._known = self._known | found
            # The longest first: a secret that contains another one must vanish whole.
            ordered = sorted(self._known, key=lambda form: (-len(form), form))
            self._values = re.compile("|".join(re.escape(form) for form in ordered))

    def text(self, text: str) -> str:
        """`text` without secrets."""
        if self._values is not None:
            text = self._values.sub(HIDDEN, text)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        return text

    def data(self, value: object) -> JsonValue:
        """JSON-like `value` without secrets, in keys and values. Other types become their redacted `str`."""
        return self._walk(value, 0, bounded=False)

    def exception(self, error: BaseException) -> str:
        """One line about `error`: its class and its message, without secrets, bounded."""
        return self._short(f"{type(error).__name__}: {error}")

    def __call__(self, logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:  # noqa: ARG002 (structlog's signature)
        """A structlog processor: the event without secrets or control characters, each field bounded."""
        return {self._short(str(key)): self._field(str(key), value) for key, value in event.items()}

    def _field(self, key: str, value: object) -> JsonValue:
        if isinstance(value, str | bytes) and value and _SECRET_NAMES.search(key):
            return HIDDEN
        return self._walk(value, 0, bounded=True)

    def _short(self, text: str) -> str:
        # Cut with room to spare before the patterns run, so that a secret across the end is still recognised.
        found = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", self.text(text[: 4 * TEXT_LIMIT]))
        return found if len(found) <= TEXT_LIMIT else f"{found[:TEXT_LIMIT]}… ({len(text)} characters)"

    def _walk(self, value: object, depth: int, *, bounded: bool) -> JsonValue:
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, str):
            return self._short(str(value)) if bounded else self.text(str(value))
        if depth >= DEEPEST:
            return "…"
        if isinstance(value, Mapping):
            pairs = list(value.items())[:ITEMS_LIMIT] if bounded else value.items()
            return {self.text(str(key)): self._walk(item, depth + 1, bounded=bounded) for key, item in pairs}
        if isinstance(value, list | tuple | set | frozenset):
            items = list(value)[:ITEMS_LIMIT] if bounded else value
            return [self._walk(item, depth + 1, bounded=bounded) for item in items]
        try:
            shown = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        except Exception as error:  # noqa: BLE001 (a broken __str__ must not stop what wants to leave)
            shown = f"<{type(value).__name__}: {type(error).__name__}>"
        return self._short(shown) if bounded else self.text(shown)

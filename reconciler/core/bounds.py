"""An entry that fits into a record. What is too long is cut, and the record says so: a record that is refused for its
length would stop the service, or the environment, that it is about.

It must not change what is short enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from reconciler.core.audit import ENTRY_BYTES
from reconciler.core.record import Entry

LIMITS = (8_000, 2_000, 500, 100, 20)
"""Characters of a text and items of a list, tried one after the other."""
WIDEST = 6
"""Bytes that one character takes in a record at most: a control character as an escape."""
_FRAME = 4_096


def fitted(entry: Entry) -> Entry:
    """The entry, with texts and lists of it cut as far as a record's limit of bytes asks for."""
    if _size(entry) <= ENTRY_BYTES:
        return entry
    short = entry
    for limit in LIMITS:
        short = replace(
            entry,
            author=_cut(entry.author, 500),
            committer=_cut(entry.committer, 500),
            reason=_cut(entry.reason, 2_000),
            details={key: _shortened(value, limit) for key, value in entry.details.items()} | {"cutAt": limit},
        )
        if _size(short) <= ENTRY_BYTES:
            break
    return short


def _size(entry: Entry) -> int:
    """A bound on the bytes of its record: what is not counted in detail fits into the frame."""
    texts = (entry.author, entry.committer, entry.reason, entry.trigger)
    return _FRAME + sum(map(_bytes, texts)) + _bytes(entry.details)


def _bytes(value: object) -> int:
    match value:
        case str():
            plain = value.isascii() and value.isprintable()
            return (2 * len(value) if plain else WIDEST * len(value)) + 3
        case Mapping():
            return 2 + sum(_bytes(key) + _bytes(item) for key, item in value.items())
        case list() | tuple():
            return 2 + sum(_bytes(item) + 1 for item in value)
        case _:
            return 24


def _shortened(value: Any, limit: int) -> Any:  # noqa: ANN401 - any JSON value
    match value:
        case str():
            return _cut(value, limit)
        case list() | tuple():
            return [_shortened(item, limit) for item in value[:limit]]
        case _:
            return value


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"

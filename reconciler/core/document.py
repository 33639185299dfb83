"""YAML bytes to a plain value and the place of everything in it. No files, no schema, no meaning.

YAML is read as the part of it that cannot surprise (`yaml_reader.py`), one document to a file. A scalar that versions
of YAML read differently must be quoted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import yaml

from reconciler.core.words import shown
from reconciler.core.yaml_reader import Caps, Flaw, Path, Reader, UnreadableError, Value, place

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
MAX_ENTRIES = 10_000
MAX_FLAWS = 100

_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]{0,14})")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]{0,14})\.[0-9]{1,15}")
_NUMBER_ELSEWHERE = re.compile(r"0o[0-7]+|[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+")
_MEANINGS = {"bool": "true or false", "timestamp": "a date", "null": "empty", "merge": "a merge", "value": "a default"}
_CONSTANTS: Mapping[str, bool | None] = {"true": True, "false": False, "null": None, "~": None, "": None}


class Mark(NamedTuple):
    """Where a value stands, and its key (the value itself in a list); `plain` is an unquoted scalar as written."""

    line: int
    column: int
    key_line: int
    key_column: int
    plain: str | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file. `readable` is False where the value is not all of it: then only the flaws count."""

    value: Value
    marks: Mapping[Path, Mark]
    flaws: tuple[Flaw, ...] = ()
    readable: bool = True


def read(data: bytes) -> Document:
    """Parse one file. Never raises: everything wrong with it is in `flaws`."""
    if len(data) > MAX_BYTES:
        return unreadable(Flaw(1, 1, f"the file has {len(data)} bytes, more than the {MAX_BYTES} allowed; split it"))
    reader = _Reader(data, Caps(MAX_ENTRIES, MAX_DEPTH, MAX_FLAWS))
    try:
        value = reader.document()
    except UnreadableError as error:
        return unreadable(*reader.flaws, error.flaw)
    return Document(value, reader.marks, tuple(reader.flaws))


def unreadable(*flaws: Flaw) -> Document:
    """A document of which nothing but its flaws is known."""
    return Document(None, {(): Mark(1, 1, 1, 1)}, flaws, readable=False)


class _Reader(Reader[Mark]):
    for_alias = "write the value out, or share it with extends"
    for_anchor = "share values with extends"
    for_merge = "share values with extends"

    def document(self) -> Value:
        next(self.events)  # the start of the stream
        event = next(self.events)
        if isinstance(event, yaml.StreamEndEvent):
            self.marks[()] = Mark(1, 1, 1, 1)
            self.flaw(event, "the file is empty; write a manifest or delete it")
            return None
        value = self.node(next(self.events), ())
        next(self.events)  # the end of the document
        event = next(self.events)
        if not isinstance(event, yaml.StreamEndEvent):
            self.flaw(event, "one file holds one document; move what follows --- into a file of its own")
        return value

    def mark(self, event: yaml.Event, path: Path, key: yaml.Event | None) -> None:
        plain = event.value if isinstance(event, yaml.ScalarEvent) and event.implicit[0] else None
        self.marks[path] = Mark(*place(event), *place(key or event), plain)

    def first(self, path: Path) -> str:
        return f", first in line {self.marks[path].key_line}"

    def plain(self, event: yaml.ScalarEvent, text: str) -> Value:
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        if _WHOLE.fullmatch(text):
            return int(text)
        if _DECIMAL.fullmatch(text):
            return float(text)
        meaning = _other_meaning(text)
        if text.lower() in ("true", "false"):
            self.flaw(event, f"write {text.lower()} for the truth value, or quote it if it is text: {shown(text)}")
        elif meaning:
            self.flaw(event, f"value {shown(text, quote=False)} is {meaning} here; quote it: {shown(text)}")
        return text


def _other_meaning(text: str) -> str:
    """What some version of YAML makes of an unquoted scalar that is plain text here; empty when all agree on text."""
    if _NUMBER_ELSEWHERE.fullmatch(text):
        return "a number"
    resolvers: Mapping[str, list[tuple[str, re.Pattern[str]]]] = yaml.SafeLoader.yaml_implicit_resolvers
    for tag, pattern in resolvers.get(text[0], ()):
        if pattern.match(text):
            return _MEANINGS.get(tag.rpartition(":")[2], "a number")
    return ""

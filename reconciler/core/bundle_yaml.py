"""Kubernetes YAML (or JSON) to plain values and their places: many documents, read as `kubectl` reads them.

Other than in files of our own (`core/document.py`), scalars are what kubectl makes of them: `0644` is an octal number,
a date is text. Refused is what readers of YAML disagree on (`yes`, `1_000`), what JSON cannot hold, and anchors,
aliases, tags, merge keys and duplicate keys. The caps act on the parser's events, before anything is built.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from reconciler.core.document import Flaw, Path, Value
from reconciler.core.words import shown

MAX_DEPTH = 100
MAX_ENTRIES = 400_000
MAX_DOCUMENTS = 5_000
MAX_FLAWS = 20
MARKED = 5
"""Down to how many levels of a document places are kept: `items`, a number, `metadata`, `labels`, a name."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_UNREADABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ufffd\U00010000-\U0010ffff]")
_UNUSABLE = re.compile("[\x00\ud800-\udfff]")
_CONSTANTS: Mapping[str, bool | None] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("null", "Null", "NULL", "~", "")),
}
_BASES = (
    (10, re.compile(r"[-+]?(?:0|[1-9][0-9]{0,99})")),
    (8, re.compile(r"[-+]?0o?[0-7]{1,20}")),
    (16, re.compile(r"[-+]?0x[0-9a-fA-F]{1,16}")),
)
_DECIMAL = re.compile(r"[-+]?(?:[0-9]{1,30}\.[0-9]{0,30}|\.[0-9]{1,30}|[0-9]{1,30}(?=[eE]))(?:[eE][-+]?[0-9]{1,3})?")
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off"})
_STRANGE_NUMBER = re.compile(
    r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?|0[bBoOxX][0-9a-fA-F_]+|\.(?i:inf|nan))", re.ASCII
)
_EXACT = 2**53


@dataclass(frozen=True, slots=True)
class Part:
    """One document of a file: its value, and line and column (from 1) of what stands in its upper levels."""

    value: Value
    marks: Mapping[Path, tuple[int, int]]

    def place(self, path: Path) -> tuple[int, int]:
        """Where what is at `path` stands, or what is nearest above it."""
        while path not in self.marks:
            path = path[:-1]
        return self.marks[path]


def read(data: bytes) -> tuple[tuple[Part, ...], tuple[Flaw, ...]]:
    """All documents of a file that are not empty, and everything wrong with it. Never raises."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return (), (Flaw(data.count(b"\n", 0, error.start) + 1, 1, "the file is not UTF-8; save it as UTF-8"),)
    strange = _UNREADABLE.search(text)
    if strange is not None:
        line = text.count("\n", 0, strange.start()) + 1
        return (), (Flaw(line, 1, f"character U+{ord(strange[0]):04X} is not allowed; remove it"),)
    reader = _Reader(yaml.parse(text, Loader=_LOADER))
    parts: list[Part] = []
    try:
        parts.extend(Part(value, reader.marks) for value in reader.documents() if value is not None)
    except _TooMuchError as error:
        reader.flaws.append(error.flaw)
    except yaml.YAMLError as error:
        reader.flaws.append(_syntax(error))
    return tuple(parts), tuple(reader.flaws)


def _syntax(error: yaml.YAMLError) -> Flaw:
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or "it cannot be parsed"
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    return Flaw(line, column, f"this is not YAML: {what}; look at the indentation and quotes here and just above")


class _TooMuchError(Exception):
    """A cap was reached: reading stops here."""

    def __init__(self, flaw: Flaw) -> None:
        self.flaw = flaw
        super().__init__(flaw.message)


@dataclass
class _Reader:
    """Builds values out of parser events. `flaws` grow on the way, `marks` are those of the document in hand."""

    events: Iterator[yaml.Event]
    marks: dict[Path, tuple[int, int]] = field(default_factory=dict)
    flaws: list[Flaw] = field(default_factory=list)
    entries: int = 0

    def documents(self) -> Iterator[Value]:
        """The value of each document."""
        count = 0
        for event in self.events:
            if not isinstance(event, yaml.DocumentStartEvent):
                continue
            count += 1
            if count > MAX_DOCUMENTS:
                raise _TooMuchError(Flaw(*_place(event), f"the file has more than {MAX_DOCUMENTS} documents; split it"))
            self.marks = {}
            yield self._node(next(self.events), ())

    def _flaw(self, event: yaml.Event, message: str) -> None:
        flaw = Flaw(*_place(event), message)
        if len(self.flaws) >= MAX_FLAWS:
            raise _TooMuchError(flaw._replace(message="there are more errors; correct those above first"))
        self.flaws.append(flaw)

    def _node(self, event: yaml.Event, path: Path) -> Value:
        """The value that begins with `event`."""
        self.entries += 1
        if self.entries > MAX_ENTRIES or len(path) > MAX_DEPTH:
            limit = f"more than {MAX_ENTRIES} entries" if self.entries > MAX_ENTRIES else f"over {MAX_DEPTH} levels"
            raise _TooMuchError(Flaw(*_place(event), f"the file has {limit}; make it smaller"))
        if len(path) <= MARKED:
            self.marks[path] = _place(event)
        if isinstance(event, yaml.AliasEvent):
            self._flaw(event, f"alias *{event.anchor} is not allowed; write the value out")
            return None
        assert isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent)
        self._bare(event)
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        return self._sequence(path) if isinstance(event, yaml.SequenceStartEvent) else self._mapping(path)

    def _bare(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> None:
        """Anchors and tags are refused wherever they stand."""
        if event.anchor is not None:
            self._flaw(event, f"anchor &{event.anchor} is not allowed; write the value out where it is used")
        if event.tag is not None:
            self._flaw(event, f"tag {shown(event.tag)} is not allowed; remove it, and quote the value if it is text")

    def _scalar(self, event: yaml.ScalarEvent) -> Value:
        text: str = event.value
        if _UNUSABLE.search(text):
            self._flaw(event, "the value contains a character that is not text; remove the escape")
            return ""
        if not event.implicit[0]:
            return text
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        found = number(text)
        if found is None:
            unlike = _elsewhere(text)
            if unlike:
                self._flaw(
                    event,
                    f"not every reader takes {shown(text, quote=False)} for {unlike}; quote it, or "
                    "write it as JSON has it",
                )
            return text
        if (isinstance(found, int) and abs(found) >= _EXACT) or math.isinf(found):
            self._flaw(event, f"number {shown(text, quote=False)} is too large for JSON; quote it if it is text")
        return found

    def _sequence(self, path: Path) -> list[Any]:
        found: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            found.append(self._node(event, (*path, len(found))))
        return found

    def _mapping(self, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not isinstance(key := next(self.events), yaml.MappingEndEvent):
            name = self._key(key, path, found)
            value = self._node(next(self.events), (*path, name))
            found[name] = value
            if len(path) < MARKED:
                self.marks[*path, name] = _place(key)
        return found

    def _key(self, event: yaml.Event, path: Path, found: Mapping[str, Any]) -> str:
        """The name of a key. One that is refused gets a name all the same: the file is not used then."""
        if not isinstance(event, yaml.ScalarEvent):
            self._flaw(event, "a key must be plain text")
            self._node(event, (*path, ""))
            return ""
        self._bare(event)
        name: str = event.value
        if not name or _UNUSABLE.search(name):
            self._flaw(event, "a key must be text; write a name before the colon")
        elif name == "<<" and event.implicit[0]:
            self._flaw(event, "merge keys (<<) are not allowed; write the values out")
        elif name in found:
            self._flaw(event, f"duplicate key {shown(name)}; remove one of the two")
        return name


def number(text: str) -> int | float | None:
    """The number that an unquoted scalar is; None when it is text, or when readers of YAML disagree."""
    for base, pattern in _BASES:
        if pattern.fullmatch(text):
            return int(text.replace("o", "", 1) if base == 8 else text, base)
    return float(text) if _DECIMAL.fullmatch(text) else None


def _elsewhere(text: str) -> str:
    """What some reader of YAML, but not every one, makes of unquoted text; empty when it is text (or a date) to all."""
    if text.lower() in _WORDS:
        return "a truth value"
    return "a number" if _STRANGE_NUMBER.fullmatch(text) else ""


def _place(event: yaml.Event) -> tuple[int, int]:
    """Line and column where an event begins, from 1."""
    mark = event.start_mark
    assert mark is not None
    return mark.line + 1, mark.column + 1

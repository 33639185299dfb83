"""YAML bytes to a plain value and the place of everything in it. No files, no schema, no meaning.

YAML is read as the part of it that cannot surprise: one document of mappings, lists and scalars, without anchors,
aliases, tags, merge keys or duplicate keys. A scalar that versions of YAML read differently must be quoted.
The events are taken from the parser one by one, so that the caps act before anything is built: PyYAML's C composer
recurses on its own stack and dies on 50,000 open brackets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml

from reconciler.core.words import shown

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
MAX_ENTRIES = 10_000
MAX_FLAWS = 100

Path = tuple[str | int, ...]
Value = Any
"""A plain value: a mapping with text keys, a list, text, a number, a truth value or None."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_UNREADABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ufffd\U00010000-\U0010ffff]")
_UNUSABLE = re.compile("[\x00\ud800-\udfff]")
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


class Flaw(NamedTuple):
    """One error in a document, apart from the name of the file, with its place (1-based)."""

    line: int
    column: int
    message: str


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
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        return unreadable(Flaw(line, column, "the file is not UTF-8; save it as UTF-8"))
    strange = _UNREADABLE.search(text.removeprefix("\ufeff"))
    if strange is not None:
        line = strange.string.count("\n", 0, strange.start()) + 1
        column = strange.start() - strange.string.rfind("\n", 0, strange.start())
        return unreadable(Flaw(line, column, f"character U+{ord(strange[0]):04X} is not allowed; remove it"))
    reader = _Reader(yaml.parse(text, Loader=_LOADER))
    try:
        value = reader.document()
    except _TooMuchError as error:
        return unreadable(*reader.flaws, error.flaw)
    except yaml.YAMLError as error:
        return unreadable(*reader.flaws, _syntax(error))
    return Document(value, reader.marks, tuple(reader.flaws))


def unreadable(*flaws: Flaw) -> Document:
    """A document of which nothing but its flaws is known."""
    return Document(None, {(): Mark(1, 1, 1, 1)}, flaws, readable=False)


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
    """Builds a value out of parser events. `marks` and `flaws` grow on the way."""

    events: Iterator[yaml.Event]
    marks: dict[Path, Mark] = field(default_factory=dict)
    flaws: list[Flaw] = field(default_factory=list)
    entries: int = 0

    def document(self) -> Value:
        next(self.events)  # the start of the stream
        event = next(self.events)
        if isinstance(event, yaml.StreamEndEvent):
            self.marks[()] = Mark(1, 1, 1, 1)
            self._flaw(event, "the file is empty; write a manifest or delete it")
            return None
        value = self._node(next(self.events), (), None)
        next(self.events)  # the end of the document
        event = next(self.events)
        if not isinstance(event, yaml.StreamEndEvent):
            self._flaw(event, "one file holds one document; move what follows --- into a file of its own")
        return value

    def _flaw(self, event: yaml.Event, message: str) -> None:
        flaw = Flaw(*_place(event), message)
        self.flaws.append(flaw)
        if len(self.flaws) >= MAX_FLAWS:
            raise _TooMuchError(flaw._replace(message="there are more errors; correct those above first"))

    def _node(self, event: yaml.Event, path: Path, key: yaml.Event | None) -> Value:
        """The value that begins with `event`, which stands at `path` and belongs to `key`."""
        self.entries += 1
        if self.entries > MAX_ENTRIES or len(path) > MAX_DEPTH:
            limit = f"more than {MAX_ENTRIES} entries" if self.entries > MAX_ENTRIES else f"over {MAX_DEPTH} levels"
            raise _TooMuchError(Flaw(*_place(event), f"the file has {limit}; make it smaller"))
        plain = event.value if isinstance(event, yaml.ScalarEvent) and event.implicit[0] else None
        self.marks[path] = Mark(*_place(event), *_place(key or event), plain)
        if isinstance(event, yaml.AliasEvent):
            self._flaw(event, f"alias *{event.anchor} is not allowed; write the value out, or share it with extends")
            return None
        assert isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent)
        self._bare(event)
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        return self._sequence(path) if isinstance(event, yaml.SequenceStartEvent) else self._mapping(path)

    def _bare(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> None:
        """Anchors and tags are refused wherever they stand."""
        if event.anchor is not None:
            self._flaw(event, f"anchor &{event.anchor} is not allowed; share values with extends")
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
        if _WHOLE.fullmatch(text):
            return int(text)
        if _DECIMAL.fullmatch(text):
            return float(text)
        meaning = _other_meaning(text)
        if text.lower() in ("true", "false"):
            self._flaw(event, f"write {text.lower()} for the truth value, or quote it if it is text: {shown(text)}")
        elif meaning:
            self._flaw(event, f"value {shown(text, quote=False)} is {meaning} here; quote it: {shown(text)}")
        return text

    def _sequence(self, path: Path) -> list[Any]:
        found: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            found.append(self._node(event, (*path, len(found)), None))
        return found

    def _mapping(self, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not isinstance(key := next(self.events), yaml.MappingEndEvent):
            name = self._key(key, path, found)
            if name is None:
                self._skip(next(self.events), path)
            else:
                found[name] = self._node(next(self.events), (*path, name), key)
        return found

    def _skip(self, event: yaml.Event, path: Path) -> None:
        """Read a value that has no place in the result, for the flaws in it."""
        kept, self.marks = self.marks, {}
        self._node(event, (*path, 0), None)
        self.marks = kept

    def _key(self, event: yaml.Event, path: Path, found: Mapping[str, Any]) -> str | None:
        """The name of a key, or None where it is refused."""
        if not isinstance(event, yaml.ScalarEvent):
            self._flaw(event, "a key must be plain text")
            self._skip(event, path)
            return None
        self._bare(event)
        name: str = event.value
        if not name or _UNUSABLE.search(name):
            self._flaw(event, "a key must be text; write a name before the colon")
        elif name == "<<" and event.implicit[0]:
            self._flaw(event, "merge keys (<<) are not allowed; share values with extends")
        elif name in found:
            first = self.marks[(*path, name)].key_line
            self._flaw(event, f"duplicate key {shown(name)}, first in line {first}; remove one of the two")
        else:
            return name
        return None


def _place(event: yaml.Event) -> tuple[int, int]:
    """Line and column where an event begins, from 1."""
    mark = event.start_mark
    assert mark is not None
    return mark.line + 1, mark.column + 1


def _other_meaning(text: str) -> str:
    """What some version of YAML makes of an unquoted scalar that is plain text here; empty when all agree on text."""
    if _NUMBER_ELSEWHERE.fullmatch(text):
        return "a number"
    resolvers: Mapping[str, list[tuple[str, re.Pattern[str]]]] = yaml.SafeLoader.yaml_implicit_resolvers
    for tag, pattern in resolvers.get(text[0], ()):
        if pattern.match(text):
            return _MEANINGS.get(tag.rpartition(":")[2], "a number")
    return ""

"""YAML events to plain values: what files of our own (`document.py`) and bundles (`bundle_yaml.py`) have in common.

Refused are anchors, aliases, tags, merge keys and duplicate keys. The events are taken from the parser one by one, so
that the caps act before anything is built: PyYAML's C composer recurses on its own stack and dies on 50,000 open
brackets. What an unquoted scalar means is said by each reader. No files, no schema, no meaning.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

import yaml

from reconciler.core.words import shown

Path = tuple[str | int, ...]
Value = Any
"""A plain value: a mapping with text keys, a list, text, a number, a truth value or None."""
M = TypeVar("M")
"""What is kept of a place."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_UNREADABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ufffd\U00010000-\U0010ffff]")
_UNUSABLE = re.compile("[\x00\ud800-\udfff]")


class Flaw(NamedTuple):
    """One error in a document, apart from the name of the file, with its place (1-based)."""

    line: int
    column: int
    message: str


class Caps(NamedTuple):
    """How much is read: entries of all documents together, levels, and flaws until reading stops."""

    entries: int
    depth: int
    flaws: int


class UnreadableError(Exception):
    """Reading stops here: what follows cannot be read, or is too much."""

    def __init__(self, flaw: Flaw) -> None:
        self.flaw = flaw
        super().__init__(flaw.message)


class Reader(ABC, Generic[M]):
    """Builds values out of parser events. `marks` and `flaws` grow on the way. Any step may raise UnreadableError."""

    for_alias: str
    for_anchor: str
    for_merge: str
    """What is to be written instead."""

    def __init__(self, data: bytes, caps: Caps) -> None:
        self.events = _events(data)
        self.caps = caps
        self.marks: dict[Path, M] = {}
        self.flaws: list[Flaw] = []
        self._entries = 0

    @abstractmethod
    def mark(self, event: yaml.Event, path: Path, key: yaml.Event | None) -> None:
        """Keep where the value at `path` stands, which belongs to `key`."""

    @abstractmethod
    def plain(self, event: yaml.ScalarEvent, text: str) -> Value:
        """What an unquoted scalar is."""

    def first(self, _path: Path) -> str:
        """Words for where a key stands already."""
        return ""

    def flaw(self, event: yaml.Event, message: str) -> None:
        """Tell an error, and go on reading."""
        flaw = Flaw(*place(event), message)
        if len(self.flaws) >= self.caps.flaws:
            raise UnreadableError(flaw._replace(message="there are more errors; correct those above first"))
        self.flaws.append(flaw)

    def node(self, event: yaml.Event, path: Path, key: yaml.Event | None = None) -> Value:
        """The value that begins with `event`, which stands at `path` and belongs to `key`."""
        self._entries += 1
        if self._entries > self.caps.entries or len(path) > self.caps.depth:
            many = self._entries > self.caps.entries
            limit = f"more than {self.caps.entries} entries" if many else f"over {self.caps.depth} levels"
            raise UnreadableError(Flaw(*place(event), f"the file has {limit}; make it smaller"))
        self.mark(event, path, key)
        if isinstance(event, yaml.AliasEvent):
            self.flaw(event, f"alias *{event.anchor} is not allowed; {self.for_alias}")
            return None
        assert isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent)
        self._bare(event)
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        return self._sequence(path) if isinstance(event, yaml.SequenceStartEvent) else self._mapping(path)

    def _bare(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> None:
        """Anchors and tags are refused wherever they stand."""
        if event.anchor is not None:
            self.flaw(event, f"anchor &{event.anchor} is not allowed; {self.for_anchor}")
        if event.tag is not None:
            self.flaw(event, f"tag {shown(event.tag)} is not allowed; remove it, and quote the value if it is text")

    def _scalar(self, event: yaml.ScalarEvent) -> Value:
        text: str = event.value
        if _UNUSABLE.search(text):
            self.flaw(event, "the value contains a character that is not text; remove the escape")
            return ""
        return self.plain(event, text) if event.implicit[0] else text

    def _sequence(self, path: Path) -> list[Any]:
        found: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            found.append(self.node(event, (*path, len(found))))
        return found

    def _mapping(self, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not isinstance(key := next(self.events), yaml.MappingEndEvent):
            name = self._key(key, path, found)
            if name is None:
                self._skip(next(self.events), path)
            else:
                found[name] = self.node(next(self.events), (*path, name), key)
        return found

    def _skip(self, event: yaml.Event, path: Path) -> None:
        """Read a value that has no place in the result, for the flaws in it."""
        kept, self.marks = self.marks, {}
        self.node(event, (*path, 0))
        self.marks = kept

    def _key(self, event: yaml.Event, path: Path, found: Mapping[str, Any]) -> str | None:
        """The name of a key, or None where it is refused."""
        if not isinstance(event, yaml.ScalarEvent):
            self.flaw(event, "a key must be plain text")
            self._skip(event, path)
            return None
        self._bare(event)
        name: str = event.value
        if not name or _UNUSABLE.search(name):
            self.flaw(event, "a key must be text; write a name before the colon")
        elif name == "<<" and event.implicit[0]:
            self.flaw(event, f"merge keys (<<) are not allowed; {self.for_merge}")
        elif name in found:
            self.flaw(event, f"duplicate key {shown(name)}{self.first((*path, name))}; remove one of the two")
        else:
            return name
        return None


def place(event: yaml.Event) -> tuple[int, int]:
    """Line and column where an event begins, from 1."""
    mark = event.start_mark
    assert mark is not None
    return mark.line + 1, mark.column + 1


def _events(data: bytes) -> Iterator[yaml.Event]:
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise UnreadableError(Flaw(line, column, "the file is not UTF-8; save it as UTF-8")) from error
    strange = _UNREADABLE.search(text)
    if strange is not None:
        line = text.count("\n", 0, strange.start()) + 1
        column = strange.start() - text.rfind("\n", 0, strange.start())
        raise UnreadableError(Flaw(line, column, f"character U+{ord(strange[0]):04X} is not allowed; remove it"))
    try:
        yield from yaml.parse(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or "it cannot be parsed"
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        remedy = "look at the indentation and quotes here and just above"
        raise UnreadableError(Flaw(line, column, f"this is not YAML: {what}; {remedy}")) from error

"""Kubernetes YAML (or JSON) to plain values and their places: many documents, read as `kubectl` reads them.

Other than in files of our own (`core/document.py`), scalars are what kubectl makes of them: `0644` is an octal number,
a date is text. Refused is what readers of YAML disagree on (`yes`, `1_000`), what JSON cannot hold, and what
`core/yaml_reader.py` refuses.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import yaml

from reconciler.core.words import shown
from reconciler.core.yaml_reader import Caps, Flaw, Path, Reader, UnreadableError, Value, place

MAX_DEPTH = 100
MAX_ENTRIES = 400_000
MAX_DOCUMENTS = 5_000
MAX_FLAWS = 20
MARKED = 5
"""Down to how many levels of a document places are kept: `items`, a number, `metadata`, `labels`, a name."""

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
    reader = _Reader(data, Caps(MAX_ENTRIES, MAX_DEPTH, MAX_FLAWS))
    parts: list[Part] = []
    try:
        parts.extend(Part(value, reader.marks) for value in reader.documents() if value is not None)
    except UnreadableError as error:
        reader.flaws.append(error.flaw)
    return tuple(parts), tuple(reader.flaws)


class _Reader(Reader[tuple[int, int]]):
    """`marks` are those of the document in hand."""

    for_alias = "write the value out"
    for_anchor = "write the value out where it is used"
    for_merge = "write the values out"

    def documents(self) -> Iterator[Value]:
        """The value of each document."""
        count = 0
        for event in self.events:
            if not isinstance(event, yaml.DocumentStartEvent):
                continue
            count += 1
            if count > MAX_DOCUMENTS:
                said = f"the file has more than {MAX_DOCUMENTS} documents; split it"
                raise UnreadableError(Flaw(*place(event), said))
            self.marks = {}
            yield self.node(next(self.events), ())

    def mark(self, event: yaml.Event, path: Path, key: yaml.Event | None) -> None:
        if len(path) <= MARKED:
            self.marks[path] = place(key or event)

    def plain(self, event: yaml.ScalarEvent, text: str) -> Value:
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        found = number(text)
        if found is None:
            unlike = _elsewhere(text)
            if unlike:
                self.flaw(
                    event,
                    f"not every reader takes {shown(text, quote=False)} for {unlike}; quote it, or "
                    "write it as JSON has it",
                )
            return text
        if (isinstance(found, int) and abs(found) >= _EXACT) or math.isinf(found):
            self.flaw(event, f"number {shown(text, quote=False)} is too large for JSON; quote it if it is text")
        return found


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

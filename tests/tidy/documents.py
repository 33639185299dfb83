"""Reads the Markdown of this repository: code spans, links, headings, tables. It knows nothing of what they mean."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.tidy import sources

FENCE = re.compile(r"^ {0,3}(```+|~~~+)")
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^(#{1,6})\s+(.*?)\s*#*$")


def all_documents() -> list[Path]:
    """The documents for people: at the root, in docs, and the tests' own."""
    homes = {sources.ROOT, sources.ROOT / "tests"}
    pages = [path for path in sources.tracked() if path.suffix == ".md"]
    return [path for path in pages if path.parent in homes or sources.ROOT / "docs" in path.parents]


@cache
def split(path: Path) -> tuple[tuple[tuple[int, str], ...], tuple[tuple[int, str], ...]]:
    """The numbered lines of prose, and those inside code fences."""
    prose, code, fence = [], [], ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        mark = FENCE.match(line)
        if mark and not fence:
            fence = mark[1]
        elif mark and line.strip().startswith(fence):
            fence = ""
        else:
            (code if fence else prose).append((number, line))
    return tuple(prose), tuple(code)


def spans(path: Path) -> Iterator[tuple[int, str]]:
    """Each `code span` of the prose with its line."""
    for number, line in split(path)[0]:
        for found in SPAN.finditer(line):
            yield number, found[1].strip()


def commands(path: Path, program: str) -> Iterator[tuple[int, list[str]]]:
    """Each use of `program` in a code span or at the beginning of a line of a code block, as words."""
    prompt = re.compile(rf"^(?:\s*\$\s+|\s*)(?:sudo\s+)?({re.escape(program)}\s+.*)$")
    candidates = [*spans(path), *split(path)[1]]
    for number, text in candidates:
        found = prompt.match(text)
        if found:
            yield number, found[1].split()[1:]


def links(path: Path) -> Iterator[tuple[int, str]]:
    """Targets of links and pictures that lead into this repository."""
    for number, line in split(path)[0]:
        for found in LINK.finditer(SPAN.sub("", line)):
            target = found[1] or found[2]
            if not re.match(r"[a-z]+:", target):
                yield number, target


def anchors(path: Path) -> set[str]:
    """The names under which the headings can be linked to, made the way the forges do."""
    found = set()
    for _, line in split(path)[0]:
        heading = HEADING.match(line)
        if heading:
            plain = re.sub(r"[^\w\- ]", "", heading[2].replace("`", "").lower())
            found.add(plain.replace(" ", "-"))
    return found


def first_cells(path: Path, heading: str) -> list[str]:
    """The code span that opens each table row of the section `heading`, its subsections included."""
    found: list[str] = []
    level = 0
    for _, line in split(path)[0]:
        mark = HEADING.match(line)
        if mark and level and len(mark[1]) <= level:
            level = 0
        if mark and not level and mark[2].replace("`", "").lower() == heading.lower():
            level = len(mark[1])
        row = re.match(r"^\|\s*`([^`]+)`\s*\|", line)
        if level and row:
            found.append(row[1])
    return found

"""The trailers of a commit's message, by the rules of `git interpret-trailers`; text in, a mapping out.

As Git reads a commit: `---` divides nothing. No configuration is asked, so only Git's own separator `:` and its own
trailers count. Nobody checks here what a trailer says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

TRAILERS_LIMIT = 50
KEY_LIMIT = 200
VALUE_LIMIT = 1000
"""The last so many trailers are read; bytes of a name (a longer one is no trailer of ours) and of a value (cut)."""

_SPACE = " \t\r\n"
_TRAILER = re.compile(r"([A-Za-z0-9-]+)[ \t]*:(.*)", re.DOTALL)
_GENERATED = ("Signed-off-by: ", "(cherry picked from commit ")


def trailers_of(message: str) -> dict[str, str]:
    """Names in lower case to values on one line, without characters that cannot be printed; the last of a name counts.

    Trailers are the last paragraph, never the first, if all its lines are trailers or what continues them, or if one
    is of Git's own making and at least a quarter are trailers (git-interpret-trailers(1), `find_trailer_block_start`
    in Git's trailer.c).
    """
    found = list(_pairs(_block(message.split("\n"))))[-TRAILERS_LIMIT:]
    return {name.lower(): _fitting(value) for name, value in found if len(name) <= KEY_LIMIT}


def _block(lines: Sequence[str]) -> Sequence[str]:
    """The lines of the last paragraph if it is one of trailers."""
    title_ends = next((at for at, line in enumerate(lines) if not line.strip(_SPACE)), len(lines))
    trailers = others = continuing = 0
    generated, only_spaces = False, True
    for at in range(len(lines) - 1, title_ends - 1, -1):
        line = lines[at]
        if line.startswith("#"):
            others, continuing = others + continuing, 0
            continue
        if not line.strip(_SPACE):
            if only_spaces:
                continue
            others += continuing
            whole = trailers > 0 and others == 0
            return lines[at + 1 :] if whole or (generated and trailers * 3 >= others) else ()
        only_spaces = False
        if line.startswith(_GENERATED) or _TRAILER.match(line):
            generated = generated or line.startswith(_GENERATED)
            trailers, continuing = trailers + 1, 0
        elif line[0] in _SPACE:
            continuing += 1
        else:
            others, continuing = others + continuing + 1, 0
    return ()


def _pairs(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each name and value of a block; indented lines continue the value before them."""
    name, parts = "", list[str]()
    for line in lines:
        if name and line[:1] and line[0] in _SPACE:
            parts.append(line)
            continue
        if name:
            yield name, _unfolded(parts)
        found = _TRAILER.match(line)
        name, parts = (found[1], [found[2]]) if found else ("", [])
    if name:
        yield name, _unfolded(parts)


def _unfolded(parts: Sequence[str]) -> str:
    return " ".join(part.lstrip(_SPACE) for part in parts).strip(_SPACE)


def _fitting(value: str) -> str:
    """At most VALUE_LIMIT bytes of printable characters: what Git carries ends up in logs, terminals and pages."""
    text = "".join(char if char.isprintable() else " " for char in value)
    return text.encode()[:VALUE_LIMIT].decode("utf-8", "ignore").strip()

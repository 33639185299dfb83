"""How values that people wrote are quoted back to them in messages: bounded, and free of control characters."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable

LONGEST = 80


def shown(value: object, *, quote: bool = True) -> str:
    """A JSON-like form of `value`, at most `LONGEST` characters; what cannot be printed is escaped."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    if not text.isprintable():
        text = json.dumps(value, default=str)
    if isinstance(value, str) and not quote:
        text = text[1:-1]
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean "x"?` with the known name nearest to `name`; or the known names, when they are few."""
    names = sorted(known)
    lowered = {candidate.lower(): candidate for candidate in names}
    found = difflib.get_close_matches(name[:LONGEST].lower(), lowered, n=1, cutoff=0.6)
    if found:
        return f"; did you mean {shown(lowered[found[0]])}?"
    return f"; one of: {', '.join(names)}" if 0 < len(names) <= 12 else ""

"""One measured figure, and what `python -m bench` prints it on."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console

WIDE = 210
"""Columns where it is no terminal that is printed on, such as a file."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A name, a value in its unit, the goal in words, whether it holds (None: no goal), and how it was measured."""

    name: str
    value: float
    unit: str
    goal: str
    holds: bool | None
    method: str


def paper(*, errors: bool = False) -> Console:
    """The standard output, or that of `errors`; wide enough for the tables where nobody can say how wide it is."""
    found = Console(stderr=errors)
    if not found.is_terminal:
        found.width = WIDE
    return found

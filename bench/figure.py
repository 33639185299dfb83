"""One measured figure, as `python -m bench` prints it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """A name, a value in its unit, the goal in words, whether it holds (None: no goal), and how it was measured."""

    name: str
    value: float
    unit: str
    goal: str
    holds: bool | None
    method: str

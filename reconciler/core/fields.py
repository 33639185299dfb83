"""From the fields that a person wrote to the arguments of a value; what was not written keeps the value's default."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Table = Mapping[str, tuple[str, Callable[[Any], Any]]]
"""Written name -> name in the value, and how to read it."""


def given(section: Mapping[str, Any], table: Table) -> dict[str, Any]:
    """The arguments for the fields of `table` that are in `section`."""
    return {field: read(section[key]) for key, (field, read) in table.items() if key in section}

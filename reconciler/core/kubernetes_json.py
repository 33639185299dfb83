"""Reading what an API server answered: every value may be missing, null or of another type; none of this raises."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

Json = dict[str, Any]


def table(value: object, *path: str) -> Mapping[str, Any]:
    """The mapping at `path` below `value`; empty when there is none."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def items(value: object, *path: str) -> list[Mapping[str, Any]]:
    """The mappings in the list at `path` below `value`; what is no mapping is left out."""
    found = table(value, *path[:-1]).get(path[-1])
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def text(value: object, *path: str) -> str:
    """The text at `path`; empty when there is none."""
    found = table(value, *path[:-1]).get(path[-1])
    return found if isinstance(found, str) else ""


def number(value: object, *path: str, default: int = 0) -> int:
    """The whole number at `path`."""
    found = table(value, *path[:-1]).get(path[-1])
    return found if isinstance(found, int) and not isinstance(found, bool) else default


def moment(value: object, *path: str) -> datetime | None:
    """The time (RFC 3339) at `path`, in UTC; None when there is none."""
    try:
        found = datetime.fromisoformat(text(value, *path))
        return found.astimezone(UTC) if found.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def condition(value: object, kind: str) -> Mapping[str, Any]:
    """The condition of that type in the status of an object; empty when there is none."""
    return next((each for each in items(value, "status", "conditions") if each.get("type") == kind), {})


def one_line(value: str, most: int = 300) -> str:
    """A message of others as one line of bounded length."""
    return " ".join(value.split())[:most]

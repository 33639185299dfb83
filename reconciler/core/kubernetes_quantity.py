"""Quantities and seconds as an API server writes them back: what was applied and what is read are then the same text.

The canonical form is that of `resource.Quantity`: no fraction, the largest unit that leaves a whole number; the powers
of 1024 stay, where they were asked for, as powers of 1024.
"""

from __future__ import annotations

import math
from datetime import timedelta

_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_DECIMAL = ("", "k", "M", "G", "T", "P", "E")
_MILLI = 10**6
"""Billionths of a core in a thousandth: finer shares of a core are rounded up by the API server."""


def memory(size: int) -> str:
    """Bytes (above zero) as a quantity."""
    if size % 1024 == 0:
        return _scaled(size, 1024, _BINARY)
    return _scaled(size, 1000, _DECIMAL)


def cpu(nano: int) -> str:
    """Billionths of a core (above zero) as a quantity, rounded up to thousandths."""
    milli = -(-nano // _MILLI)
    return _scaled(milli // 1000, 1000, _DECIMAL) if milli % 1000 == 0 else f"{milli}m"


def cores(value: float) -> str:
    """Cores as a quantity."""
    return cpu(max(round(value * 10**9), 1))


def seconds(value: timedelta, least: int = 0) -> int:
    """Whole seconds, rounded up."""
    return max(math.ceil(value.total_seconds()), least)


def _scaled(value: int, base: int, units: tuple[str, ...]) -> str:
    step = 0
    while value % base == 0 and step + 1 < len(units):
        value, step = value // base, step + 1
    return f"{value}{units[step]}"

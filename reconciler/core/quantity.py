"""Durations, sizes and shares of a processor as people write them. Text in, plain units out; nothing else.

The grammars are also the `pattern`s in the JSON Schemas, so text that passed a schema always parses here.
"""

from __future__ import annotations

import re
from datetime import timedelta

_DURATION = re.compile(r"(?=[0-9])(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,6})s)?(?:([0-9]{1,6})ms)?")
_SIZE = re.compile(r"([0-9]{1,15})(Ki|Mi|Gi|Ti|k|M|G|T)?")
_CPUS = re.compile(r"([0-9]{1,4})(?:\.([0-9]{1,9}))?|([0-9]{1,7})m")

_UNITS = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}


def duration(text: str) -> timedelta:
    """A duration such as `500ms`, `30s`, `5m`, `1h30m` or `720h`. Raises ValueError for anything else."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a duration such as 500ms, 30s, 5m or 1h30m")
    hours, minutes, seconds, milliseconds = (int(part or 0) for part in found.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds, milliseconds=milliseconds)


def duration_text(value: timedelta) -> str:
    """The shortest way to write a duration of zero or more, cut to whole milliseconds; `duration` reads it back."""
    rest = value // timedelta(milliseconds=1)
    found = ""
    for unit, length in (("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)):
        count, rest = divmod(rest, length)
        if count:
            found += f"{count}{unit}"
    return found or "0s"


def size(text: str) -> int:
    """Bytes from `1024`, `64Ki`, `128Mi`, `1Gi` (powers of 1024) or `500M` (powers of 1000). Raises ValueError."""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a size such as 64Ki, 128Mi or 500M")
    return int(found[1]) * _UNITS[found[2] or ""]


def nano_cpus(text: str) -> int:
    """Billionths of a core from `0.5`, `2` or `500m` (thousandths of a core). Raises ValueError."""
    found = _CPUS.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a share of a processor such as 0.5 or 500m")
    whole, fraction, thousandths = found.groups()
    if thousandths is not None:
        return int(thousandths) * 10**6
    return int(whole) * 10**9 + int((fraction or "").ljust(9, "0"))

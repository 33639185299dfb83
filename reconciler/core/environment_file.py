"""The environment's own file: what its schema cannot say, and the values that its `spec` means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from reconciler.core.fields import Table, given
from reconciler.core.freeze import moment
from reconciler.core.model import ChangeCap, FreezeWindow, Prune
from reconciler.core.words import shown
from reconciler.core.yaml_reader import Path

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_BOUNDS: Table = {"maxPercent": ("max_percent", int), "maxCount": ("max_count", int)}


def rules(spec: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """(place below `spec`, problem) for each freeze window that no calendar or no zone has."""
    for index, item in enumerate(spec.get("freeze", ())):
        place: Path = ("freeze", index)
        zone = item.get("timezone", "UTC")
        if not _is_zone(zone):
            message = f"there is no time zone {shown(zone)}; write an IANA name, as in Europe/Berlin"
            yield (*place, "timezone"), message
        times = {key: _time(item[key]) for key in ("from", "until") if key in item}
        for key, found in times.items():
            if found is None:
                yield (*place, key), f"there is no such day as {shown(item[key])}; correct it"
        start, end = times.get("from"), times.get("until")
        if start is not None and end is not None and end <= start:
            yield (*place, "until"), "until is not after from; exchange or correct them"


def values(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a DesiredState that a valid `spec` gives."""
    return {
        "prune": Prune(**given(spec.get("prune", {}), _BOUNDS)),
        "changes": ChangeCap(**given(spec.get("changes", {}), _BOUNDS)),
        "freezes": tuple(_window(item) for item in spec.get("freeze", ())),
        "suspend": spec.get("suspend", False),
    }


def _window(item: Mapping[str, Any]) -> FreezeWindow:
    zone = item.get("timezone", "UTC")
    if "from" in item:
        start = moment(datetime.fromisoformat(item["from"]), zone, latest=False)
        end = moment(datetime.fromisoformat(item["until"]), zone, latest=True)
        return FreezeWindow(item["why"], zone, start, end)
    weekly: Table = {"opens": ("opens", _minutes), "closes": ("closes", _minutes)}
    days = tuple(sorted(_DAYS.index(day) for day in item["days"]))
    return FreezeWindow(item["why"], zone, days=days, **given(item, weekly))


def _minutes(text: str) -> int:
    """Minutes after midnight out of `18:00`, which matched the schema's pattern; 24:00 is the end of the day."""
    hours, _, minutes = text.partition(":")
    return int(hours) * 60 + int(minutes)


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _is_zone(name: str) -> bool:
    """Whether there is such a zone: a directory of zones, or a file of another kind, is none."""
    try:
        ZoneInfo(name)
    except (ValueError, KeyError, OSError):
        return False
    return True

"""Freeze windows: whether nothing new may be released now, why, and until when. `now` comes in; no clock is read.

A window is a part of the line of time: it opens at the first moment at which clocks in its zone show the time that
was written, and closes at the last one. So in autumn, when an hour comes twice, a window covers both; in spring a time
that clocks skip means the moment at which they skip it. The zones are the IANA database (RFC 6557) as `zoneinfo` reads
it: once, like a table of the program.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from reconciler.core.errors import Reason
from reconciler.core.model import FreezeWindow

EMERGENCY = "reconciler-emergency"
"""The trailer of a commit that passes a freeze, by its name in lower case; its value says why."""
JOINS = 100
"""How many windows one after the other are followed to the end of a freeze: weekly ones may cover the whole week."""

_DAY = timedelta(days=1)
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Freeze:
    """A time without releases that goes on now. `until` is in UTC."""

    why: str
    until: datetime


@dataclass(frozen=True, slots=True)
class Held:
    """Why no new version may begin now. `until`: when that ends by itself, if it does."""

    reason: Reason
    message: str
    until: datetime | None = None


def frozen(windows: Sequence[FreezeWindow], now: datetime) -> Freeze | None:
    """The freeze at `now` (aware): why as the first window says that covers it, and the end of the last one in a row.

    In a row are windows that overlap or follow at once; after JOINS of them `until` is an end before the last.
    """
    why = next((window.why for window in windows if _end(window, now) is not None), None)
    if why is None:
        return None
    until = now
    for _ in range(JOINS):
        ends = [end for window in windows if (end := _end(window, until)) is not None]
        if not ends:
            break
        until = max(ends)
    return Freeze(why, until)


def held(
    windows: Sequence[FreezeWindow], trailers: Mapping[str, str], now: datetime, *, emergency: bool
) -> Held | None:
    """What a freeze at `now` holds, unless the revision with these `trailers` is an emergency.

    `emergency`: the operator lets emergencies pass. One that does not say why passes nothing.
    """
    freeze = frozen(windows, now)
    if freeze is None or (emergency and trailers.get(EMERGENCY)):
        return None
    if not emergency and EMERGENCY in trailers:
        advice = "its Reconciler-Emergency does not pass here; the operator can set allow.emergency"
    elif EMERGENCY in trailers:
        advice = "its Reconciler-Emergency is empty; one that says why passes"
    elif emergency:
        advice = "a commit with the trailer Reconciler-Emergency: <why> passes"
    else:
        advice = "nothing new begins before that"
    message = f"frozen until {freeze.until:%Y-%m-%d %H:%M} UTC ({freeze.why}): {advice}"
    return Held(Reason.FROZEN, message, freeze.until)


def moment(local: datetime, zone: str, *, latest: bool) -> datetime:
    """When clocks in `zone` show `local` (naive), in UTC: the first time, or the `latest` where it comes twice.

    For a time that clocks skip, the moment at which they skip it. Raises ZoneInfoNotFoundError.
    """
    place = ZoneInfo(zone)
    early, late = sorted(local.replace(tzinfo=place, fold=fold).astimezone(UTC) for fold in (0, 1))
    if _shown(late, place) == local:
        return late if latest else early
    # Skipped: the two readings lie before and after the jump (PEP 495), and between them is nothing but the jump.
    while late - early > _SECOND:
        middle = early + (late - early) // _SECOND // 2 * _SECOND
        if _shown(middle, place) < local:
            early = middle
        else:
            late = middle
    return late


def _shown(at: datetime, place: ZoneInfo) -> datetime:
    return at.astimezone(place).replace(tzinfo=None, fold=0)


def _end(window: FreezeWindow, at: datetime) -> datetime | None:
    """The end of the time of `window` that covers `at`; None when there is none."""
    if window.start is not None and window.end is not None:
        return window.end if window.start <= at < window.end else None
    today = at.astimezone(ZoneInfo(window.zone)).date()
    closes = timedelta(minutes=window.closes) + (_DAY if window.closes <= window.opens else timedelta(0))
    found = None
    for day in (today - _DAY, today):
        if day.weekday() in window.days:
            midnight = datetime.combine(day, time())
            start = moment(midnight + timedelta(minutes=window.opens), window.zone, latest=False)
            end = moment(midnight + closes, window.zone, latest=True)
            found = end if start <= at < end else found
    return found

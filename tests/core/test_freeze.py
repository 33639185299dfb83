"""Freeze windows: when they begin and end over changes of clocks, how they join, and what passes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.errors import Reason
from reconciler.core.freeze import EMERGENCY, JOINS, Freeze, Held, frozen, held, moment
from reconciler.core.model import FreezeWindow

BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"
MON, TUE, WED, THU, FRI, SAT, SUN = range(7)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def once(start: str, end: str, why: str = "once") -> FreezeWindow:
    return FreezeWindow(why, start=utc(start), end=utc(end))


def weekly(zone: str, days: tuple[int, ...], opens: str, closes: str, why: str = "weekly") -> FreezeWindow:
    def minutes(text: str) -> int:
        return int(text[:2]) * 60 + int(text[3:])

    return FreezeWindow(why, zone, days=days, opens=minutes(opens), closes=minutes(closes))


@pytest.mark.parametrize(
    ("local", "zone", "first", "last"),
    [
        ("2026-07-01T12:00", BERLIN, "2026-07-01T10:00", "2026-07-01T10:00"),
        ("2026-07-01T12:00", "UTC", "2026-07-01T12:00", "2026-07-01T12:00"),
        # Berlin skips 02:00-03:00 on the last Sunday of March, New York on the second one.
        ("2026-03-29T01:59", BERLIN, "2026-03-29T00:59", "2026-03-29T00:59"),
        ("2026-03-29T02:00", BERLIN, "2026-03-29T01:00", "2026-03-29T01:00"),
        ("2026-03-29T02:30", BERLIN, "2026-03-29T01:00", "2026-03-29T01:00"),
        ("2026-03-29T02:59", BERLIN, "2026-03-29T01:00", "2026-03-29T01:00"),
        ("2026-03-29T03:00", BERLIN, "2026-03-29T01:00", "2026-03-29T01:00"),
        ("2026-03-08T02:30", NEW_YORK, "2026-03-08T07:00", "2026-03-08T07:00"),
        # An hour comes twice: in Berlin 02:00-03:00, in New York 01:00-02:00.
        ("2026-10-25T01:59", BERLIN, "2026-10-24T23:59", "2026-10-24T23:59"),
        ("2026-10-25T02:00", BERLIN, "2026-10-25T00:00", "2026-10-25T01:00"),
        ("2026-10-25T02:30", BERLIN, "2026-10-25T00:30", "2026-10-25T01:30"),
        ("2026-10-25T03:00", BERLIN, "2026-10-25T02:00", "2026-10-25T02:00"),
        ("2026-11-01T01:30", NEW_YORK, "2026-11-01T05:30", "2026-11-01T06:30"),
        # Half an hour on Lord Howe Island, and a whole day that Samoa never had.
        ("2026-10-04T02:15", "Australia/Lord_Howe", "2026-10-03T15:30", "2026-10-03T15:30"),
        ("2011-12-30T12:00", "Pacific/Apia", "2011-12-30T10:00", "2011-12-30T10:00"),
    ],
)
def test_what_clocks_show_means_a_moment(local: str, zone: str, first: str, last: str) -> None:
    naive = datetime.fromisoformat(local)
    assert moment(naive, zone, latest=False) == utc(first)
    assert moment(naive, zone, latest=True) == utc(last)


WEEKEND = weekly(BERLIN, (FRI, SAT, SUN), "18:00", "08:00")
NEW_YORK_NIGHT = weekly(NEW_YORK, (SUN,), "01:30", "04:00")
EVENING = weekly(BERLIN, (MON,), "18:00", "24:00")
ROUND = weekly(BERLIN, (MON,), "18:00", "18:00")


@pytest.mark.parametrize(
    ("window", "now", "until"),
    [
        (once("2026-12-24T11:00", "2026-12-27T07:00"), "2026-12-24T10:59", None),
        (once("2026-12-24T11:00", "2026-12-27T07:00"), "2026-12-24T11:00", "2026-12-27T07:00"),
        (once("2026-12-24T11:00", "2026-12-27T07:00"), "2026-12-27T06:59", "2026-12-27T07:00"),
        (once("2026-12-24T11:00", "2026-12-27T07:00"), "2026-12-27T07:00", None),
        # Friday 18:00 in Berlin is 16:00 UTC in summer and 17:00 in winter; each night ends at 08:00.
        (WEEKEND, "2026-07-03T15:59", None),
        (WEEKEND, "2026-07-03T16:00", "2026-07-04T06:00"),
        (WEEKEND, "2026-07-04T05:59", "2026-07-04T06:00"),
        (WEEKEND, "2026-07-04T06:00", None),
        (WEEKEND, "2026-07-06T05:59", "2026-07-06T06:00"),
        (WEEKEND, "2026-07-06T16:00", None),
        (WEEKEND, "2026-12-04T16:59", None),
        (WEEKEND, "2026-12-04T17:00", "2026-12-05T07:00"),
        # The night in which clocks change is an hour shorter or longer.
        (WEEKEND, "2026-03-28T17:00", "2026-03-29T06:00"),
        (WEEKEND, "2026-10-24T16:00", "2026-10-25T07:00"),
        (weekly(BERLIN, (SUN,), "02:30", "08:00"), "2026-03-29T00:59", None),
        (weekly(BERLIN, (SUN,), "02:30", "08:00"), "2026-03-29T01:00", "2026-03-29T06:00"),
        (weekly(BERLIN, (SUN,), "02:00", "02:30"), "2026-03-29T01:00", None),
        (weekly(BERLIN, (SUN,), "02:00", "02:30"), "2026-10-25T00:00", "2026-10-25T01:30"),
        (weekly(BERLIN, (SUN,), "02:00", "02:30"), "2026-10-25T00:45", "2026-10-25T01:30"),
        (NEW_YORK_NIGHT, "2026-11-01T05:29", None),
        (NEW_YORK_NIGHT, "2026-11-01T05:30", "2026-11-01T09:00"),
        (NEW_YORK_NIGHT, "2026-11-01T06:10", "2026-11-01T09:00"),
        (NEW_YORK_NIGHT, "2026-03-08T06:30", "2026-03-08T08:00"),
        (EVENING, "2026-07-06T21:59", "2026-07-06T22:00"),
        (EVENING, "2026-07-06T22:00", None),
        (ROUND, "2026-07-06T16:00", "2026-07-07T16:00"),
        (ROUND, "2026-07-07T15:59", "2026-07-07T16:00"),
        (ROUND, "2026-07-06T15:59", None),
    ],
)
def test_a_window_has_a_beginning_and_an_end(window: FreezeWindow, now: str, until: str | None) -> None:
    assert frozen([window], utc(now)) == (Freeze(window.why, utc(until)) if until else None)


def test_windows_that_overlap_or_follow_at_once_are_one_freeze() -> None:
    first = once("2026-01-01T00:00", "2026-01-02T00:00", "first")
    inner = once("2026-01-01T06:00", "2026-01-01T07:00", "inner")
    over = once("2026-01-01T12:00", "2026-01-03T00:00", "over")
    follows = once("2026-01-03T00:00", "2026-01-04T00:00", "follows")
    later = once("2026-01-04T00:01", "2026-01-05T00:00", "later")
    windows = [later, inner, follows, over, first]
    assert frozen(windows, utc("2026-01-01T01:00")) == Freeze("first", utc("2026-01-04T00:00"))
    assert frozen(windows, utc("2026-01-01T06:30")) == Freeze("inner", utc("2026-01-04T00:00"))
    assert frozen(windows, utc("2026-01-04T00:00")) is None
    assert frozen([], utc("2026-01-01T01:00")) is None


def test_days_in_a_row_are_one_freeze_and_a_whole_week_has_some_end() -> None:
    weekend = weekly(NEW_YORK, (SAT, SUN), "00:00", "24:00")
    assert frozen([weekend], utc("2026-10-31T12:00")) == Freeze("weekly", utc("2026-11-02T05:00"))
    always = weekly("UTC", (0, 1, 2, 3, 4, 5, 6), "00:00", "24:00")
    assert frozen([always], utc("2026-01-01T12:00")) == Freeze("weekly", utc("2026-01-01T00:00") + timedelta(JOINS))


@settings(max_examples=300, deadline=None)
@given(
    zone=st.sampled_from(["UTC", BERLIN, NEW_YORK, "Australia/Lord_Howe", "Asia/Kolkata", "America/Havana"]),
    days=st.sets(st.integers(0, 6), min_size=1, max_size=3),
    opens=st.integers(0, 24 * 60 - 1),
    closes=st.integers(0, 24 * 60),
    now=st.integers(0, 366 * 24 * 60).map(lambda minutes: utc("2026-01-01T00:00") + timedelta(minutes=minutes)),
)
def test_a_weekly_window_is_what_clocks_show(zone: str, days: set[int], opens: int, closes: int, now: datetime) -> None:
    found = frozen([FreezeWindow("w", zone, days=tuple(days), opens=opens, closes=closes)], now)
    local = now.astimezone(ZoneInfo(zone))
    minute, today, yesterday = local.hour * 60 + local.minute, local.weekday(), (local.weekday() - 1) % 7
    over_midnight = closes <= opens
    inside = (today in days and opens <= minute and (over_midnight or minute < closes)) or (
        yesterday in days and over_midnight and minute < closes
    )
    if inside:
        assert found is not None
    elif local.replace(fold=0).utcoffset() == local.replace(fold=1).utcoffset():
        assert found is None, "only in an hour that comes twice a window may cover more than clocks show"
    if found is not None:
        assert now < found.until
        assert frozen([FreezeWindow("w", zone, days=tuple(days), opens=opens, closes=closes)], found.until) is None


CHRISTMAS = once("2026-12-24T11:00", "2026-12-27T07:00", "Christmas")


@pytest.mark.parametrize(
    ("trailers", "emergency", "advice"),
    [
        ({}, False, "nothing new begins before that"),
        ({}, True, "a commit with the trailer Reconciler-Emergency: <why> passes"),
        (
            {EMERGENCY: "fire"},
            False,
            "its Reconciler-Emergency does not pass here; the operator can set allow.emergency",
        ),
        ({EMERGENCY: ""}, False, "its Reconciler-Emergency does not pass here; the operator can set allow.emergency"),
        ({EMERGENCY: ""}, True, "its Reconciler-Emergency is empty; one that says why passes"),
        ({EMERGENCY: "fire"}, True, None),
    ],
)
def test_an_emergency_passes_where_the_operator_allows_it(
    trailers: dict[str, str], emergency: bool, advice: str | None
) -> None:
    found = held([CHRISTMAS], trailers, utc("2026-12-25T00:00"), emergency=emergency)
    said = f"frozen until 2026-12-27 07:00 UTC (Christmas): {advice}"
    assert found == (Held(Reason.FROZEN, said, utc("2026-12-27T07:00")) if advice else None)
    assert held([CHRISTMAS], trailers, utc("2026-12-28T00:00"), emergency=emergency) is None

"""The environment's own file: bounds and freeze windows into values, and every mistake in them with its place."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from reconciler.core.model import ChangeCap, FreezeWindow, Prune
from tests.support.fleet import DIRECTORY, Repository, environment

OWN = f"{DIRECTORY}/environment.yaml"


def problems(spec: str) -> list[str]:
    refusal = Repository({OWN: environment(spec)}).refusal()
    return [str(problem).removeprefix(f"{OWN}:") for problem in refusal.problems]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_the_bounds_have_their_values():
    state = Repository({OWN: environment("{prune: {maxPercent: 10, maxCount: 3}, changes: {maxPercent: 30}}")}).state()
    assert (state.prune, state.changes) == (Prune(10, 3), ChangeCap(30))
    state = Repository({OWN: environment("{prune: {maxCount: 0}, changes: {maxCount: 5}}")}).state()
    assert (state.prune, state.changes) == (Prune(50, 0), ChangeCap(None, 5))
    state = Repository({OWN: environment()}).state()
    assert (state.prune, state.changes, state.freezes) == (Prune(), ChangeCap(), ())


def test_freeze_windows_have_their_values():
    text = """
    {freeze: [
      {why: Christmas, timezone: Europe/Berlin, from: 2026-12-24T12:00, until: "2027-01-02T08:00"},
      {why: clocks, timezone: America/New_York, from: 2026-11-01T01:30, until: 2027-11-07T01:30},
      {why: night, timezone: America/Argentina/Buenos_Aires, days: [sun, fri], opens: "18:00", closes: "08:30"},
      {why: weekend, days: [sat]}, {why: plain, from: 2026-05-01T00:00, until: 2026-05-02T00:00}]}"""
    assert Repository({OWN: environment(text)}).state().freezes == (
        FreezeWindow("Christmas", "Europe/Berlin", at("2026-12-24T11:00"), at("2027-01-02T07:00")),
        # The hour that comes twice: from its first time until its last.
        FreezeWindow("clocks", "America/New_York", at("2026-11-01T05:30"), at("2027-11-07T06:30")),
        FreezeWindow("night", "America/Argentina/Buenos_Aires", days=(4, 6), opens=18 * 60, closes=8 * 60 + 30),
        FreezeWindow("weekend", days=(5,), opens=0, closes=24 * 60),
        FreezeWindow("plain", "UTC", at("2026-05-01T00:00"), at("2026-05-02T00:00")),
    )


EITHER = "a freeze needs either from and until, or days with opens and closes"
FROM = "why: a, from: 2026-12-24T12:00, until: 2026-12-25T12:00"


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ("why: a", [f"4:17: {EITHER}"]),
        ("why: a, from: 2026-12-24T12:00", [f"4:17: {EITHER}"]),
        (f"{FROM}, days: [mon]", [f"4:17: {EITHER}"]),
        (f'{FROM}, opens: "18:00"', [f"4:17: {EITHER}"]),
        ("days: [mon]", ['4:17: missing field "why"']),
        ("why: '', days: [mon]", ["4:23: this is empty"]),
        ("why: a, days: []", ["4:32: this is empty"]),
        ("why: a, days: [monday]", ['4:33: "monday" is not allowed here; did you mean "mon"?']),
        ("why: a, days: [mon], opens: 18:00", ['4:46: value 18:00 is a number here; quote it: "18:00"']),
        ('why: a, days: [mon], opens: "24:00"', ['4:46: "24:00" is not valid here: write a time of day']),
        ('why: a, days: [mon], closes: "8:00"', ['4:47: "8:00" is not valid here: write a time of day']),
        ("why: a, from: 2026-12-24, until: x", ["4:32: value 2026-12-24 is a date", '4:51: "x" is not valid here']),
        (
            "why: a, from: 2026-02-30T12:00, until: 2026-06-31T12:00",
            ['4:32: there is no such day as "2026-02-30T12:00"', '4:57: there is no such day as "2026-06-31T12:00"'],
        ),
        (
            "why: a, from: 2026-02-20T12:00, until: 2026-02-20T12:00",
            ["4:57: until is not after from; exchange or correct them"],
        ),
        ("why: a, timezone: Europe/Berlln, days: [mon]", ['4:36: there is no time zone "Europe/Berlln"; write an']),
        ("why: a, timezone: America, days: [mon]", ['4:36: there is no time zone "America"; write an IANA name']),
        ("why: a, timezone: localtime, days: [mon]", ['4:36: "localtime" is not valid here: write an IANA name']),
        ("why: a, timezone: ../../etc/passwd, days: [mon]", ['4:36: "../../etc/passwd" is not valid here']),
        ("why: a, timezone: Etc/../passwd, days: [mon]", ['4:36: "Etc/../passwd" is not valid here']),
        ("why: a, timezone: /etc/passwd, days: [mon]", ['4:36: "/etc/passwd" is not valid here']),
    ],
)
def test_a_freeze_that_no_calendar_has_is_refused_with_its_place(item: str, expected: list[str]):
    found = problems(f"{{freeze: [{{{item}}}]}}")
    assert len(found) == len(expected), found
    for line, beginning in zip(found, expected, strict=True):
        assert line.startswith(beginning)


def test_the_number_of_windows_is_bounded():
    items = ", ".join("{why: a, days: [mon]}" for _ in range(51))
    assert problems(f"{{freeze: [{items}]}}") == ["4:16: this is too long: 51, at most 50"]


def test_a_bound_that_is_none_is_refused():
    assert problems("{changes: {maxPercent: 101}}") == ["4:30: 101 is too large; at most 100"]
    assert problems("{prune: {maxCount: -1}}") == ["4:26: -1 is too small; at least 0"]

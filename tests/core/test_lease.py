"""The decision about a lease, as a table: what stands there, what our clock saw, and what is to be done."""

from __future__ import annotations

import pytest

from reconciler.core.lease import (
    LONGEST,
    Act,
    LeaseRecord,
    Sighting,
    Terms,
    claimed,
    decide,
    holds,
    patience,
    released,
    sighted,
)

TERMS = Terms(duration=15.0, renew=10.0, retry=2.0)
THEIRS = LeaseRecord("other", 15.0, "a", "r", 3)
OURS = LeaseRecord("me", 15.0, "a", "r", 3)
FREE = LeaseRecord("", 1.0, "a", "r", 3)


@pytest.mark.parametrize(
    ("record", "since", "renewed", "act"),
    [
        (None, 100.0, None, Act.ACQUIRE),
        (FREE, 100.0, None, Act.ACQUIRE),
        (THEIRS, 100.0, None, Act.WAIT),
        (THEIRS, 85.01, None, Act.WAIT),
        (THEIRS, 85.0, None, Act.ACQUIRE),
        (LeaseRecord("other", 60.0, "a", "r"), 85.0, None, Act.WAIT),
        (LeaseRecord("other", 60.0, "a", "r"), 40.0, None, Act.ACQUIRE),
        (LeaseRecord("other", 0.0), 85.0, None, Act.ACQUIRE),
        (LeaseRecord("other", 1e9, "a", "r"), 100.0 - LONGEST, None, Act.ACQUIRE),
        (OURS, 100.0, None, Act.ACQUIRE),
        (OURS, 99.0, 99.0, Act.RENEW),
        (OURS, 99.0, 90.01, Act.RENEW),
        (OURS, 99.0, 90.0, Act.LOST),
        (None, 99.0, 99.0, Act.RENEW),
        (FREE, 99.0, 99.0, Act.RENEW),
        (None, 99.0, 80.0, Act.LOST),
        (THEIRS, 99.0, 99.0, Act.LOST),
        (THEIRS, 10.0, 99.0, Act.LOST),
    ],
)
def test_what_to_do_about_a_lease(record: LeaseRecord | None, since: float, renewed: float | None, act: Act) -> None:
    assert decide("me", Sighting(record, since), renewed, 100.0, TERMS) is act


def test_whoever_waits_waits_longer_than_the_holder_acts() -> None:
    seen = Sighting(THEIRS, 0.0)
    assert patience(seen, TERMS) - TERMS.renew == 5.0
    assert not holds(None, 0.0, TERMS)
    assert holds(0.0, 9.999, TERMS)
    assert not holds(0.0, 10.0, TERMS)


def test_only_a_change_of_the_record_starts_the_wait_anew() -> None:
    first = sighted(None, THEIRS, 5.0)
    assert first == Sighting(THEIRS, 5.0)
    assert sighted(first, LeaseRecord("other", 15.0, "a", "r", 3), 9.0) is first
    assert sighted(first, LeaseRecord("other", 15.0, "a", "r2", 3), 9.0).since == 9.0
    assert sighted(first, None, 9.0) == Sighting(None, 9.0)
    gone = sighted(None, None, 1.0)
    assert sighted(gone, None, 2.0) is gone


def test_the_record_of_a_claim_and_of_its_end() -> None:
    assert claimed("me", None, "now", TERMS) == LeaseRecord("me", 15.0, "now", "now", 0)
    assert claimed("me", THEIRS, "now", TERMS) == LeaseRecord("me", 15.0, "now", "now", 4)
    assert claimed("me", OURS, "now", TERMS) == LeaseRecord("me", 15.0, "a", "now", 3)
    assert released(OURS, "now") == LeaseRecord("", 1.0, "a", "now", 3)

"""Leader election by a lease, decided: the record as last read, and what our own clock saw, become what to do next.

Times are seconds of our monotonic clock. The times that stand in a record are others' words: they are compared to tell
whether the record changed, and never reckoned with. Election is not fencing: the journal's epoch is (`ports.Journal`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

LONGEST = 300.0
"""Seconds for which a record's own word about its duration is believed at most."""
RELEASED = 1.0
"""The duration that a released record names; 0 is not allowed in a Lease."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Seconds: a record unchanged for `duration` has run out; its holder acts for `renew` after its last renewal only.

    What lies between the two is for the step in hand. `retry`: between two attempts.
    """

    duration: float = 15.0
    renew: float = 10.0
    retry: float = 2.0


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """Who holds the lease, "" for nobody. `acquired` and `renewed` are texts; `transitions` counts the holders."""

    holder: str = ""
    duration: float = 0.0
    acquired: str = ""
    renewed: str = ""
    transitions: int = 0


@dataclass(frozen=True, slots=True)
class Sighting:
    """What the lease holds (None: there is no lease), and since when it was the same at each of our looks."""

    record: LeaseRecord | None
    since: float


class Act(StrEnum):
    """`ACQUIRE`: write ourselves in. `RENEW`: again. `WAIT`: another holds it. `LOST`: we held it, and act no more."""

    ACQUIRE = "acquire"
    RENEW = "renew"
    WAIT = "wait"
    LOST = "lost"


def sighted(before: Sighting | None, record: LeaseRecord | None, now: float) -> Sighting:
    """The sighting after a look whose answer arrived at `now`."""
    same = before is not None and before.record == record
    return before if same and before is not None else Sighting(record, now)


def holds(renewed: float | None, now: float, terms: Terms) -> bool:
    """Whether the holder may act. `renewed`: when the request of its last successful write was *sent*; None: never."""
    return renewed is not None and now - renewed < terms.renew


def decide(me: str, seen: Sighting, renewed: float | None, now: float, terms: Terms) -> Act:
    """What to do about the lease. `renewed` is None for one that does not lead.

    A record that names us although we do not lead is ours: a write of which the answer was lost.
    """
    holder = seen.record.holder if seen.record is not None else ""
    ours = holder in ("", me)
    if renewed is not None:
        return Act.RENEW if ours and holds(renewed, now, terms) else Act.LOST
    return Act.ACQUIRE if ours or now - seen.since >= patience(seen, terms) else Act.WAIT


def patience(seen: Sighting, terms: Terms) -> float:
    """For how long the record must have stood unchanged to have run out: the longer of our word and its holder's."""
    said = seen.record.duration if seen.record is not None else 0.0
    return max(terms.duration, min(said, LONGEST))


def claimed(me: str, record: LeaseRecord | None, at: str, terms: Terms) -> LeaseRecord:
    """The record that makes `me` the holder, or keeps it so. `at` is the time of day, for people."""
    if record is not None and record.holder == me:
        return replace(record, duration=terms.duration, renewed=at)
    before = record.transitions if record is not None else -1
    return LeaseRecord(me, terms.duration, at, at, before + 1)


def released(record: LeaseRecord, at: str) -> LeaseRecord:
    """The record after its holder let go: whoever looks next may take it at once."""
    return replace(record, holder="", duration=RELEASED, renewed=at)


@dataclass(frozen=True, slots=True)
class Found:
    """A lease as it was read or written. `version` is "" where there is none; a write names the version it goes by.

    `looks`: environments at which the holder is asked to look, by daemons that stand by.
    """

    record: LeaseRecord | None
    looks: frozenset[str] = frozenset()
    version: str = ""

"""When to try again after a failure: doubling pauses with full jitter. Times and randomness come from outside."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

SHORTEST = 1.0
LONGEST = 300.0
"""Seconds."""
FREE_REPEATS = 3
REPEATED_WITHIN = timedelta(minutes=15)


def delay(failures: int, uniform: Callable[[float, float], float]) -> timedelta:
    """The pause after so many failures in a row: at random between 1 s and a bound that doubles up to 5 minutes.

    Full jitter, as in "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015), with a floor.
    """
    return timedelta(seconds=uniform(SHORTEST, min(LONGEST, SHORTEST * 2.0 ** min(failures, 30))))


@dataclass(slots=True)
class Backoff:
    """The failures in a row, and the time before which it is too early to try again."""

    failures: int = 0
    until: datetime | None = None
    since: datetime | None = None

    def failed(
        self, now: datetime, uniform: Callable[[float, float], float], after: timedelta | None = None
    ) -> datetime:
        """Count one more failure; the time to try again, not before `after` where the failure itself names a wait."""
        self.failures += 1
        wait = delay(self.failures, uniform)
        self.since, self.until = now, now + (max(wait, after) if after is not None else wait)
        return self.until

    def reset(self) -> None:
        """After a success, or when something changed: the next failure starts from the shortest pause."""
        self.failures = 0
        self.until = None

    def holds(self, now: datetime) -> bool:
        """Whether it is too early to try again. A clock that was set back does not make the pause longer."""
        return self.until is not None and self.since is not None and self.since <= now < self.until


@dataclass(slots=True)
class Pace:
    """Slows down what is done again and again although it succeeds, as when its effect is undone at once by others.

    Each key is free `FREE_REPEATS` times in a row; then comes a pause of 1 s that doubles up to 5 minutes. What was not
    done for `REPEATED_WITHIN` is forgotten.
    """

    _done: dict[Hashable, tuple[int, datetime]] = field(default_factory=dict)
    _limit: int = 64

    def did(self, key: Hashable, now: datetime) -> None:
        """Note that it was done."""
        count, at = self._done.get(key, (0, now))
        self._done[key] = (count + 1 if _is_recent(at, now) else 1, now)
        if len(self._done) > self._limit:
            self._done = {key: known for key, known in self._done.items() if _is_recent(known[1], now)}
            self._limit = max(64, 2 * len(self._done))

    def until(self, key: Hashable, now: datetime) -> datetime | None:
        """Until when it has to wait, or None."""
        count, at = self._done.get(key, (0, now))
        if count < FREE_REPEATS:
            return None
        due = at + timedelta(seconds=min(LONGEST, SHORTEST * 2.0 ** min(count - FREE_REPEATS, 30)))
        return due if at <= now < due else None


def _is_recent(at: datetime, now: datetime) -> bool:
    return at <= now < at + REPEATED_WITHIN

"""When to try again after a failure: doubling pauses with full jitter. Times and randomness come from outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

SHORTEST = 1.0
LONGEST = 300.0
"""Seconds."""


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

    def failed(
        self, now: datetime, uniform: Callable[[float, float], float], after: timedelta | None = None
    ) -> datetime:
        """Count one more failure; the time to try again, not before `after` where the failure itself names a wait."""
        self.failures += 1
        wait = delay(self.failures, uniform)
        self.until = now + (max(wait, after) if after is not None else wait)
        return self.until

    def reset(self) -> None:
        """After a success, or when something changed: the next failure starts from the shortest pause."""
        self.failures = 0
        self.until = None

    def holds(self, now: datetime) -> bool:
        """Whether it is too early to try again."""
        return self.until is not None and now < self.until

"""How long to pause after a failure: doubling with full jitter. Knows no threads and no clock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

SHORTEST = 1.0
LONGEST = 300.0
"""Seconds."""


class Backoff:
    """The pauses after failures in a row. `jitter` gives numbers in [0, 1)."""

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._jitter = jitter
        self.failures = 0

    def next(self) -> timedelta:
        """Count one more failure; the pause after it: at random between 1 s and a bound that doubles up to 5 minutes.

        Full jitter, as in "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015), with a floor.
        """
        self.failures += 1
        bound = min(LONGEST, SHORTEST * 2.0 ** min(self.failures, 30))
        return timedelta(seconds=SHORTEST + self._jitter() * (bound - SHORTEST))

    def reset(self) -> None:
        """After a success, or when something changed: the next failure starts from the shortest pause."""
        self.failures = 0

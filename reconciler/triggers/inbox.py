"""The inbox: which environments are due for a look, and why. Every trigger ends here.

It holds hints only (an environment's name and merged causes), never data, and it is bounded: one place for each
environment, however many triggers fire. It must not know where a hint comes from or what is done about it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from reconciler.ports import Cause, Clock

CAUSES_KEPT = 8
DETAIL_KEPT = 200
LONGEST_RECHECK = 300.0
"""Seconds. A later look is brought forward to this: it costs little, and no clock jump can put it off for long."""


@dataclass(frozen=True, slots=True)
class _Timer:
    """`cycle`: how many looks at the environment had begun when it was set."""

    due: float
    cycle: int
    causes: tuple[Cause, ...]


def merge(causes: Sequence[Cause], cause: Cause) -> tuple[Cause, ...]:
    """`causes` with one more, in order of arrival; equal ones (kind, detail, git) are one, with the newest `at`.

    At most CAUSES_KEPT remain, of each kind one if they are no more than that: a person's word is not lost among many
    events. The newest that asks for Git is never dropped, because a fetch must begin after it.
    """
    cause = replace(cause, detail=cause.detail[:DETAIL_KEPT])
    for place, known in enumerate(causes):
        if (known.kind, known.detail, known.git) == (cause.kind, cause.detail, cause.git):
            newest = known if known.at > cause.at else cause
            return (*causes[:place], newest, *causes[place + 1 :])
    merged = [*causes, cause]
    if len(merged) > CAUSES_KEPT:
        newest_git = max((known for known in merged if known.git), key=lambda known: known.at, default=None)
        others = [known for known in merged if known is not newest_git]
        kinds = [known.kind for known in merged]
        spare = [known for known in others if kinds.count(known.kind) > 1] or others
        merged.remove(min(spare, key=lambda known: known.at))
    return tuple(merged)


class Inbox:
    """Shared by all threads. One reconcile of an environment at a time: what is taken is not given out until done."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._due: dict[str, tuple[Cause, ...]] = {}
        self._taken: set[str] = set()
        self._timers: dict[str, _Timer] = {}
        self._cycles: dict[str, int] = {}
        self._rests: dict[str, float] = {}
        self._closed = False

    def request(self, environment: str, cause: Cause) -> None:
        """Ask for a look at `environment` as soon as possible. Never blocks; after `close` it does nothing."""
        with self._changed:
            if not self._closed:
                self._add(environment, (cause,))

    def news(self, environment: str) -> bool:
        """Whether somebody waits for a look at `environment` because Git may have changed."""
        with self._changed:
            return any(cause.git for cause in self._due.get(environment, ()))

    def later(self, environment: str, at: float | datetime, cause: Cause) -> None:
        """Ask for a look at `at`: a reading of the monotonic clock in seconds, or a time of day.

        There is one timer for each environment. Of the times asked for during one cycle the earliest counts; the next
        cycle's replaces it. A replaced timer's wish for a fetch is kept.
        """
        delay = (at - self._clock.now()).total_seconds() if isinstance(at, datetime) else at - self._clock.monotonic()
        due = self._clock.monotonic() + min(max(delay, 0.0), LONGEST_RECHECK)
        with self._changed:
            if self._closed:
                return
            cycle = self._cycles.get(environment, 0)
            causes: tuple[Cause, ...] = ()
            known = self._timers.get(environment)
            if known is not None:
                causes = tuple(old for old in known.causes if old.git or known.cycle == cycle)
                due = min(due, known.due) if known.cycle == cycle else due
            self._timers[environment] = _Timer(due, cycle, merge(causes, cause))
            self._changed.notify_all()

    def take(self, timeout: float | None = None) -> tuple[str, tuple[Cause, ...]] | None:
        """The environment that has been due longest, with its causes. Call `done` when the look is over.

        Waits up to `timeout` seconds (None: as long as it takes). None when nothing became due or the inbox is closed.
        """
        end = None if timeout is None else self._clock.monotonic() + timeout
        with self._changed:
            while not self._closed:
                self._ring()
                for environment in self._due:
                    if environment not in self._taken and not self._is_resting(environment):
                        self._cycles[environment] = self._cycles.get(environment, 0) + 1
                        self._taken.add(environment)
                        return environment, self._due.pop(environment)
                wait = self._patience(end)
                if wait is not None and wait <= 0:
                    return None
                self._changed.wait(wait)
        return None

    def done(self, environment: str) -> None:
        """The look at `environment` is over: it may be given out again."""
        with self._changed:
            self._taken.discard(environment)
            self._changed.notify_all()

    def rest(self, environment: str, seconds: float) -> None:
        """For so long events of the engine alone do not make `environment` due: they are looked at together."""
        with self._changed:
            self._rests[environment] = self._clock.monotonic() + seconds

    def forget(self, environment: str) -> None:
        """`environment` is no longer configured: drop what is due and its timer."""
        with self._changed:
            self._due.pop(environment, None)
            self._timers.pop(environment, None)
            self._cycles.pop(environment, None)
            self._rests.pop(environment, None)

    def close(self) -> None:
        """Wake every `take` with None, and accept nothing more."""
        with self._changed:
            self._closed = True
            self._due.clear()
            self._timers.clear()
            self._changed.notify_all()

    @property
    def depth(self) -> int:
        """How many environments are due and not yet taken."""
        with self._changed:
            return len(self._due)

    def _add(self, environment: str, causes: Sequence[Cause]) -> None:
        known = self._due.get(environment, ())
        merged = known
        for cause in causes:
            merged = merge(merged, cause)
        self._due[environment] = merged
        # Thousands of events may come within a second: only what makes a difference to who waits wakes anybody.
        if environment not in self._taken and not (known and _of_engine(causes)):
            self._changed.notify_all()

    def _is_resting(self, environment: str) -> bool:
        """Whether what is due of an environment waits for more of its kind."""
        return _of_engine(self._due[environment]) and self._clock.monotonic() < self._rests.get(environment, 0.0)

    def _ring(self) -> None:
        """Move the timers that have run out to what is due."""
        now = self._clock.monotonic()
        for environment in [name for name, timer in self._timers.items() if timer.due <= now]:
            self._add(environment, self._timers.pop(environment).causes)

    def _patience(self, end: float | None) -> float | None:
        """Seconds until the next timer or `end`; None: until something changes."""
        moments = [timer.due for timer in self._timers.values()]
        moments.extend(self._rests.get(name, 0.0) for name in self._due if name not in self._taken)
        if end is not None:
            if end <= self._clock.monotonic():
                return 0.0
            moments.append(end)
        return max(min(moments) - self._clock.monotonic(), 0.001) if moments else None


def _of_engine(causes: Sequence[Cause]) -> bool:
    return all(cause.kind == "engine" for cause in causes)

"""When a fetch is due, and that callers at the same time share one. It knows nothing of Git.

Whoever asks for the state "at or after t" needs a fetch that *began* at or after t: one that began before may have
missed the very change that the caller was told of. So any number of callers costs at most the fetch that is running
and one more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime

from reconciler.ports import Clock

REFS_LIMIT = 1000
"""So many refs are remembered; beyond, those that are not being fetched are forgotten."""


@dataclass(slots=True)
class _Running:
    began: datetime
    ended: Future[None] = field(default_factory=Future)


@dataclass(slots=True)
class _Line:
    """One ref: the beginning of the last fetch that succeeded, and the fetch that runs."""

    succeeded: datetime | None = None
    running: _Running | None = None


class Fetches:
    """Calls `fetch(ref, began)` as seldom as promised. `count` is how often it did."""

    def __init__(self, clock: Clock, fetch: Callable[[str, datetime], None]) -> None:
        self.count = 0
        self._clock = clock
        self._fetch = fetch
        self._lock = threading.Lock()
        self._lines: dict[str, _Line] = {}

    def ensure(self, ref: str, since: datetime) -> None:
        """Return once a fetch of `ref` that began at or after `since` has succeeded; raise what that fetch raised."""
        while True:
            with self._lock:
                line = self._line(ref)
                now = self._clock.now()
                since = min(since, now)  # the clock may have been set back since the hint
                if line.succeeded is not None and since <= line.succeeded <= now:
                    return
                leads = line.running is None
                running = line.running = line.running or _Running(now)
                self.count += leads
            if leads:
                self._lead(ref, line, running)
                return
            if since <= running.began <= now:
                running.ended.result()
                return
            running.ended.exception()  # it began too early: whatever came of it, look again

    def _lead(self, ref: str, line: _Line, mine: _Running) -> None:
        """Fetch, and let those who wait know what came of it."""
        try:
            self._fetch(ref, mine.began)
        except BaseException as error:
            with self._lock:
                line.running = None
            mine.ended.set_exception(error)
            raise
        with self._lock:
            line.running, line.succeeded = None, mine.began
        mine.ended.set_result(None)

    def _line(self, ref: str) -> _Line:
        if ref not in self._lines and len(self._lines) >= REFS_LIMIT:
            self._lines = {name: line for name, line in self._lines.items() if line.running is not None}
        return self._lines.setdefault(ref, _Line())

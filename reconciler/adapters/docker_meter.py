"""The cores that containers use: the difference of two looks at the engine's counters, each look bounded in time.

An engine that does not tell is no error: then the use is not known.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime

from reconciler.adapters.docker_connection import Connection, Json, engine_errors, moment
from reconciler.core.errors import ReconcilerError

LOOKS_AT_ONCE = 8
APART = 2.0
"""Seconds between two looks at one container."""
PATIENCE = 1.0
"""Seconds that one question may wait for the engine's answers; what comes later counts at the next question."""
DEADLINE = 5.0
"""Seconds that one look may take."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a container had used by `at` (engine time): `used` in seconds of one core."""

    at: datetime
    used: float


@dataclass(slots=True)
class _Metered:
    asked_at: float
    look: Future[Sample | None]
    sample: Sample | None = None
    cores: float | None = None


def cores_between(before: Sample | None, after: Sample | None) -> float | None:
    """Cores used on average between two samples; None without both, or when the counter began anew."""
    if before is None or after is None:
        return None
    seconds = (after.at - before.at).total_seconds()
    return (after.used - before.used) / seconds if seconds > 0 and after.used >= before.used else None


def sampled(stats: Json) -> Sample | None:
    """A sample from the engine's answer; None when there is none in it, as for a container that does not run."""
    try:
        at, used = moment(stats.get("read")), stats["cpu_stats"]["cpu_usage"]["total_usage"]
        return Sample(at, int(used) / 1e9) if at is not None and int(used) > 0 else None
    except (KeyError, TypeError, ValueError):
        return None


class Meter:
    """The use of cpu by the containers that were asked about lately."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._pool = ThreadPoolExecutor(LOOKS_AT_ONCE, "meter")
        self._lock = threading.Lock()
        self._metered: dict[str, dict[str, _Metered]] = {}
        self._closed = False

    def cores(self, environment: str, containers: Iterable[str]) -> Mapping[str, float | None]:
        """Cores used lately by each of the running `containers`: None at first. Others of it are forgotten."""
        wanted = set(containers)
        with self._lock:
            if self._closed:
                return {}
            known = self._metered.get(environment, {})
            now = time.monotonic()
            group = {identity: self._asked(identity, known.get(identity), now) for identity in sorted(wanted)}
            self._metered[environment] = group
        wait([one.look for one in group.values()], PATIENCE)
        with self._lock:
            for one in group.values():
                _take(one)
            return {identity: one.cores for identity, one in group.items()}

    def _asked(self, identity: str, known: _Metered | None, now: float) -> _Metered:
        if known is None:
            return _Metered(now, self._pool.submit(self._look, identity))
        if known.look.done():
            _take(known)
            if now - known.asked_at >= APART:
                known.asked_at, known.look = now, self._pool.submit(self._look, identity)
        return known

    def _look(self, identity: str) -> Sample | None:
        try:
            with engine_errors(self._connection.where):
                return sampled(self._connection.client().stats_now(identity, DEADLINE))
        except (ReconcilerError, ValueError):
            return None

    def close(self) -> None:
        """Ask no more."""
        with self._lock:
            self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)


def _take(one: _Metered) -> None:
    """Let a look that has ended count, once."""
    if not one.look.done() or one.look.cancelled():
        return
    after = one.look.result()
    if after is None:
        one.cores = one.sample = None
    elif one.sample is None or after.at > one.sample.at:
        one.cores, one.sample = cores_between(one.sample, after), after

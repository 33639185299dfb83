"""Warm-ups: requests straight to a new instance until it answers as fast as was asked, by a bounded pool of threads.

No knowledge of any engine: where an instance is reached is given.
"""

from __future__ import annotations

import contextlib
import math
import queue
import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from reconciler.adapters.warmup_caller import Address, Caller, UnansweredError, UnsendableError
from reconciler.core.delivery import WarmUp
from reconciler.core.live import Warmth, WarmthStatus

WORKERS = 8
FLOOR = 0.005
"""Seconds: below that, times the other's p95 says more about the machine than about the version."""
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.5
"""Seconds to wait after a request that failed: doubled each time in a row."""
Key = tuple[str, datetime | None]
"""The container, and when it was started: one that was started again is cold again."""


@dataclass(frozen=True, slots=True)
class Cold:
    """A running instance to warm up at `address`; `beside` is where one of the stable version is reached."""

    key: Key
    environment: str
    name: str
    address: Address
    warm_up: WarmUp = field(repr=False)
    beside: Address | None = None


def p95(times: Collection[float]) -> float:
    """The 95th percentile by nearest rank: the smallest of the values that at least 95 % of them do not exceed."""
    return sorted(times)[math.ceil(0.95 * len(times)) - 1]


class _Run:
    """One warm-up: `warmth` is how far it is."""

    def __init__(self, cold: Cold) -> None:
        self.cold = cold
        self.warmth = Warmth(WarmthStatus.RUNNING)
        self._stopped = threading.Event()
        self._caller: Caller | None = None

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def stop(self) -> None:
        """End soon, whatever it came to."""
        self._stopped.set()
        if self._caller is not None:
            self._caller.cut()

    def run(self) -> None:
        """Warm the instance up. Its deadline begins with its own first request, after the comparison was measured."""
        cold, wanted = self.cold, self.cold.warm_up
        try:
            bound, asked = self._bound()
            with Caller(cold.address, wanted.requests, wanted.deadline.total_seconds()) as caller:
                self._caller = caller
                self._warm(caller, bound, asked)
        except UnsendableError as error:
            self.warmth = Warmth(WarmthStatus.FAILED, self.warmth.requests, None, str(error))
        finally:
            if self.warmth.status is WarmthStatus.RUNNING:  # a fault of ours: it must not look as if it went on
                self.warmth = Warmth(WarmthStatus.FAILED, self.warmth.requests, None, "the warm-up broke off")

    def _bound(self) -> tuple[float, str]:
        """The p95 in seconds that may not be exceeded, and its words; measured first where it is a relative one."""
        wanted, beside = self.cold.warm_up, self.cold.beside
        bound = wanted.p95.total_seconds() if wanted.p95 is not None else math.inf
        asked = f"at most {_ms(bound)} was asked for" if wanted.p95 is not None else ""
        if wanted.relative is None or beside is None:
            return bound, asked
        # An old version that hangs must not hold up the new one: then there is nothing to compare with.
        times = []
        with Caller(beside, wanted.requests, wanted.deadline.total_seconds() / 2) as caller:
            self._caller = caller
            for _ in range(wanted.count):
                if self.stopped or caller.left <= 0:
                    break
                with contextlib.suppress(UnansweredError):
                    times.append(caller.call())
        limit = max(wanted.relative * p95(times), FLOOR) if times else bound
        if limit >= bound:
            return bound, asked
        return limit, f"at most {wanted.relative:g} times the {_ms(p95(times))} of the stable version was asked for"

    def _warm(self, caller: Caller, bound: float, asked: str) -> None:
        wanted = self.cold.warm_up
        count = max(wanted.count, 1)
        last: deque[float] = deque(maxlen=count)
        made, pause, trouble = 0, FIRST_PAUSE, ""
        while not self.stopped and caller.left > 0:
            made += 1
            try:
                last.append(caller.call())
            except UnansweredError as error:
                if caller.left <= 0 and trouble:
                    break  # the deadline cut this one off: what was before says more
                last.clear()
                trouble = str(error)
                self.warmth = Warmth(WarmthStatus.RUNNING, made, None, trouble)
                self._stopped.wait(max(min(pause, caller.left), 0))
                pause = min(pause * 2, LONGEST_PAUSE)
                continue
            pause, found = FIRST_PAUSE, p95(last)
            trouble = f"the p95 of the last {len(last)} is {_ms(found)}"
            if len(last) == count and found <= bound:
                self.warmth = Warmth(WarmthStatus.WARM, made, found, f"warm after {made} requests: {trouble}")
                return
            trouble += f", and {asked}" if found > bound else ""
            self.warmth = Warmth(WarmthStatus.RUNNING, made, found, trouble)
        if last and len(last) < count:
            trouble += f", and {count} in a row are needed"
        trouble = trouble or "no answer in time"  # it stood still before the first request
        said = f"not warm after {wanted.deadline.total_seconds():g} s and {made} requests: {trouble}"
        self.warmth = Warmth(WarmthStatus.FAILED, made, p95(last) if last else None, said)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.1 else f"{seconds * 1000:.3g} ms"


class WarmUps:
    """The warm-ups that were asked for. `on_end(environment, name, warmth)` is called from a thread of its own."""

    def __init__(self, on_end: Callable[[str, str, Warmth], None], workers: int = WORKERS) -> None:
        self._on_end = on_end
        self._workers = workers
        self._runs: dict[Key, _Run] = {}
        self._lock = threading.Lock()
        self._work: queue.SimpleQueue[_Run | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._closed = False

    def begin(self, cold: Cold) -> None:
        """Ask for a warm-up; returns at once. One that was asked for before goes on, or has ended for good."""
        with self._lock:
            if self._closed or cold.key in self._runs:
                return
            run = self._runs[cold.key] = _Run(cold)
            self._work.put(run)
            if len(self._threads) < min(self._workers, len(self._runs)):
                thread = threading.Thread(target=self._serve, name="warm-up", daemon=True)
                self._threads.append(thread)
                thread.start()

    def warmth(self, key: Key) -> Warmth | None:
        """How far a warm-up is, None when it was never asked for."""
        with self._lock:
            run = self._runs.get(key)
        return run.warmth if run is not None else None

    def keep(self, environment: str, present: Mapping[str, datetime | None]) -> None:
        """Forget the warm-ups of containers that are gone or were started again: `present` are those there are."""
        with self._lock:
            for key, run in list(self._runs.items()):
                if run.cold.environment == environment and _is_over(key, present):
                    del self._runs[key]
                    run.stop()

    def close(self) -> None:
        """Cut off whatever is under way."""
        with self._lock:
            self._closed = True
            for run in self._runs.values():
                run.stop()
            for _ in self._threads:
                self._work.put(None)

    def _serve(self) -> None:
        while (run := self._work.get()) is not None:
            if not run.stopped:
                run.run()
            if not run.stopped:
                self._on_end(run.cold.environment, run.cold.name, run.warmth)


def _is_over(key: Key, present: Mapping[str, datetime | None]) -> bool:
    """A look may have begun before the start that the warm-up knows of: only a later start ends it."""
    identity, started = key
    if identity not in present:
        return True
    now = present[identity]
    return now is not None and started is not None and now > started

"""What a load counted: by kind of client, by version, by tenth of a second. Counts only; must not open connections.

A request counts as failed unless it got a whole answer with the status that was expected. Nothing is ever taken back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

BUCKET = 0.1
"""Seconds a bucket of the split covers."""
LAST_BUCKET = 36_000
"""An hour; later answers fall into the last bucket, so that a forgotten load does not fill the memory."""
KEPT_FAILURES = 20
UNKNOWN = "?"
"""The version of an answer that names none."""


@dataclass(frozen=True)
class Failure:
    """One request without a good answer. `at` is in seconds since the load began; `status` 0: there was no answer."""

    kind: str
    at: float
    reason: str
    status: int = 0
    version: str = ""


@dataclass
class KindTally:
    """The counts of one kind of client. Times are seconds since the load began.

    requests == answered + failed as soon as no request is open. `versions` and `buckets` count every whole answer that
    names its version, also a failed one: they show where the traffic went. `reconnects` are connections which the
    server ended while no request was on them.
    """

    kind: str
    requests: int = 0
    answered: int = 0
    failed: int = 0
    reconnects: int = 0
    failures: list[Failure] = field(default_factory=list)
    versions: Counter[str] = field(default_factory=Counter)
    buckets: dict[int, Counter[str]] = field(default_factory=dict)
    first_seen: dict[str, float] = field(default_factory=dict)
    last_seen: dict[str, float] = field(default_factory=dict)

    def good(self, version: str, at: float) -> None:
        """A whole answer with the expected status."""
        self.answered += 1
        self._seen(version or UNKNOWN, at)

    def bad(self, reason: str, at: float, status: int = 0, version: str = "", *, whole: bool = False) -> None:
        """A request without one; `whole`: it got another answer. The first ones are kept, the others only counted."""
        self.failed += 1
        if len(self.failures) < KEPT_FAILURES:
            self.failures.append(Failure(self.kind, at, reason, status, version))
        if whole and version:
            self._seen(version, at)

    def _seen(self, version: str, at: float) -> None:
        self.versions[version] += 1
        number = min(int(at / BUCKET), LAST_BUCKET)
        bucket = self.buckets.get(number)
        if bucket is None:
            bucket = self.buckets[number] = Counter()
        bucket[version] += 1
        if version not in self.first_seen:
            self.first_seen[version] = at
        self.last_seen[version] = at

    def copy(self) -> KindTally:
        """The counts as they are now."""
        return KindTally(
            self.kind,
            self.requests,
            self.answered,
            self.failed,
            self.reconnects,
            list(self.failures),
            Counter(self.versions),
            {number: Counter(bucket) for number, bucket in self.buckets.items()},
            dict(self.first_seen),
            dict(self.last_seen),
        )

    def __str__(self) -> str:
        versions = ", ".join(f"{version}: {count}" for version, count in sorted(self.versions.items()))
        line = f"{self.kind}: {self.requests} requests, {self.failed} failed, {self.reconnects} reconnects"
        return f"{line} ({versions})" if versions else line


@dataclass
class Tally:
    """All kinds of one load. `started` is the monotonic clock's time at its begin, to relate the times to others."""

    started: float
    kinds: dict[str, KindTally]

    @property
    def requests(self) -> int:
        return sum(kind.requests for kind in self.kinds.values())

    @property
    def answered(self) -> int:
        return sum(kind.answered for kind in self.kinds.values())

    @property
    def failed(self) -> int:
        return sum(kind.failed for kind in self.kinds.values())

    @property
    def reconnects(self) -> int:
        return sum(kind.reconnects for kind in self.kinds.values())

    @property
    def failures(self) -> list[Failure]:
        """The kept ones of all kinds, in the order of time."""
        return sorted((one for kind in self.kinds.values() for one in kind.failures), key=lambda one: one.at)

    @property
    def versions(self) -> Counter[str]:
        return _summed(kind.versions for kind in self.kinds.values())

    @property
    def first_seen(self) -> dict[str, float]:
        """The time of the first answer of each version, in seconds since the load began."""
        found: dict[str, float] = {}
        for kind in self.kinds.values():
            for version, at in kind.first_seen.items():
                found[version] = min(at, found.get(version, at))
        return found

    @property
    def last_seen(self) -> dict[str, float]:
        """The time of the latest answer of each version, in seconds since the load began."""
        found: dict[str, float] = {}
        for kind in self.kinds.values():
            for version, at in kind.last_seen.items():
                found[version] = max(at, found.get(version, at))
        return found

    def split(self, begin: float = 0.0, end: float = LAST_BUCKET * BUCKET) -> list[tuple[float, Counter[str]]]:
        """Answers by version, a row each 100 ms which has some: (its time in seconds since the load began, counts)."""
        first, last = round(begin / BUCKET), round(end / BUCKET)
        numbers = sorted({n for kind in self.kinds.values() for n in kind.buckets if first <= n <= last})
        return [
            (n * BUCKET, _summed(kind.buckets[n] for kind in self.kinds.values() if n in kind.buckets)) for n in numbers
        ]

    def copy(self) -> Tally:
        """The counts as they are now."""
        return Tally(self.started, {name: kind.copy() for name, kind in self.kinds.items()})

    def __str__(self) -> str:
        failures = (f"  {f.kind} at {f.at:.3f} s: {f.reason} {f.status or ''} {f.version}" for f in self.failures)
        return "\n".join([*map(str, self.kinds.values()), *failures])


def _summed(counts: Iterable[Counter[str]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return total

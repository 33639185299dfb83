"""What the proxies counted of each instance since it came into traffic, and how fast backends are asked.

A proxy counts by slot and from its own start on. Here each counter gets a base when its slot is given to an address,
or at the first look; a counter that falls began anew with its proxy, and what it had counted before is kept.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from reconciler.adapters.haproxy_table import Place

WINDOW = 5.0
"""How many seconds a rate looks back."""
_LOOKS = 128

Slot = tuple[str, str, str]
"""Proxy, backend, slot."""


@dataclass(slots=True)
class _Tally:
    at: tuple[str, int]
    base: dict[str, int]
    last: dict[str, int]
    before: dict[str, int] = field(default_factory=dict)

    def look(self, counts: Mapping[str, int]) -> dict[str, int]:
        for name, count in counts.items():
            last = self.last.get(name, 0)
            if count < last:
                self.before[name] = self.before.get(name, 0) + last - self.base.get(name, 0)
                self.base[name] = 0
            self.last[name] = count
        return {name: self.before.get(name, 0) + last - self.base.get(name, 0) for name, last in self.last.items()}


class Counts:
    """The bases of all slots of all proxies. Safe to use from several threads."""

    def __init__(self) -> None:
        self._tallies: dict[Slot, _Tally] = {}
        self._looks: dict[tuple[str, str], deque[tuple[float, int]]] = {}
        self._lock = threading.Lock()

    def give(self, proxy: str, place: Place, at: tuple[str, int]) -> None:
        """The slot, as it was just seen, is given to another address: count from here on."""
        with self._lock:
            self._begin(proxy, place, at)

    def look(self, proxy: str, place: Place) -> Mapping[str, int]:
        """What was counted at this place since it has its address."""
        with self._lock:
            tally = self._tallies.get((proxy, place.backend, place.slot))
            if tally is None or tally.at != place.at:
                tally = self._begin(proxy, place, place.at)
            return tally.look(place.counts)

    def _begin(self, proxy: str, place: Place, at: tuple[str, int]) -> _Tally:
        tally = _Tally(at, dict(place.counts), dict(place.counts))
        self._tallies[proxy, place.backend, place.slot] = tally
        return tally

    def seen(self, proxy: str, backend: str, requests: int, now: float) -> None:
        """The backend had that many `requests` in all at the monotonic time `now` in seconds."""
        with self._lock:
            looks = self._looks.setdefault((proxy, backend), deque(maxlen=_LOOKS))
            if looks and requests < looks[-1][1]:
                looks.clear()
            if looks and now - looks[-1][0] < WINDOW / _LOOKS:
                return
            looks.append((now, requests))
            while len(looks) > 2 and now - looks[1][0] >= WINDOW:
                looks.popleft()

    def rate(self, proxy: str, backend: str) -> float:
        """Requests per second over about the last WINDOW seconds; 0 until there were two looks."""
        with self._lock:
            looks = self._looks.get((proxy, backend))
            if looks is None or len(looks) < 2:
                return 0.0
            (began, before), (ended, after) = looks[0], looks[-1]
            return (after - before) / (ended - began)

    def forget(self, proxy: str, prefix: str, backends: Collection[str]) -> None:
        """Keep nothing of the backends of this proxy that begin with `prefix` and are not among `backends`."""
        with self._lock:
            for slot in [slot for slot in self._tallies if slot[0] == proxy and _gone(slot[1], prefix, backends)]:
                del self._tallies[slot]
            for pair in [pair for pair in self._looks if pair[0] == proxy and _gone(pair[1], prefix, backends)]:
                del self._looks[pair]


def _gone(backend: str, prefix: str, backends: Collection[str]) -> bool:
    return backend.startswith(prefix) and backend not in backends

"""Look at the proxies of one environment all the time, cheaply, and say when something matters. It changes nothing.

Once a second all rows of `show stat`; in between, many times a second, only those where the next event is awaited: an
instance that has to become idle, and a backend without any that is up, where the next request waits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from reconciler.adapters.haproxy_count import Counts
from reconciler.adapters.haproxy_front import Front
from reconciler.adapters.haproxy_socket import ask
from reconciler.adapters.haproxy_table import Row, stat
from reconciler.adapters.haproxy_view import Lingering, Spot, lingering, open_at
from reconciler.core import names
from reconciler.core.errors import ReconcilerError
from reconciler.ports import Clock

_log = structlog.get_logger(__name__)

SLOW = 1.0
FAST = 0.05
_WORDS = 5

Key = tuple[str, str]


@dataclass(slots=True)
class _Proxy:
    """What was seen last. `there` is None before the first look; `full_at` when the next look at all of it is due."""

    there: bool | None = None
    rows: dict[Key, Row] = field(default_factory=dict)
    full_at: float = 0.0


@dataclass(slots=True)
class _Change:
    """`table`: what the proxy would need at its next start is another than before."""

    said: list[str] = field(default_factory=list)
    table: bool = False


class Watcher:
    """One thread. `keep` saves the server state of the proxy with a number."""

    def __init__(
        self, environment: str, front: Front, seconds: float, counts: Counts, clock: Clock, keep: Callable[[int], None]
    ) -> None:
        self._environment = environment
        self._front = front
        self._seconds = seconds
        self._counts = counts
        self._clock = clock
        self._keep = keep
        self._prefix = names.backend(environment, "")
        self._proxies: dict[str, _Proxy] = {}
        self._expected: set[tuple[str, Key]] = set()
        self._older: set[Spot] = set()
        self._older_ways: set[Spot] = set()
        self._older_at = 0.0
        self._lock = threading.Lock()
        self._bell = threading.Event()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, notify: Callable[[str, str], None]) -> None:
        """Begin to look."""
        name = f"traffic-{self._environment}"
        self._thread = threading.Thread(target=self._run, args=(notify,), name=name, daemon=True)
        self._thread.start()

    def expect(self, busy: Iterable[tuple[str, Key]]) -> None:
        """Somebody saw these servers, each with its proxy's address, out of traffic but not idle: he waits for that.

        It may happen before the next look here, which could not tell it from a server that has long been idle.
        """
        with self._lock:
            self._expected.update(busy)
        self._bell.set()

    def expect_older(self, found: Mapping[Spot, Lingering]) -> None:
        """Somebody saw what older workers have, before the next look here: he may wait for the end of it."""
        with self._lock:
            self._older.update(spot for spot, each in found.items() if each.sessions)
            self._older_ways.update(spot for spot, each in found.items() if each.returning)
        self._bell.set()

    def stop(self) -> None:
        """End, and wait for the end."""
        self._stopped.set()
        self._bell.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self, notify: Callable[[str, str], None]) -> None:
        while not self._stopped.is_set():
            try:
                said = self.turn()
            except Exception:  # noqa: BLE001 (a bug must not end the thread: nothing would wake who sleeps)
                _log.exception("a bug in Reconciler", environment=self._environment)
                said = []
            if said:
                more = f" and {len(said) - _WORDS} more" if len(said) > _WORDS else ""
                notify(self._environment, "; ".join(said[:_WORDS]) + more)
            busy = any(any(_awaited(proxy.rows)) for proxy in self._proxies.values() if proxy.there)
            self._bell.wait(FAST if busy or self._older_leaving() else SLOW)
            self._bell.clear()

    def turn(self) -> Sequence[str]:
        """Look once at each proxy; what matters since the look before, in words."""
        said: list[str] = []
        try:
            sockets = self._front.sockets()
        except ReconcilerError:
            sockets = ()  # whoever observes the environment hears why
        for gone in self._proxies.keys() - set(sockets):
            del self._proxies[gone]
            said.append(f"proxy {gone} is gone")
        for index, address in enumerate(sockets):
            proxy = self._proxies.setdefault(address, _Proxy())
            change = self._look(address, proxy)
            said += change.said
            if change.table:
                try:
                    self._keep(index)
                except ReconcilerError:
                    continue  # the next change of ours says why it cannot be saved
        return said + self._look_at_older()

    def _look_at_older(self) -> list[str]:
        """What ended in older workers. The front asks nobody while there are none."""
        now = self._clock.monotonic()
        leaving = self._older_leaving()
        if now < self._older_at and not leaving:
            return []
        with self._lock:
            before, ways_before = set(self._older), set(self._older_ways)
        try:
            found = lingering(self._front.former(), self._prefix, self._environment)
        except ReconcilerError:
            return []  # whoever observes the environment hears why
        after = {spot for spot, each in found.items() if each.sessions}
        ways = {spot for spot, each in found.items() if each.returning}
        with self._lock:
            self._older = (self._older - before) | after
            self._older_ways = (self._older_ways - ways_before) | ways
        self._older_at = now + SLOW
        said = [f"{backend} {at[0]}:{at[1]} is idle in older workers" for backend, at in sorted(before - after)]
        if ways_before - ways:
            said.append("clients of older workers have left")
        return said

    def _older_leaving(self) -> bool:
        """Whether older workers go on at an address that is out of traffic, so that somebody waits for it."""
        with self._lock:
            older = set(self._older)
        staying = {
            (row.backend, open_at(row))
            for proxy in (self._proxies.values() if older else ())
            for row in proxy.rows.values()
            if row.server and not _leaving(row)
        }
        return not older <= staying

    def _look(self, address: str, proxy: _Proxy) -> _Change:
        now = self._clock.monotonic()
        with self._lock:
            expected = {key for place, key in self._expected if place == address}
            self._expected.difference_update([(address, key) for key in expected])
        full = now >= proxy.full_at or not proxy.there or bool(expected)
        commands = ["show stat -1 6 -1"] if full else list(_awaited(proxy.rows))
        if not commands:
            return _Change()
        try:
            rows = {
                (row.backend, row.server): row
                for row in stat(ask(address, commands, self._seconds), address)
                if row.backend.startswith(self._prefix)
            }
        except ReconcilerError:
            lost = proxy.there is not False
            proxy.there = False
            return _Change([f"proxy {address} does not answer"] if lost else [])
        for row in rows.values():
            if not row.server:
                self._counts.seen(address, row.backend, row.requests, now)
        change = _changes(proxy.rows if proxy.there else {}, rows, expected)
        if proxy.there is False:
            change.said.append(f"proxy {address} is back")
        if full:
            if proxy.there and proxy.rows.keys() != rows.keys():
                change.said.append(f"proxy {address} has other backends or slots")
            proxy.full_at = now + SLOW
            proxy.rows = rows
        else:
            proxy.rows.update(rows)
        proxy.there = True
        return change


def _changes(before: Mapping[Key, Row], after: Mapping[Key, Row], expected: Collection[Key]) -> _Change:
    change = _Change()
    inside, inside_before = _inside({**before, **after}), _inside(before)
    for key, row in after.items():
        old = before.get(key)
        left = key in expected or (old is not None and _sessions(old) > 0)
        if row.server and left and _leaving(row) and not _sessions(row):
            change.said.append(f"{row.backend}/{row.server} {row.address} is idle")
        if not row.server and _waits(row, inside) and (old is None or not _waits(old, inside_before)):
            change.said.append(f"a request waits for {row.backend}")
        if old is None:
            continue
        if row.server:
            if _mark(old) != _mark(row):
                change.table = True
                change.said.append(f"{row.backend}/{row.server} {row.address} is {row.status}, weight {row.weight}")
        elif old.up != row.up:
            change.said.append(f"{row.backend} is {'up' if row.up else 'down'}")
    return change


def _mark(row: Row) -> tuple[str, str, str]:
    """What makes a server's treatment another one; `UP 1/3` is still up."""
    return row.status.split(" ", 1)[0], row.address, row.weight


def _sessions(row: Row) -> int:
    return row.sessions + row.queued


def _leaving(row: Row) -> bool:
    return row.weight == "0" or row.status.startswith(("DRAIN", "MAINT"))


def _inside(rows: Mapping[Key, Row]) -> Mapping[str, int]:
    """The requests that are at a server, by backend."""
    found: dict[str, int] = {}
    for row in rows.values():
        if row.server:
            found[row.backend] = found.get(row.backend, 0) + _sessions(row)
    return found


def _waits(total: Row, inside: Mapping[str, int]) -> bool:
    """As `haproxy_view.waiting` says it of places."""
    return not total.up and (total.queued > 0 or total.sessions > inside.get(total.backend, 0))


def _awaited(rows: Mapping[Key, Row]) -> Iterator[str]:
    """The commands that show the rows where something is awaited soon."""
    down = {row.backend for row in rows.values() if not row.server and not row.up}
    leaving = {row.backend for row in rows.values() if row.server and _leaving(row) and _sessions(row)}
    busy = {row.backend for row in rows.values() if row.server and _sessions(row)}
    for backend in sorted(leaving | (down & busy)):
        yield f"show stat {backend} 6 -1"
    if down - busy:
        yield "show stat -1 2 -1"  # one row a backend: nothing can go on at servers that are all down

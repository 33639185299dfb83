"""What several proxies of one environment show, as one picture. Pure; it asks nothing.

A request may come to any of the proxies, so an instance is as ready as the least willing of them says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from reconciler.adapters.haproxy_plan import is_free
from reconciler.adapters.haproxy_table import Place, Row, Table, clients, stat
from reconciler.core.live import Backend, Served, Server, ServerMode
from reconciler.core.proxy_config import LATENCY_BOUNDS_MS

_WILLING = (ServerMode.MAINT, ServerMode.DRAIN, ServerMode.READY)
_PLAIN = frozenset({"requests", "errors"})

Spot = tuple[str, tuple[str, int]]
"""A backend, and an address and port in it."""
Counted = Callable[[str, Place], Mapping[str, int]]
"""What was counted at a place of the proxy with this address."""
Rate = Callable[[str, str], float]
"""The requests per second of a backend in the proxy with this address."""


def merge(
    tables: Mapping[str, Table], *, known: bool, counted: Counted, rate: Rate, older: Mapping[Spot, int]
) -> Mapping[str, Backend]:
    """The backends by name. `tables` are by the proxies' addresses; `known`: every proxy answered.

    `older`: the sessions that older workers of the proxies still have; `known` is false when that cannot be said.
    """
    names = sorted({name for table in tables.values() for name in table.totals})
    return {name: _backend(name, tables, known, counted, rate, older) for name in names}


def open_at(row: Row) -> tuple[str, int] | None:
    """Whom a server in `show stat` leads to; None when it leads nowhere."""
    address, _, port = row.address.rpartition(":")
    return (address.strip("[]"), int(port)) if address and re.fullmatch("[0-9]{1,5}", port) else None


def lingering(texts: Iterable[str], prefix: str, where: str) -> tuple[Mapping[Spot, int], int]:
    """What goes on in older workers, an answer to `show stat` each, in backends that begin with `prefix`; no zeros.

    The second value is how many clients are connected there. Raises Retryable when an answer cannot be read.
    """
    found: dict[Spot, int] = {}
    connected = 0
    for text in texts:
        connected += clients(text, where)
        for row in stat(text, where):
            at, open_ = open_at(row), row.sessions + row.queued
            if row.server and row.backend.startswith(prefix) and at and open_:
                found[row.backend, at] = found.get((row.backend, at), 0) + open_
    return found, connected


def awaiting(backends: Mapping[str, Backend], connected: int) -> Mapping[str, Backend]:
    """The backends where so many clients are connected to older workers.

    Each of them may send one more request, which goes by the old table to any server: so none of these is idle.
    """
    if not connected:
        return backends

    def busy(server: Server) -> Server:
        if server.mode is ServerMode.MAINT or server.sessions is None:
            return server
        return replace(server, sessions=max(server.sessions, connected))

    return {name: replace(each, servers=tuple(map(busy, each.servers))) for name, each in backends.items()}


def waiting(total: Row, places: Sequence[Place]) -> int:
    """The requests that one proxy keeps because no instance is up: those that are in the backend but at no server."""
    return 0 if total.up else max(total.queued, total.sessions - sum(place.sessions for place in places))


def _backend(
    name: str,
    tables: Mapping[str, Table],
    known: bool,  # noqa: FBT001
    counted: Counted,
    rate: Rate,
    older: Mapping[Spot, int],
) -> Backend:
    past = {at: count for (backend, at), count in older.items() if backend == name}
    by_proxy = {proxy: table.of(name) for proxy, table in tables.items()}
    rows = {proxy: table.totals[name] for proxy, table in tables.items() if name in table.totals}
    seen: dict[tuple[str, int], None] = {}
    for places in by_proxy.values():
        seen.update((place.at, None) for place in places if place.address)
    seen.update(dict.fromkeys(past))
    return Backend(
        servers=tuple(_server(at, by_proxy, known, counted, past.get(at, 0)) for at in sorted(seen)),
        free=min(sum(is_free(place) and not place.address for place in places) for places in by_proxy.values()),
        waiting=sum(waiting(row, by_proxy[proxy]) for proxy, row in rows.items()),
        sessions=sum(row.sessions for row in rows.values()) + sum(past.values()),
        rate=sum(rate(proxy, name) for proxy in rows),
    )


def _server(
    at: tuple[str, int],
    by_proxy: Mapping[str, Sequence[Place]],
    known: bool,  # noqa: FBT001
    counted: Counted,
    sessions: int,
) -> Server:
    """One address. A proxy that does not have it sends it nothing; two slots of one proxy count as one another's.

    `sessions`: those in older workers.
    """
    shown: set[tuple[ServerMode, int, bool]] = set()
    counts: dict[str, int] = {}
    for proxy, places in by_proxy.items():
        mine = [place for place in places if place.at == at]
        shown.update((place.mode, place.weight, place.up) for place in mine)
        if not mine:
            shown.add((ServerMode.MAINT, 0, False))
        for place in mine:
            sessions += place.sessions
            for key, count in counted(proxy, place).items():
                counts[key] = counts.get(key, 0) + count
    return Server(
        *at,
        mode=min((mode for mode, _, _ in shown), key=_WILLING.index),
        weight=min(weight for _, weight, _ in shown),
        up=all(up for _, _, up in shown),
        sessions=sessions if known else None,
        served=Served(counts.get("requests", 0), counts.get("errors", 0), _slow(counts)),
        even=_even(shown),
    )


def _even(shown: Collection[tuple[ServerMode, int, bool]]) -> bool:
    """Whether the proxies treat an address alike. Out of traffic is out of traffic, with a place or without and whatever
    its weight would be; and where it has no weight, it is all one which of them found it up first."""
    alike = {(mode, weight, up or not weight) for mode, weight, up in shown}
    return len(alike) == 1 or all(mode is ServerMode.MAINT for mode, _, _ in shown)


def _slow(counts: Mapping[str, int]) -> Mapping[int, int]:
    """How many answers took longer than each bound; nothing when the proxy counts none."""
    if not counts.keys() - _PLAIN:
        return {}
    slower = counts.get("inf", 0)
    found: dict[int, int] = {}
    for bound in reversed(LATENCY_BOUNDS_MS):
        found[bound] = slower
        slower += counts.get(str(bound), 0)
    return dict(sorted(found.items()))

"""What several proxies of one environment show, as one picture. Pure; it asks nothing.

A request may come to any of the proxies, so an instance is as ready as the least willing of them says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from reconciler.adapters.haproxy_plan import is_free
from reconciler.adapters.haproxy_table import Place, Row, Table, clients, stat
from reconciler.core.live import Backend, Served, Server, ServerMode
from reconciler.core.proxy_config import ENTRANCE, LATENCY_BOUNDS_MS

_WILLING = (ServerMode.MAINT, ServerMode.DRAIN, ServerMode.READY)
_PLAIN = frozenset({"requests", "errors"})

Spot = tuple[str, tuple[str, int]]
"""A backend, and an address and port in it."""
Counted = Callable[[str, Place], Mapping[str, int]]
"""What was counted at a place of the proxy with this address."""
Rate = Callable[[str, str], float]
"""The requests per second of a backend in the proxy with this address."""


@dataclass(frozen=True, slots=True)
class Lingering:
    """What older workers still have at a spot: sessions, and clients whose next request they may lead there."""

    sessions: int = 0
    returning: int = 0


NOTHING = Lingering()


def merge(
    tables: Mapping[str, Table], *, known: bool, counted: Counted, rate: Rate, older: Mapping[Spot, Lingering]
) -> Mapping[str, Backend]:
    """The backends by name. `tables` are by the proxies' addresses; `known`: every proxy answered.

    `older`: what older workers of the proxies still have; `known` is false when that cannot be said.
    """
    names = sorted({name for table in tables.values() for name in table.totals})
    return {name: _backend(name, tables, known, counted, rate, older) for name in names}


def open_at(row: Row) -> tuple[str, int] | None:
    """Whom a server in `show stat` leads to; None when it leads nowhere."""
    address, _, port = row.address.rpartition(":")
    return (address.strip("[]"), int(port)) if address and re.fullmatch("[0-9]{1,5}", port) else None


def lingering(texts: Iterable[str], prefix: str, where: str) -> Mapping[Spot, Lingering]:
    """What older workers, an answer to `show stat` each, have in backends that begin with `prefix`; nothing empty.

    An older worker leads the next request of each client that is still connected to it by the table that it had: to
    any server that it does not hold in maintenance. Raises Retryable when an answer cannot be read.
    """
    found: dict[Spot, Lingering] = {}
    for text in texts:
        connected = clients(text, ENTRANCE, where)
        for row in stat(text, where):
            at, open_ = open_at(row), row.sessions + row.queued
            coming = connected if row.http and not row.status.startswith("MAINT") else 0
            if row.server and row.backend.startswith(prefix) and at and (open_ or coming):
                spot = row.backend, at
                before = found.get(spot, NOTHING)
                found[spot] = Lingering(before.sessions + open_, before.returning + coming)
    return found


def waiting(total: Row, places: Sequence[Place]) -> int:
    """The requests that one proxy keeps because no instance is up: those that are in the backend but at no server."""
    return 0 if total.up else max(total.queued, total.sessions - sum(place.sessions for place in places))


def _backend(
    name: str,
    tables: Mapping[str, Table],
    known: bool,  # noqa: FBT001
    counted: Counted,
    rate: Rate,
    older: Mapping[Spot, Lingering],
) -> Backend:
    past = {at: count for (backend, at), count in older.items() if backend == name}
    by_proxy = {proxy: table.of(name) for proxy, table in tables.items()}
    rows = {proxy: table.totals[name] for proxy, table in tables.items() if name in table.totals}
    seen: dict[tuple[str, int], None] = {}
    for places in by_proxy.values():
        seen.update((place.at, None) for place in places if place.address)
    seen.update(dict.fromkeys(past))
    return Backend(
        servers=tuple(_server(at, by_proxy, known, counted, past.get(at, NOTHING)) for at in sorted(seen)),
        free=min(sum(is_free(place) and not place.address for place in places) for places in by_proxy.values()),
        waiting=sum(waiting(row, by_proxy[proxy]) for proxy, row in rows.items()),
        sessions=sum(row.sessions for row in rows.values()) + sum(each.sessions for each in past.values()),
        rate=sum(rate(proxy, name) for proxy in rows),
    )


def _server(
    at: tuple[str, int],
    by_proxy: Mapping[str, Sequence[Place]],
    known: bool,  # noqa: FBT001
    counted: Counted,
    older: Lingering,
) -> Server:
    """One address. A proxy that does not have it sends it nothing; two slots of one proxy count as one another's."""
    sessions = older.sessions
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
        returning=older.returning,
    )


def _even(shown: Collection[tuple[ServerMode, int, bool]]) -> bool:
    """Whether the proxies treat an address alike. Out of traffic is out of traffic, with a place or without and
    whatever its weight would be; and where it has no weight, it is all one which of them found it up first."""
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

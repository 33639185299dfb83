"""What a schema cannot say about the proxies in the settings: addresses that are none, missing, or wanted twice.

It reads what the schema found right, and opens nothing.
"""

from __future__ import annotations

import ipaddress
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from reconciler.core.addresses import listen, port_range
from reconciler.core.words import shown
from reconciler.core.yaml_reader import Path

TAKEN = (80, 443, 8405)
"""Where a proxy of ours listens inside its container for HTTP, HTTPS and metrics."""
MAX_PORTS = 1000
"""Ports for TCP of one proxy: the engine takes up each of them, used or not."""

_EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not listened on


class _Published(NamedTuple):
    """Ports at an address of the engine's host, and where in the proxy's section they are written."""

    place: Path
    address: str
    low: int
    high: int

    @property
    def usable(self) -> bool:
        return 1 <= self.low <= self.high <= 65535


def proxy_remarks(proxy: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """(place below `proxy`, problem) for each; nothing for an empty section."""
    published = tuple(_published(proxy))
    if "image" in proxy and not any(each.place[0] in ("http", "https", "tcp") for each in published):
        yield (), "this proxy would listen nowhere; write http, https or tcp"
    for key, other in (("https", "certificates"), ("certificates", "https")):
        if key in proxy and other not in proxy:
            yield (key,), f"{key} goes with {other}; write both or none"
    yield from _addresses(published)
    yield from _sockets(proxy.get("sockets", ()))


def _addresses(published: Sequence[_Published]) -> Iterator[tuple[Path, str]]:
    for each in published:
        if not each.usable:
            yield each.place, "these are no ports; write one or, with the lower one first, a range within 1-65535"
        own = [port for port in TAKEN if each.place[0] == "tcp" and each.low <= port <= each.high]
        if own:
            yield each.place, f"port {own[0]} is the proxy's own; leave {', '.join(map(str, TAKEN))} out"
    for place, address in {(each.place[0], each.address) for each in published}:
        if not _is_address(address):
            where = ("tcp", "address") if place == "tcp" else (place,)
            yield where, f"{shown(address)} is not an IP address; write one"
    if sum(each.high - each.low + 1 for each in published if each.place[0] == "tcp" and each.usable) > MAX_PORTS:
        yield ("tcp", "ports"), f"these are more than {MAX_PORTS} ports; write fewer"


def _sockets(sockets: Sequence[str]) -> Iterator[tuple[Path, str]]:
    for index, socket in enumerate(sockets):
        if socket.startswith("tcp://") and not 1 <= listen(socket.removeprefix("tcp://"))[1] <= 65535:
            yield ("sockets", index), "the port is not within 1-65535; choose another"
        if socket in sockets[:index]:
            yield ("sockets", index), "this socket is here twice; remove one"


def shared(proxies: Mapping[str, tuple[str, Mapping[str, Any]]]) -> Iterator[tuple[Path, str]]:
    """(place, problem) for each address that two proxies on one host want, or one twice, and for each shared `state`.

    `proxies` maps an environment to its engine's host and the section of its proxy, which may be empty.
    """
    taken: dict[tuple[str, int], list[tuple[str, str]]] = {}
    states: dict[str, str] = {}
    for name, (host, proxy) in proxies.items():
        for each in _published(proxy):
            mine = f"{name} ({each.place[0]})"
            for port in range(each.low, each.high + 1) if each.usable else ():
                others = taken.setdefault((host, port), [])
                found = next((other for address, other in others if _overlap(address, each.address)), None)
                if found is not None:
                    message = f"port {port} at {each.address} is also wanted by {found}; give each its own"
                    yield ("environments", name, "proxy", *each.place), message
                    break
                others.append((each.address, mine))
        if "state" in proxy:
            other = states.setdefault(posixpath.normpath(proxy["state"]), name)
            if other != name:
                message = f"this is also the directory of {other}; give each its own"
                yield ("environments", name, "proxy", "state"), message


def _published(proxy: Mapping[str, Any]) -> Iterator[_Published]:
    """All that a proxy of ours is published at."""
    for key in ("http", "https", "metrics"):
        if key in proxy:
            address, port = listen(proxy[key])
            yield _Published((key,), address, port, port)
    tcp = proxy.get("tcp", {})
    for index, text in enumerate(tcp.get("ports", ())):
        yield _Published(("tcp", "ports", index), tcp.get("address", "127.0.0.1"), *port_range(text))


def _overlap(one: str, other: str) -> bool:
    return one == other or bool(_EVERYWHERE & {one, other})


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True

"""The tables of the proxies: which instance gets which share, how that compares with what they show, and what is stray.

Pure. A table is always whole: what is not in it gets no traffic.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from reconciler.core import names
from reconciler.core.diff import View
from reconciler.core.live import Instance, LiveState, ProxyState, Server, ServerMode
from reconciler.core.model import DriftPolicy
from reconciler.core.steps import FreePlace, Share, ShiftTraffic

FULL = 100
"""The weight of an instance where all get the same."""
MOST = 256
"""The greatest weight of a server (HAProxy configuration manual, `weight`)."""
_WILLING = (ServerMode.READY, ServerMode.DRAIN, ServerMode.MAINT)


def joined(live: LiveState, proxy: ProxyState | None, routed: Collection[str]) -> LiveState:
    """The live state with what the proxies show: each instance with its places, `serving` as its clients see it.

    `routed` are the services that the proxies stand in front of.
    """
    if proxy is None:
        return live

    def place(instance: Instance, *, preview: bool) -> Server | None:
        backend = proxy.backends.get(names.backend(live.environment, instance.service, preview=preview))
        found = backend.servers if backend and instance.address else ()
        mine = (server for server in found if server.address == instance.address)
        # Where the port of a route changes, an instance has two places for a while.
        return min(mine, key=lambda server: _WILLING.index(server.mode), default=None)

    def fronted(instance: Instance) -> Instance:
        server = place(instance, preview=False)
        takes = server is not None and server.mode is ServerMode.READY and server.up and server.weight > 0
        serving = takes if server is not None and server.mode is not ServerMode.MAINT else instance.serving
        return replace(instance, server=server, preview=place(instance, preview=True), serving=serving)

    instances = tuple(fronted(each) if each.service in routed else each for each in live.instances)
    return replace(live, instances=instances, proxy=proxy)


def split(groups: Sequence[tuple[int, float]]) -> tuple[int, ...]:
    """Weights per instance for groups of (instances, share of the traffic): the integers that come nearest.

    A group with a share gets at least weight 1; one without gets 0.
    """
    wanted = [share / count if count else 0.0 for count, share in groups]
    most = max(wanted, default=0.0)
    if most <= 0:
        return tuple(0 for _ in groups)
    total = sum(share for count, share in groups if count)

    def at(scale: int) -> tuple[int, ...]:
        return tuple(max(round(each * scale / most), 1) if each > 0 else 0 for each in wanted)

    def error(weights: tuple[int, ...]) -> float:
        given = sum(weight * count for weight, (count, _) in zip(weights, groups, strict=True))
        pairs = zip(weights, groups, strict=True)
        return max(abs(weight * count / given - share / total) for weight, (count, share) in pairs if count)

    found = (at(scale) for scale in range(1, MOST + 1))
    return min(found, key=lambda weights: (round(error(weights), 9), abs(max(weights) - FULL)))


def ready(view: View, instances: Sequence[Instance], weight: int = FULL) -> list[Share]:
    """Places in traffic for instances that run and have an address."""
    assert view.spec.route is not None
    port = view.spec.route.port
    return [Share(i.name, i.address, port, ServerMode.READY, weight) for i in instances if i.address]


def draining(instance: Instance, server: Server) -> Share:
    """A place without new requests for an instance that has one at `server`."""
    return Share(instance.name, instance.address, server.port, ServerMode.DRAIN, server.weight)


def shift(view: View, shares: Sequence[Share], stage: int | None = None) -> ShiftTraffic | None:
    """The step that makes the proxies' table this one; None when it is, and the journal knows it."""
    wanted = {share.name: share for share in shares}
    known = view.memory.shares
    # What a person did to weights is only reported where Git says so; a place that is gone is nobody's wish.
    placed = all(instance.server is not None for instance in view.instances if instance.name in wanted)
    if view.spec.drift is DriftPolicy.REPORT and known == described(shares) and stage is None and placed:
        return None
    done = stage is None and not any(_differs(view, instance, wanted.get(instance.name)) for instance in view.instances)
    if done and (known is not None or not shares):
        return None
    backend = names.backend(view.environment, view.spec.name)
    return ShiftTraffic(backend, view.spec.name, tuple(sorted(shares, key=lambda share: share.name)), stage)


def preview(view: View, shown: Sequence[Instance]) -> ShiftTraffic | None:
    """The step that shows these instances, and only these, at the preview address; None where it is so."""
    if view.spec.route is None or not view.spec.route.preview:
        return None
    wanted = {share.name: share for share in ready(view, shown)}
    if not any(_unlike(instance.preview, wanted.get(instance.name)) for instance in view.instances):
        return None
    backend = names.backend(view.environment, view.spec.name, preview=True)
    return ShiftTraffic(backend, view.spec.name, tuple(wanted[name] for name in sorted(wanted)))


def _differs(view: View, instance: Instance, share: Share | None) -> bool:
    """Whether the proxies show an instance otherwise than wanted, or the journal does not know that it is so."""
    if share is None:
        return _unlike(instance.server, None)
    detached = instance.name in view.memory.detached
    return _unlike(instance.server, share) or detached is (share.mode is ServerMode.READY)


def _unlike(server: Server | None, share: Share | None) -> bool:
    if share is None:
        return server is not None and (server.mode is not ServerMode.MAINT or not server.even)
    if server is None or server.mode is not share.mode or server.port != share.port or not server.even:
        return True
    return share.mode is ServerMode.READY and server.weight != share.weight


def described(shares: Sequence[Share]) -> Mapping[str, str]:
    """A table in words: `ready 100`, `drain`; by the names of instances."""
    return {share.name: said(share.mode, share.weight) for share in shares}


def said(mode: ServerMode, weight: int) -> str:
    """One place of a table in words."""
    return f"{mode} {weight}" if mode is ServerMode.READY else str(mode)


def changed(view: View) -> str:
    """In what the proxies' table is not as we last made it, in words; "" when it is, or when that is not known."""
    if not view.routed or view.blind or view.memory.shares is None:
        return ""
    found = []
    for instance in view.instances:
        made = view.memory.shares.get(instance.name)
        if made is None or not instance.address:
            continue
        shown = said(instance.server.mode, instance.server.weight) if instance.server is not None else "no place"
        if shown != made:
            found.append(f"{instance.name}: {made} -> {shown}")
    return ", ".join(found)


def strays(live: LiveState) -> tuple[FreePlace, ...]:
    """Places of addresses that no instance has. The engine may give such an address to an instance of anybody.

    Nobody can take from older workers what they only may lead there: it is waited for, out of traffic.
    """
    if live.proxy is None:
        return ()
    addresses: dict[str, set[str]] = {}
    for instance in live.instances:
        if instance.address:
            for shown in (False, True):
                backend = names.backend(live.environment, instance.service, preview=shown)
                addresses.setdefault(backend, set()).add(instance.address)
    return tuple(
        FreePlace(name, server.address, server.port)
        for name, backend in sorted(live.proxy.backends.items())
        for server in backend.servers
        if server.address not in addresses.get(name, set())
        and not (server.mode is ServerMode.MAINT and server.returning and not server.sessions)
    )

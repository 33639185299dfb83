"""Bring one backend to a wanted table in all proxies of an environment, so that no request is lost.

It keeps nothing between two calls: what was begun and not finished is seen in the proxies the next time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from reconciler.adapters import haproxy_plan as plan
from reconciler.adapters import haproxy_table
from reconciler.adapters.haproxy_count import Counts
from reconciler.adapters.haproxy_socket import ask
from reconciler.adapters.haproxy_table import Place
from reconciler.core.errors import Reason, ReconcilerError, Retryable, Stalled
from reconciler.core.steps import Share, ShiftTraffic
from reconciler.failpoints import hit

_STEP = 0.005
_UNKNOWN = re.compile(r"^(can't find|no such) (backend|proxy)", re.IGNORECASE | re.MULTILINE)


@dataclass(slots=True)
class _Proxy:
    address: str
    places: Sequence[Place]
    slots: dict[str, Share] = field(default_factory=dict)
    unproven: frozenset[tuple[str, int]] = frozenset()
    raised: frozenset[tuple[str, int]] = frozenset()


@dataclass(frozen=True, slots=True)
class Shift:
    """One backend of the proxies at `sockets`. `touch` is called with the number of a proxy before it is changed."""

    backend: str
    sockets: Sequence[str]
    seconds: float
    counts: Counts
    touch: Callable[[int], None]

    def to(self, effect: ShiftTraffic) -> None:
        """Make the shares of `effect` the whole table. Raises as `ports.Traffic.apply` does."""
        proxies = [_Proxy(address, self.look(address, f"show table {self.backend}")) for address in self.sockets]
        for proxy in proxies:
            try:
                proxy.slots = plan.assign(proxy.places, effect.shares)
            except plan.Full as full:
                raise self._full(proxy, full.missing) from None
        self._raise(proxies)
        self._wait(proxies)
        for number, proxy in enumerate(proxies):
            self._settle(number, proxy)

    def each(self, commands: Callable[[Sequence[Place]], Sequence[str]], address: str, port: int) -> None:
        """Do `commands` for the places that lead to `address`:`port`, in every proxy that has such places."""
        trouble: ReconcilerError | None = None
        for number, socket in enumerate(self.sockets):
            # One that does not answer keeps nothing from being taken away at the others.
            try:
                places = [place for place in self.look(socket) if place.at == (address, port)]
                if places:
                    self._do(number, socket, commands(places))
            except ReconcilerError as error:
                trouble = trouble or error
        if trouble is not None:
            raise trouble

    def look(self, address: str, *before: str) -> Sequence[Place]:
        """The places of this backend in one proxy, after the commands `before`, all on one connection.

        Raises Stalled(PROXY_REFUSED) when it has no such backend.
        """
        looks = (f"show servers state {self.backend}", f"show stat {self.backend} 6 -1")
        return self._places(ask(address, (*before, *looks), self.seconds), address)

    def _places(self, text: str, address: str) -> Sequence[Place]:
        if _UNKNOWN.search(text):
            raise Stalled(
                Reason.PROXY_REFUSED,
                f"the proxy has no backend {self.backend}",
                where=address,
                remedy="Its configuration has to have the one of this environment: see `reconciler proxy config`",
            )
        return haproxy_table.table(text, address).of(self.backend)

    def _do(self, number: int, address: str, commands: Sequence[str]) -> Sequence[Place]:
        """Do the commands at one proxy, on one connection, and see what it came to."""
        self.touch(number)
        return self.look(address, *commands)

    def _raise(self, proxies: Sequence[_Proxy]) -> None:
        for number, proxy in enumerate(proxies):
            raised = plan.raising(proxy.places, proxy.slots)
            proxy.unproven, proxy.raised = raised.unproven, raised.raised
            for place in proxy.places:
                share = proxy.slots.get(place.slot)
                if share is not None and place.at != (share.address, share.port):
                    self.counts.give(proxy.address, place, (share.address, share.port))
            if raised.commands:
                hit("traffic.before_raise")
                proxy.places = self._do(number, proxy.address, raised.commands)
                hit("traffic.after_raise")

    def _wait(self, proxies: Sequence[_Proxy]) -> None:
        """Until each READY one is up in every proxy. Raises Retryable by a look that began when the time was over.

        An older one says nothing: whoever stood still meanwhile would give up what has long come up.
        """
        end = time.monotonic() + self.seconds
        over = False
        while True:
            missing = [
                (proxy, share)
                for proxy in proxies
                for share in plan.not_up(proxy.places, proxy.slots, proxy.raised, proxy.unproven)
            ]
            if not missing:
                return
            if over:
                raise self._down(missing)
            time.sleep(_STEP)
            over = time.monotonic() >= end
            for proxy in {id(proxy): proxy for proxy, _ in missing}.values():
                proxy.places = self.look(proxy.address)

    def _settle(self, number: int, proxy: _Proxy) -> None:
        """The exact weights, and what is taken away, at one go; then the places where nothing goes on any more."""
        for commands in (plan.settling, plan.freeing):
            todo = commands(proxy.places, proxy.slots)
            if todo:
                hit("traffic.before_settle")
                proxy.places = self._do(number, proxy.address, todo)
                hit("traffic.after_settle")
        if left := plan.settling(proxy.places, proxy.slots):
            raise Retryable(
                Reason.PROXY_UNREACHABLE,
                f"the proxy did not take `{left[0]}`",
                where=proxy.address,
                remedy="See its log; nobody else should change these servers at the same time",
                after=timedelta(seconds=1),
            )

    def _full(self, proxy: _Proxy, missing: int) -> Stalled:
        return Stalled(
            Reason.PROXY_FULL,
            f"{missing} more of the {len(proxy.places)} places of {self.backend} are needed than are free",
            where=proxy.address,
            remedy="Let fewer instances exist at once (replicas, surge, held versions), or give the backend more slots",
        )

    def _down(self, missing: Sequence[tuple[_Proxy, Share]]) -> Retryable:
        proxies: Mapping[str, None] = dict.fromkeys(proxy.address for proxy, _ in missing)
        shares = dict.fromkeys(f"{share.name} ({share.address}:{share.port})" for _, share in missing)
        return Retryable(
            Reason.PROXY_UNREACHABLE,
            f"{', '.join(shares)} did not come up in the proxy within {self.seconds:g} s; "
            f"nothing was taken from the others",
            where=f"{', '.join(proxies)}, {self.backend}",
            remedy="See that the proxy reaches that address: the proxy's checks of it do not pass",
            after=timedelta(seconds=1),
        )

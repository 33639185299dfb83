"""The port Traffic over the runtime sockets of HAProxy: every change is made at every proxy of an environment.

The proxies are the truth for weights: nothing of them is kept here but the bases of counters. It decides nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import assert_never

from reconciler.adapters import haproxy_plan as plan
from reconciler.adapters import haproxy_table
from reconciler.adapters.haproxy_count import Counts
from reconciler.adapters.haproxy_doors import Doors
from reconciler.adapters.haproxy_front import Front
from reconciler.adapters.haproxy_shift import Shift
from reconciler.adapters.haproxy_socket import ask
from reconciler.adapters.haproxy_table import Table
from reconciler.adapters.haproxy_view import Lingering, Spot, lingering, merge
from reconciler.adapters.haproxy_watch import Watcher
from reconciler.core import names
from reconciler.core.errors import Reason, ReconcilerError, Retryable
from reconciler.core.live import ProxyState, ProxyStatus, ServerMode
from reconciler.core.steps import CutSessions, EnsureProxy, FreePlace, ShiftTraffic, TrafficEffect
from reconciler.failpoints import hit
from reconciler.ports import Clock
from reconciler.settings import ProxySettings


class HaproxyTraffic:
    """The proxies of several environments. `fronts` and `settings` are by environment."""

    def __init__(self, fronts: Mapping[str, Front], settings: Mapping[str, ProxySettings], clock: Clock) -> None:
        self._houses = {
            name: House(name, front, settings[name].timeout.total_seconds(), clock) for name, front in fronts.items()
        }

    def observe(self, environment: str) -> ProxyState:
        """What the proxies of `environment` show; ABSENT for an environment without any."""
        house = self._houses.get(environment)
        return house.observe() if house else ProxyState(ProxyStatus.ABSENT)

    def apply(self, environment: str, effect: TrafficEffect) -> None:
        """Do one effect at every proxy of `environment`."""
        house = self._houses.get(environment)
        if house is None:
            raise _nobody(environment)
        house.apply(effect)

    def watch(self, notify: Callable[[str, str], None]) -> None:
        """Look at the proxies all the time from now on, one thread an environment."""
        for house in self._houses.values():
            house.watch(notify)

    def close(self) -> None:
        """Stop watching, let go of the fronts."""
        for house in self._houses.values():
            house.close()


class House:
    """The proxies of one environment. Its methods may be called by several threads at once."""

    def __init__(self, environment: str, front: Front, seconds: float, clock: Clock) -> None:
        self.environment = environment
        self.front = front
        self.seconds = seconds
        self._prefix = names.backend(environment, "")
        self._clock = clock
        self._counts = Counts()
        self._tables: dict[str, frozenset[str]] = {}
        self._unsaved: dict[int, bool] = {}
        self._saving = threading.Lock()
        self._doors = Doors()
        self._watcher: Watcher | None = None

    def observe(self) -> ProxyState:
        """All proxies at once; one that does not answer makes the whole UNREACHABLE, and the sessions unknown."""
        status, config, said = self.front.status()
        if status is ProxyStatus.ABSENT:
            return ProxyState(status, config, said=said)
        sockets = self.front.sockets()
        tables: dict[str, Table] = {}
        troubles = [said] if said else []
        for address in sockets:
            try:
                tables[address] = self._look(address)
            except ReconcilerError as error:
                troubles.append(str(error))
        if self._watcher is not None:
            self._watcher.expect(
                (address, (place.backend, place.slot))
                for address, table in tables.items()
                for place in table.places
                if place.sessions and (place.mode is not ServerMode.READY or not place.weight)
            )
        whole = bool(sockets) and len(tables) == len(sockets)
        # Asked last: a reload between the two looks makes a session count twice, and never not at all.
        older, known = self._look_at_older(troubles)
        known, counts = known and whole, self._counts
        backends = merge(tables, known=known, counted=counts.look, rate=counts.rate, older=older) if tables else {}
        return ProxyState(status if whole else ProxyStatus.UNREACHABLE, config, backends, "; ".join(troubles))

    def apply(self, effect: TrafficEffect) -> None:
        """Do one effect. Whatever it came to, what the proxies have now is saved.

        A new configuration starts with the state that was saved before it: nothing else is changed meanwhile.
        """
        if isinstance(effect, EnsureProxy):
            with self._doors.alone():
                self.front.ensure(effect.config, effect.text)
            return
        with self._doors.shared():
            self._change(effect)

    def _change(self, effect: ShiftTraffic | CutSessions | FreePlace) -> None:
        sockets = self.front.sockets()
        if not sockets:
            raise _nobody(self.environment)
        try:
            match effect:
                case ShiftTraffic():
                    self._shift(effect.name, sockets).to(effect)
                case CutSessions():
                    self._shift(effect.backend, sockets).each(plan.cutting, effect.address, effect.port)
                    self.front.cut(effect.backend, effect.address, effect.port)
                case FreePlace():
                    self._shift(effect.name, sockets).each(plan.vacating, effect.address, effect.port)
                    self.front.cut(effect.name, effect.address, effect.port)
                case _:
                    assert_never(effect)
        except ReconcilerError:
            self._save_quietly(sockets)
            raise
        self._save(sockets)

    def watch(self, notify: Callable[[str, str], None]) -> None:
        """Look at the proxies all the time, from a thread of its own."""
        if self._watcher is None:
            self._watcher = Watcher(self.environment, self.front, self.seconds, self._counts, self._clock, self.keep)
            self._watcher.start(notify)

    def keep(self, index: int) -> None:
        """Save what proxy number `index` has now: its table was changed by somebody else, or a server went up."""
        self._unsaved[index] = True
        sockets = self.front.sockets()
        if index < len(sockets):
            with self._doors.shared():
                self._save_one(index, sockets[index])

    def close(self) -> None:
        """Stop the thread, let go of the front."""
        if self._watcher is not None:
            self._watcher.stop()
        self.front.close()

    def _shift(self, backend: str, sockets: Sequence[str]) -> Shift:
        def touch(index: int) -> None:
            self._unsaved[index] = True

        return Shift(backend, sockets, self.seconds, self._counts, touch)

    def _look_at_older(self, troubles: list[str]) -> tuple[Mapping[Spot, Lingering], bool]:
        """What older workers still have, and whether that is known."""
        try:
            older = lingering(self.front.former(), self._prefix, self.environment)
        except ReconcilerError as error:
            troubles.append(str(error))
            return {}, False
        if older and self._watcher is not None:
            self._watcher.expect_older(older)
        return older, True

    def _look(self, address: str) -> Table:
        """All of one proxy on one connection, on two when its backends are others than the last time."""
        known = self._tables.get(address, frozenset())
        found = self._ours(haproxy_table.table(self._ask(address, known), address))
        if found.totals.keys() != known:
            self._tables[address] = known = frozenset(found.totals)
            found = self._ours(haproxy_table.table(self._ask(address, known), address))
        now = self._clock.monotonic()
        for name, row in found.totals.items():
            self._counts.seen(address, name, row.requests, now)
        self._counts.forget(address, self._prefix, found.totals)
        return found

    def _ask(self, address: str, tables: frozenset[str]) -> str:
        shown = [f"show table {name}" for name in sorted(tables)]
        return ask(address, ("show servers state", "show stat -1 6 -1", *shown), self.seconds)

    def _ours(self, table: Table) -> Table:
        """Without what belongs to others: an operator's own proxy may have many more backends."""
        return Table(
            tuple(place for place in table.places if place.backend.startswith(self._prefix)),
            {name: row for name, row in table.totals.items() if name.startswith(self._prefix)},
        )

    def _save(self, sockets: Sequence[str]) -> None:
        for index, address in enumerate(sockets):
            if self._unsaved.get(index, True):
                self._save_one(index, address)

    def _save_one(self, index: int, address: str) -> None:
        """Ask and write as one, so that an older answer never overwrites a newer one."""
        with self._saving:
            self._unsaved[index] = False
            try:
                hit("traffic.before_save")
                self.front.keep(
                    index, haproxy_table.state_of(ask(address, "show servers state", self.seconds), address)
                )
                hit("traffic.after_save")
            except BaseException:
                self._unsaved[index] = True
                raise

    def _save_quietly(self, sockets: Sequence[str]) -> None:
        for index, address in enumerate(sockets):
            if self._unsaved.get(index):
                try:
                    self._save_one(index, address)
                except ReconcilerError:
                    continue  # the error that brought us here says more; it stays unsaved for the next time


def _nobody(environment: str) -> Retryable:
    return Retryable(
        Reason.PROXY_UNREACHABLE,
        "there is no proxy",
        where=f"the proxies of {environment}",
        remedy="Start it; one that is ours is started by the next look",
    )

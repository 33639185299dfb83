"""The demand for services that scale: what the looks of the last minutes asked for, and what is decided from them.

It must not start or stop anything, and does no I/O. Nothing here matters after a restart: fewer instances are then
decided on only after a whole new window of looks.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from reconciler.core import names
from reconciler.core.delivery import Scaling
from reconciler.core.live import Backend, Instance, LiveState, Phase, ProxyStatus, ServerMode
from reconciler.core.scaling import EVERY, Decision, Demand, decide, told, wish

GAP = 4 * EVERY
"""What lies further apart than this is no unbroken row of looks."""

FORGOTTEN = timedelta(days=1)
"""A service that nobody asked about for so long is gone."""

_Counters = Mapping[tuple[str, int], int]


@dataclass(slots=True)
class _Service:
    """What is known of a service: the count decided last, the wishes since `since`, the last look's counters.

    `at` is when it was last asked about, `looked` when that last told something.

    `wishes` fall from one to the next: an earlier one that asks for no more than a later one can decide nothing, so
    there are never more of them than the maximum of instances.
    """

    scaling: Scaling
    count: int
    at: datetime
    since: datetime | None = None
    looked: datetime | None = None
    wishes: list[tuple[datetime, int]] = field(default_factory=list)
    requests: _Counters = field(default_factory=dict)
    counted: datetime | None = None

    def note(self, asked: int, now: datetime) -> datetime:
        """Add a wish. Returns since when there was no gap."""
        if self.since is None or self.looked is None or now - self.looked > GAP:
            self.since = now
        self.looked = now
        begins = now - self.scaling.stabilization
        self.wishes = [(at, count) for at, count in self.wishes if count > asked and at > begins]
        self.wishes.append((now, asked))
        return self.since


class Demands:
    """Looks at services. Any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._services: dict[tuple[str, str], _Service] = {}

    def note(self, environment: str, service: str, scaling: Scaling, live: LiveState, now: datetime) -> Decision | None:
        """How many instances the service shall have after this look. None: nothing can be said, the count stays.

        Nothing is said while a proxy does not answer, or the backend is not there, or cpu is asked for and not known.
        After that, after a time without looks, and with another scaling in Git the window for fewer begins anew.
        """
        instances = [each for each in live.instances if each.service == service]
        with self._lock:
            known = self._known(environment, service, scaling, instances, now)
            demand = _demand(known, _backend(scaling, live, names.backend(environment, service)), instances, now)
            if demand is None or (asked := wish(scaling, demand)) is None:
                known.since = None
                return None
            if asked and not demand.instances:
                # While none serves, it cannot be seen that fewer would do.
                asked = max(asked, known.count)
            since = known.note(asked, now)
            decision = decide(scaling, known.count, known.wishes, now, since)
            known.count = decision.count
            return replace(decision, said=f"{told(scaling, demand)}: {decision.said}")

    def _known(
        self, environment: str, service: str, scaling: Scaling, instances: list[Instance], now: datetime
    ) -> _Service:
        known = self._services.get((environment, service))
        if known is None:
            living = {key: each for key, each in self._services.items() if now - each.at < FORGOTTEN}
            known = _Service(scaling, sum(map(_is_meant, instances)), now)
            self._services = {**living, (environment, service): known}
        elif known.scaling != scaling:
            known = _Service(scaling, known.count, now, requests=known.requests, counted=known.counted)
            self._services[environment, service] = known
        known.at = now
        return known


def _backend(scaling: Scaling, live: LiveState, name: str) -> Backend | None:
    """The service's backend as all proxies show it; an empty one for a service that is scaled by cpu without one."""
    without = Backend() if scaling.cpu is not None and scaling.minimum else None
    if live.proxy is None:
        return without
    if live.proxy.status is not ProxyStatus.READY:
        return None
    found = live.proxy.backends.get(name, without)
    if found is None or any(server.sessions is None for server in found.servers):
        return None
    return found


def _demand(known: _Service, backend: Backend | None, instances: list[Instance], now: datetime) -> Demand | None:
    if backend is None:
        return None
    serving = [each for each in instances if _serves(each)]
    used = [each.cpu for each in serving if each.cpu is not None]
    return Demand(
        sessions=max(backend.sessions, backend.waiting),
        rate=max(backend.rate, _rate(known, backend, now)),
        # What an instance uses before it serves is not demand: its start would call for ever more of them.
        cpu=sum(used) if serving and len(used) == len(serving) else None,
        waiting=backend.waiting,
        instances=len(serving),
    )


def _rate(known: _Service, backend: Backend, now: datetime) -> float:
    """Requests per second since the look before: the proxy's own figure knows the last seconds only.

    What comes once a minute would hardly be seen in it, and the service would be put to sleep between two requests.
    """
    before, at = known.requests, known.counted
    known.requests = {(each.address, each.port): each.served.requests for each in backend.servers}
    known.counted = now
    if at is None:
        return 0.0
    grown = sum(max(0, count - before.get(place, count)) for place, count in known.requests.items())
    return grown / max(1.0, (now - at).total_seconds())


def _serves(instance: Instance) -> bool:
    """Whether requests go to it."""
    if instance.phase is not Phase.RUNNING:
        return False
    server = instance.server
    if server is None:
        return instance.serving
    return server.mode is ServerMode.READY and server.weight > 0


def _is_meant(instance: Instance) -> bool:
    """Whether an instance counts as wanted when nothing else is known: all that were not taken out of traffic."""
    return instance.server is None or instance.server.mode is ServerMode.READY

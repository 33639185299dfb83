"""An in-memory `ports.Traffic` for simulations: deterministic, no threads, with hooks for what can go wrong.

It knows places, not requests: sessions and counts are what a test sets. Backends come from the text of `EnsureProxy`,
as `backend NAME` and `server-template PREFIX 1-N` lines, or from `open`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from reconciler.core.errors import Reason, ReconcilerError, Retryable, Stalled
from reconciler.core.live import Backend, ProxyState, ProxyStatus, Served, Server, ServerMode
from reconciler.core.steps import CutSessions, EnsureProxy, FreePlace, Share, ShiftTraffic, TrafficEffect

At = tuple[str, int]
_DEFINED = re.compile(r"^backend[ \t]+(\S+)|^[ \t]+server-template[ \t]+\S+[ \t]+1-(\d+)", re.MULTILINE)
_WILLING = (ServerMode.MAINT, ServerMode.DRAIN, ServerMode.READY)


@dataclass(frozen=True, slots=True)
class Held:
    """How one proxy treats one address."""

    mode: ServerMode
    weight: int


@dataclass(slots=True)
class FakeBackend:
    """A backend in one proxy: who is in its places, and how many of these there are."""

    places: int
    held: dict[At, Held] = field(default_factory=dict)


@dataclass(slots=True)
class FakeProxy:
    """One proxy; `sessions` and `served` are what goes on and went on at it, by backend and address.

    `returning`: the clients of its older workers, which may lead one more request of each to that address.
    """

    config: str = ""
    reachable: bool = True
    backends: dict[str, FakeBackend] = field(default_factory=dict)
    sessions: dict[tuple[str, At], int] = field(default_factory=dict)
    served: dict[tuple[str, At], Served] = field(default_factory=dict)
    returning: dict[tuple[str, At], int] = field(default_factory=dict)


class FakeTraffic:
    """`proxies` of each environment, all of which answer until a test says otherwise.

    `alive` says whether anybody answers at an address, so that a simulation can tie it to its engine.
    """

    def __init__(self, *, proxies: int = 1, alive: Callable[[str, int], bool] = lambda _address, _port: True) -> None:
        self._number = proxies
        self._alive = alive
        self._environments: dict[str, list[FakeProxy]] = {}
        self._dead: set[At] = set()
        self._failures: list[tuple[bool, ReconcilerError]] = []
        self._waiting: dict[tuple[str, str], int] = {}
        self._rate: dict[tuple[str, str], float] = {}
        self._notify: Callable[[str, str], None] | None = None
        self.applied: list[TrafficEffect] = []

    # What a test does

    def proxies(self, environment: str) -> list[FakeProxy]:
        """The proxies themselves, to look and to meddle."""
        return self._environments.setdefault(environment, [FakeProxy() for _ in range(self._number)])

    def open(self, environment: str, backend: str, places: int) -> None:
        """Let every proxy have this backend."""
        for proxy in self.proxies(environment):
            proxy.backends[backend] = FakeBackend(places)

    def fail(self, error: ReconcilerError | None = None, *, applied: bool = False) -> None:
        """The next effect fails, in vain; with `applied` it is done, and only the answer is lost."""
        lost = Retryable(Reason.PROXY_UNREACHABLE, "the proxy did not answer", where="fake", remedy="Wait")
        self._failures.append((applied, error or lost))

    def forget(self, environment: str, index: int = 0) -> None:
        """The proxy was killed and started again without a saved state: every place is free, what went on is cut."""
        proxy = self.proxies(environment)[index]
        proxy.sessions.clear()
        proxy.served.clear()
        for backend in proxy.backends.values():
            backend.held.clear()
        self.hint(environment, "proxy is back")

    def reach(self, environment: str, index: int, *, reachable: bool) -> None:
        """Whether the proxy with this number answers."""
        self.proxies(environment)[index].reachable = reachable
        self.hint(environment, "proxy is back" if reachable else "proxy does not answer")

    def set_sessions(self, environment: str, backend: str, at: At, number: int, index: int = 0) -> None:
        """How many sessions are open at an address."""
        self.proxies(environment)[index].sessions[backend, at] = number
        if not number:
            self.hint(environment, f"{backend} {at} is idle")

    def set_returning(self, environment: str, backend: str, at: At, number: int, index: int = 0) -> None:
        """How many clients of older workers may still come to an address."""
        self.proxies(environment)[index].returning[backend, at] = number
        if not number:
            self.hint(environment, "clients of older workers have left")

    def count(self, environment: str, backend: str, at: At, served: Served, index: int = 0) -> None:
        """What the proxy counted at an address since it has its place."""
        self.proxies(environment)[index].served[backend, at] = served

    def set_waiting(self, environment: str, backend: str, number: int) -> None:
        """How many requests are kept until an instance is up."""
        self._waiting[environment, backend] = number
        self.hint(environment, f"a request waits for {backend}")

    def set_rate(self, environment: str, backend: str, rate: float) -> None:
        """Requests per second."""
        self._rate[environment, backend] = rate

    def mark(self, at: At, *, up: bool) -> None:
        """Whether the proxies find the address up."""
        (self._dead.discard if up else self._dead.add)(at)

    def by_hand(
        self,
        environment: str,
        backend: str,
        at: At,
        *,
        index: int = 0,
        mode: ServerMode | None = None,
        weight: int | None = None,
    ) -> None:
        """Somebody changed a server through the runtime socket."""
        held = self.proxies(environment)[index].backends[backend].held
        held[at] = replace(held[at], mode=mode or held[at].mode, weight=held[at].weight if weight is None else weight)
        self.hint(environment, f"{backend} {at} was changed")

    def hint(self, environment: str, detail: str) -> None:
        """Tell the watcher, if there is one."""
        if self._notify is not None:
            self._notify(environment, detail)

    # What the port promises

    def observe(self, environment: str) -> ProxyState:
        proxies = self.proxies(environment)
        there = [proxy for proxy in proxies if proxy.reachable]
        configs = {proxy.config for proxy in there}
        backends = {name: self._backend(environment, name, there, len(there) == len(proxies)) for name in _names(there)}
        status = ProxyStatus.READY if len(there) == len(proxies) else ProxyStatus.UNREACHABLE
        return ProxyState(status, configs.pop() if len(configs) == 1 else "", backends)

    def apply(self, environment: str, effect: TrafficEffect) -> None:
        applied, error = self._failures.pop(0) if self._failures else (True, None)
        if applied:
            self._do(environment, effect)
            self.applied.append(effect)
        if error is not None:
            raise error

    def watch(self, notify: Callable[[str, str], None]) -> None:
        self._notify = notify

    def close(self) -> None:
        self._notify = None

    # How

    def _do(self, environment: str, effect: TrafficEffect) -> None:
        proxies = self.proxies(environment)
        if not all(proxy.reachable for proxy in proxies):
            raise Retryable(Reason.PROXY_UNREACHABLE, "the proxy does not answer", where="fake", remedy="Start it")
        match effect:
            case EnsureProxy():
                for proxy in proxies:
                    _configure(proxy, effect)
            case ShiftTraffic():
                self._shift(proxies, effect)
            case CutSessions():
                for proxy in proxies:
                    _backend_of(proxy, effect.backend)
                    proxy.sessions.pop((effect.backend, (effect.address, effect.port)), None)
            case FreePlace():
                for proxy in proxies:
                    _backend_of(proxy, effect.name).held.pop((effect.address, effect.port), None)
                    _empty(proxy, effect.name, (effect.address, effect.port))

    def _shift(self, proxies: list[FakeProxy], effect: ShiftTraffic) -> None:
        wanted = {(share.address, share.port): share for share in effect.shares}
        for proxy in proxies:
            backend = _backend_of(proxy, effect.name)
            leaving = sum(1 for at in backend.held if at not in wanted and proxy.sessions.get((effect.name, at), 0))
            leaving += sum(
                1
                for at, held in backend.held.items()
                if at not in wanted
                and held.mode is not ServerMode.MAINT
                and not proxy.sessions.get((effect.name, at), 0)
                and wanted.keys() - backend.held.keys()
            )
            if len(wanted) + leaving > backend.places:
                raise Stalled(Reason.PROXY_FULL, "no place is free", where=effect.name, remedy="Give it more slots")
        for proxy in proxies:
            _bring(proxy, effect, wanted)
        if missing := [
            at
            for at, share in wanted.items()
            if share.mode is ServerMode.READY and share.weight and not self._is_up(at)
        ]:
            raise Retryable(
                Reason.PROXY_UNREACHABLE, f"{missing} did not come up", where=effect.name, remedy="See the instance"
            )
        for proxy in proxies:
            _settle(proxy, effect.name, wanted)

    def _is_up(self, at: At) -> bool:
        return at not in self._dead and self._alive(*at)

    def _backend(self, environment: str, name: str, there: list[FakeProxy], whole: bool) -> Backend:
        having = [(proxy, proxy.backends[name]) for proxy in there if name in proxy.backends]
        ways = {
            at for proxy, _ in having for (there, at), number in proxy.returning.items() if number and there == name
        }
        addresses = sorted(ways.union(at for _, backend in having for at in backend.held))
        servers = tuple(self._server(name, at, having, whole) for at in addresses)
        waiting = self._waiting.get((environment, name), 0)
        return Backend(
            servers,
            min(backend.places - len(backend.held) for _, backend in having),
            waiting,
            waiting + sum(proxy.sessions.get((name, at), 0) for proxy, _ in having for at in addresses),
            self._rate.get((environment, name), 0.0),
        )

    def _server(self, name: str, at: At, having: list[tuple[FakeProxy, FakeBackend]], whole: bool) -> Server:
        none = Held(ServerMode.MAINT, 0)
        shown = {backend.held.get(at, none) for _, backend in having}
        up = self._is_up(at)
        modes = {held.mode for held in shown}
        served = [proxy.served.get((name, at), Served()) for proxy, _ in having]
        slow: dict[int, int] = {}
        for each in served:
            for bound, number in each.slow.items():
                slow[bound] = slow.get(bound, 0) + number
        return Server(
            *at,
            mode=min(modes, key=_WILLING.index),
            weight=min(held.weight for held in shown),
            up=up and ServerMode.MAINT not in modes,
            sessions=sum(proxy.sessions.get((name, at), 0) for proxy, _ in having) if whole else None,
            served=Served(sum(each.requests for each in served), sum(each.errors for each in served), slow),
            even=len(shown) == 1 or modes == {ServerMode.MAINT},
            returning=sum(proxy.returning.get((name, at), 0) for proxy, _ in having),
        )


def _names(proxies: list[FakeProxy]) -> list[str]:
    return sorted({name for proxy in proxies for name in proxy.backends})


def _backend_of(proxy: FakeProxy, name: str) -> FakeBackend:
    if name not in proxy.backends:
        raise Stalled(Reason.PROXY_REFUSED, f"there is no backend {name}", where="fake", remedy="Configure it")
    return proxy.backends[name]


def _configure(proxy: FakeProxy, effect: EnsureProxy) -> None:
    """Backends that stay keep who is in their places, as a hitless reload with saved state does."""
    found: dict[str, FakeBackend] = {}
    name = ""
    for match in _DEFINED.finditer(effect.text):
        if match[1]:
            name = match[1]
        else:
            found[name] = FakeBackend(int(match[2]), proxy.backends.get(name, FakeBackend(0)).held)
    proxy.backends = found
    proxy.config = effect.config


def _bring(proxy: FakeProxy, effect: ShiftTraffic, wanted: Mapping[At, Share]) -> None:
    """What is new gets a place and no weight, while others carry the traffic."""
    backend = proxy.backends[effect.name]
    for at in [at for at, held in backend.held.items() if at not in wanted and held.mode is ServerMode.MAINT]:
        if not proxy.sessions.get((effect.name, at), 0) and wanted.keys() - backend.held.keys():
            del backend.held[at]
            _empty(proxy, effect.name, at)
    for at, share in wanted.items():
        if at not in backend.held:
            backend.held[at] = Held(ServerMode.READY if share.mode is ServerMode.READY else ServerMode.MAINT, 0)
            _empty(proxy, effect.name, at)
        elif share.mode is ServerMode.READY and backend.held[at].mode is not ServerMode.READY:
            backend.held[at] = Held(ServerMode.READY, 0)


def _settle(proxy: FakeProxy, name: str, wanted: Mapping[At, Share]) -> None:
    backend = proxy.backends[name]
    for at, share in wanted.items():
        backend.held[at] = Held(share.mode, share.weight)
    for at in [at for at in backend.held if at not in wanted]:
        if proxy.sessions.get((name, at), 0):
            backend.held[at] = replace(backend.held[at], mode=ServerMode.MAINT)
        else:
            del backend.held[at]
            _empty(proxy, name, at)


def _empty(proxy: FakeProxy, name: str, at: At) -> None:
    proxy.sessions.pop((name, at), None)
    proxy.served.pop((name, at), None)

"""What has to hold at every moment of a simulated world behind proxies, judged from the tables and the engine alone.

The journal is asked for what nothing else shows: which stage a release is at, and which versions failed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from reconciler.core import names
from reconciler.core.live import HealthStatus, Phase, ServerMode
from reconciler.core.memory import ServiceMemory
from reconciler.core.steps import CutSessions, Effect, KillInstance, RemoveInstance, ShiftTraffic, TerminateInstance
from tests.support.fake_engine import FakeContainer
from tests.support.fake_runtime import FakeRuntime
from tests.support.fake_traffic import At
from tests.support.world import ENVIRONMENT

if TYPE_CHECKING:
    from tests.support.fronted_world import FrontedWorld

ROUNDING = 1.0
"""Per cent: weights are integers up to 256."""


class BrokenLawError(BaseException):
    """A law does not hold. The loop must not take it for a fault of one service and go on."""


class Laws:
    """Looks at a world around each effect and after each passing of time. `never_down`: services that have to stay up
    whatever the daemon does; the world is not hurt by others while they are in it."""

    def __init__(self, world: FrontedWorld) -> None:
        self._world = world
        self._runtime: FakeRuntime | None = None
        self._up: dict[str, list[bool]] = {}
        self._left: dict[str, datetime] = {}
        self._taken: set[str] = set()
        self.never_down: set[str] = set()
        self.log: list[str] = []

    # What is looked at

    def services(self) -> set[str]:
        return {box.effect.spec.name for box in self._world.engine.containers.values()}

    def places(self, service: str, index: int) -> Iterator[tuple[At, int, FakeContainer | None]]:
        """The places that get new requests in a proxy, with their weight and who is there."""
        backend = self._world.tables()[index].backends.get(names.backend(ENVIRONMENT, service))
        for at, held in backend.held.items() if backend is not None else ():
            if held.mode is ServerMode.READY and held.weight > 0:
                yield at, held.weight, self._world.at(at[0])

    def healthy(self, box: FakeContainer) -> bool:
        if self._runtime is None:
            self._runtime = FakeRuntime(self._world.engine)
        running = box.phase is Phase.RUNNING
        return running and self._runtime._health(box, box.spec.health)[0] is HealthStatus.HEALTHY

    def serving(self, service: str, index: int | None = None) -> list[FakeContainer]:
        """The healthy instances that get new requests from a proxy, or from all of them."""
        found = [
            {
                box.serial: box
                for _, _, box in self.places(service, each)
                if box is not None and self._serves(box, service)
            }
            for each in (range(len(self._world.tables())) if index is None else [index])
        ]
        return [box for serial, box in found[0].items() if all(serial in other for other in found)]

    def _serves(self, box: FakeContainer, service: str) -> bool:
        return box.effect.spec.name == service and self.healthy(box)

    def shares(self, service: str, index: int) -> Mapping[str, float]:
        """The share of the traffic in per cent, by version letter; of what really serves."""
        weights: dict[str, int] = {}
        for _, weight, box in self.places(service, index):
            if box is not None and box.phase is Phase.RUNNING:
                letter = box.spec.image.pinned[-1]
                weights[letter] = weights.get(letter, 0) + weight
        return {letter: 100 * weight / sum(weights.values()) for letter, weight in weights.items()}

    def _memory(self, service: str) -> ServiceMemory:
        return self._world.journal.memory(ENVIRONMENT).services.get(service, ServiceMemory())

    def _elapsed(self) -> float:
        return self._world.clock.elapsed

    # The moments

    def before(self, effect: Effect) -> None:
        """An effect of the daemon is about to happen. Raises BrokenLawError."""
        try:
            self._before(effect)
        except AssertionError as error:
            raise BrokenLawError(str(error)) from error

    def after(self, effect: Effect) -> None:
        """An effect of the daemon took hold. Raises BrokenLawError."""
        try:
            self._after(effect)
        except AssertionError as error:
            raise BrokenLawError(str(error)) from error

    def _before(self, effect: Effect) -> None:
        self.log.append(f"{self._elapsed():.0f}s {effect}"[:300])
        # Where Git takes a service from the proxy, its requests are over at once, whether the proxy knows it or not.
        self._taken |= {name for name in self.services() if (s := self._world.declared(name)) and s.route is None}
        self._up = {service: self._is_up(service) for service in self.services()}
        match effect:
            case TerminateInstance(name) | KillInstance(name):
                self._spares(effect, name)
            case RemoveInstance(name):
                box = self._world.engine.by_name(name)
                assert box is None or box.phase not in (Phase.RUNNING, Phase.PAUSED), self.said(effect, "it runs")
            case CutSessions():
                self._cuts_late(effect)
            case ShiftTraffic() if not effect.name.endswith(".preview"):
                self._gives_nothing_to_failed(effect)
            case _:
                pass

    def _after(self, effect: Effect) -> None:
        if isinstance(effect, ShiftTraffic) and not effect.name.endswith(".preview"):
            self._note_left(effect)
            self._shares_as_declared(effect)
        for service, before in self._up.items():
            now = self._is_up(service)
            if self._may_be_down(service):
                continue
            for index, (was, up) in enumerate(zip(before, now, strict=True)):
                assert up or not was, self.said(effect, f"it took the last of {service} at proxy {index}")
        self._no_strangers(effect)
        self._stays_up(effect)

    def passed(self) -> None:
        """Time went by."""
        self._stays_up("time")

    def at_rest(self) -> None:
        """A reconcile ended in sync: nobody's place is in a table."""
        for index, proxy in enumerate(self._world.tables()):
            for name, backend in proxy.backends.items():
                for at, held in backend.held.items():
                    box = self._world.at(at[0])
                    mine = box is not None and name.removesuffix(".preview").endswith(f".{box.effect.spec.name}")
                    assert mine or not proxy.reachable, self.said("rest", f"{at} {held} in {name} at {index}: {box}")

    def declared(self, names_of: set[str], counts: Mapping[str, int]) -> None:
        """At the end: these services and no others have so many instances, all in traffic alike; nothing is left."""
        assert len(names_of) == sum(counts.values()), self.said("the end", "something is left over")
        for index, proxy in enumerate(self._world.tables()):
            for service, count in counts.items():
                own = names.backend(ENVIRONMENT, service)
                held = list(proxy.backends[own].held.values()) if own in proxy.backends else []
                even = {(each.mode, each.weight) for each in held}
                assert len(held) == count, self.said("the end", f"{service} has {len(held)} places at proxy {index}")
                assert even <= {(ServerMode.READY, 100)}, self.said("the end", f"{service} at proxy {index}: {even}")
                assert len(self.serving(service, index)) == count, self.said("the end", f"{service} at proxy {index}")

    # The laws

    def _is_up(self, service: str) -> list[bool]:
        return [bool(self.serving(service, index)) for index in range(len(self._world.tables()))]

    def _may_be_down(self, service: str) -> bool:
        """Where only one can run, where demand or Git asks for none, and where Git knows it no more."""
        spec = self._world.declared(service)
        known = self._memory(service)
        return (
            spec is None
            or spec.route is None
            or spec.stop_first
            or not spec.replicas
            or known.stable is None
            or known.scale == 0
        )

    def _stays_up(self, what: object) -> None:
        for service in self.never_down:
            if not self._may_be_down(service):
                assert all(self._is_up(service)), self.said(what, f"{service} is down")

    def _spares(self, effect: Effect, name: str) -> None:
        """Nobody who gets requests, or still has some, is stopped."""
        box = self._world.engine.by_name(name)
        if box is None or box.phase is not Phase.RUNNING or not box.address:
            return
        spec = self._world.declared(box.effect.spec.name)
        if spec is not None and spec.route is None:
            return  # Git took it from the proxy, whether that answers or not.
        own = names.backend(ENVIRONMENT, box.effect.spec.name)
        for index, proxy in enumerate(self._world.tables()):
            for backend, kept in proxy.backends.items():
                for at, held in kept.held.items():
                    if at[0] != box.address:
                        continue
                    sessions = proxy.sessions.get((backend, at), 0)
                    ready = held.mode is ServerMode.READY and held.weight > 0 and backend == own
                    killed = isinstance(effect, KillInstance) and box.term_at is not None
                    stopped = killed or self._is_late(box.address, box)
                    assert not ready or stopped, self.said(effect, f"it gets requests from proxy {index}")
                    assert not sessions or stopped, self.said(effect, f"it has {sessions} sessions at {index}")

    def _note_left(self, effect: ShiftTraffic) -> None:
        kept = {share.address for share in effect.shares if share.mode is ServerMode.READY}
        for proxy in self._world.tables():
            for address, _ in proxy.backends[effect.name].held if effect.name in proxy.backends else ():
                if address in kept:
                    self._left.pop(address, None)
                else:
                    self._left.setdefault(address, self._world.clock.now())

    def _is_late(self, address: str, box: FakeContainer) -> bool:
        """Whether the time for what still goes on there is over: then the instance itself takes leave of it."""
        if address not in self._left:
            return False
        spec = self._world.declared(box.effect.spec.name) or box.spec
        gone = self._world.clock.now() - self._left[address]
        return gone >= spec.drain.deadline + spec.drain.tail - timedelta(seconds=1)

    def _cuts_late(self, effect: CutSessions) -> None:
        box = self._world.at(effect.address)
        if box is None or effect.address not in self._left or box.effect.spec.name in self._taken:
            return
        assert self._is_late(effect.address, box), self.said(effect, "its time is not over")

    def _gives_nothing_to_failed(self, effect: ShiftTraffic) -> None:
        failed = self._memory(effect.service).quarantine
        for share in effect.shares:
            box = self._world.at(share.address)
            if share.mode is not ServerMode.READY or not share.weight or box is None:
                continue
            if box.effect.version not in failed:
                continue
            has = [at[0] for i in range(len(self._world.tables())) for at, _, _ in self.places(effect.service, i)]
            assert share.address in has, self.said(effect, f"{share.name} failed and gets traffic again")

    def _no_strangers(self, effect: Effect) -> None:
        for index, proxy in enumerate(self._world.tables()):
            for name, backend in proxy.backends.items():
                for at, held in backend.held.items():
                    box = self._world.at(at[0])
                    if box is None or held.mode is not ServerMode.READY or not held.weight or not proxy.reachable:
                        continue
                    mine = name.removesuffix(".preview") == names.backend(ENVIRONMENT, box.effect.spec.name)
                    assert mine, self.said(effect, f"{name} at {index} sends requests to {box.called}")

    def _shares_as_declared(self, effect: ShiftTraffic) -> None:
        """The candidate gets at most what its stage declares, while the stable version can take the rest."""
        known, spec = self._memory(effect.service), self._world.declared(effect.service)
        if known.rollout is None or known.stable is None or spec is None or not spec.rollout.plan:
            return
        if known.previous is not None and known.previous.version == known.rollout.to.version:
            return  # The version before has proven itself: it comes back at once.
        plan = spec.rollout.plan
        allowed = plan[min(known.rollout.stage, len(plan) - 1)].weight
        for index in range(len(self._world.tables())):
            given = {known.rollout.to.version: 0, known.stable.version: 0}
            for _, weight, box in self.places(effect.service, index):
                if box is not None and self.healthy(box) and box.effect.version in given:
                    given[box.effect.version] += weight
            mine, rest = given[known.rollout.to.version], given[known.stable.version]
            share = 100 * mine / (mine + rest) if rest else 0
            assert share <= allowed + ROUNDING, self.said(effect, f"{share:.1f} % instead of {allowed}")

    def said(self, what: object, problem: str) -> str:
        tables = [
            f"proxy {index} {name}: {backend.held}"
            for index, proxy in enumerate(self._world.tables())
            for name, backend in proxy.backends.items()
        ]
        boxes = [f"{box.called} {box.phase} {box.address}" for box in self._world.engine.containers.values()]
        records = [
            f"{r.entry.at:%M:%S} {r.entry.what} {r.entry.reason} {r.entry.details}"[:250]
            for r in self._world.disk.records[-25:]
        ]
        wanted = [
            f"{name}: {spec.replicas} of {spec.image.pinned[-1]}, {spec.rollout.strategy}, scaling {spec.scaling}"
            for name in sorted(self.services())
            if (spec := self._world.declared(name)) is not None
        ]
        return "\n".join([f"{problem}: {what}", *wanted, *tables, *boxes, *records])

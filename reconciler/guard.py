"""The guard of a leader: right before each effect it asks whether its daemon still leads. It changes no effect.

It stands beside the journal's fence and does not replace it: the fence refuses the intent of a daemon of an older
epoch. The guard catches one that was stopped between intent and effect, as far as that can be caught: nobody can look
at a clock and act in one breath. What slips through is one effect of each service in hand, named and derived as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from reconciler.core.errors import Fenced, Reason
from reconciler.core.live import LiveState, ProxyState
from reconciler.core.model import Health
from reconciler.core.steps import RuntimeEffect, TrafficEffect
from reconciler.loop import House
from reconciler.ports import Runtime, Traffic

Holds = Callable[[], bool]


def guarded(house: House, holds: Holds) -> House:
    """`house`, in which no effect begins unless `holds`."""
    runtimes = {name: GuardedRuntime(runtime, holds) for name, runtime in house.runtimes.items()}
    traffic = GuardedTraffic(house.traffic, holds) if house.traffic is not None else None
    return replace(house, runtimes=runtimes, traffic=traffic)


def _check(holds: Holds) -> None:
    if not holds():
        raise Fenced(
            Reason.NOT_LEADER,
            "this daemon could not renew its lease in time, so it does nothing more",
            remedy="None is needed: whoever holds the lease goes on",
        )


class GuardedRuntime:
    """`ports.Runtime`, of which `apply` raises Fenced(NOT_LEADER) when its daemon does not lead any more."""

    def __init__(self, runtime: Runtime, holds: Holds) -> None:
        self._runtime = runtime
        self._holds = holds

    def observe(
        self, environment: str, checks: Mapping[str, Health], images: Sequence[str], metered: Collection[str] = ()
    ) -> LiveState:
        """See `ports.Runtime`."""
        return self._runtime.observe(environment, checks, images, metered)

    def apply(self, effect: RuntimeEffect) -> None:
        """See `ports.Runtime`."""
        _check(self._holds)
        self._runtime.apply(effect)

    def logs(self, name: str, lines: int) -> tuple[str, ...]:
        """See `ports.Runtime`."""
        return self._runtime.logs(name, lines)

    def watch(self, notify: Callable[[str, str], None]) -> None:
        """See `ports.Runtime`."""
        self._runtime.watch(notify)

    def close(self) -> None:
        """See `ports.Runtime`."""
        self._runtime.close()


class GuardedTraffic:
    """`ports.Traffic`, of which `apply` raises Fenced(NOT_LEADER) when its daemon does not lead any more."""

    def __init__(self, traffic: Traffic, holds: Holds) -> None:
        self._traffic = traffic
        self._holds = holds

    def observe(self, environment: str) -> ProxyState:
        """See `ports.Traffic`."""
        return self._traffic.observe(environment)

    def apply(self, environment: str, effect: TrafficEffect) -> None:
        """See `ports.Traffic`."""
        _check(self._holds)
        self._traffic.apply(environment, effect)

    def watch(self, notify: Callable[[str, str], None]) -> None:
        """See `ports.Traffic`."""
        self._traffic.watch(notify)

    def close(self) -> None:
        """See `ports.Traffic`."""
        self._traffic.close()

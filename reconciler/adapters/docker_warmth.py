"""Warm-ups on an engine: which container is meant, whether it runs, where it is reached. The requests are elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from reconciler.adapters import docker_observe
from reconciler.adapters.docker_observe import Facts, Seen
from reconciler.adapters.docker_ownership import Ownership, environment_of
from reconciler.adapters.docker_reach import obstacle, reach
from reconciler.adapters.warmup import Cold, WarmUps
from reconciler.core.errors import Reason, Retryable, Stalled
from reconciler.core.live import Instance, Phase, Warmth
from reconciler.core.steps import WarmInstance


class Warming:
    """The warm-ups of one engine's instances; `on_end(environment, name, warmth)` is called when one has ended."""

    def __init__(self, owned: Ownership, on_end: Callable[[str, str, Warmth], None]) -> None:
        self._owned = owned
        self._connection = owned.connection
        self._warm_ups = WarmUps(on_end)

    def begin(self, effect: WarmInstance) -> None:
        """Begin a warm-up.

        Raises Retryable(DRIFT_MISSING, INSTANCE_EXITED), and Stalled(PROBE_UNREACHABLE) for a port that cannot be
        reached from here: that is no fault of the instance.
        """
        where = f"{self._connection.where}, instance {effect.name}"
        found = self._look(effect.name)
        if found is None:
            raise Retryable(Reason.DRIFT_MISSING, "there is no such instance", where=where, remedy="It is made anew")
        instance, facts = found
        if instance.phase is not Phase.RUNNING:
            raise Retryable(Reason.INSTANCE_EXITED, "it does not run", where=where, remedy="It is replaced")
        host = self._connection.host_address()
        address = reach(facts, host, effect.port)
        if address is None:
            raise Stalled(
                Reason.PROBE_UNREACHABLE,
                f"port {effect.port} is out of reach for the warm-up: {obstacle(host)}",
                where=where,
                remedy="Publish the port on the host, run Reconciler on the engine's host, or take warmUp away",
            )
        key = (instance.id, instance.started_at)
        beside = self._beside(effect, host)
        self._warm_ups.begin(Cold(key, environment_of(effect.name), effect.name, address, effect.warm_up, beside))

    def _beside(self, effect: WarmInstance, host: str | None) -> tuple[str, int] | None:
        """Where the stable instance is reached; one that is gone by now leaves nothing to compare with."""
        if not effect.beside or effect.warm_up.relative is None:
            return None
        found = self._look(effect.beside)
        if found is None or found[0].phase is not Phase.RUNNING:
            return None
        return reach(found[1], host, effect.port)

    def _look(self, name: str) -> tuple[Instance, Facts] | None:
        found = self._owned.find(name)
        return docker_observe.read(found, environment_of(name)) if found is not None else None

    def warmths(self, environment: str, seen: Mapping[str, Seen]) -> Mapping[str, Warmth | None]:
        """How far the warm-ups of these containers are; those of all others of the environment are forgotten."""
        self._warm_ups.keep(environment, {identity: one.base.started_at for identity, one in seen.items()})
        return {identity: self._warm_ups.warmth((identity, one.base.started_at)) for identity, one in seen.items()}

    def close(self) -> None:
        """Cut off whatever is under way."""
        self._warm_ups.close()

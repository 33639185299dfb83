"""Desired x live for one service: which instances are what Git asks for, which are not, and why.

Pure sorting; what is done about it stands in `core/rollout.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from reconciler.core import names
from reconciler.core.errors import Reason
from reconciler.core.gate import GateFinding
from reconciler.core.groups import WHOLE
from reconciler.core.live import (
    Difference,
    Group,
    GroupRoute,
    HealthStatus,
    ImageState,
    ImageStatus,
    Instance,
    Phase,
    ProxyState,
    ProxyStatus,
)
from reconciler.core.memory import ServiceMemory
from reconciler.core.model import DriftPolicy, ServiceSpec, Target
from reconciler.core.question import Native


@dataclass(frozen=True, slots=True)
class View:
    """One service sorted: `fresh` are instances of the target as it was created, `stale` all others.

    `names_taken` are names that something else occupies. `proxy` is what the environment's proxies show, `finding` what
    the gate says of the target. New instances get ordinals from `first_ordinal` on.

    With `native`, the engine's own controllers make and end instances: `group` is the one that carries the target, or
    will after the next step, `others` all other groups of the service, `route` who of them gets its requests.
    """

    environment: str
    target: Target
    memory: ServiceMemory
    fresh: tuple[Instance, ...]
    stale: tuple[Instance, ...]
    images: Mapping[str, ImageState]
    names_taken: frozenset[str]
    now: datetime
    proxy: ProxyState | None = None
    finding: GateFinding | None = None
    first_ordinal: int = 0
    native: Native | None = None
    group: Group | None = None
    others: tuple[Group, ...] = ()
    route: GroupRoute | None = None

    @property
    def spec(self) -> ServiceSpec:
        """The specification to run."""
        return self.target.spec

    @property
    def image(self) -> ImageState:
        """The target's image on the engine."""
        return self.images.get(self.spec.image.pinned, ImageState(ImageStatus.ABSENT))

    @property
    def routed(self) -> bool:
        """Whether the service stands behind a proxy of ours."""
        return self.spec.route is not None and self.native is None

    @property
    def blind(self) -> bool:
        """Whether a proxy should show the service, and does not, or not to the full: nothing is moved then."""
        proxy = self.proxy
        if not self.routed:
            return False
        backend = names.backend(self.environment, self.spec.name)
        return proxy is None or proxy.status is not ProxyStatus.READY or backend not in proxy.backends

    @property
    def rolling(self) -> bool:
        """Whether the target still has to prove itself."""
        stable = self.memory.stable
        return stable is None or stable.version != self.target.version

    @property
    def exact(self) -> bool:
        """Whether the requests of the service are split by the weights of a gateway."""
        return self.native is not None and self.native.gateway and self.spec.route is not None

    @property
    def complete(self) -> bool:
        """Whether as many instances of the target as are wanted carry the traffic well."""
        if self.native is None:
            return len(self.fresh_capacity) >= self.spec.replicas
        group = self.group
        if group is None or group.version != self.target.version:
            return self.spec.replicas == 0
        return self.standing(group) and self._has_traffic(group)

    def standing(self, group: Group) -> bool:
        """Whether the engine has nothing left to do for a group, and enough of its instances are ready."""
        wanted = self.spec.replicas if self.spec.scaling is None else self.spec.scaling.minimum
        return group.settled and group.ready >= wanted

    def _has_traffic(self, group: Group) -> bool:
        if not (self.spec.ports or self.exact) or self.spec.replicas == 0:
            return True
        if self.route is not None and self.route.refusal:
            return False
        weights = self.route.weights if self.route is not None else {}
        return weights is None or weights.get(group.name, 0) >= WHOLE

    @property
    def instances(self) -> tuple[Instance, ...]:
        """All of them."""
        return self.fresh + self.stale

    @property
    def capacity(self) -> tuple[Instance, ...]:
        """Instances of any version that carry traffic well."""
        return tuple(i for i in self.instances if serves(i, self.memory))

    @property
    def fresh_capacity(self) -> tuple[Instance, ...]:
        """Instances of the target that carry traffic well."""
        return tuple(i for i in self.fresh if serves(i, self.memory))


def serves(instance: Instance, memory: ServiceMemory) -> bool:
    """Running, known healthy, in traffic, and not on its way out."""
    return (
        instance.phase is Phase.RUNNING
        and instance.health is HealthStatus.HEALTHY
        and instance.serving
        and instance.name not in memory.terminated
        and instance.name not in memory.detached
    )


def differences(instance: Instance, spec: ServiceSpec, memory: ServiceMemory, now: datetime) -> tuple[Difference, ...]:
    """In what an instance of the right version is not as it was created, or is too old."""
    found = [
        difference
        for difference in instance.differences
        # An instance that we stopped and started again as the way back was restarted by us.
        if not (difference.reason is Reason.DRIFT_RESTARTED and instance.name in memory.kept)
    ]
    if instance.phase is Phase.PAUSED:
        found.append(Difference(Reason.DRIFT_CHANGED, "paused"))
    if spec.route is None and _unplugged(instance, memory):
        found.append(Difference(Reason.DRIFT_CHANGED, "taken out of traffic"))
    if not known(instance.name, memory) and memory.stable is not None:
        found.append(Difference(Reason.DRIFT_EXTRA, "not created by Reconciler"))
    if aged(instance, spec, now):
        found.append(Difference(Reason.LIFETIME_REACHED, "older than its lifetime"))
    return tuple(found)


def known(name: str, memory: ServiceMemory) -> bool:
    """Whether the journal knows of its creation, or at least of the intent."""
    return name in memory.made or name in memory.intended


def _unplugged(instance: Instance, memory: ServiceMemory) -> bool:
    """It was in traffic and is not any more, though nobody of us took it out.

    What was in traffic through a proxy has yet to be found by name, where the route was taken away.
    """
    return (
        instance.phase is Phase.RUNNING
        and not instance.serving
        and instance.name in memory.served
        and instance.name not in (memory.shares or {})
        and instance.name not in memory.detached
        and instance.name not in memory.terminated
    )


def aged(instance: Instance, spec: ServiceSpec, now: datetime) -> bool:
    """Whether an instance has reached the declared lifetime."""
    return spec.lifetime is not None and now >= instance.created_at + spec.lifetime


def disqualifies(difference: Difference, policy: DriftPolicy) -> bool:
    """Whether an instance with this difference has to be replaced."""
    return difference.reason is Reason.LIFETIME_REACHED or policy is DriftPolicy.CORRECT


def missing(instances: tuple[Instance, ...], memory: ServiceMemory) -> tuple[str, ...]:
    """Names of instances that by our own acts should exist and do not: removed by hand.

    Those that were lost, or on their way out, do not count: nobody is without them.
    """
    present = {instance.name for instance in instances}
    return tuple(sorted(memory.made.difference(present, memory.lost, memory.detached, memory.terminated)))


def sort(
    environment: str,
    target: Target,
    memory: ServiceMemory,
    instances: tuple[Instance, ...],
    images: Mapping[str, ImageState],
    names_taken: frozenset[str],
    now: datetime,
    *,
    proxy: ProxyState | None = None,
    finding: GateFinding | None = None,
    first_ordinal: int = 0,
) -> View:
    """Sort the instances of a service into fresh and stale ones, each in the order in which they should stay."""
    fresh, stale = [], []
    for instance in instances:
        found = differences(instance, target.spec, memory, now)
        bad = any(disqualifies(difference, target.spec.drift) for difference in found)
        of_target = instance.version == target.version
        sick = instance.health is HealthStatus.UNHEALTHY and instance.phase is Phase.RUNNING
        given_up = instance.name in memory.lost or _drifted_before(instance, target, memory)
        if of_target and not bad and not given_up and not (sick and _proven(target, memory)):
            fresh.append(instance)
        else:
            stale.append(instance)
    return View(
        environment=environment,
        target=target,
        memory=memory,
        fresh=tuple(sorted(fresh, key=lambda i: _keep_order(i, memory))),
        stale=tuple(sorted(stale, key=lambda i: _leave_order(i, memory))),
        images=images,
        names_taken=names_taken | {instance.name for instance in instances},
        now=now,
        proxy=proxy,
        finding=finding,
        first_ordinal=first_ordinal,
    )


def _drifted_before(instance: Instance, target: Target, memory: ServiceMemory) -> bool:
    """What was changed by hand once is not trusted again, also when the change is undone by hand."""
    return target.spec.drift is DriftPolicy.CORRECT and instance.name in memory.drift


def _proven(target: Target, memory: ServiceMemory) -> bool:
    return memory.stable is not None and memory.stable.version == target.version


def _keep_order(instance: Instance, memory: ServiceMemory) -> tuple[bool, bool, bool, int]:
    """Best first: in traffic, healthy, alive, low ordinal."""
    return (
        not serves(instance, memory),
        instance.health is not HealthStatus.HEALTHY,
        instance.phase is Phase.EXITED or instance.name in memory.terminated,
        instance.ordinal,
    )


def _leave_order(instance: Instance, memory: ServiceMemory) -> tuple[bool, bool, datetime, str]:
    """First to go first: unproven versions, then the sick, then the old."""
    stable = memory.stable is not None and memory.stable.version == instance.version
    return (stable, serves(instance, memory), instance.created_at, instance.name)

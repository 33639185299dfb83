"""An in-memory engine with controllers of its own, for simulations: deployments that roll, pods that get ready or not.

Time is that of the given clock only; the controllers work whenever somebody looks. It is no Kubernetes: it has what
`ports.Runtime` shows of one. The contract suite is the same for both (`tests/kube/test_groups.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from reconciler.core.errors import Reason, Retryable
from reconciler.core.live import (
    Difference,
    Group,
    GroupRoute,
    HealthStatus,
    ImageState,
    ImageStatus,
    Instance,
    LiveState,
    Phase,
)
from reconciler.core.model import Health
from reconciler.core.steps import (
    EnsureGroup,
    PruneGroup,
    RemoveGroup,
    RemoveRoute,
    RouteGroups,
    RuntimeEffect,
    SweepOrphan,
)
from reconciler.ports import Clock
from tests.support.fake_bundles import FakeBundles

BEFORE, WITHIN, AFTER = "before", "within", "after"


@dataclass
class FakePod:
    """One pod: of which template, since when, and whether it is told to go."""

    name: str
    effect: EnsureGroup
    at: datetime
    restarts: int = 0
    leaving_since: datetime | None = None

    @property
    def letter(self) -> str:
        return self.effect.spec.image.digest[-1]


@dataclass
class FakeDeployment:
    """A deployment as it was last declared; `replicas` may have been changed since, by hand or by demand."""

    effect: EnsureGroup
    created_at: datetime
    replicas: int
    pods: list[FakePod] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)


@dataclass
class FakeCluster:
    """The world; it outlives the daemon. `slow` are the seconds until a pod of a letter is ready, `sick` those that
    never are, `dying` those that exit, `missing` images that cannot be pulled, `quota` how many pods there may be,
    `refusal` why the Gateway takes no route."""

    clock: Clock
    gateway: bool = False
    slow: dict[str, float] = field(default_factory=dict)
    sick: set[str] = field(default_factory=set)
    dying: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)
    quota: int | None = None
    refusal: str = ""
    reachable: bool = True
    fault: Callable[[str, RuntimeEffect], None] = lambda moment, effect: None
    deployments: dict[str, FakeDeployment] = field(default_factory=dict)
    gone: list[FakePod] = field(default_factory=list)
    routes: dict[str, RouteGroups] = field(default_factory=dict)
    changed: dict[str, list[Difference]] = field(default_factory=dict)
    orphans: set[str] = field(default_factory=set)
    serial: int = 0
    bundles: FakeBundles = field(init=False)

    def __post_init__(self) -> None:
        self.bundles = FakeBundles(self.clock, lambda effect: self.fault(WITHIN, effect))

    # What the controllers do

    def ready(self, pod: FakePod) -> bool:
        """Whether a pod is ready by now."""
        if pod.letter in self.sick | self.dying | self.missing or pod.leaving_since is not None:
            return False
        return self.clock.now() >= pod.at + timedelta(seconds=self.slow.get(pod.letter, 2))

    def work(self) -> None:
        """All that the controllers would have done by now."""
        for deployment in self.deployments.values():
            self._roll(deployment)
        self.gone = [pod for pod in self.gone if self.clock.now() < _end(pod)]

    def _roll(self, deployment: FakeDeployment) -> None:
        wanted, spec = deployment.effect, deployment.effect.spec
        fresh = [pod for pod in deployment.pods if pod.effect.version == wanted.version]
        old = [pod for pod in deployment.pods if pod.effect.version != wanted.version]
        surge = 0 if spec.stop_first else max(spec.rollout.surge, 0 if spec.rollout.unavailable else 1)
        least = 0 if spec.stop_first else max(deployment.replicas - spec.rollout.unavailable, 0)
        # What is not ready is missed by nobody; then the old ones, as far as enough others are.
        for pod in sorted(old, key=self.ready):
            serving = sum(map(self.ready, deployment.pods))
            if not self.ready(pod) or serving - 1 >= least:
                self._end(deployment, pod)
        for pod in sorted(fresh, key=self.ready)[: max(len(fresh) - deployment.replicas, 0)]:
            self._end(deployment, pod)
        if spec.stop_first and any(pod.effect.version != wanted.version for pod in (*deployment.pods, *self.gone)):
            return
        fresh = [pod for pod in deployment.pods if pod.effect.version == wanted.version]
        room = deployment.replicas + surge - len(deployment.pods)
        for _ in range(min(deployment.replicas - len(fresh), room)):
            if self.quota is not None and self._pods() >= self.quota:
                return
            self.serial += 1
            name = f"{wanted.name}-{self.serial}"
            deployment.pods.append(FakePod(name, wanted, self.clock.now()))

    def _pods(self) -> int:
        return sum(len(deployment.pods) for deployment in self.deployments.values()) + len(self.gone)

    def _end(self, deployment: FakeDeployment, pod: FakePod) -> None:
        deployment.pods.remove(pod)
        pod.leaving_since = self.clock.now()
        self.gone.append(pod)

    # What a test does

    def scale(self, name: str, replicas: int, *, by: str = "kubectl") -> None:
        """Somebody changes the number of a deployment, by hand or, where it is not ours, an autoscaler."""
        deployment = self.deployments[name]
        if deployment.effect.replicas is not None:
            deployment.differences.append(
                Difference(Reason.DRIFT_CHANGED, f"spec.replicas: {deployment.replicas} -> {replicas} by {by}")
            )
        deployment.replicas = replicas

    def evict(self, name: str) -> None:
        """One pod of a deployment is evicted."""
        deployment = self.deployments[name]
        self._end(deployment, deployment.pods[0])

    def receiving(self, service: str) -> dict[str, float]:
        """The share of the requests by letter, in per cent, as pods that are ready get them."""
        route = self.routes.get(service)
        shares: dict[str, float] = {}
        if route is None:
            return shares
        pods = [pod for each in self.deployments.values() if each.effect.spec.name == service for pod in each.pods]
        for pod in filter(self.ready, pods):
            if route.mixed:
                shares[pod.letter] = shares.get(pod.letter, 0) + 1
            else:
                mine = next((share for share in route.shares if share.version == pod.effect.version), None)
                if mine is not None and mine.weight:
                    shares[pod.letter] = mine.weight
        total = sum(shares.values())
        return {letter: round(100 * share / total, 1) for letter, share in sorted(shares.items())}


def _end(pod: FakePod) -> datetime:
    assert pod.leaving_since is not None
    return pod.leaving_since + pod.effect.spec.drain.deadline


class FakeClusterRuntime:
    """`ports.Runtime` for a `FakeCluster`."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster

    def observe(
        self, environment: str, checks: Mapping[str, Health], images: Sequence[str], metered: Collection[str] = ()
    ) -> LiveState:
        cluster = self.cluster
        if not cluster.reachable:
            raise Retryable(Reason.ENGINE_UNREACHABLE, "it does not answer", where="fake cluster", remedy="Wait")
        cluster.work()
        there = cluster.deployments.values()
        pods = [pod for deployment in there for pod in deployment.pods]
        return LiveState(
            environment,
            cluster.clock.now(),
            tuple(self._instance(environment, pod) for pod in (*pods, *cluster.gone)),
            {image: self._image(image) for image in images},
            orphans=tuple(sorted(cluster.orphans)),
            network_ready=True,
            groups=(*(self._group(deployment) for deployment in there), *cluster.bundles.groups()),
            routes={name: self._route(route) for name, route in cluster.routes.items()},
        )

    def _image(self, image: str) -> ImageState:
        if image[-1] in self.cluster.missing:
            return ImageState(ImageStatus.FAILED, Reason.IMAGE_NOT_FOUND, "no such image", self.cluster.clock.now(), 1)
        return ImageState(ImageStatus.PRESENT)

    def _instance(self, environment: str, pod: FakePod) -> Instance:
        cluster, effect = self.cluster, pod.effect
        ready, late = cluster.ready(pod), cluster.clock.now() >= pod.at + effect.spec.health.startup
        dead = pod.letter in cluster.dying and cluster.clock.now() >= pod.at + timedelta(seconds=1)
        phase = Phase.CREATED if pod.letter in cluster.missing else Phase.EXITED if dead else Phase.RUNNING
        health = HealthStatus.HEALTHY if ready else HealthStatus.UNHEALTHY if late else HealthStatus.STARTING
        return Instance(
            pod.name,
            f"{environment}/{pod.name}",
            effect.spec.name,
            effect.version,
            effect.revision,
            0,
            effect.spec.image.pinned,
            phase,
            pod.at,
            health=health,
            serving=ready,
            exit_code=3 if dead else None,
            leaving=pod.leaving_since is not None,
        )

    def _group(self, deployment: FakeDeployment) -> Group:
        cluster, effect = self.cluster, deployment.effect
        fresh = [pod for pod in deployment.pods if pod.effect.version == effect.version]
        ready = sum(map(cluster.ready, fresh))
        full = len(fresh) == deployment.replicas == ready and len(deployment.pods) == len(fresh)
        short = cluster.quota is not None and len(fresh) < deployment.replicas and cluster._pods() >= cluster.quota
        return Group(
            effect.name,
            effect.spec.name,
            effect.version,
            effect.revision,
            effect.spec.image.pinned,
            effect.operated,
            deployment.replicas,
            ready,
            full,
            deployment.created_at,
            Reason.QUOTA_EXCEEDED if short else None,
            f"exceeded quota: {cluster.quota} pods" if short else "",
            tuple(deployment.differences),
        )

    def _route(self, route: RouteGroups) -> GroupRoute:
        weights = None if route.mixed else {share.name: share.weight for share in route.shares}
        differences = tuple(self.cluster.changed.get(route.name, ()))
        refusal = self.cluster.refusal
        return GroupRoute(route.name, weights, route.operated, route.preview, differences, refusal)

    def apply(self, effect: RuntimeEffect) -> None:
        cluster = self.cluster
        cluster.fault(BEFORE, effect)
        match effect:
            case EnsureGroup():
                self._ensure(effect)
            case PruneGroup():
                cluster.bundles.prune(effect.name, effect)
            case RemoveGroup():
                cluster.bundles.remove(effect.name, effect)
                known = cluster.deployments.pop(effect.name, None)
                for pod in known.pods if known is not None else ():
                    pod.leaving_since = cluster.clock.now()
                    cluster.gone.append(pod)
            case RouteGroups():
                cluster.routes[effect.name] = effect
                cluster.changed.pop(effect.name, None)
                if cluster.refusal:
                    raise Retryable(Reason.PROXY_UNREACHABLE, cluster.refusal)
            case RemoveRoute():
                cluster.routes.pop(effect.name, None)
            case SweepOrphan():
                cluster.orphans.discard(effect.name)
            case _:
                raise TypeError(f"not for a cluster: {effect}")
        cluster.work()
        cluster.fault(AFTER, effect)

    def _ensure(self, effect: EnsureGroup) -> None:
        cluster = self.cluster
        if effect.spec.bundle is not None:
            cluster.bundles.ensure(effect)
            return
        known = cluster.deployments.get(effect.name)
        first = effect.first if effect.replicas is None else effect.replicas
        if known is None:
            cluster.deployments[effect.name] = FakeDeployment(effect, cluster.clock.now(), first)
        else:
            known.effect, known.differences = effect, []
            known.replicas = known.replicas if effect.replicas is None else effect.replicas

    def logs(self, name: str, lines: int) -> tuple[str, ...]:
        return (f"the last words of {name}",)[:lines]

    def watch(self, notify: Callable[[str, str], None]) -> None:
        pass

    def close(self) -> None:
        pass

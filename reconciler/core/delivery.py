"""How a version takes over, as Git declares it: strategy, steps, gates, warm-up, traffic, scaling. Frozen values.

None of it makes an instance what it is: it is operated anew at once, and no instance is replaced because of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


class Strategy(StrEnum):
    """How a new version takes over."""

    ROLLING = "rolling"
    BLUE_GREEN = "blueGreen"
    CANARY = "canary"
    RECREATE = "recreate"


@dataclass(frozen=True, slots=True)
class Stage:
    """A share of the traffic for the new version: `weight` per cent, kept for `soak` at least.

    `pause`: then wait for a person (`reconciler promote`) or another commit.
    """

    weight: int
    soak: timedelta = timedelta(0)
    pause: bool = False


class Against(StrEnum):
    """With what a candidate is compared: extra instances of the stable version of the same age, or all stable ones."""

    BASELINE = "baseline"
    STABLE = "stable"


class Undecided(StrEnum):
    """What becomes of a stage whose gate could not decide until the deadline."""

    RETURN = "return"
    ADVANCE = "advance"


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL query of the operator's Prometheus that has to stay within its bounds."""

    name: str
    promql: str
    maximum: float | None = None
    minimum: float | None = None


@dataclass(frozen=True, slots=True)
class Gate:
    """When a stage may be left for the next one.

    `alpha`: the chance of a false alarm in a whole rollout, split over the metrics. `minimum`: requests on each side
    below which nothing is decided. `max_errors`, `max_slow`: shares (0..1) that the candidate may never exceed
    whatever the other side shows. `slow`: an answer that takes longer counts as slow; None: latency is not looked at.
    """

    against: Against = Against.BASELINE
    alpha: float = 0.05
    minimum: int = 100
    errors: bool = True
    max_errors: float | None = None
    slow: timedelta | None = None
    max_slow: float | None = None
    queries: tuple[Query, ...] = ()
    undecided: Undecided = Undecided.RETURN


@dataclass(frozen=True, slots=True)
class Rollout:
    """`surge`: how many instances may exist beyond the replicas; `unavailable`: how many may be missing meanwhile.

    `progress_deadline`: the longest wait for progress. `stages`: those of canary, without the last one of 100 per
    cent. `preview_soak`, `preview_pause`: how long blueGreen shows the new version at its preview address only.
    `soak`: how long the whole traffic has to go well before the version is promoted. `hold`: how long the instances of
    the version before stay after that, out of traffic, for an instant return.
    """

    strategy: Strategy = Strategy.ROLLING
    surge: int = 1
    unavailable: int = 0
    progress_deadline: timedelta = timedelta(minutes=10)
    stages: tuple[Stage, ...] = ()
    preview_soak: timedelta = timedelta(0)
    preview_pause: bool = False
    soak: timedelta = timedelta(0)
    hold: timedelta = timedelta(0)
    gate: Gate | None = None

    @property
    def plan(self) -> tuple[Stage, ...]:
        """All stages that a new version of a service behind a proxy goes through; rolling and recreate have none."""
        match self.strategy:
            case Strategy.CANARY:
                return (*self.stages, Stage(100, self.soak))
            case Strategy.BLUE_GREEN:
                return (Stage(0, self.preview_soak, self.preview_pause), Stage(100, self.soak))
            case _:
                return ()


@dataclass(frozen=True, slots=True)
class WarmRequest:
    """One request of a warm-up; any status below 500 is a success."""

    path: str
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""


@dataclass(frozen=True, slots=True)
class WarmUp:
    """Requests that go to a new instance directly, before any traffic, one after the other and round again.

    Warm is an instance after at least `count` of them when the p95 of the last `count` is at most `p95`, and at most
    `relative` times what the same requests take at an instance of the stable version. `deadline`: then it has failed.
    """

    requests: tuple[WarmRequest, ...]
    count: int = 20
    p95: timedelta | None = None
    relative: float | None = None
    deadline: timedelta = timedelta(seconds=30)


class RouteMode(StrEnum):
    """What the proxy speaks with the clients of a service."""

    HTTP = "http"
    TCP = "tcp"


@dataclass(frozen=True, slots=True)
class Route:
    """How requests reach a service through the environment's proxy.

    HTTP: by `hosts` (exact, or `*.example.org`; none: any host) and `paths` (prefixes). TCP: at the proxy's port
    `listen`. `port`: the instance's port. `preview`: a host name that always reaches the newest version only. `sticky`:
    a cookie keeps a client with its instance. `max_connections`: per instance, beyond that requests queue.
    """

    port: int
    mode: RouteMode = RouteMode.HTTP
    hosts: tuple[str, ...] = ()
    paths: tuple[str, ...] = ("/",)
    listen: int | None = None
    preview: str = ""
    sticky: bool = False
    max_connections: int | None = None
    timeout: timedelta = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Scaling:
    """How many instances run, by demand: as many as keep each below its target, between `minimum` and `maximum`.

    Exactly one target is given: `sessions` and `rate` (requests per second) per instance from the proxy, `cpu` in
    cores. Fewer instances only when that was enough for all of `stabilization`. With `minimum` 0 the service sleeps
    after that time without a request; the proxy keeps the next request for up to `wake` while an instance starts.
    """

    minimum: int
    maximum: int
    sessions: float | None = None
    rate: float | None = None
    cpu: float | None = None
    stabilization: timedelta = timedelta(minutes=5)
    wake: timedelta = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Volume:
    """A directory that outlives instances. `shared`: several instances may use it at the same time."""

    name: str
    path: str
    shared: bool = False
    read_only: bool = False

"""A look at one environment: what Git, the engine, the proxies, the gates and the demand come to as one question.

It changes nothing. What it keeps between looks are caches: a restart loses neither truth nor progress.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from reconciler.core import names, proxy_config, stages
from reconciler.core.admission import Wanted
from reconciler.core.errors import Reason
from reconciler.core.gate import GateFinding
from reconciler.core.live import LiveState, ProxyState, ServerMode
from reconciler.core.memory import EnvironmentMemory, ServiceMemory
from reconciler.core.model import Health
from reconciler.core.proxy_config import RouteWish
from reconciler.core.question import Native, ProxyWish, Question, Wish
from reconciler.core.scaling import Decision
from reconciler.core.traffic import joined
from reconciler.demands import Demands
from reconciler.desire import Desire
from reconciler.gates import Gates
from reconciler.ports import Clock, Runtime, Traffic
from reconciler.settings import EnvironmentSettings, ProxySettings

REPLACED_WITHIN = timedelta(seconds=30)
"""How long the proxy keeps requests while a service is replaced that cannot run twice."""

_log = structlog.get_logger(__name__)


class Survey:
    """Looks at environments. Any thread may ask."""

    def __init__(self, desire: Desire, traffic: Traffic | None, gates: Gates, clock: Clock) -> None:
        self._desire = desire
        self._traffic = traffic
        self._gates = gates
        self._clock = clock
        self._demands = Demands()
        self._judging: set[str] = set()

    def question(
        self,
        settings: EnvironmentSettings,
        runtime: Runtime,
        wanted: Wanted,
        memory: EnvironmentMemory,
        *,
        since: tuple[datetime, Mapping[str, datetime]],
        only_looking: bool = False,
    ) -> Question:
        """All that the plan of an environment is a function of. Raises what the runtime raises.

        `since`: from when on this program could do something about the environment, and about single services.
        `only_looking`: nothing is decided from this look, so that it leaves no trace in gates and demands.
        """
        wishes = dict(self._desire.wishes(settings, wanted, memory))
        proxy = self._traffic.observe(settings.name) if settings.proxy and self._traffic is not None else None
        behind = settings.proxy is not None and wanted.state is not None and not _paused(wishes)
        routes = _routes(wishes, memory, proxy, settings.name) if behind else None
        live = self._live(settings, runtime, wishes, proxy, memory)
        now = self._clock.now()
        held = self._desire.held(wanted, memory, wishes, now)
        native = Native(gateway=settings.gateway is not None) if settings.allow.native else None
        findings = {} if only_looking else self._findings(settings.name, wishes, memory, live, now)
        (self._judging.add if findings else self._judging.discard)(settings.name)
        front, clashes = _front(settings, routes, memory)
        for name, why in clashes.items():
            if wishes[name].held is None:
                wishes[name] = replace(wishes[name], held=Reason.PROXY_REFUSED, message=why)
        owned = {instance.service for instance in live.instances} | {group.service for group in live.groups}
        return Question(
            settings.name,
            wanted.revision,
            wishes,
            live,
            memory,
            now,
            self._desire.removals_held(wanted, memory, owned, held),
            since[0],
            since[1],
            front=front,
            changes_held=held,
            findings=findings,
            demands={} if only_looking or native else self._decisions(settings.name, wishes, live, now),
            native=native,
        )

    def judging(self, environment: str) -> bool:
        """Whether a gate was asked at the last look: it sees the more, the oftener it is asked."""
        return environment in self._judging

    def front(self, settings: EnvironmentSettings, wanted: Wanted, memory: EnvironmentMemory) -> ProxyWish | None:
        """How the environment's proxies are set up once every service runs; None where there are none."""
        wishes = self._desire.wishes(settings, wanted, memory)
        routes = _routes(wishes, memory, None, settings.name)
        shown = None if routes is None else {name: replace(route, shown=True) for name, route in routes.items()}
        return _front(settings, shown, memory)[0]

    def _live(
        self,
        settings: EnvironmentSettings,
        runtime: Runtime,
        wishes: Mapping[str, Wish],
        proxy: ProxyState | None,
        memory: EnvironmentMemory,
    ) -> LiveState:
        targets = {name: wish.desired or wish.fallback for name, wish in wishes.items()}
        routed = {name for name, target in targets.items() if target is not None and target.spec.route is not None}
        checks = self._held(settings, routed, memory)
        images: set[str] = set()
        metered = set()
        for wish in wishes.values():
            for target in (wish.fallback, wish.desired):
                if target is not None:
                    checks[target.version] = target.spec.health
                    images.add(target.spec.image.pinned)
                    if target.spec.scaling is not None and target.spec.scaling.cpu is not None:
                        metered.add(wish.name)
        live = runtime.observe(settings.name, checks, sorted(images), metered)
        return live if settings.allow.native else joined(live, proxy, routed)

    def _held(
        self, settings: EnvironmentSettings, routed: Collection[str], memory: EnvironmentMemory
    ) -> dict[str, Health]:
        """How the health of versions before is told: what is held for a return has to be known as healthy by then."""
        found = {}
        for name in routed:
            known = memory.services.get(name)
            if known is not None and known.previous is not None and not known.exposed.isdisjoint(known.detached):
                before = self._desire.earlier(settings, name, known.previous)
                if before is not None:
                    found[before.version] = before.spec.health
        return found

    def _findings(
        self,
        environment: str,
        wishes: Mapping[str, Wish],
        memory: EnvironmentMemory,
        live: LiveState,
        now: datetime,
    ) -> Mapping[str, GateFinding]:
        found = {}
        for name, wish in wishes.items():
            known = memory.services.get(name)
            spec = wish.desired.spec if wish.desired is not None else None
            if known is None or known.rollout is None or spec is None or spec.rollout.gate is None:
                continue
            plan, rollout, gate = spec.rollout.plan, known.rollout, spec.rollout.gate
            if not plan:
                continue
            index, since = stages.whereabouts(rollout, plan)
            if since is None or not plan[index].weight:
                continue
            mine = [instance for instance in live.instances if instance.service == name]
            candidate, beside = stages.compared(known, gate.against, mine)
            if index == len(plan) - 1:
                beside = []  # at the last stage nobody is beside it any more
            version, begun = rollout.to.version, rollout.started_at
            found[name] = self._gates.findings(environment, name, version, gate, candidate, beside, now, begun=begun)
        return found

    def _decisions(
        self, environment: str, wishes: Mapping[str, Wish], live: LiveState, now: datetime
    ) -> Mapping[str, Decision]:
        found = {}
        for name, wish in wishes.items():
            scaling = wish.desired.spec.scaling if wish.desired is not None else None
            if scaling is None or wish.suspended:
                continue
            decision = self._demands.note(environment, name, scaling, live, now)
            if decision is not None:
                found[name] = decision
        return found


def _routes(
    wishes: Mapping[str, Wish], memory: EnvironmentMemory, proxy: ProxyState | None, environment: str
) -> dict[str, RouteWish] | None:
    """What the proxies stand in front of: every service with a route, also one that is going.

    None: of a service that runs it cannot be told how it is reached; then nothing is changed at the proxies. Requests
    are led to a service once it has had traffic, or where they are kept while it wakes up.
    """
    found = {}
    for name, wish in wishes.items():
        known = memory.services.get(name, ServiceMemory())
        target = wish.desired or wish.fallback
        if target is None and known.stable is not None:
            return None
        if target is None or (declared := target.spec.route) is None:
            continue
        spec, scaling = target.spec, target.spec.scaling
        count = max(spec.replicas, scaling.maximum if scaling else 0, known.scale or 0)
        wake = scaling.wake if scaling is not None and scaling.minimum == 0 else None
        shown = wake is not None or bool(known.exposed) or known.stable is not None
        shown = shown or _takes(proxy, names.backend(environment, name))
        if spec.stop_first and wake is None:
            wake = REPLACED_WITHIN
        # Beside the stable version there may be a candidate and as many of a baseline.
        most = -(-3 * (count + spec.rollout.surge) // 2)
        route = RouteWish(name, declared, most=most, wake=wake, shown=shown)
        if refused := proxy_config.refusal(route):
            _log.error("a route cannot be configured", service=name, why=refused)
            continue
        found[name] = route
    return found


def _paused(wishes: Mapping[str, Wish]) -> bool:
    """Whether all of the environment is suspended: then the proxies are left alone, too."""
    return bool(wishes) and all(wish.suspended for wish in wishes.values())


def _takes(proxy: ProxyState | None, backend: str) -> bool:
    """Whether a service has requests now, whatever the journal knows of it: a lost one knows nothing."""
    shown = proxy.backends.get(backend) if proxy is not None else None
    return shown is not None and any(s.mode is ServerMode.READY and s.weight > 0 for s in shown.servers)


def _front(
    settings: EnvironmentSettings, routes: Mapping[str, RouteWish] | None, memory: EnvironmentMemory
) -> tuple[ProxyWish | None, Mapping[str, str]]:
    """The configuration for the environment's proxies, None for none; and the services that it has to leave out, why.

    Where two services want the same place, the one that has been stable for longer keeps it.
    """
    if settings.proxy is None or routes is None:
        return None, {}
    if settings.proxy.sockets:
        hidden = {name: replace(route, shown=False) for name, route in routes.items()}
        return ProxyWish("", proxy_config.fragment(settings.name, hidden)), {}

    def since(name: str) -> tuple[bool, float, str]:
        known = memory.services.get(name, ServiceMemory())
        at = known.promoted_at
        return at is None, at.timestamp() if at is not None else 0.0, name

    shown = front_of(settings.proxy)
    kept, why = proxy_config.settled(settings.name, shown, routes, sorted(routes, key=since))
    config = proxy_config.render(settings.name, shown, kept)
    return ProxyWish(config.digest, config.text), why


def front_of(proxy: ProxySettings) -> proxy_config.Front:
    """What of the operator's settings the configuration depends on."""
    return proxy_config.Front(
        http=proxy.http is not None,
        https=proxy.https is not None,
        metrics=proxy.metrics is not None,
        tcp=proxy.tcp,
    )

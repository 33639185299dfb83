"""Kubernetes as a runtime: groups are declared by server-side apply, everything is observed from watched caches.

The cluster's own controllers make, replace and end instances. An `observe` asks the API nothing; it shows what the
watches told and what was written since, and fails once they have been out of touch for longer than the cluster's
`timeout`. What objects look like and what they mean is in `core/kubernetes_*.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from reconciler.adapters.kubernetes_apply import is_anchor
from reconciler.adapters.kubernetes_client import Api, ApiError, translated
from reconciler.adapters.kubernetes_site import ROUTES, Site, Standing
from reconciler.core.bundle_inventory import is_inventory
from reconciler.core.errors import Reason, Retryable, Stalled
from reconciler.core.kubernetes_json import Json, items, number
from reconciler.core.kubernetes_labels import Ref, orphan_ref, ref
from reconciler.core.kubernetes_objects import (
    Gateway,
    filled,
    group_objects,
    group_refs,
    route_objects,
    secret_of,
    unwanted_of_group,
    unwanted_of_route,
)
from reconciler.core.kubernetes_pods import CONTAINER
from reconciler.core.kubernetes_read import Seen, Told, live_state, pod_of
from reconciler.core.kubernetes_read_routes import refusal
from reconciler.core.live import LiveState
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
from reconciler.ports import Clock, Secrets
from reconciler.settings import KubernetesSettings

Snapshot = Mapping[str, Mapping[str, Json]]
CLOSED_WITHIN = 2.0
TAKEN_WITHIN = 5.0
"""Seconds that a Gateway has to take a route. One that takes longer is waited for, and told of."""
LOG_LINE = 2000
MOST_LOG = 1024 * 1024


class KubernetesRuntime:
    """`ports.Runtime` for the environments in `sites`. `owner` is the installation's name on labels."""

    def __init__(
        self, settings: KubernetesSettings, sites: Mapping[str, Site], owner: str, secrets: Secrets, clock: Clock
    ) -> None:
        self.api = Api(settings)
        self._timeout = settings.timeout.total_seconds()
        self._owner = owner
        self._secrets = secrets
        self._clock = clock
        self._notify: Callable[[str, str], None] | None = None
        self._standing = {name: Standing(self.api, owner, name, site, self._tell) for name, site in sites.items()}
        self._told = {name: Told() for name in sites}
        self._shown: dict[str, dict[int, tuple[Json, Json]]] = {name: {} for name in sites}

    def observe(
        self,
        environment: str,
        checks: Mapping[str, Health],
        images: Sequence[str],
        metered: Collection[str] = (),  # noqa: ARG002 - the cluster's own autoscaler measures
    ) -> LiveState:
        """`ports.Runtime.observe`, without a call to the API; the first one waits for the lists.

        Raises Retryable(ENGINE_UNREACHABLE) when the cache was never filled or has been out of touch for longer than
        `timeout`, Stalled(FORBIDDEN), Stalled(NAMESPACE_MISSING).
        """
        standing = self._standing[environment]
        standing.start()
        standing.cache.check(self._timeout)
        snapshot = standing.cache.snapshot()
        seen = self._seen(standing, snapshot)
        found = live_state(seen, self._owner, environment, self._clock.now(), checks, images, self._told[environment])
        return replace(
            found,
            groups=(*found.groups, *standing.bundles.groups(snapshot["ConfigMap"].values())),
            foreign=(*found.foreign, *standing.foreign()),
            orphans=tuple(f"{environment}/{name}" for name in found.orphans),
            network_ready=True,
        )

    def apply(self, effect: RuntimeEffect) -> None:
        """`ports.Runtime.apply`. Raises TypeError for effects of other kinds of engines."""
        match effect:
            case EnsureGroup():
                with self._at(effect.environment) as standing:
                    self._ensure_group(standing, effect)
            case PruneGroup():
                with self._at(effect.environment) as standing:
                    standing.bundles.prune(effect.name)
            case RemoveGroup():
                with self._at(effect.environment) as standing:
                    standing.bundles.remove(effect.name)
                    for found in group_refs(effect.name):
                        standing.objects.remove(found)
            case RouteGroups():
                with self._at(effect.environment) as standing:
                    self._route(standing, effect)
            case RemoveRoute():
                with self._at(effect.environment) as standing:
                    self._unroute(standing, effect.name, ())
            case SweepOrphan():
                environment, _, name = effect.name.partition("/")
                orphan = orphan_ref(name)
                with self._at(environment) as standing:
                    if orphan is not None:
                        standing.objects.remove(orphan)
            case _:
                raise TypeError(f"{type(effect).__name__} is nothing for Kubernetes")

    @contextmanager
    def _at(self, environment: str) -> Iterator[Standing]:
        """The environment, whose cache is filled before anything is changed there."""
        standing = self._standing[environment]
        standing.start()
        standing.cache.check(self._timeout)
        try:
            yield standing
        except ApiError as error:
            raise standing.failed(error) from error

    def _ensure_group(self, standing: Standing, effect: EnsureGroup) -> None:
        if effect.spec.bundle is not None:
            standing.bundles.ensure(effect)
            return
        wanted = sorted({use.secret for use in effect.spec.secrets})
        versions = self._secrets.versions(effect.environment, wanted) if wanted else {}
        for secret in wanted:
            if secret not in versions:
                self._secrets.reveal(effect.environment, secret)  # says what is wrong with it
                raise Stalled(Reason.SECRET_MISSING, "there is no such secret", where=f"secret {secret}")
        objects = group_objects(effect, standing.place, versions)
        for found in unwanted_of_group(objects, effect.name):
            standing.objects.remove(found)  # first: an autoscaler must not set a number that is ours again
        first = effect.first if effect.replicas is None else None
        for each in objects:
            named = secret_of(each)
            body = each if named is None else filled(each, self._secrets.reveal(effect.environment, named))
            standing.objects.ensure(body, first=first if each["kind"] == "Deployment" else None)

    def _route(self, standing: Standing, effect: RouteGroups) -> None:
        gateway = standing.site.gateway
        where = Gateway(gateway.name, gateway.namespace, gateway.section) if gateway else None
        objects = route_objects(effect, standing.place, where)
        for each in objects:
            standing.objects.ensure(each)
        if Ref(ROUTES, effect.name) in map(ref, objects):
            # Only then does what was led to before get nothing any more.
            self._taken(standing, effect.name)
        self._unroute(standing, effect.name, objects)

    def _taken(self, standing: Standing, service: str) -> None:
        """Wait until the Gateway has taken the route of a service. Raises Retryable(PROXY_UNREACHABLE)."""
        found = standing.cache.until(ROUTES, service, lambda way: not refusal(way), TAKEN_WITHIN)
        said = refusal(found) if found is not None else "the HTTPRoute is gone again"
        if said:
            where, remedy = f"{self.api.where}, namespace {standing.site.namespace}", "Look at the Gateway's status"
            raise Retryable(Reason.PROXY_UNREACHABLE, said, where=where, remedy=remedy)

    @staticmethod
    def _unroute(standing: Standing, service: str, objects: Sequence[Json]) -> None:
        snapshot = standing.cache.snapshot()
        live = [one for kind in ("Service", "HTTPRoute") for one in snapshot.get(kind, {}).values()]
        for found in unwanted_of_route(objects, service, live):
            standing.objects.remove(found)

    def logs(self, name: str, lines: int) -> tuple[str, ...]:
        """`ports.Runtime.logs`: of the run that the name means, at most 1 MiB; each line is cut to 2,000 characters."""
        environment, _, rest = name.partition("/")
        pod, standing = pod_of(name), self._standing.get(environment)
        if pod is None or standing is None or lines <= 0:
            return ()
        known = standing.cache.get("Pod", pod)
        query = {"container": CONTAINER, "tailLines": str(lines), "limitBytes": str(MOST_LOG)}
        since = _restarts(known) - int(rest.removeprefix(pod).removeprefix(".") or 0) if known is not None else 0
        if since > 1:
            return ()  # the cluster keeps the log of one run before only
        if since == 1:
            query["previous"] = "true"
        try:
            path = f"/api/v1/namespaces/{standing.site.namespace}/pods/{pod}/log"
            text = self.api.read("GET", path, query=query, most=2 * MOST_LOG)
        except ApiError as error:
            if error.status in (400, 404):  # it has not begun, or is gone
                return ()
            raise translated(error, self.api.where) from error
        found = text.decode("utf-8", "replace").splitlines()[-lines:]
        return tuple(line[:LOG_LINE] for line in found)

    def watch(self, notify: Callable[[str, str], None]) -> None:
        """`ports.Runtime.watch`."""
        self._notify = notify
        for standing in self._standing.values():
            standing.start()

    def close(self) -> None:
        """`ports.Runtime.close`: every thread ends within 2 s, save one that the kernel lets connect for 5 s."""
        self._notify = None
        end = time.monotonic() + CLOSED_WITHIN
        for standing in self._standing.values():
            standing.stop()
        self.api.close()
        for standing in self._standing.values():
            standing.join(lambda: max(0.0, end - time.monotonic()))

    def _tell(self, environment: str, detail: str) -> None:
        notify = self._notify
        if notify is not None:
            notify(environment, detail)

    def _seen(self, standing: Standing, snapshot: Snapshot) -> Seen:
        """The cache for the reader: what admission changed is no drift, a ConfigMap for a Secret stands for it.

        What is shown otherwise than the cache has it is the same object at each look, until that changes.
        """
        before, shown = self._shown[standing.environment], dict[int, tuple[Json, Json]]()

        def as_shown(one: Json) -> Json:
            found = _as_told(one, standing)
            if found is one:
                return one
            known = before.get(id(one))
            if known is None or known[0] is not one or known[1] != found:
                known = one, found
            shown[id(one)] = known
            return known[1]

        def of(kind: str) -> list[Json]:
            return [as_shown(one) for one in snapshot.get(kind, {}).values()]

        maps: dict[bool, list[Json]] = {True: [], False: []}
        for one in of("ConfigMap"):
            if not is_inventory(one):
                maps[is_anchor(one)].append(one)
        found = Seen(
            deployments=of("Deployment"),
            replica_sets=of("ReplicaSet"),
            pods=of("Pod"),
            services=of("Service"),
            routes=of("HTTPRoute"),
            config_maps=maps[False],
            secrets=maps[True],
            budgets=of("PodDisruptionBudget"),
            autoscalers=of("HorizontalPodAutoscaler"),
        )
        self._shown[standing.environment] = shown
        return found


def _as_told(one: Json, standing: Standing) -> Json:
    told = one.get("differences")
    if not told:
        return one
    known = standing.objects.admitted(str(one["metadata"]["uid"]))
    return {**one, "differences": tuple(each for each in told if each not in known)}


def _restarts(pod: Json) -> int:
    """How often a pod's own container was restarted; others may have been added to it."""
    found = items(pod, "status", "containerStatuses")
    return next((number(each, "restartCount") for each in found if each.get("name") == CONTAINER), 0)

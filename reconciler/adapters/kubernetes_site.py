"""One environment in its namespace: its watches, its cache, and the names of ours that somebody else has there.

What it wants to be there is decided elsewhere; nothing is applied here.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass

from reconciler.adapters.kubernetes_apply import Objects, path
from reconciler.adapters.kubernetes_bundles import Bundles
from reconciler.adapters.kubernetes_cache import Cache
from reconciler.adapters.kubernetes_client import Api, ApiError, translated
from reconciler.adapters.kubernetes_watch import Watch
from reconciler.core import names
from reconciler.core.bundle_inventory import MEMBER
from reconciler.core.errors import Reason, ReconcilerError, Stalled
from reconciler.core.kubernetes_labels import Place, Ref, is_owned, orphan_name
from reconciler.core.live import Foreign
from reconciler.settings import GatewaySettings

FIRST = "Deployment"
"""With its list comes a look whether the namespace exists."""
WATCHED = (FIRST, "ReplicaSet", "Pod", "Service", "ConfigMap", "PodDisruptionBudget", "HorizontalPodAutoscaler")
ROUTES = "HTTPRoute"
LOOK_AGAIN = 10.0
"""Seconds between two looks whether a name that somebody else has is free."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where an environment is: its namespace, and the Gateway that its routes are attached to.

    `cluster_scoped`: its bundles may have objects in no namespace.
    """

    namespace: str
    gateway: GatewaySettings | None = None
    cluster_scoped: bool = False


class Standing:
    """One environment as it stands. `tell(environment, detail)` is called when `observe` would show something new."""

    def __init__(self, api: Api, owner: str, environment: str, site: Site, tell: Callable[[str, str], None]) -> None:
        self.site = site
        self.environment = environment
        self.place = Place(owner, site.namespace)
        kinds = (*WATCHED, ROUTES) if site.gateway else WATCHED
        self.cache = Cache(kinds)
        self._news: Callable[[str], None] = lambda detail: tell(environment, detail)
        self.objects = Objects(api, self.cache, self.place, environment, self._squatted, self._news)
        self.bundles = Bundles(
            api, self.cache, self.objects, self.place, environment, self._news, cluster_scoped=site.cluster_scoped
        )
        self._api = api
        self._lock = threading.Lock()
        self._foreign: dict[Ref, Foreign] = {}
        self._stop = threading.Event()
        self._looking: threading.Thread | None = None
        self._watches: list[Watch] = []
        self._kinds = kinds

    def start(self) -> None:
        """Follow all kinds from now on; a second call does nothing."""
        with self._lock:
            if self._watches or self._stop.is_set():
                return
            self._watches = [self._watch(kind) for kind in self._kinds]
        for watch in self._watches:
            watch.start()

    def foreign(self) -> tuple[Foreign, ...]:
        """What has a name of ours and is not ours, as far as we came upon it."""
        with self._lock:
            return tuple(self._foreign[found] for found in sorted(self._foreign))

    def stop(self) -> None:
        """Ask all threads to end."""
        self._stop.set()
        self.bundles.stop()
        for watch in self._watches:
            watch.stop()

    def join(self, left: Callable[[], float]) -> None:
        """Wait for their end, each for as long as `left` says."""
        for watch in self._watches:
            watch.join(left())
        self.bundles.join(left)
        looking = self._looking
        if looking is not None:
            looking.join(left())

    def _watch(self, kind: str) -> Watch:
        mine = f"{names.LABEL_OWNER}={self.place.owner},{names.LABEL_ENVIRONMENT}={self.environment}"
        chosen = f"{mine},{names.LABEL_ROLE}!={MEMBER}"  # the objects of bundles are followed by their inventories
        return Watch(
            self._api,
            self.cache,
            kind,
            path(kind, self.site.namespace),
            {"labelSelector": chosen},
            self._news,
            lambda error: self._explained(kind, error),
            self._namespace_exists if kind == FIRST else lambda: None,
        )

    def _namespace_exists(self) -> None:
        """Raise Stalled(NAMESPACE_MISSING): a list in a namespace that does not exist is empty, and no error."""
        try:
            found = self._api.call("GET", f"/api/v1/namespaces/{self.site.namespace}")
        except ApiError as error:
            if error.status == 404:
                raise _missing(self._api.where, self.site.namespace) from error
            if error.status != 403:  # whoever may not look will be told by the first apply
                raise
            return
        if found.get("metadata", {}).get("deletionTimestamp"):
            raise _missing(self._api.where, self.site.namespace)

    def _explained(self, kind: str, error: ApiError) -> ReconcilerError | None:
        if kind != ROUTES or error.status != 404 or error.reason:
            return None
        return Stalled(
            Reason.ENGINE_REFUSED,
            "the cluster has no Gateway API (gateway.networking.k8s.io/v1)",
            where=self._api.where,
            remedy="Install its CRDs and a Gateway, or take `gateway` out of the environment's settings",
        )

    def _squatted(self, found: Ref) -> None:
        detail = f"{found.kind} {found.name} in namespace {self.site.namespace} is not ours"
        with self._lock:
            self._foreign[found] = Foreign(orphan_name(found), Reason.NAME_TAKEN, detail)
            if self._looking is None:
                self._looking = threading.Thread(target=self._look, name="kubernetes-foreign", daemon=True)
                self._looking.start()

    def _look(self) -> None:
        """Look now and then whether the names are free, for as long as one is not: nothing of others is watched."""
        while not self._stop.wait(LOOK_AGAIN * random.uniform(0.8, 1.2)):  # noqa: S311 - no secret
            with self._lock:
                found = list(self._foreign)
            freed = [each for each in found if self._is_free(each)]
            with self._lock:
                for each in freed:
                    self._foreign.pop(each, None)
                done = not self._foreign
                if done:
                    self._looking = None  # whoever comes upon another one starts the next thread
            for each in freed:
                self._news(f"the name of {each.kind} {each.name} is free")
            if done:
                return

    def _is_free(self, found: Ref) -> bool:
        try:
            live = self._api.call("GET", path(found.kind, self.site.namespace, found.name))
        except ApiError as error:
            return error.status == 404
        except ReconcilerError:
            return False
        return is_owned(live, self.place.owner, self.environment)

    def failed(self, error: ApiError) -> ReconcilerError:
        """The error of ours for what an effect met."""
        kind = ROUTES if error.asked.resource.startswith("httproutes.") else ""
        return self._explained(kind, error) or translated(error, self._api.where)


def _missing(where: str, namespace: str) -> Stalled:
    return Stalled(
        Reason.NAMESPACE_MISSING,
        f"there is no namespace {namespace}",
        where=where,
        remedy=f"Create it (kubectl create namespace {namespace}), or name another in the environment's settings",
    )

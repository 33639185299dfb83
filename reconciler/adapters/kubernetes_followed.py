"""The objects of bundles as a cluster tells of them: a watch for each of their kinds in each of their namespaces.

What kinds these are is only known from the inventories, so watches come and go. Those of one kind may fail, for there
is no right to read it or its definition is gone: that is told of its objects, and of no others.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import NamedTuple

from reconciler.adapters.kubernetes_cache import Cache
from reconciler.adapters.kubernetes_client import Api
from reconciler.adapters.kubernetes_kinds import Resource
from reconciler.adapters.kubernetes_watch import Watch
from reconciler.core import names
from reconciler.core.bundle_inventory import MEMBER
from reconciler.core.bundle_live import small
from reconciler.core.errors import ReconcilerError
from reconciler.core.kubernetes_json import Json
from reconciler.core.kubernetes_labels import Place


class Scope(NamedTuple):
    """A kind in a namespace; "" where its objects lie in none."""

    resource: Resource
    namespace: str


class _Kept(NamedTuple):
    cache: Cache
    watch: Watch


class Followed:
    """Those of one environment. `tell(detail)` is called when something is new."""

    def __init__(self, api: Api, place: Place, environment: str, tell: Callable[[str], None]) -> None:
        self._api = api
        self._chosen = (
            f"{names.LABEL_OWNER}={place.owner},{names.LABEL_ENVIRONMENT}={environment},{names.LABEL_ROLE}={MEMBER}"
        )
        self._tell = tell
        self._timeout = api.settings.timeout.total_seconds()
        self._lock = threading.Lock()
        self._kept: dict[Scope, _Kept] = {}
        self._left: list[Watch] = []
        self._stopped = False

    def follow(self, scopes: Collection[Scope]) -> None:
        """Follow these from now on, beside those that are followed already."""
        with self._lock:
            if self._stopped:
                return
            new = {scope: self._begun(scope) for scope in set(scopes) - self._kept.keys()}
            self._kept.update(new)
        for kept in new.values():
            kept.watch.start()

    def only(self, scopes: Collection[Scope]) -> None:
        """Follow these and no others: nothing of any other is asked any more."""
        with self._lock:
            over = [self._kept.pop(scope) for scope in self._kept.keys() - set(scopes)]
            self._left = [watch for watch in self._left if watch.runs] + [kept.watch for kept in over]
        for kept in over:
            kept.watch.stop()
        self.follow(scopes)

    def look(self, scope: Scope) -> Callable[[str], Json | None] | ReconcilerError:
        """How to find an object of a scope by its name, in its small form; an error when nothing is known of them.

        Waits for the first list, as long as the cluster's `timeout`.
        """
        with self._lock:
            kept = self._kept.get(scope)
        if kept is None:
            return lambda _: None
        try:
            kept.cache.check(self._timeout)
        except ReconcilerError as error:
            return error
        return lambda name: kept.cache.get(scope.resource.kind, name)

    def saw(self, scope: Scope, live: Json) -> None:
        """The API answered a write of ours with this object."""
        with self._lock:
            kept = self._kept.get(scope)
        if kept is not None and kept.cache.saw(scope.resource.kind, "MODIFIED", small(live)):
            self._tell(f"{scope.resource.kind} {live['metadata']['name']} applied")

    def gone(self, scope: Scope, name: str, uid: str) -> None:
        """The API says that an object is not there any more."""
        with self._lock:
            kept = self._kept.get(scope)
        if kept is not None:
            kept.cache.removed(scope.resource.kind, name, uid)

    def stop(self) -> None:
        """Ask all threads to end."""
        with self._lock:
            self._stopped = True
            self._left += [kept.watch for kept in self._kept.values()]
        for watch in self._left:
            watch.stop()

    def join(self, left: Callable[[], float]) -> None:
        """Wait for their end, each for as long as `left` says."""
        for watch in self._left:
            watch.join(left())

    def _begun(self, scope: Scope) -> _Kept:
        cache = Cache((scope.resource.kind,))
        watch = Watch(
            self._api,
            cache,
            scope.resource.kind,
            scope.resource.path(scope.namespace),
            {"labelSelector": self._chosen},
            self._tell,
            lambda _: None,
            keep=lambda live, _: small(live),
        )
        return _Kept(cache, watch)

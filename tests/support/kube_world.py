"""An environment on Kubernetes for the tests of the runtime: the fake API or the real cluster, in the same words."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from reconciler.adapters.kubernetes_apply import path
from reconciler.adapters.kubernetes_client import MERGE_PATCH, Api, ApiError
from reconciler.adapters.kubernetes_runtime import KubernetesRuntime
from reconciler.adapters.kubernetes_site import Site
from reconciler.core import groups
from reconciler.core.errors import ReconcilerError
from reconciler.core.live import Group, LiveState
from reconciler.core.model import Health, HttpCheck, ImageRef, Port, ServiceSpec, version_of
from reconciler.core.steps import EnsureGroup, GroupShare, RouteGroups
from reconciler.settings import GatewaySettings, KubernetesSettings
from tests.support.cluster import eventually
from tests.support.kube_house import KubeHouse, kube_house

Json = dict[str, Any]
ENVIRONMENT, OWNER = "prod", "house"
PATIENCE = 180.0
QUICK = Health(check=HttpCheck(8080, "/healthz"), interval=timedelta(seconds=1), startup=timedelta(seconds=30))


class Vault:
    """One secret, whose version and content are those of `content`."""

    content = b"hunter2"

    def versions(self, environment: str, names: Any) -> Mapping[str, str]:
        return {name: self.content.hex() for name in names if name == "password"}

    def reveal(self, environment: str, name: str) -> bytes:
        return self.content


class Ahead:
    """The real time, and more."""

    ahead = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def monotonic(self) -> float:
        return 0.0


@dataclass
class World:
    """`hands` is the API as a person uses it, `told` are the hints so far, `house` is the fake (None: a real one)."""

    settings: KubernetesSettings
    namespace: str
    hands: Api
    runtime: KubernetesRuntime
    clock: Ahead
    vault: Vault
    house: KubeHouse | None = None
    told: list[str] = field(default_factory=list)
    news: threading.Condition = field(default_factory=threading.Condition)

    def hint(self, environment: str, detail: str) -> None:
        with self.news:
            self.told.append(detail)
            self.news.notify_all()

    def live(self) -> LiveState:
        return self.runtime.observe(ENVIRONMENT, {}, [])

    def group(self, name: str = "web") -> Group:
        return next(group for group in self.live().groups if group.name == name)

    def until(self, look: Callable[[LiveState], object], during: tuple[type[Exception], ...] = ()) -> LiveState:
        """The live state once it is as asked; waits for hints, as the daemon does, and looks each second anyway."""
        end = self.clock.now() + timedelta(seconds=PATIENCE)
        while True:
            with self.news:
                count = len(self.told)
            try:
                found = self.live()
                if look(found):
                    return found
                shown: object = found
            except (ReconcilerError, *during) as error:
                if not isinstance(error, during):
                    raise
                shown = error
            assert self.clock.now() < end, shown
            with self.news:
                self.news.wait_for(lambda before=count: len(self.told) > before, 1.0)

    def asked(self, runtime: KubernetesRuntime | None = None) -> Counter[str]:
        """The calls so far by verb, but for the one watch that begins after each list: it may still be on its way."""
        made = (runtime or self.runtime).api.counts.copy()
        assert made.pop("watch", 0) <= made["list"]
        return made

    def heard(self, words: str) -> None:
        """Return when a hint with these words has come."""
        with self.news:
            assert self.news.wait_for(lambda: any(words in detail for detail in self.told), PATIENCE), self.told

    def get(self, kind: str, name: str) -> Json:
        return self.hands.call("GET", path(kind, self.namespace, name))

    def there(self, kind: str, name: str) -> bool:
        try:
            self.get(kind, name)
        except ApiError as error:
            assert error.status == 404
            return False
        return True

    def make(self, kind: str, body: Json, manager: str = "somebody") -> Json:
        return self.hands.call("POST", path(kind, self.namespace), query={"fieldManager": manager}, body=body)

    def change(self, kind: str, name: str, body: Json) -> None:
        """A merge patch by somebody."""
        query = {"fieldManager": "kubectl-edit"}
        self.hands.call("PATCH", path(kind, self.namespace, name), query=query, body=body, content_type=MERGE_PATCH)

    def delete(self, kind: str, name: str) -> None:
        self.hands.call("DELETE", path(kind, self.namespace, name))

    @contextmanager
    def full(self) -> Iterator[None]:
        """A real namespace in which no further pod can be made while the block runs, however long that takes."""
        way = f"/api/v1/namespaces/{self.namespace}/resourcequotas"
        self.hands.call("POST", way, body={"metadata": {"name": "full"}, "spec": {"hard": {"pods": "0"}}})
        eventually(self._refuses_pods)
        yield
        self.hands.call("DELETE", f"{way}/full")

    def _refuses_pods(self) -> bool:
        body = {"metadata": {"name": "tried"}, "spec": {"containers": [{"name": "main", "image": "x"}]}}
        try:
            self.hands.call("POST", path("Pod", self.namespace), query={"dryRun": "All"}, body=body)
        except ApiError as error:
            return "exceeded quota" in error.message
        return False

    def owned(self, kind: str, name: str) -> list[tuple[str, Json]]:
        """The fields that are ours, by operation."""
        entries = self.get(kind, name)["metadata"]["managedFields"]
        return [(one["operation"], one["fieldsV1"]) for one in entries if one["manager"] == "reconciler"]

    def again(self, **changes: Any) -> KubernetesRuntime:
        """Another daemon at the same place."""
        return KubernetesRuntime(
            replace(self.settings, **changes), {ENVIRONMENT: Site(self.namespace)}, OWNER, self.vault, self.clock
        )


@contextmanager
def kube_world(
    kubeconfig: Path,
    namespace: str,
    house: KubeHouse | None = None,
    gateway: str = "",
    *,
    cluster_scoped: bool = False,
    **settings: Any,
) -> Iterator[World]:
    """An environment in `namespace`, watched; nothing is listed yet."""
    chosen = KubernetesSettings("here", kubeconfig, **{"timeout": timedelta(minutes=1), **settings})
    clock, vault = Ahead(), Vault()
    site = Site(namespace, GatewaySettings(gateway) if gateway else None, cluster_scoped)
    runtime = KubernetesRuntime(chosen, {ENVIRONMENT: site}, OWNER, vault, clock)
    world = World(chosen, namespace, Api(chosen), runtime, clock, vault, house)
    runtime.watch(world.hint)
    try:
        yield world
    finally:
        runtime.close()
        world.hands.close()


@contextmanager
def either(request: pytest.FixtureRequest, directory: Path) -> Iterator[World]:
    """An environment on the fake API or on the cluster, as the parameter of a fixture says: "fake" or "real"."""
    if request.param == "fake":
        with kube_house() as house, kube_world(house.kubeconfig(directory), ENVIRONMENT, house) as built:
            yield built
        return
    cluster = request.getfixturevalue("cluster")
    request.getfixturevalue("cluster_turn")
    namespace = request.getfixturevalue("namespace")
    with kube_world(cluster.kubeconfig, namespace) as built:
        yield built


def service(image: str = "", name: str = "web", **changes: Any) -> ServiceSpec:
    """A small service; without an image one that cannot be pulled."""
    repository, _, digest = (image or f"127.0.0.1:1/none@sha256:{'a' * 64}").partition("@")
    given = {"ports": (Port("http", 8080),), "health": QUICK, "env": {"A": "1", "B": "2"}}
    return ServiceSpec(name, ImageRef(repository, digest), **{**given, **changes})


def version(spec: ServiceSpec) -> str:
    return version_of(spec, {use.secret: "1" for use in spec.secrets})


def ensure(spec: ServiceSpec, name: str = "", first: int = 1) -> EnsureGroup:
    """The step that declares a group; the autoscaler owns the number where there is one."""
    count = spec.replicas if spec.scaling is None else None
    digest = groups.operated(spec, count)
    return EnsureGroup(name or spec.name, ENVIRONMENT, spec, version(spec), "c" * 40, count, first, digest)


def lead(spec: ServiceSpec, *names: str, mixed: bool = False, exact: bool = False) -> RouteGroups:
    """The step that leads all requests of a service to the first of these groups."""
    digest = groups.route_operated(spec, exact=exact)
    shares = tuple(GroupShare(name, version(spec), 0 if place else 100) for place, name in enumerate(names))
    return RouteGroups(spec.name, ENVIRONMENT, spec, shares, mixed, digest)

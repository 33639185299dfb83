"""What a group and a route come to as objects of a cluster, and which objects must not exist beside them. Pure.

Values in, JSON out. Each object carries what was applied (`core/managed_fields.py`), so that a change by hand is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from reconciler.core import kubernetes_config, names
from reconciler.core.delivery import Scaling
from reconciler.core.kubernetes_config import filled, secret_of
from reconciler.core.kubernetes_json import Json, table, text
from reconciler.core.kubernetes_labels import (
    API,
    COMPANION_KINDS,
    COMPANIONS,
    GROUP,
    OPERATED,
    Place,
    Ref,
    label,
    orphan_name,
    ref,
    rendered,
)
from reconciler.core.kubernetes_pods import selected, template
from reconciler.core.kubernetes_quantity import cores, seconds
from reconciler.core.kubernetes_route import Gateway, routed
from reconciler.core.managed_fields import stamped
from reconciler.core.model import Health, ServiceSpec
from reconciler.core.steps import EnsureGroup, RouteGroups

__all__ = [
    "Gateway",
    "filled",
    "group_objects",
    "group_refs",
    "handover",
    "must_be_remade",
    "route_objects",
    "secret_of",
    "unwanted_of_group",
    "unwanted_of_route",
]

HISTORY = 2
"""How many old ReplicaSets stay: a return of ours does not need them, people may want to look."""
MARGIN = 60
"""By how many seconds Kubernetes gives up later than the planner does."""


def group_objects(effect: EnsureGroup, place: Place, secret_versions: Mapping[str, str]) -> tuple[Json, ...]:
    """The objects of a group in the order of applying. Secrets are without content (`filled`).

    What is needed comes before the Deployment; its companions are named in it, so that a missing one is noticed.
    """
    spec, environment = effect.spec, effect.environment
    companions = [*_budget(effect, place), *_autoscaler(effect, place)]
    found = [
        *kubernetes_config.config_maps(spec, place, environment),
        *kubernetes_config.secrets(spec, place, environment, secret_versions),
        _deployment(effect, place, secret_versions, companions),
        *companions,
    ]
    return tuple(stamped(each) for each in found)


def group_refs(name: str) -> tuple[Ref, ...]:
    """The objects that go with a group, in the order of deletion: a Deployment that is left is still seen as a group.

    Files and secrets may be shared; they become leftovers.
    """
    return tuple(Ref(kind, name) for kind in (*COMPANION_KINDS, "Deployment"))


def unwanted_of_group(objects: Sequence[Json], name: str) -> tuple[Ref, ...]:
    """The companions that the group `name` must not have when its objects are `objects`."""
    wanted = {ref(each) for each in objects}
    return tuple(found for found in group_refs(name)[:-1] if found not in wanted)


def route_objects(effect: RouteGroups, place: Place, gateway: Gateway | None) -> tuple[Json, ...]:
    """The objects of a service's route in the order of applying."""
    return tuple(stamped(each) for each in routed(effect, place, gateway))


def unwanted_of_route(objects: Sequence[Json], service: str, live: Iterable[Json]) -> tuple[Ref, ...]:
    """Which of the Services and HTTPRoutes of ours in `live` must not exist when the service's are `objects`.

    In the order of deletion: routes before the Services that they refer to, and the service's own name last.
    """
    wanted = {ref(each) for each in objects}
    mine = {ref(each) for each in live if label(each, names.LABEL_SERVICE) == service}
    gone = {found for found in mine - wanted if found.kind in ("Service", "HTTPRoute")}
    return tuple(sorted(gone, key=lambda found: (found.kind == "Service", found.name == service, found.name)))


def handover(name: str, place: Place, replicas: int) -> Json:
    """The smallest Deployment that holds the number of instances: applied by `COUNT_MANAGER`, it keeps the number while
    `MANAGER` gives it up to an autoscaler."""
    kind = "Deployment"
    metadata = {"name": name, "namespace": place.namespace}
    return {"apiVersion": API[kind][0], "kind": kind, "metadata": metadata, "spec": {"replicas": replicas}}


def must_be_remade(live: Json, wanted: Json) -> bool:
    """Whether an object has to be deleted before it can become what is wanted: a field that never changes differs."""
    match wanted["kind"]:
        case "Deployment":
            return table(live, "spec", "selector") != table(wanted, "spec", "selector")
        case "Service":
            return (text(live, "spec", "clusterIP") == "None") != bool(text(wanted, "spec", "clusterIP"))
        case _:
            return False


def _deployment(
    effect: EnsureGroup, place: Place, secret_versions: Mapping[str, str], companions: Sequence[Json]
) -> Json:
    spec = effect.spec
    notes = {
        names.LABEL_VERSION: effect.version,
        names.LABEL_REVISION: effect.revision,
        names.LABEL_IMAGE: spec.image.pinned,
        OPERATED: effect.operated,
        COMPANIONS: ",".join(orphan_name(ref(each)) for each in companions),
    }
    chosen = selected(place.owner, effect.environment, spec.name, effect.name)
    stays = _stays(spec.health)
    body: Json = {
        "selector": {"matchLabels": chosen},
        "strategy": _strategy(spec),
        "paused": False,
        "revisionHistoryLimit": HISTORY,
        "progressDeadlineSeconds": max(seconds(spec.rollout.progress_deadline), stays) + MARGIN,
        "template": template(effect, place.owner, secret_versions),
    }
    if stays:
        body["minReadySeconds"] = stays
    if effect.replicas is not None:
        body["replicas"] = effect.replicas
    marks = {GROUP: effect.name, names.LABEL_VERSION: names.short(effect.version)}
    return rendered(Ref("Deployment", effect.name), place, effect.environment, spec.name, marks, notes, {"spec": body})


def _stays(health: Health) -> int:
    """For how many seconds an instance without a check has to run until it counts."""
    return seconds(health.interval * health.healthy_after) if health.check is None else 0


def _strategy(spec: ServiceSpec) -> Json:
    if spec.stop_first:
        return {"type": "Recreate"}
    rollout = spec.rollout
    surge = rollout.surge if rollout.unavailable else max(rollout.surge, 1)
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": rollout.unavailable}}


def _budget(effect: EnsureGroup, place: Place) -> list[Json]:
    """Evictions take one instance after the other, or as many as a release may; a broken one keeps no node up."""
    spec = effect.spec
    most = effect.replicas if effect.replicas is not None else _scaling(effect).maximum
    if most <= 1:
        return []
    chosen = selected(place.owner, effect.environment, spec.name, effect.name)
    body = {
        "maxUnavailable": max(spec.rollout.unavailable, 1),
        "selector": {"matchLabels": chosen},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    return [_companion("PodDisruptionBudget", effect, place, body)]


def _autoscaler(effect: EnsureGroup, place: Place) -> list[Json]:
    """Where the engine decides by demand: it is then the only one who sets the number."""
    if effect.replicas is not None:
        return []
    scaling = _scaling(effect)
    target = {"type": "AverageValue", "averageValue": cores(scaling.cpu or 1.0)}
    body = {
        "scaleTargetRef": {"apiVersion": API["Deployment"][0], "kind": "Deployment", "name": effect.name},
        "minReplicas": scaling.minimum,
        "maxReplicas": scaling.maximum,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": seconds(scaling.stabilization)}},
    }
    return [_companion("HorizontalPodAutoscaler", effect, place, body)]


def _scaling(effect: EnsureGroup) -> Scaling:
    scaling = effect.spec.scaling
    assert scaling is not None, "only an autoscaler may own the number of instances"
    return scaling


def _companion(kind: str, effect: EnsureGroup, place: Place, body: Json) -> Json:
    notes = {OPERATED: effect.operated}
    marks = {GROUP: effect.name}
    return rendered(Ref(kind, effect.name), place, effect.environment, effect.spec.name, marks, notes, {"spec": body})

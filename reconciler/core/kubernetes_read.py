"""What a namespace shows as the live state of an environment: objects of an API in, values out. Pure.

Objects of others may be among them, with anything in any field: nothing here raises for that. An object that is ours by
its labels but does not say what it is, is shown as something in the way, and is left alone.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from reconciler.core import names
from reconciler.core.errors import Reason
from reconciler.core.kubernetes_json import Json, moment, number, text
from reconciler.core.kubernetes_labels import COMPANION_KINDS, GROUP, Ref, annotation, is_owned, label, orphan_name
from reconciler.core.kubernetes_read_groups import group, owner_of, replica_sets_of
from reconciler.core.kubernetes_read_pods import image_failures, instance, pod_of
from reconciler.core.kubernetes_read_routes import route
from reconciler.core.kubernetes_slim import references, slim
from reconciler.core.live import Foreign, Group, GroupRoute, ImageState, ImageStatus, LiveState
from reconciler.core.model import Health

__all__ = ["Seen", "live_state", "pod_of", "slim"]

FRESH = timedelta(minutes=1)
"""So young a ConfigMap or Secret may be waiting for the Deployment that needs it."""

_VERSION = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Seen:
    """The objects in a namespace, as the API server answers them or made smaller (`core/kubernetes_slim.py`).

    Of `config_maps` and `secrets` the metadata is enough; for Secrets that may not be read, that of a stand-in.
    """

    deployments: Sequence[Json] = ()
    replica_sets: Sequence[Json] = ()
    pods: Sequence[Json] = ()
    services: Sequence[Json] = ()
    routes: Sequence[Json] = ()
    config_maps: Sequence[Json] = ()
    secrets: Sequence[Json] = ()
    budgets: Sequence[Json] = ()
    autoscalers: Sequence[Json] = ()

    def kinds(self) -> Iterator[tuple[str, Sequence[Json]]]:
        """The objects of the kinds that we write."""
        yield "Deployment", self.deployments
        yield "Service", self.services
        yield "HTTPRoute", self.routes
        yield "ConfigMap", self.config_maps
        yield "Secret", self.secrets
        yield "PodDisruptionBudget", self.budgets
        yield "HorizontalPodAutoscaler", self.autoscalers


def live_state(
    seen: Seen,
    owner: str,
    environment: str,
    at: datetime,
    checks: Mapping[str, Health],
    images: Sequence[str],
) -> LiveState:
    """One environment as `seen` shows it at the time `at`. `checks` and `images` are those of `ports.Runtime.observe`.

    What is not ours is left out.
    """
    ours: dict[Ref, Json] = {}
    foreign: list[Foreign] = []
    for kind, objects in seen.kinds():
        for each in objects:
            found = Ref(kind, text(each, "metadata", "name"))
            if not is_owned(each, owner, environment):
                continue
            if not label(each, names.LABEL_SERVICE):
                foreign.append(_foreign(found, Reason.DRIFT_UNLABELLED, "it carries only some of our labels"))
            else:
                ours[found] = each
    replica_sets = [each for each in seen.replica_sets if is_owned(each, owner, environment)]
    pods = [each for each in seen.pods if is_owned(each, owner, environment)]
    proper, strange = _sorted(pods)
    groups, damaged = _groups(ours, replica_sets, proper)
    failed = image_failures(proper)
    revisions = _revisions(ours, replica_sets)
    return LiveState(
        environment,
        at,
        instances=tuple(instance(each, environment, at, checks, revisions) for each in proper),
        images={image: failed.get(image, ImageState(ImageStatus.PRESENT)) for image in images},
        foreign=tuple(sorted([*foreign, *strange, *damaged], key=lambda each: each.name)),
        orphans=tuple(sorted(orphan_name(each) for each in _orphans(ours, replica_sets, pods, at))),
        network_ready=True,
        groups=groups,
        routes=_routes(ours),
    )


def _foreign(found: Ref, reason: Reason, detail: str) -> Foreign:
    return Foreign(orphan_name(found), reason, detail)


def _sorted(pods: Iterable[Json]) -> tuple[list[Json], list[Foreign]]:
    """The pods of our groups, and those that only look like it."""
    proper, strange = [], []
    for pod in pods:
        found = Ref("Pod", text(pod, "metadata", "name"))
        if not owner_of(pod):
            strange.append(_foreign(found, Reason.DRIFT_EXTRA, "it carries our labels, but no group of ours made it"))
        elif not label(pod, names.LABEL_SERVICE) or not _VERSION.fullmatch(annotation(pod, names.LABEL_VERSION)):
            strange.append(_foreign(found, Reason.DRIFT_UNLABELLED, "it carries only some of our labels"))
        else:
            proper.append(pod)
    return proper, strange


def _groups(
    ours: Mapping[Ref, Json], replica_sets: Sequence[Json], pods: Sequence[Json]
) -> tuple[tuple[Group, ...], list[Foreign]]:
    members: dict[str, list[Json]] = defaultdict(list)
    for pod in pods:
        members[label(pod, GROUP)].append(pod)
    makers: dict[str, list[Json]] = defaultdict(list)
    for each in replica_sets:
        makers[label(each, GROUP)].append(each)
    found, damaged = [], []
    for key, deployment in sorted(ours.items()):
        if key.kind != "Deployment":
            continue
        if label(deployment, GROUP) != key.name:
            damaged.append(_foreign(key, Reason.DRIFT_UNLABELLED, "it has our labels, but is none of our groups"))
            continue
        mine = replica_sets_of(deployment, makers[key.name])
        found.append(group(deployment, mine, members[key.name], ours))
    return tuple(found), damaged


def _revisions(ours: Mapping[Ref, Json], replica_sets: Sequence[Json]) -> dict[str, str]:
    """The revision of each version: Kubernetes copies what a Deployment says of itself to its ReplicaSets."""
    deployments = [each for key, each in ours.items() if key.kind == "Deployment"]
    sources = [*replica_sets, *deployments]
    return {annotation(each, names.LABEL_VERSION): annotation(each, names.LABEL_REVISION) for each in sources}


def _routes(ours: Mapping[Ref, Json]) -> dict[str, GroupRoute]:
    found: dict[str, dict[Ref, Json]] = defaultdict(dict)
    for key, each in ours.items():
        if key.kind in ("Service", "HTTPRoute"):
            found[label(each, names.LABEL_SERVICE)][key] = each
    return {service: route(service, objects) for service, objects in sorted(found.items())}


def _orphans(
    ours: Mapping[Ref, Json], replica_sets: Sequence[Json], pods: Sequence[Json], at: datetime
) -> Iterator[Ref]:
    """What was made for groups that are gone: files and secrets that nobody refers to, companions without a group."""
    deployments = [each for key, each in ours.items() if key.kind == "Deployment"]
    active = [each for each in replica_sets if number(each, "spec", "replicas", default=1) > 0]
    needed: set[Ref] = set()
    for each in (*deployments, *active, *pods):
        needed |= references(each)
    for key, each in ours.items():
        if key.kind in ("ConfigMap", "Secret"):
            made = moment(each, "metadata", "creationTimestamp")
            if key not in needed and (made is None or at - made > FRESH):
                yield key
        elif key.kind in COMPANION_KINDS and Ref("Deployment", key.name) not in ours:
            yield key

"""What a namespace shows as the live state of an environment: objects of an API in, values out. Pure.

Objects of others may be among them, with anything in any field: nothing here raises for that. An object that is ours by
its labels but does not say what it is, is shown as something in the way, and is left alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from reconciler.core.errors import Reason
from reconciler.core.kubernetes_facts import Facts, Look, Told
from reconciler.core.kubernetes_json import Json, moment
from reconciler.core.kubernetes_labels import COMPANION_KINDS, Ref, orphan_name
from reconciler.core.kubernetes_read_groups import group
from reconciler.core.kubernetes_read_pods import image_failures, life, pod_of
from reconciler.core.kubernetes_read_routes import route
from reconciler.core.kubernetes_slim import slim
from reconciler.core.live import Foreign, Group, GroupRoute, ImageState, ImageStatus, Instance, LiveState
from reconciler.core.model import Health

__all__ = ["Seen", "Told", "live_state", "pod_of", "slim"]

FRESH = timedelta(minutes=1)
"""So young a ConfigMap or Secret may be waiting for the Deployment that needs it."""
_PRESENT = ImageState(ImageStatus.PRESENT)


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
    told: Told | None = None,
) -> LiveState:
    """One environment as `seen` shows it at the time `at`. `checks` and `images` are those of `ports.Runtime.observe`.

    What is not ours is left out. `told` is what the last look at this environment of this owner made of the objects;
    of what is still the very same nothing is read again, and the answer is as without it.
    """
    look = Look(Told() if told is None else told, owner, environment)
    ours: dict[Ref, Facts] = {}
    foreign: list[Foreign] = []
    for kind, objects in seen.kinds():
        for each in look.ours(kind, objects):
            if each.service:
                ours[each.ref] = each
            else:
                foreign.append(_foreign(each.ref, Reason.DRIFT_UNLABELLED, "it carries only some of our labels"))
    replica_sets, pods = look.ours("ReplicaSet", seen.replica_sets), look.ours("Pod", seen.pods)
    proper, strange = _sorted(pods)
    groups, damaged = _groups(look, ours, replica_sets, proper)
    failed = image_failures(each.image for each in proper)
    found = LiveState(
        environment,
        at,
        instances=_instances(look, environment, at, proper, checks, _revisions(ours, replica_sets)),
        images={image: failed.get(image, _PRESENT) for image in images},
        foreign=tuple(sorted([*foreign, *strange, *damaged], key=lambda each: each.name)),
        orphans=tuple(sorted(orphan_name(each) for each in _orphans(ours, replica_sets, pods, at))),
        network_ready=True,
        groups=groups,
        routes=_routes(look, ours),
    )
    look.over()
    return found


def _foreign(found: Ref, reason: Reason, detail: str) -> Foreign:
    return Foreign(orphan_name(found), reason, detail)


def _sorted(pods: Iterable[Facts]) -> tuple[list[Facts], list[Foreign]]:
    """The pods of our groups, and those that only look like it."""
    proper, strange = [], []
    for pod in pods:
        if not pod.maker:
            said = "it carries our labels, but no group of ours made it"
            strange.append(_foreign(pod.ref, Reason.DRIFT_EXTRA, said))
        elif not pod.proper:
            strange.append(_foreign(pod.ref, Reason.DRIFT_UNLABELLED, "it carries only some of our labels"))
        else:
            proper.append(pod)
    return proper, strange


def _groups(
    look: Look, ours: Mapping[Ref, Facts], replica_sets: Sequence[Facts], pods: Sequence[Facts]
) -> tuple[tuple[Group, ...], list[Foreign]]:
    members: dict[str, list[Facts]] = defaultdict(list)
    for pod in pods:
        members[pod.group].append(pod)
    makers: dict[tuple[str, str], list[Facts]] = defaultdict(list)
    for each in replica_sets:
        makers[each.group, each.maker].append(each)
    found, damaged = [], []
    for key in sorted(ref for ref in ours if ref.kind == "Deployment"):
        deployment = ours[key]
        if deployment.group != key.name:
            damaged.append(_foreign(key, Reason.DRIFT_UNLABELLED, "it has our labels, but is none of our groups"))
            continue
        mine = tuple(makers.get((key.name, deployment.uid), ())) if deployment.uid else ()
        inside = tuple(members.get(key.name, ()))
        around = tuple(ours[each] for each in deployment.around if each in ours)
        make = partial(_group, deployment, mine, inside, around)
        found.append(look.made(key, (deployment, mine, inside, around), make))
    return tuple(found), damaged


def _group(deployment: Facts, replica_sets: Sequence[Facts], pods: Sequence[Facts], around: Sequence[Facts]) -> Group:
    others = {each.ref: each.live for each in around}
    return group(deployment.live, [each.live for each in replica_sets], [each.live for each in pods], others)


def _revisions(ours: Mapping[Ref, Facts], replica_sets: Sequence[Facts]) -> dict[str, str]:
    """The revision of each version: Kubernetes copies what a Deployment says of itself to its ReplicaSets."""
    deployments = [each for key, each in ours.items() if key.kind == "Deployment"]
    return {each.version: each.revision for each in (*replica_sets, *deployments)}


def _instances(
    look: Look,
    environment: str,
    at: datetime,
    pods: Sequence[Facts],
    checks: Mapping[str, Health],
    revisions: Mapping[str, str],
) -> tuple[Instance, ...]:
    found = []
    for pod in pods:
        check, revision = checks.get(pod.version), revisions.get(pod.version, "")
        make = partial(life, pod.live, environment, check, revision)
        found.append(look.made(pod.ref, (pod, check, revision), make).at(at))
    return tuple(found)


def _routes(look: Look, ours: Mapping[Ref, Facts]) -> dict[str, GroupRoute]:
    found: dict[str, list[Facts]] = defaultdict(list)
    for key, each in ours.items():
        if key.kind in ("Service", "HTTPRoute"):
            found[each.service].append(each)
    return {
        service: look.made(service, tuple(mine), partial(_route, service, mine))
        for service, mine in sorted(found.items())
    }


def _route(service: str, mine: Sequence[Facts]) -> GroupRoute:
    return route(service, {each.ref: each.live for each in mine})


def _orphans(
    ours: Mapping[Ref, Facts], replica_sets: Sequence[Facts], pods: Sequence[Facts], at: datetime
) -> Iterator[Ref]:
    """What was made for groups that are gone: files and secrets that nobody refers to, companions without a group."""
    needed: set[Ref] = set()
    for each in (*ours.values(), *replica_sets, *pods):
        if each.active:
            needed |= each.needs
    for key, each in ours.items():
        if key.kind in ("ConfigMap", "Secret"):
            if key in needed:
                continue
            made = moment(each.live, "metadata", "creationTimestamp")
            if made is None or at - made > FRESH:
                yield key
        elif key.kind in COMPANION_KINDS and Ref("Deployment", key.name) not in ours:
            yield key

"""Deployments as groups: what they declare, whether Kubernetes is done with it, and what keeps it from that. Pure.

Whether it is done follows the rules of kstatus (sigs.k8s.io/cli-utils) for Deployments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from reconciler.core import names
from reconciler.core.errors import Reason
from reconciler.core.kubernetes_json import Json, condition, items, moment, number, one_line, table, text
from reconciler.core.kubernetes_labels import (
    COMPANION_KINDS,
    COMPANIONS,
    OPERATED,
    Ref,
    annotation,
    label,
    orphan_name,
    orphan_ref,
)
from reconciler.core.kubernetes_read_pods import EPOCH, hindrance
from reconciler.core.kubernetes_slim import differences, references
from reconciler.core.live import Difference, Group
from reconciler.core.managed_fields import MAX_DIFFERENCES


def group(deployment: Json, replica_sets: Iterable[Json], pods: Sequence[Json], others: Mapping[Ref, Json]) -> Group:
    """A Deployment of ours. `replica_sets` and `pods` are its own, `others` its `neighbours` as far as they are there:
    what belongs to it must be, and be as it was applied.

    `operated` is empty where the objects of the group do not agree on it: declaring was cut off in the middle.
    """
    name = text(deployment, "metadata", "name")
    version = annotation(deployment, names.LABEL_VERSION)
    companions = companions_of(deployment)
    there = [others[each] for each in companions if each in others]
    operated = annotation(deployment, OPERATED)
    agreed = all(annotation(each, OPERATED) == operated for each in there)
    reason, detail = _hindrance(deployment, [pod for pod in pods if annotation(pod, names.LABEL_VERSION) == version])
    return Group(
        name=name,
        service=label(deployment, names.LABEL_SERVICE),
        version=version,
        revision=annotation(deployment, names.LABEL_REVISION),
        image=annotation(deployment, names.LABEL_IMAGE),
        operated=operated if agreed else "",
        replicas=number(deployment, "spec", "replicas", default=1),
        ready=sum(number(each, "status", "availableReplicas") for each in replica_sets if _is_of(each, version)),
        settled=_is_settled(deployment),
        created_at=moment(deployment, "metadata", "creationTimestamp") or EPOCH,
        reason=reason,
        detail=detail,
        differences=few([*differences(deployment, "Deployment"), *_around(deployment, companions, others)]),
    )


def neighbours(deployment: Json) -> tuple[Ref, ...]:
    """The objects that are looked at with a Deployment: what belongs to it, what its pods need, what it may have."""
    extras = (Ref(kind, text(deployment, "metadata", "name")) for kind in COMPANION_KINDS)
    return (*companions_of(deployment), *sorted(references(deployment)), *extras)


def companions_of(live: Json) -> tuple[Ref, ...]:
    """The objects that belong to a Deployment or to a Service, as it says itself."""
    found = (orphan_ref(each) for each in annotation(live, COMPANIONS).split(","))
    return tuple(each for each in found if each is not None)


def few(found: Sequence[Difference]) -> tuple[Difference, ...]:
    """As many differences as are told of one group or route."""
    return tuple(found[:MAX_DIFFERENCES])


def missing(found: Ref) -> Difference:
    """An object that somebody removed."""
    return Difference(Reason.DRIFT_MISSING, f"{orphan_name(found)} is gone")


def surplus(found: Ref) -> Difference:
    """An object that was left over when declaring was cut off."""
    return Difference(Reason.DRIFT_EXTRA, f"{orphan_name(found)} is not wanted any more")


def of_other(found: Ref, live: Json) -> list[Difference]:
    """How an object that belongs to another one is no longer as it was applied."""
    return [Difference(each.reason, f"{orphan_name(found)}: {each.detail}") for each in differences(live, found.kind)]


def _around(deployment: Json, companions: Sequence[Ref], others: Mapping[Ref, Json]) -> list[Difference]:
    """What is wrong with the objects that belong to a group, files and secrets included."""
    found = [missing(each) for each in companions if each not in others]
    found += [missing(each) for each in sorted(references(deployment)) if each not in others]
    for each in companions:
        found += of_other(each, others[each]) if each in others else []
    name = text(deployment, "metadata", "name")
    for kind in COMPANION_KINDS:
        extra = Ref(kind, name)
        if extra in others and extra not in companions:
            found.append(surplus(extra))
    return found


def _is_of(replica_set: Json, version: str) -> bool:
    return label(replica_set, names.LABEL_VERSION) == names.short(version)


def _is_settled(deployment: Json) -> bool:
    wanted, status = number(deployment, "spec", "replicas", default=1), table(deployment, "status")
    if number(status, "observedGeneration") < number(deployment, "metadata", "generation"):
        return False
    progress = condition(deployment, "Progressing")
    if progress and (progress.get("status") != "True" or progress.get("reason") != "NewReplicaSetAvailable"):
        return False
    counts = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
    return all(number(status, name) == wanted for name in counts)


def _hindrance(deployment: Json, pods: Sequence[Json]) -> tuple[Reason | None, str]:
    failure = condition(deployment, "ReplicaFailure")
    if failure.get("status") == "True":
        message = one_line(text(failure, "message"))
        return _refusal(message), message
    found = sorted(each for each in map(hindrance, pods) if each is not None)
    return found[0] if found else (None, "")


def _refusal(message: str) -> Reason:
    """Why the API server refused to make a pod."""
    low = message.lower()
    if "exceeded quota" in low or "failed quota" in low:
        return Reason.QUOTA_EXCEEDED
    if "forbidden" in low or "denied" in low:
        return Reason.POLICY_DENIED  # Pod Security, a limit range, an admission webhook
    return Reason.ENGINE_REFUSED


def owner_of(live: Json) -> str:
    """The uid of the controller that made an object; empty when there is none."""
    made = (each for each in items(live, "metadata", "ownerReferences") if each.get("controller") is True)
    return next((text(each, "uid") for each in made), "")

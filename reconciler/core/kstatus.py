"""Whether a controller of a cluster is done with an object: the rules of kstatus. Pure, for any kind.

The rules are those of sigs.k8s.io/cli-utils, package kstatus/status (generic.go, core.go, status.go). They differ here
on the side of those who come from Flux or Argo CD, and where an object that is as it should be would never be current:
- a Job is current when it is complete, not when it has started, and a Pod that ended badly has failed;
- a Pod that fits on no node is told at once and not after 15 s: no clock is read here, deadlines are kept elsewhere;
- a DaemonSet with the strategy OnDelete is not waited for until somebody has deleted its old pods;
- a PersistentVolumeClaim that waits for its first pod is current, and one whose volume was lost has failed.

Any field may be missing or of another type; nothing raises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from reconciler.core.kubernetes_identity import group_of
from reconciler.core.kubernetes_json import Json, condition, items, number, one_line, table, text


class State(StrEnum):
    """Where an object stands."""

    CURRENT = "Current"
    IN_PROGRESS = "InProgress"
    FAILED = "Failed"
    TERMINATING = "Terminating"


class Standing(NamedTuple):
    """`reason` is a CamelCase word of Kubernetes or of kstatus, `said` is for people; both empty for a current one."""

    state: State
    reason: str = ""
    said: str = ""


CURRENT = Standing(State.CURRENT)
_BEGUN = (
    "volume.kubernetes.io/selected-node",
    "volume.kubernetes.io/storage-provisioner",
    "volume.beta.kubernetes.io/storage-provisioner",
)
"""Annotations of a claim for which a volume is being made."""
NO_DEADLINE = 2**31 - 1
"""A progressDeadlineSeconds that means none: such a Deployment never says that it progresses."""


def judge(live: Json) -> Standing:
    """The state of an object with apiVersion and kind, as the API server answers it."""
    if text(live, "metadata", "deletionTimestamp"):
        return Standing(State.TERMINATING, "Terminating", "is being deleted")
    made, seen = number(live, "metadata", "generation"), number(live, "status", "observedGeneration")
    known = "generation" in table(live, "metadata") and "observedGeneration" in table(live, "status")
    if known and seen != made:  # kinds begin with -1 to say that they were never looked at
        return _waits("LatestGenerationNotObserved", "its controller has not seen the last change")
    for kind, state in (("Reconciling", State.IN_PROGRESS), ("Stalled", State.FAILED)):
        found = condition(live, kind)
        if found.get("status") == "True":
            return _as_told(state, found)
    rule = _RULES.get((group_of(text(live, "apiVersion")), text(live, "kind")))
    return rule(live) if rule is not None else _by_ready(live)


def _waits(reason: str, said: str) -> Standing:
    return Standing(State.IN_PROGRESS, reason, said)


def _failed(reason: str, said: str) -> Standing:
    return Standing(State.FAILED, reason, said)


def _as_told(state: State, found: Mapping[str, Any]) -> Standing:
    """What a condition says of itself."""
    reason = text(found, "reason") or text(found, "type")
    said = one_line(text(found, "message"))
    return Standing(state, reason, f"{reason}: {said}" if said else reason)


def _by_ready(live: Json) -> Standing:
    """Any other kind: by its condition Ready where it has one; without a status it is as it should be."""
    ready = condition(live, "Ready")
    return _as_told(State.IN_PROGRESS, ready) if ready.get("status") in ("False", "Unknown") else CURRENT


def _always(_: Json) -> Standing:
    return CURRENT


def _fewer(status: Mapping[str, Any], wanted: int, *counts: tuple[str, str, str]) -> Standing | None:
    """The first of some (field of the status, reason, word) that is not as high as it should be."""
    for name, reason, word in counts:
        there = number(status, name)
        if there < wanted:
            return _waits(reason, f"{there} of {wanted} {word}")
    return None


def _extra(status: Mapping[str, Any], wanted: int) -> Standing | None:
    """Pods of another version, or more of them than there should be."""
    extra = number(status, "replicas") - wanted
    return _waits("ExtraPods", f"{extra} still to end") if extra > 0 else None


_MADE = ("replicas", "LessReplicas", "made")
_AVAILABLE = ("availableReplicas", "LessAvailable", "available")
_READY = ("readyReplicas", "LessReady", "ready")


def _deployment(live: Json) -> Standing:
    progress, failure = condition(live, "Progressing"), condition(live, "ReplicaFailure")
    if text(progress, "reason") == "ProgressDeadlineExceeded":
        return _as_told(State.FAILED, progress)
    if failure.get("status") == "True":
        return _as_told(State.IN_PROGRESS, failure)
    wanted, status = number(live, "spec", "replicas", default=1), table(live, "status")
    found = (
        _fewer(status, wanted, _MADE, ("updatedReplicas", "LessUpdated", "updated"))
        or _extra(status, wanted)
        or _fewer(status, wanted, _AVAILABLE, _READY)
    )
    if found is not None:
        return found
    endless = number(live, "spec", "progressDeadlineSeconds", default=NO_DEADLINE) == NO_DEADLINE
    rolled = progress.get("status") == "True" and text(progress, "reason") == "NewReplicaSetAvailable"
    if not (endless or rolled):
        return _waits("ReplicaSetNotAvailable", "its new ReplicaSet is not available")
    if condition(live, "Available").get("status") != "True":
        return _waits("DeploymentNotAvailable", "not available")
    return CURRENT


def _replica_set(live: Json) -> Standing:
    failure = condition(live, "ReplicaFailure")
    if failure.get("status") == "True":
        return _as_told(State.IN_PROGRESS, failure)
    wanted, status = number(live, "spec", "replicas", default=1), table(live, "status")
    labelled = ("fullyLabeledReplicas", "LessLabelled", "labelled")
    return _fewer(status, wanted, labelled, _AVAILABLE, _READY) or _extra(status, wanted) or CURRENT


def _stateful_set(live: Json) -> Standing:
    if text(live, "spec", "updateStrategy", "type") == "OnDelete":
        return CURRENT
    wanted, status = number(live, "spec", "replicas", default=1), table(live, "status")
    found = _fewer(status, wanted, _MADE, _READY) or _extra(status, wanted)
    if found is not None:
        return found
    partition = number(live, "spec", "updateStrategy", "rollingUpdate", "partition", default=-1)
    if partition >= 0:
        return _fewer(status, wanted - partition, ("updatedReplicas", "PartitionRollout", "updated")) or CURRENT
    found = _fewer(status, wanted, ("currentReplicas", "LessCurrent", "updated"))
    if found is None and text(status, "currentRevision") != text(status, "updateRevision"):
        return _waits("RevisionMismatch", "its pods are still being updated")
    return found or CURRENT


def _daemon_set(live: Json) -> Standing:
    status = table(live, "status")
    if "observedGeneration" not in status or "desiredNumberScheduled" not in status:
        return _waits("NoDesiredNumber", "its controller has not seen it")
    counts = [
        ("currentNumberScheduled", "LessCurrent", "scheduled"),
        ("updatedNumberScheduled", "LessUpdated", "updated"),
        ("numberAvailable", "LessAvailable", "available"),
        ("numberReady", "LessReady", "ready"),
    ]
    if text(live, "spec", "updateStrategy", "type") == "OnDelete":
        del counts[1]
    return _fewer(status, number(status, "desiredNumberScheduled"), *counts) or CURRENT


def _job(live: Json) -> Standing:
    failed = condition(live, "Failed")
    if failed.get("status") == "True":
        return _as_told(State.FAILED, failed)
    if any(condition(live, kind).get("status") == "True" for kind in ("Complete", "Suspended")):
        return CURRENT
    if not text(live, "status", "startTime"):
        return _waits("JobNotStarted", "not started")
    wanted = number(live, "spec", "completions", default=number(live, "spec", "parallelism", default=1))
    return _waits("JobInProgress", f"{number(live, 'status', 'succeeded')} of {wanted} completed")


def _pod(live: Json) -> Standing:
    match text(live, "status", "phase"):
        case "Succeeded":
            return CURRENT
        case "Failed":
            said = one_line(text(live, "status", "message"))
            return _failed("PodFailed", f"ended badly: {said}" if said else "ended badly")
        case "Running":
            return _running(live)
        case "Pending":
            scheduled = condition(live, "PodScheduled")
            if scheduled.get("status") == "False" and text(scheduled, "reason") == "Unschedulable":
                return _as_told(State.FAILED, scheduled)
            return _waits("PodPending", "not started")
    return _waits("PodNotObserved", "not yet seen by a node")


def _running(live: Json) -> Standing:
    if condition(live, "Ready").get("status") == "True":
        return CURRENT
    looping = [
        text(each, "name")
        for each in items(live, "status", "containerStatuses")
        if text(each, "state", "waiting", "reason") == "CrashLoopBackOff"
    ]
    if looping:
        return _failed("ContainerCrashLooping", f"ends again and again: {one_line(', '.join(looping))}")
    return _waits("PodRunningNotReady", "runs, but is not ready")


def _claim(live: Json) -> Standing:
    phase = text(live, "status", "phase")
    if phase == "Bound" or (phase == "Pending" and _waits_for_a_pod(live)):
        return CURRENT
    if phase == "Lost":
        return _failed("ClaimLost", "its volume is gone")
    return _waits("NotBound", f"not bound ({one_line(phase, 40)})" if phase else "not bound")


def _waits_for_a_pod(live: Json) -> bool:
    """Whether nothing happens to a claim before a pod uses it: its class binds with WaitForFirstConsumer.

    The claim itself does not say how its class binds. But the controller notes the provisioner as soon as it asks for a
    volume, and the scheduler the node: without either nobody is at work on it. A pod that needs it would not be ready.
    """
    notes = table(live, "metadata", "annotations")
    chosen = text(live, "spec", "storageClassName") and not text(live, "spec", "volumeName")
    return bool(chosen) and not any(key in notes for key in _BEGUN)


def _service(live: Json) -> Standing:
    """A load balancer is only waited for until it has its address within the cluster, as kstatus has it."""
    if text(live, "spec", "type") == "LoadBalancer" and not text(live, "spec", "clusterIP"):
        return _waits("NoIPAssigned", "has no address")
    return CURRENT


def _definition(live: Json) -> Standing:
    accepted, established = condition(live, "NamesAccepted"), condition(live, "Established")
    if accepted.get("status") == "False":
        return _as_told(State.FAILED, accepted)
    if established.get("status") == "False" and text(established, "reason") != "Installing":
        return _as_told(State.FAILED, established)
    return CURRENT if established.get("status") == "True" else _waits("Installing", "not established")


_RULES: Mapping[tuple[str, str], Callable[[Json], Standing]] = {
    ("", "ConfigMap"): _always,
    ("", "PersistentVolumeClaim"): _claim,
    ("", "Pod"): _pod,
    ("", "Secret"): _always,
    ("", "Service"): _service,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _definition,
    ("apps", "DaemonSet"): _daemon_set,
    ("apps", "Deployment"): _deployment,
    ("apps", "ReplicaSet"): _replica_set,
    ("apps", "StatefulSet"): _stateful_set,
    ("batch", "CronJob"): _always,
    ("batch", "Job"): _job,
    ("policy", "PodDisruptionBudget"): _always,
}
"""The kinds with rules of their own; a PodDisruptionBudget is current once its controller has seen its last change."""

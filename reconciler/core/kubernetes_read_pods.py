"""Pods as instances: what they are, how they are, and what keeps them from running. Pure.

They are shown only: Kubernetes makes and ends them. What a kubelet says of a check is less than what a check of ours
says: whether it fails just now, and since when.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from reconciler.core import names
from reconciler.core.errors import Reason
from reconciler.core.kubernetes_json import Json, condition, items, moment, number, one_line, table, text
from reconciler.core.kubernetes_labels import annotation, label
from reconciler.core.kubernetes_pods import CONTAINER
from reconciler.core.live import Difference, HealthStatus, ImageState, ImageStatus, Instance, Phase
from reconciler.core.model import Health

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""For objects that do not say when they were made."""

_PULLS = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
"""Why a container waits for its image (kubelet's `images` package)."""
LONGEST = 1000
"""How many characters of a kubelet's message are read: what matters in one about an image stands at its end."""
_BACK_OFF = "CrashLoopBackOff"
_UNAUTHORIZED = ("unauthorized", "authoriz", "authentication", "denied", "no basic auth", "forbidden", " 401", " 403")
_ABSENT = ("not found", "manifest unknown", "name unknown", "invalidimagename", " 404")


def pod_of(name: str) -> str | None:
    """The pod of an instance, by the instance's name; None when it is no such name."""
    return name.partition("/")[2].partition(".")[0] or None


def instance(
    pod: Json, environment: str, at: datetime, checks: Mapping[str, Health], revisions: Mapping[str, str]
) -> Instance:
    """A pod of ours as it was `at` that time. `revisions` are those of versions, `checks` how their health is told."""
    status = _container(pod)
    restarts = number(status, "restartCount")
    version = annotation(pod, names.LABEL_VERSION)
    phase, ended = _phase(pod, status)
    running = table(status, "state", "running")
    ready = condition(pod, "Ready").get("status") == "True"
    leaving = _is_leaving(pod)
    image = next((text(each, "image") for each in items(pod, "spec", "containers") if _is_main(each)), "")
    declared = annotation(pod, names.LABEL_IMAGE)
    # Another registry that has the same image is no other image.
    wrong = bool(declared) and image.partition("@")[2] != declared.partition("@")[2]
    health = _health(pod, running, at, checks.get(version), ready=ready) if phase is Phase.RUNNING else None
    return Instance(
        id=text(pod, "metadata", "uid"),
        name=f"{environment}/{text(pod, 'metadata', 'name')}{f'.{restarts}' if restarts else ''}",
        service=label(pod, names.LABEL_SERVICE),
        version=version,
        revision=revisions.get(version, ""),
        ordinal=0,
        image=image if wrong or not declared else declared,
        phase=phase,
        created_at=moment(pod, "metadata", "creationTimestamp") or EPOCH,
        started_at=moment(running, "startedAt") or moment(ended, "startedAt"),
        finished_at=moment(ended, "finishedAt"),
        health=health or HealthStatus.STARTING,
        serving=ready and not moment(pod, "metadata", "deletionTimestamp"),
        exit_code=_exit_code(ended),
        oom_killed=text(ended, "reason") == "OOMKilled",
        differences=(Difference(Reason.DRIFT_WRONG_IMAGE, f"image: {declared} -> {image[:200]}"),) if wrong else (),
        detail=_detail(pod, status, phase, ended, ready=ready),
        address=text(pod, "status", "podIP"),
        leaving=leaving,
    )


def _is_main(container: Mapping[str, Any]) -> bool:
    return container.get("name") == CONTAINER


def _container(pod: Json) -> Mapping[str, Any]:
    return next((each for each in items(pod, "status", "containerStatuses") if _is_main(each)), {})


def _phase(pod: Json, status: Mapping[str, Any]) -> tuple[Phase, Mapping[str, Any]]:
    """Where the container stands, and how it ended, where it did."""
    ended = table(status, "state", "terminated")
    if ended:
        return Phase.EXITED, ended
    if table(status, "state", "running"):
        return Phase.RUNNING, {}
    if text(pod, "status", "phase") in ("Failed", "Succeeded") or _waits(status)[0] == _BACK_OFF:
        return Phase.EXITED, table(status, "lastState", "terminated")
    return Phase.CREATED, {}


def _waits(status: Mapping[str, Any]) -> tuple[str, str]:
    """Why the container waits: a code and words."""
    return text(status, "state", "waiting", "reason"), one_line(text(status, "state", "waiting", "message"), LONGEST)


def _exit_code(ended: Mapping[str, Any]) -> int | None:
    return number(ended, "exitCode") if "exitCode" in ended else None


def _is_leaving(pod: Json) -> bool:
    """Whether the engine takes it away: by deletion, an eviction, a preemption, or as the node refused it."""
    if moment(pod, "metadata", "deletionTimestamp") or condition(pod, "DisruptionTarget").get("status") == "True":
        return True
    return text(pod, "status", "phase") == "Failed" and bool(text(pod, "status", "reason"))


def _health(pod: Json, running: Mapping[str, Any], at: datetime, check: Health | None, *, ready: bool) -> HealthStatus:
    since = moment(running, "startedAt")
    if check is None or since is None:
        return HealthStatus.HEALTHY if ready else HealthStatus.STARTING
    if ready:
        settling = check.check is None and at - since < check.interval * check.healthy_after
        return HealthStatus.STARTING if settling else HealthStatus.HEALTHY
    containers = condition(pod, "ContainersReady")
    if containers.get("status") != "False":
        return HealthStatus.STARTING  # only its node does not answer, or somebody else holds it back
    lost = moment(containers, "lastTransitionTime")
    if lost is not None and lost > since:
        return _worse(at - lost > check.interval * check.unhealthy_after)
    # The kubelet starts one anew that takes too long: the window is that of all its runs.
    first = moment(pod, "status", "startTime") if number(_container(pod), "restartCount") else None
    return _worse(at - (first or since) > check.startup)


def _worse(late: bool) -> HealthStatus:  # noqa: FBT001 - the only argument
    return HealthStatus.UNHEALTHY if late else HealthStatus.STARTING


def _detail(pod: Json, status: Mapping[str, Any], phase: Phase, ended: Mapping[str, Any], *, ready: bool) -> str:
    """In words: why it does not run, does not serve, or how it ended."""
    if phase is Phase.RUNNING:
        return "" if ready else one_line(text(condition(pod, "Ready"), "message"))
    if phase is Phase.EXITED:
        return _end(pod, ended)
    reason, message = _waits(status)
    unscheduled = one_line(text(condition(pod, "PodScheduled"), "message"))
    return unscheduled or ": ".join(part for part in (reason, message[:600]) if part)


def _end(pod: Json, ended: Mapping[str, Any]) -> str:
    if not ended:
        return one_line(text(pod, "status", "message")) or "it ended; its exit code is not known"
    if text(ended, "reason") == "OOMKilled":
        return "it was killed because it used more memory than its limit"
    message = one_line(text(ended, "message"))
    code = f"it ended with exit code {number(ended, 'exitCode')}"
    return f"{code}: {message}" if message else code


def image_failures(pods: Iterable[Json]) -> dict[str, ImageState]:
    """The images that cannot be fetched, by the word of the pods that wait for them.

    One that runs somewhere is there: then it is a matter of one node.
    """
    found: dict[str, ImageState] = {}
    there: set[str] = set()
    for pod in pods:
        image, status = annotation(pod, names.LABEL_IMAGE), _container(pod)
        reason, message = _waits(status)
        if reason in _PULLS:
            since = moment(pod, "status", "startTime") or moment(pod, "metadata", "creationTimestamp")
            words = message.rpartition("ErrImagePull: ")[2] or reason
            found[image] = ImageState(ImageStatus.FAILED, _pull_reason(words), words, since, 1)
        elif table(status, "state", "running"):
            there.add(image)
    return {image: state for image, state in found.items() if image not in there}


def _pull_reason(words: str) -> Reason:
    low = words.lower()
    if any(each in low for each in _UNAUTHORIZED):
        return Reason.IMAGE_UNAUTHORIZED
    return Reason.IMAGE_NOT_FOUND if any(each in low for each in _ABSENT) else Reason.IMAGE_UNAVAILABLE


def hindrance(pod: Json) -> tuple[Reason, str] | None:
    """What keeps a pod from starting that is no fault of its program: no node, a configuration that is refused."""
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        return Reason.UNSCHEDULABLE, one_line(text(scheduled, "message"))
    reason, message = _waits(_container(pod))
    if reason in ("CreateContainerConfigError", "CreateContainerError"):
        low = message.lower()
        if "runasnonroot" in low or "non-root" in low:
            return Reason.POLICY_DENIED, message[:300]
        missing = "secret" in low and "not found" in low
        return (Reason.SECRET_MISSING if missing else Reason.ENGINE_REFUSED), f"{reason}: {message[:300]}"
    return None

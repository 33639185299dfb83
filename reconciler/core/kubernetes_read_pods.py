"""Pods as instances: what they are, how they are, and what keeps them from running. Pure.

They are shown only: Kubernetes makes and ends them. What a kubelet says of a check is less than what a check of ours
says: whether it fails just now, and since when.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
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


@dataclass(frozen=True, slots=True)
class Life:
    """A pod of ours for as long as nothing new is told of it: time alone makes it another, once. `until`: not at that
    moment any more; None: for good."""

    first: Instance
    until: datetime | None = None
    then: Instance | None = None

    def at(self, moment: datetime) -> Instance:
        """The instance at that time."""
        if self.then is None or self.until is None or moment < self.until:
            return self.first
        return self.then


def life(pod: Json, environment: str, check: Health | None, revision: str) -> Life:
    """A pod of ours as an instance of a version of that `revision`; `check` is how the version's health is told."""
    first, until, then = _healths(pod, check)
    found = _instance(pod, environment, first, revision)
    return Life(found, until, replace(found, health=then)) if until is not None else Life(found)


def _instance(pod: Json, environment: str, health: HealthStatus, revision: str) -> Instance:
    status = _container(pod)
    restarts = number(status, "restartCount")
    version = annotation(pod, names.LABEL_VERSION)
    phase, ended = _phase(pod, status)
    running = table(status, "state", "running")
    ready = _is_ready(pod)
    image = next((text(each, "image") for each in items(pod, "spec", "containers") if _is_main(each)), "")
    declared = annotation(pod, names.LABEL_IMAGE)
    # Another registry that has the same image is no other image.
    wrong = bool(declared) and image.partition("@")[2] != declared.partition("@")[2]
    return Instance(
        id=text(pod, "metadata", "uid"),
        name=f"{environment}/{text(pod, 'metadata', 'name')}{f'.{restarts}' if restarts else ''}",
        service=label(pod, names.LABEL_SERVICE),
        version=version,
        revision=revision,
        ordinal=0,
        image=image if wrong or not declared else declared,
        phase=phase,
        created_at=moment(pod, "metadata", "creationTimestamp") or EPOCH,
        started_at=moment(running, "startedAt") or moment(ended, "startedAt"),
        finished_at=moment(ended, "finishedAt"),
        health=health,
        serving=ready and not moment(pod, "metadata", "deletionTimestamp"),
        exit_code=_exit_code(ended),
        oom_killed=text(ended, "reason") == "OOMKilled",
        differences=(Difference(Reason.DRIFT_WRONG_IMAGE, f"image: {declared} -> {image[:200]}"),) if wrong else (),
        detail=_detail(pod, status, phase, ended, ready=ready),
        address=text(pod, "status", "podIP"),
        leaving=_is_leaving(pod),
    )


def _is_ready(pod: Json) -> bool:
    return condition(pod, "Ready").get("status") == "True"


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


def _healths(pod: Json, check: Health | None) -> tuple[HealthStatus, datetime | None, HealthStatus]:
    """A health, from when on time alone makes it another (None: it never does), and that one."""
    status = _container(pod)
    running, ready = table(status, "state", "running"), _is_ready(pod)
    since = moment(running, "startedAt")
    starting, healthy = HealthStatus.STARTING, HealthStatus.HEALTHY
    if _phase(pod, status)[0] is not Phase.RUNNING:
        return starting, None, starting
    if check is None or since is None:
        return (healthy, None, healthy) if ready else (starting, None, starting)
    if ready and check.check is not None:
        return healthy, None, healthy
    if ready:
        return starting, _after(since, check.interval * check.healthy_after), healthy
    containers = condition(pod, "ContainersReady")
    if containers.get("status") != "False":
        return starting, None, starting  # only its node does not answer, or somebody else holds it back
    lost = moment(containers, "lastTransitionTime")
    if lost is not None and lost > since:
        since, window = lost, check.interval * check.unhealthy_after
    else:
        # The kubelet starts one anew that takes too long: the window is that of all its runs.
        first = moment(pod, "status", "startTime") if number(status, "restartCount") else None
        since, window = first or since, check.startup
    return starting, _after(since, window + timedelta.resolution), HealthStatus.UNHEALTHY


def _after(since: datetime, span: timedelta) -> datetime | None:
    """That much later; None where there is no such day."""
    try:
        return since + span
    except OverflowError:
        return None


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


def image_told(pod: Json) -> tuple[str, ImageState | None] | None:
    """What a pod says of its image: that it is there (None), or cannot be fetched; None when it says nothing."""
    image, status = annotation(pod, names.LABEL_IMAGE), _container(pod)
    reason, message = _waits(status)
    if reason in _PULLS:
        since = moment(pod, "status", "startTime") or moment(pod, "metadata", "creationTimestamp")
        words = message.rpartition("ErrImagePull: ")[2] or reason
        return image, ImageState(ImageStatus.FAILED, _pull_reason(words), words, since, 1)
    return (image, None) if table(status, "state", "running") else None


def image_failures(told: Iterable[tuple[str, ImageState | None] | None]) -> dict[str, ImageState]:
    """The images that cannot be fetched, by the word of the pods that wait for them.

    One that runs somewhere is there: then it is a matter of one node.
    """
    said = [each for each in told if each is not None]
    there = {image for image, state in said if state is None}
    return {image: state for image, state in said if state is not None and image not in there}


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

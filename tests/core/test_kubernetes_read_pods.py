"""Pods as instances: phases, health, ends, leaving, images that cannot be fetched, and anything strange in them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.errors import Reason
from reconciler.core.kubernetes_objects import group_objects
from reconciler.core.kubernetes_read_pods import hindrance, image_failures, image_told, life, pod_of
from reconciler.core.live import Difference, HealthStatus, ImageState, ImageStatus, Phase
from reconciler.core.model import Health, HttpCheck
from tests.support.kube_answers import MADE, answered, condition, pod, replica_set, running, status
from tests.support.kube_specs import ENVIRONMENT, PLACE, PLAIN, VERSION, ensure

DEPLOYMENT = answered(group_objects(ensure(PLAIN, 1), PLACE, {})[0])
MAKER = replica_set(DEPLOYMENT)
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
CHECK = Health(HttpCheck(80), interval=timedelta(seconds=2), unhealthy_after=3, startup=timedelta(seconds=60))
IMAGE = PLAIN.image.pinned


def read(found: dict, *, after: float = 3600, check: Health | None = CHECK):
    return life(found, ENVIRONMENT, check, "r1").at(BEGAN + timedelta(seconds=after))


def failures(*pods: dict) -> dict[str, ImageState]:
    return image_failures(map(image_told, pods))


def at(seconds: float) -> str:
    return (BEGAN + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def waiting(reason: str, message: str = "", **more: object) -> dict:
    return status({"waiting": {"reason": reason, "message": message}}, phase="Pending", **more)


def test_a_pod_that_serves() -> None:
    found = read(pod(MAKER))
    assert (found.name, found.service, found.version, found.revision) == ("production/web-1-a", "plain", VERSION, "r1")
    assert (found.phase, found.health, found.serving, found.leaving) == (
        Phase.RUNNING,
        HealthStatus.HEALTHY,
        True,
        False,
    )
    assert (found.created_at, found.started_at, found.image) == (BEGAN, BEGAN, IMAGE)
    assert (found.address, found.ordinal, found.detail, found.differences) == ("10.1.1.1", 0, "", ())
    assert pod_of(found.name) == "web-1-a"


def test_each_run_has_a_name_of_its_own() -> None:
    found = read(pod(MAKER, status=running(restarts=2)))
    assert found.name == "production/web-1-a.2"
    assert pod_of(found.name) == "web-1-a"
    assert pod_of("web") is None


@pytest.mark.parametrize(
    ("after", "ready", "since", "expected"),
    [
        (59, "False", 0, HealthStatus.STARTING),
        (61, "False", 0, HealthStatus.UNHEALTHY),
        (61, "True", 5, HealthStatus.HEALTHY),
        (106, "False", 100, HealthStatus.STARTING),
        (107, "False", 100, HealthStatus.UNHEALTHY),
        (107, "Unknown", 100, HealthStatus.STARTING),
    ],
)
def test_health_by_what_the_kubelet_says(after: float, ready: str, since: float, expected: HealthStatus) -> None:
    assert read(pod(MAKER, status=running(ready, at(since))), after=after).health is expected


def test_one_that_was_started_anew_has_no_new_window() -> None:
    again = running("False", restarts=1, startTime=at(-50))
    assert read(pod(MAKER, status=again), after=10).health is HealthStatus.STARTING
    assert read(pod(MAKER, status=again), after=11).health is HealthStatus.UNHEALTHY
    assert read(pod(MAKER, status={**again, "startTime": None}), after=11).health is HealthStatus.STARTING


def test_an_instance_without_a_check_has_to_run_for_a_while() -> None:
    nothing = Health(None, interval=timedelta(seconds=5), healthy_after=2)
    assert read(pod(MAKER), after=9, check=nothing).health is HealthStatus.STARTING
    assert read(pod(MAKER), after=10, check=nothing).health is HealthStatus.HEALTHY
    assert read(pod(MAKER), after=9, check=nothing).serving


def test_of_a_version_that_nobody_asks_for_only_the_engines_word_counts() -> None:
    assert read(pod(MAKER), check=None).health is HealthStatus.HEALTHY
    assert read(pod(MAKER, status=running("False")), check=None).health is HealthStatus.STARTING


def test_a_silent_node_is_no_fault_of_the_instance() -> None:
    found = running("False")
    found["conditions"] = [condition("Ready", "False", at(100)), condition("ContainersReady", "True")]
    silent = read(pod(MAKER, status=found))
    assert (silent.health, silent.serving) == (HealthStatus.STARTING, False)
    never = running("False")
    never["conditions"][1]["lastTransitionTime"] = None
    assert read(pod(MAKER, status=never), after=61).health is HealthStatus.UNHEALTHY


def test_why_it_is_not_ready_is_told() -> None:
    found = running("False")
    found["conditions"][0]["message"] = "containers with unready status:\n [main]"
    assert read(pod(MAKER, status=found)).detail == "containers with unready status: [main]"


def test_one_that_was_not_scheduled_or_waits() -> None:
    unscheduled = {"phase": "Pending", "conditions": [condition("PodScheduled", "False", message="no node")]}
    found = read(pod(MAKER, status=unscheduled))
    assert (found.phase, found.detail, found.health) == (Phase.CREATED, "no node", HealthStatus.STARTING)
    found = read(pod(MAKER, status=waiting("ContainerCreating")))
    assert (found.phase, found.detail, found.started_at) == (Phase.CREATED, "ContainerCreating", None)
    assert read(pod(MAKER, status=waiting("ErrImagePull", "no"))).detail == "ErrImagePull: no"


def ended(code: int, reason: str = "Error", message: str = "") -> dict:
    return {"exitCode": code, "reason": reason, "message": message, "startedAt": MADE, "finishedAt": at(5)}


def test_how_it_ended() -> None:
    found = read(pod(MAKER, status=status({"terminated": ended(3)})))
    assert (found.phase, found.exit_code, found.oom_killed) == (Phase.EXITED, 3, False)
    assert (found.started_at, found.finished_at) == (BEGAN, BEGAN + timedelta(seconds=5))
    assert found.detail == "it ended with exit code 3"
    loop = status({"waiting": {"reason": "CrashLoopBackOff"}}, last={"terminated": ended(137, "OOMKilled")}, restarts=4)
    found = read(pod(MAKER, status=loop))
    assert (found.phase, found.exit_code, found.oom_killed) == (Phase.EXITED, 137, True)
    assert found.detail == "it was killed because it used more memory than its limit"
    start = status({"terminated": ended(128, "StartError", 'exec: "/x": no such file')})
    assert read(pod(MAKER, status=start)).detail == 'it ended with exit code 128: exec: "/x": no such file'


def test_between_two_runs_it_is_neither_lost_nor_running() -> None:
    found = read(pod(MAKER, status=waiting("ContainerCreating", last={"terminated": ended(1)})))
    assert (found.phase, found.exit_code) == (Phase.CREATED, None)


def test_one_that_the_engine_takes_away() -> None:
    evicted = {"phase": "Failed", "reason": "Evicted", "message": "the node was low on memory"}
    found = read(pod(MAKER, status=evicted))
    assert (found.phase, found.leaving, found.detail) == (Phase.EXITED, True, "the node was low on memory")
    deleted = read(pod(MAKER, deletionTimestamp=MADE))
    assert (deleted.phase, deleted.leaving, deleted.serving) == (Phase.RUNNING, True, False)
    target = running()
    target["conditions"].append(condition("DisruptionTarget", "True"))
    assert read(pod(MAKER, status=target)).leaving
    failed = read(pod(MAKER, status={"phase": "Failed"}))
    assert (failed.leaving, failed.detail) == (False, "it ended; its exit code is not known")


def test_another_image_is_drift_and_another_registry_is_not() -> None:
    found = pod(MAKER)
    found["spec"]["containers"][0]["image"] = "evil:1"
    assert read(found).differences == (Difference(Reason.DRIFT_WRONG_IMAGE, f"image: {IMAGE} -> evil:1"),)
    assert read(found).image == "evil:1"
    found["spec"]["containers"][0]["image"] = f"mirror.test/plain@{PLAIN.image.digest}"
    assert (read(found).differences, read(found).image) == ((), IMAGE)
    del found["metadata"]["annotations"]["dev.reconciler.image"]
    assert read(found).image == f"mirror.test/plain@{PLAIN.image.digest}"


@pytest.mark.parametrize(
    ("reason", "message", "expected"),
    [
        (
            "ErrImagePull",
            f'failed to pull and unpack image "{IMAGE}": failed to resolve reference "{IMAGE}": {IMAGE}: not found',
            Reason.IMAGE_NOT_FOUND,
        ),
        (
            "ImagePullBackOff",
            f'Back-off pulling image "{IMAGE}": ErrImagePull: failed to resolve reference "{IMAGE}": '
            "pull access denied, repository does not exist or may require authorization",
            Reason.IMAGE_UNAUTHORIZED,
        ),
        ("ErrImagePull", "unexpected status: 401 Unauthorized", Reason.IMAGE_UNAUTHORIZED),
        ("ErrImagePull", "dial tcp: lookup registry.test: no such host", Reason.IMAGE_UNAVAILABLE),
        ("InvalidImageName", "", Reason.IMAGE_NOT_FOUND),
        ("ImagePullBackOff", "", Reason.IMAGE_UNAVAILABLE),
    ],
)
def test_an_image_that_cannot_be_fetched(reason: str, message: str, expected: Reason) -> None:
    found = failures(pod(MAKER, status=waiting(reason, message, startTime=at(9))))
    assert found.keys() == {IMAGE}
    assert (found[IMAGE].status, found[IMAGE].reason, found[IMAGE].failed_at) == (
        ImageStatus.FAILED,
        expected,
        BEGAN + timedelta(seconds=9),
    )
    assert found[IMAGE].detail == (message.rpartition("ErrImagePull: ")[2] or reason)


def test_an_image_that_runs_somewhere_is_there() -> None:
    failing = pod(MAKER, status=waiting("ErrImagePull", "no route"))
    assert failures(failing)[IMAGE].failed_at == BEGAN
    assert failures(failing, pod(MAKER), pod(MAKER, status=waiting("ContainerCreating"))) == {}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (
            {"conditions": [condition("PodScheduled", "False", reason="Unschedulable", message="0/1 nodes")]},
            (Reason.UNSCHEDULABLE, "0/1 nodes"),
        ),
        ({"conditions": [condition("PodScheduled", "False", reason="SchedulingGated", message="x")]}, None),
        (
            waiting("CreateContainerConfigError", "container has runAsNonRoot and image will run as root"),
            (Reason.POLICY_DENIED, "container has runAsNonRoot and image will run as root"),
        ),
        (
            waiting("CreateContainerConfigError", "image has non-numeric user (web), cannot verify user is non-root"),
            (Reason.POLICY_DENIED, "image has non-numeric user (web), cannot verify user is non-root"),
        ),
        (
            waiting("CreateContainerConfigError", 'secret "web-secret-1" not found'),
            (Reason.SECRET_MISSING, 'CreateContainerConfigError: secret "web-secret-1" not found'),
        ),
        (
            waiting("CreateContainerError", "failed to reserve a name"),
            (Reason.ENGINE_REFUSED, "CreateContainerError: failed to reserve a name"),
        ),
        (waiting("ContainerCreating"), None),
        (running(), None),
    ],
)
def test_what_keeps_a_pod_from_starting(found: dict, expected: object) -> None:
    assert hindrance(pod(MAKER, status=found)) == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=5,
)
STATES = st.dictionaries(
    st.sampled_from(["running", "waiting", "terminated"]),
    JSON
    | st.dictionaries(st.sampled_from(["reason", "message", "exitCode", "startedAt"]), JSON | st.just("0001-01-01")),
)
STATUSES = JSON | st.dictionaries(
    st.sampled_from(["conditions", "containerStatuses", "phase", "reason", "podIP"]),
    JSON
    | st.lists(
        JSON
        | st.fixed_dictionaries(
            {"name": st.just("main")}, optional={"state": STATES | JSON, "lastState": STATES, "restartCount": JSON}
        )
        | st.fixed_dictionaries({"type": st.sampled_from(["Ready", "ContainersReady"]), "status": JSON}),
        max_size=3,
    ),
)


@given(STATUSES, JSON, JSON)
def test_nothing_strange_raises(found: object, metadata: object, spec: object) -> None:
    for each in (
        {**pod(MAKER), "status": found},
        {"metadata": metadata, "spec": spec, "status": found},
    ):
        read(each)
        hindrance(each)
        failures(each)

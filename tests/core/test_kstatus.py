"""Whether a controller is done with an object: what each kind shows on its way, as an API server answers it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core import kstatus
from reconciler.core.kstatus import CURRENT, NO_DEADLINE, Standing, State, judge
from reconciler.core.kubernetes_identity import group_of

AVAILABLE = {"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable"}
ROLLED = {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}
CLASSED = {"storageClassName": "local"}
KINDS = sorted(
    {(group_of(version), kind) for version, kind in (("v1", "Pod"), ("x.dev/v1", "Thing"))} | {*kstatus._RULES}
)


def of(version: str, kind: str, status: dict | None = None, spec: dict | None = None, **metadata: object) -> dict:
    found = {"apiVersion": version, "kind": kind, "metadata": {"name": "a", **metadata}}
    found |= {"spec": spec} if spec is not None else {}
    return found | ({"status": status} if status is not None else {})


def told(kind: str, status: str, reason: str = "", message: str = "") -> dict:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def deployment(*conditions: dict, spec: dict | None = None, **counts: int) -> dict:
    names = ("replicas", "updatedReplicas", "availableReplicas", "readyReplicas")
    status = {"observedGeneration": 3, **dict.fromkeys(names, 2), **counts, "conditions": list(conditions)}
    return of(
        "apps/v1", "Deployment", status, {"replicas": 2, "progressDeadlineSeconds": 600, **(spec or {})}, generation=3
    )


def waits(found: Standing) -> str:
    assert found.state is State.IN_PROGRESS
    assert found.said
    return found.reason


@pytest.mark.parametrize(
    "kind",
    [("v1", "ConfigMap"), ("v1", "Secret"), ("v1", "Namespace"), ("v1", "ServiceAccount"), ("batch/v1", "CronJob")],
)
def test_what_nobody_works_on_is_current(kind: tuple[str, str]) -> None:
    assert judge(of(*kind)) == CURRENT


@pytest.mark.parametrize(
    "live",
    [
        of("networking.k8s.io/v1", "Ingress", {"loadBalancer": {}}),
        of("autoscaling/v2", "HorizontalPodAutoscaler", {"conditions": [told("ScalingActive", "False", "FailedGet")]}),
        of("apiregistration.k8s.io/v1", "APIService", {"conditions": [told("Available", "False", "MissingEndpoints")]}),
        of("policy/v1", "PodDisruptionBudget", {"observedGeneration": 1, "disruptionsAllowed": 0}, generation=1),
    ],
)
def test_what_kstatus_does_not_wait_for(live: dict) -> None:
    assert judge(live) == CURRENT


def test_what_is_being_deleted() -> None:
    live = of("v1", "Namespace", {"phase": "Terminating"}, deletionTimestamp="2026-01-01T00:00:00Z")
    assert judge(live) == Standing(State.TERMINATING, "Terminating", "is being deleted")
    gone = {**deployment(ROLLED, AVAILABLE), "metadata": live["metadata"]}
    assert judge(gone).state is State.TERMINATING


@pytest.mark.parametrize("seen", [-1, 0, 1, 3])
def test_a_controller_that_has_not_seen_the_last_change(seen: int) -> None:
    live = of("x.dev/v1", "Thing", {"observedGeneration": seen, "conditions": [told("Ready", "True")]}, generation=2)
    assert waits(judge(live)) == "LatestGenerationNotObserved"
    live["status"]["observedGeneration"] = 2
    assert judge(live) == CURRENT


def test_a_kind_without_generations_is_judged_all_the_same() -> None:
    ready = {"conditions": [told("Ready", "True")]}
    assert judge(of("x.dev/v1", "Thing", ready, generation=2)) == CURRENT
    assert judge(of("x.dev/v1", "Thing", {**ready, "observedGeneration": 5})) == CURRENT


def test_the_conditions_of_kstatus_come_before_the_rules_of_a_kind() -> None:
    works = told("Reconciling", "True", "Pulling", "fetches\n it")
    assert judge(deployment(ROLLED, AVAILABLE, works)) == Standing(State.IN_PROGRESS, "Pulling", "Pulling: fetches it")
    stuck = told("Stalled", "True", "NoSource")
    assert judge(deployment(ROLLED, AVAILABLE, stuck)) == Standing(State.FAILED, "NoSource", "NoSource")
    idle = (told("Reconciling", "False", "Done"), told("Stalled", "False", "Done"))
    assert judge(deployment(ROLLED, AVAILABLE, *idle)) == CURRENT


@pytest.mark.parametrize("status", ["False", "Unknown"])
def test_a_custom_kind_is_waited_for_by_its_condition_ready(status: str) -> None:
    live = of("cert-manager.io/v1", "Certificate", {"conditions": [told("Ready", status, "Issuing", "asks for it")]})
    assert judge(live) == Standing(State.IN_PROGRESS, "Issuing", "Issuing: asks for it")
    live["status"]["conditions"] = [{"type": "Ready", "status": status}]
    assert judge(live) == Standing(State.IN_PROGRESS, "Ready", "Ready")


def test_a_custom_kind_that_is_ready_or_says_nothing() -> None:
    assert judge(of("x.dev/v1", "Thing", {"conditions": [told("Ready", "True")]})) == CURRENT
    assert judge(of("x.dev/v1", "Thing", {"conditions": [told("Synced", "False")]})) == CURRENT
    assert judge(of("x.dev/v1", "Thing")) == CURRENT


def test_a_kind_of_another_group_has_not_the_rules_of_its_namesake() -> None:
    assert judge(of("serving.x.dev/v1", "Service", spec={"type": "LoadBalancer"})) == CURRENT
    assert judge(of("apps.x.dev/v1", "Deployment", {})) == CURRENT


def test_a_deployment_on_its_way() -> None:
    assert judge(deployment(ROLLED, AVAILABLE)) == CURRENT
    assert waits(judge(deployment(ROLLED, AVAILABLE, replicas=1))) == "LessReplicas"
    assert waits(judge(deployment(ROLLED, AVAILABLE, updatedReplicas=1))) == "LessUpdated"
    assert waits(judge(deployment(ROLLED, AVAILABLE, replicas=3))) == "ExtraPods"
    assert waits(judge(deployment(ROLLED, AVAILABLE, availableReplicas=1))) == "LessAvailable"
    assert waits(judge(deployment(ROLLED, AVAILABLE, readyReplicas=1))) == "LessReady"
    assert (
        waits(judge(deployment(told("Progressing", "True", "ReplicaSetUpdated"), AVAILABLE)))
        == "ReplicaSetNotAvailable"
    )
    assert waits(judge(deployment(ROLLED, told("Available", "False")))) == "DeploymentNotAvailable"
    assert judge(deployment(ROLLED, AVAILABLE, readyReplicas=1)).said == "1 of 2 ready"


def test_a_new_deployment_that_nobody_has_seen() -> None:
    assert waits(judge(of("apps/v1", "Deployment", spec={}, generation=1))) == "LessReplicas"
    assert waits(judge(of("apps/v1", "Deployment", spec={"replicas": 0}, generation=1))) == "DeploymentNotAvailable"


def test_a_deployment_without_a_deadline_never_says_that_it_progresses() -> None:
    assert judge(deployment(AVAILABLE, spec={"progressDeadlineSeconds": NO_DEADLINE})) == CURRENT
    assert waits(judge(deployment(AVAILABLE))) == "ReplicaSetNotAvailable"


def test_a_deployment_that_did_not_get_there() -> None:
    late = told("Progressing", "False", "ProgressDeadlineExceeded", "has timed out")
    found = judge(deployment(late, AVAILABLE, updatedReplicas=1))
    assert found == Standing(State.FAILED, "ProgressDeadlineExceeded", "ProgressDeadlineExceeded: has timed out")
    refused = told("ReplicaFailure", "True", "FailedCreate", "exceeded quota: q")
    found = judge(deployment(ROLLED, refused, replicas=1))
    assert found == Standing(State.IN_PROGRESS, "FailedCreate", "FailedCreate: exceeded quota: q")
    assert judge(deployment(ROLLED, AVAILABLE, told("ReplicaFailure", "False"))) == CURRENT


def test_a_replica_set() -> None:
    counts = dict.fromkeys(("replicas", "fullyLabeledReplicas", "availableReplicas", "readyReplicas"), 1)

    def state(**changed: object) -> Standing:
        return judge(of("apps/v1", "ReplicaSet", {**counts, **changed}))

    assert state() == CURRENT
    assert waits(state(fullyLabeledReplicas=0)) == "LessLabelled"
    assert waits(state(availableReplicas=0)) == "LessAvailable"
    assert waits(state(readyReplicas=0)) == "LessReady"
    assert waits(state(replicas=2)) == "ExtraPods"
    assert waits(state(conditions=[told("ReplicaFailure", "True", "FailedCreate")])) == "FailedCreate"


def stateful(strategy: dict | None = None, **changed: object) -> Standing:
    counts = dict.fromkeys(("replicas", "readyReplicas", "currentReplicas", "updatedReplicas"), 3)
    status = {**counts, "currentRevision": "b", "updateRevision": "b", **changed}
    return judge(of("apps/v1", "StatefulSet", status, {"replicas": 3, "updateStrategy": strategy or {}}))


def test_a_stateful_set() -> None:
    assert stateful() == CURRENT
    assert waits(stateful(replicas=2)) == "LessReplicas"
    assert waits(stateful(readyReplicas=2)) == "LessReady"
    assert waits(stateful(replicas=4)) == "ExtraPods"
    assert waits(stateful(currentReplicas=1)) == "LessCurrent"
    assert waits(stateful(currentRevision="a")) == "RevisionMismatch"


def test_a_stateful_set_that_others_roll_out() -> None:
    assert stateful({"type": "OnDelete"}, replicas=0, currentRevision="a") == CURRENT
    partition = {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}
    assert stateful(partition, updatedReplicas=1, currentReplicas=2, currentRevision="a") == CURRENT
    assert waits(stateful(partition, updatedReplicas=0)) == "PartitionRollout"


def daemon_set(strategy: str = "RollingUpdate", **changed: object) -> Standing:
    names = (
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberReady",
    )
    status = {"observedGeneration": 1, **dict.fromkeys(names, 2), **changed}
    return judge(of("apps/v1", "DaemonSet", status, {"updateStrategy": {"type": strategy}}, generation=1))


def test_a_daemon_set() -> None:
    assert daemon_set() == CURRENT
    assert waits(judge(of("apps/v1", "DaemonSet", {"desiredNumberScheduled": 0}, generation=1))) == "NoDesiredNumber"
    assert waits(judge(of("apps/v1", "DaemonSet", {"observedGeneration": 1}, generation=1))) == "NoDesiredNumber"
    assert waits(daemon_set(currentNumberScheduled=1)) == "LessCurrent"
    assert waits(daemon_set(updatedNumberScheduled=1)) == "LessUpdated"
    assert waits(daemon_set(numberAvailable=1)) == "LessAvailable"
    assert waits(daemon_set(numberReady=1)) == "LessReady"
    assert daemon_set(desiredNumberScheduled=0, numberReady=0) == CURRENT  # no node fits: it says so itself


def test_a_daemon_set_whose_pods_are_replaced_by_hand() -> None:
    assert daemon_set("OnDelete", updatedNumberScheduled=0) == CURRENT
    assert waits(daemon_set("OnDelete", numberReady=1)) == "LessReady"


def test_a_job() -> None:
    def state(status: dict, **spec: int) -> Standing:
        return judge(of("batch/v1", "Job", status, spec))

    started = {"startTime": "2026-01-01T00:00:00Z"}
    assert waits(state({})) == "JobNotStarted"
    assert state({**started, "succeeded": 1}, completions=3).said == "1 of 3 completed"
    assert state(started, parallelism=2).said == "0 of 2 completed"
    assert waits(state({**started, "succeeded": 1})) == "JobInProgress"
    assert state({**started, "conditions": [told("Complete", "True")]}) == CURRENT
    assert state({"conditions": [told("Suspended", "True")]}) == CURRENT
    assert waits(state({**started, "conditions": [told("Suspended", "False", "JobResumed")]})) == "JobInProgress"
    bad = {**started, "conditions": [told("Failed", "True", "BackoffLimitExceeded", "too often")]}
    assert state(bad) == Standing(State.FAILED, "BackoffLimitExceeded", "BackoffLimitExceeded: too often")


def pod(phase: str, *conditions: dict, **status: object) -> Standing:
    return judge(of("v1", "Pod", {"phase": phase, "conditions": list(conditions), **status}))


def test_a_pod() -> None:
    assert pod("Succeeded") == CURRENT
    assert pod("Running", told("Ready", "True")) == CURRENT
    assert waits(pod("Running", told("Ready", "False"))) == "PodRunningNotReady"
    assert waits(pod("Pending", told("PodScheduled", "True"))) == "PodPending"
    assert waits(pod("Pending", told("PodScheduled", "False", "SchedulingGated"))) == "PodPending"
    assert waits(pod("")) == "PodNotObserved"
    assert pod("Failed") == Standing(State.FAILED, "PodFailed", "ended badly")
    assert pod("Failed", message="low on\nmemory").said == "ended badly: low on memory"
    assert pod("Pending", told("PodScheduled", "False", "Unschedulable", "0/1 nodes")).state is State.FAILED


def test_a_pod_that_ends_again_and_again() -> None:
    waiting = {"name": "main", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    runs = {"name": "other", "state": {"running": {}}}
    found = pod("Running", told("Ready", "False"), containerStatuses=[runs, waiting])
    assert found == Standing(State.FAILED, "ContainerCrashLooping", "ends again and again: main")


def claim(phase: str, spec: dict, *notes: str) -> Standing:
    status = {"phase": phase} if phase else None
    return judge(of("v1", "PersistentVolumeClaim", status, spec, annotations=dict.fromkeys(notes, "x")))


def test_a_claim() -> None:
    assert claim("Bound", CLASSED) == CURRENT
    assert claim("Lost", CLASSED) == Standing(State.FAILED, "ClaimLost", "its volume is gone")
    assert claim("", CLASSED).said == "not bound"
    assert claim("Pending", {"storageClassName": ""}).said == "not bound (Pending)"
    assert waits(claim("Pending", {})) == "NotBound"
    assert waits(claim("Pending", {**CLASSED, "volumeName": "pv-1"})) == "NotBound"


def test_a_claim_that_no_pod_uses_yet_is_waited_for_only_once_a_volume_is_made() -> None:
    assert claim("Pending", CLASSED) == CURRENT
    assert claim("Pending", CLASSED, "example.org/note") == CURRENT
    for note in kstatus._BEGUN:
        assert waits(claim("Pending", CLASSED, note)) == "NotBound"


def test_a_service() -> None:
    assert judge(of("v1", "Service", {"loadBalancer": {}}, {"type": "ClusterIP"})) == CURRENT
    assert waits(judge(of("v1", "Service", {}, {"type": "LoadBalancer"}))) == "NoIPAssigned"
    assert (
        judge(of("v1", "Service", {"loadBalancer": {}}, {"type": "LoadBalancer", "clusterIP": "10.0.0.1"})) == CURRENT
    )


def test_a_definition() -> None:
    def state(*conditions: dict) -> Standing:
        version = "apiextensions.k8s.io/v1"
        return judge(of(version, "CustomResourceDefinition", {"conditions": list(conditions)}))

    accepted = told("NamesAccepted", "True")
    assert waits(state()) == "Installing"
    assert waits(state(accepted, told("Established", "False", "Installing"))) == "Installing"
    assert state(accepted, told("Established", "True", "InitialNamesAccepted")) == CURRENT
    assert state(told("NamesAccepted", "False", "PluralConflict", "in use")).reason == "PluralConflict"
    assert state(told("NamesAccepted", "False", "PluralConflict")).state is State.FAILED
    assert state(accepted, told("Established", "False", "NotAccepted")).state is State.FAILED


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
CONDITIONS = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["Ready", "Available", "Failed", "Stalled"])}, optional={"status": JUNK}
    )
)


@given(
    kind=st.sampled_from(KINDS),
    metadata=JUNK | st.fixed_dictionaries({}, optional={"generation": JUNK, "annotations": JUNK}),
    spec=JUNK | st.fixed_dictionaries({}, optional={"replicas": JUNK, "updateStrategy": JUNK, "type": JUNK}),
    status=JUNK
    | st.fixed_dictionaries(
        {}, optional={"conditions": JUNK | CONDITIONS, "phase": JUNK, "observedGeneration": JUNK, "replicas": JUNK}
    ),
)
def test_nothing_that_stands_in_an_object_raises(
    kind: tuple[str, str], metadata: object, spec: object, status: object
) -> None:
    group, name = kind
    live = {"apiVersion": f"{group}/v1" if group else "v1", "kind": name}
    found = judge({**live, "metadata": metadata, "spec": spec, "status": status})
    assert isinstance(found.state, State)
    assert bool(found.said) is (found.state is not State.CURRENT)


@given(JUNK)
def test_what_is_no_object_raises_nothing(live: object) -> None:
    assert judge(live) == CURRENT or isinstance(live, dict)

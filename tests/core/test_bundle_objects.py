"""The objects of a file: what each must be, what is dropped from it, what it asks for, its identity and its order."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core import bundle_objects, bundle_policy
from reconciler.core.bundle_objects import MAX_OBJECT, Ask, Wanted, images, parse
from reconciler.core.kubernetes_identity import Identity, group_of, identity_of, is_cluster_scoped, rank
from reconciler.core.policy import Allow
from tests.support.bundles import CLUSTER, config


def said(text: str) -> list[str]:
    return [f"{flaw.line}:{flaw.column}: {flaw.message}" for flaw in parse(text.encode()).flaws]


def thing(metadata: str = "{name: a}", more: str = "", kind: str = "ConfigMap", version: str = "v1") -> str:
    return f"apiVersion: {version}\nkind: {kind}\nmetadata: {metadata}\n{more}"


def one(text: str) -> bundle_objects.Found:
    found = parse(text.encode())
    assert found.flaws == ()
    assert len(found.found) == 1
    return found.found[0]


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("[]", ["1:1: this is no Kubernetes object; write a mapping with apiVersion, kind and metadata"]),
        ("kind: A\nmetadata: {name: a}", ["1:1: a Kubernetes object needs apiVersion; add it"]),
        (thing(kind="1"), ["2:1: a Kubernetes object needs kind; add it"]),
        (thing(kind='"a/b"'), ['2:1: "a/b" is no kind']),
        (thing(version="a/b/c"), ['1:1: "a/b/c" is no apiVersion']),
        (thing("[]"), ["3:1: a Kubernetes object needs metadata with a name; add it"]),
        (thing("{}"), ["3:1: a Kubernetes object needs a name, as text without spaces, / and %"]),
        (thing("{name: a/b}"), ["3:12: a Kubernetes object needs a name, as text without spaces, / and %"]),
        (thing("{name: ..}"), ["3:12: a Kubernetes object needs a name, as text without spaces, / and %"]),
        (thing("{name: 5}"), ["3:12: a Kubernetes object needs a name, as text without spaces, / and %"]),
        (thing("{generateName: a-}"), ["3:12: generateName would make another object each time; write name"]),
        (thing("{name: a, namespace: A}"), ['3:21: "A" is no name of a namespace']),
        (thing("{name: a, namespace: 5}"), ["3:21: 5 is no name of a namespace"]),
        (thing("{name: a, uid: x}"), ["3:21: uid is set by the cluster and would stop every change; remove it"]),
        (
            thing("{name: a, resourceVersion: '1'}"),
            ["3:21: resourceVersion is set by the cluster and would stop every change; remove it"],
        ),
        (thing("{name: a, labels: [x]}"), ["3:21: labels are a mapping of names to text"]),
        (thing("{name: a, annotations: {x: 1}}"), ["3:35: the values of annotations are text; quote this one"]),
        (
            thing("{name: a, labels: {dev.reconciler.owner: x}}"),
            ['1:1: "dev.reconciler.owner" is how Reconciler marks what is its own; remove it, also from templates'],
        ),
        (
            thing(more="spec: {template: {x: [{metadata: {annotations: {dev.reconciler.version: x}}}]}}"),
            ['1:1: "dev.reconciler.version" is how Reconciler marks what is its own; remove it, also from templates'],
        ),
        (
            thing(kind="Kustomization", version="kustomize.config.k8s.io/v1beta1"),
            [
                "1:1: a kustomization is no object of a cluster; give its directory as path, or set kustomize: true",
            ],
        ),
        (
            thing(kind="Service", version="reconciler.dev/v1"),
            ["1:1: this belongs to Reconciler itself, not into the cluster; move it out of this path"],
        ),
        (
            thing(more="sops: {}"),
            ["4:1: this is encrypted with SOPS, which cannot be read here; create the Secret another way"],
        ),
        ("kind: List\nitems: [5]", ["2:9: this is no Kubernetes object; write a mapping with apiVersion"]),
        ("a: yes", ["1:4: not every reader takes yes for a truth value"]),
    ],
)
def test_what_is_wrong_with_an_object_is_said_at_its_place(text, problems):
    found = said(text)
    assert [line[: len(problem)] for line, problem in zip(found, problems, strict=True)] == problems


def test_a_selector_of_labels_of_ours_is_no_claim():
    assert said(thing(more="spec: {podSelector: {matchLabels: {dev.reconciler.service: web}}}")) == []
    assert said(thing(more="spec: {labels: [dev.reconciler.x]}")) == []


def test_lists_are_taken_apart_and_other_kinds_that_end_so_are_not():
    text = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Secret, metadata: {name: a}}\n" + (
        "- {apiVersion: v1, kind: Secret, metadata: {name: b}}\n---\n" + thing(kind="AllowList", version="x.io/v1")
    )
    found = parse(text.encode()).found
    assert [(each.identity.shown, each.line) for each in found] == [
        ("Secret a", 4),
        ("Secret b", 5),
        ("AllowList a", 7),
    ]


def test_what_only_the_cluster_sets_is_dropped():
    text = thing(
        "{name: a, namespace: '', labels: ~, annotations: {}, creationTimestamp: ~, managedFields: [], selfLink: x, "
        "generation: 3, finalizers: [x/y]}",
        "status: {x: 1}\nspec: {status: kept}\n",
    )
    assert json.loads(one(text).data) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "a", "finalizers": ["x/y"]},
        "spec": {"status": "kept"},
    }


def test_an_object_larger_than_a_cluster_takes_is_refused():
    half = "x" * (MAX_OBJECT // 2)
    assert said(thing(more=f"data: {{a: {half}, b: {half}}}")) == [
        f"1:1: ConfigMap a has over {MAX_OBJECT} bytes; split it"
    ]


def test_the_same_content_is_the_same_bytes_whatever_it_looks_like():
    assert (
        one(thing(more="data: {b: '1', a: '2'}")).data
        == one('{"metadata":{"name":"a"},"kind":"ConfigMap","data":{"a":"2","b":"1"},"apiVersion":"v1"}').data
    )


POD = thing(kind="Pod", more="spec: {}\n")


@pytest.mark.parametrize(
    ("pod", "wants"),
    [
        ("{hostPID: true, hostIPC: true}", ["privileged hostPID", "privileged hostIPC"]),
        ("{hostNetwork: true}", ["hostNetwork hostNetwork"]),
        ("{hostNetwork: false, volumes: [{emptyDir: {}}, 5]}", []),
        ("{volumes: [{hostPath: {path: /}}]}", ["privileged hostPath"]),
        ("{volumes: x, securityContext: {windowsOptions: {hostProcess: true}}}", ["privileged hostProcess"]),
        ("{initContainers: [{securityContext: {privileged: true}}]}", ["privileged privileged"]),
        ("{ephemeralContainers: [{securityContext: {privileged: false, windowsOptions: {}}}]}", []),
        (
            "{initContainers: [5, {ports: [{hostPort: 80}, 7]}, {ports: [{containerPort: 80}]}]}",
            ["hostNetwork hostPort"],
        ),
        (
            "{initContainers: [{securityContext: {capabilities: {add: [NET_ADMIN, CAP_sys_admin, KILL]}}}]}",
            ["capability NET_ADMIN", "capability SYS_ADMIN"],
        ),
        ("{initContainers: [{securityContext: {capabilities: {drop: [ALL]}}}]}", []),
        ("{initContainers: [{securityContext: {capabilities: [x]}}], containers: []}", []),
    ],
)
def test_what_takes_a_pod_out_of_its_isolation_is_noted_wherever_it_is(pod, wants):
    pod = pod.replace("{", "{containers: [{image: a}], ", 1) if "containers: []" not in pod else pod
    for text in (
        thing(kind="Pod", more=f"spec: {pod}"),
        thing(kind="CronJob", more=f"spec: {{jobTemplate: {{spec: {{template: {{spec: {pod}}}}}}}}}"),
        thing(kind="Rollout", version="x.io/v1", more=f"spec: [{{template: {{spec: {pod}}}}}]"),
    ):
        assert [f"{wanted.ask} {wanted.what}" for wanted in one(text).wants] == wants


def test_a_schema_of_pods_is_no_pod():
    schema = "spec: {properties: {containers: {type: array}, hostNetwork: true}}"
    assert one(thing(kind="CustomResourceDefinition", more=schema)).wants == ()


def test_images_are_those_of_all_containers():
    spec = {"containers": [{"image": "a"}, {"image": 5}, {}], "initContainers": [{"image": "b"}], "x": [{"image": "c"}]}
    assert sorted(images({"spec": {"template": {"spec": spec}}})) == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "allow", "said"),
    [
        (thing(), Allow(), []),
        (thing("{name: a, namespace: prod}"), CLUSTER, []),
        (
            thing("{name: a, namespace: other}"),
            CLUSTER,
            [
                "ConfigMap other/a lies in namespace other, and the environment's own is prod; remove "
                "metadata.namespace, or the operator can add it to allow.namespaces"
            ],
        ),
        (
            thing("{name: a, namespace: prod}"),
            Allow(),
            [
                "ConfigMap prod/a lies in namespace prod, and only the environment's own is allowed by itself; remove "
                "metadata.namespace, or the operator can add it to allow.namespaces"
            ],
        ),
        (thing("{name: a, namespace: other}"), Allow(namespaces=("other",)), []),
        (
            thing(kind="Namespace"),
            CLUSTER,
            ["Namespace a lies in no namespace but in the whole cluster; the operator can set allow.clusterScoped"],
        ),
        (thing(kind="Namespace"), Allow(cluster_scoped=True), []),
    ],
)
def test_where_objects_may_lie_is_the_operators_say(text, allow, said):
    assert list(bundle_policy.denials(one(text), allow)) == said


@pytest.mark.parametrize(
    ("wanted", "said", "allow"),
    [
        (
            Wanted(Ask.PRIVILEGED, "hostPath"),
            "asks for hostPath, which is not allowed here; the operator can set allow.privileged",
            Allow(privileged=True),
        ),
        (
            Wanted(Ask.HOST_NETWORK, "hostPort"),
            "asks for hostPort, which is not allowed here; the operator can set allow.hostNetwork",
            Allow(host_network=True),
        ),
        (
            Wanted(Ask.CAPABILITY, "NET_ADMIN"),
            "asks for capability NET_ADMIN, which is not allowed here; the operator can add it to allow.capabilities",
            Allow(capabilities=("NET_ADMIN",)),
        ),
    ],
)
def test_isolation_is_given_up_only_where_the_operator_allows_it(wanted, said, allow):
    found = bundle_objects.Found(Identity("", "Pod", "", "a"), b"", 1, 1, (wanted,))
    assert list(bundle_policy.denials(found, Allow())) == [f"Pod a {said}"]
    assert list(bundle_policy.denials(found, allow)) == []


def test_an_identity_is_written_and_read_again():
    found = Identity("apps", "Deployment", "prod", "web")
    assert str(found) == "apps/Deployment/prod/web"
    assert identity_of(str(found)) == found
    assert identity_of("/Namespace//prod") == Identity("", "Namespace", "", "prod")
    assert [identity_of(text) for text in ("", "a/b/c", "a//b/c", "a/b/c/")] == [None] * 4
    assert (group_of("v1"), group_of("apps/v1")) == ("", "apps")
    assert found.shown == "Deployment prod/web"
    assert one(thing("{name: a, namespace: b}", version="x.io/v1")).identity == Identity("x.io", "ConfigMap", "b", "a")


def test_kinds_are_applied_in_the_order_in_which_they_need_each_other():
    kinds = [
        ("", "Namespace"),
        ("apiextensions.k8s.io", "CustomResourceDefinition"),
        ("", "ServiceAccount"),
        ("rbac.authorization.k8s.io", "ClusterRole"),
        ("rbac.authorization.k8s.io", "RoleBinding"),
        ("", "ConfigMap"),
        ("", "Service"),
        ("", "PersistentVolumeClaim"),
        ("apps", "Deployment"),
        ("batch", "CronJob"),
        ("example.org", "Anything"),
        ("networking.k8s.io", "Ingress"),
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
    ]
    shuffled = random.Random(1).sample(kinds, len(kinds))
    assert sorted(shuffled, key=lambda kind: rank(*kind)) == kinds
    assert is_cluster_scoped("", "Namespace")
    assert not is_cluster_scoped("example.org", "Namespace")


@given(st.text() | st.binary())
def test_nothing_at_all_makes_it_raise(text):
    found = parse(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    assert found.found == () or found.flaws == ()


def test_many_objects_in_their_order():
    assert [each.identity.name for each in parse(config("b", "a", "c").encode()).found] == ["b", "a", "c"]

"""The pod template: each field of a service where Kubernetes has it, and nothing that only operates the service."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core import names
from reconciler.core.delivery import Rollout, Scaling, Strategy
from reconciler.core.kubernetes_pods import claim_name, template
from reconciler.core.model import (
    Drain,
    ExecCheck,
    File,
    Health,
    HttpCheck,
    ImageRef,
    Port,
    Resources,
    Security,
    ServiceSpec,
    TcpCheck,
    Tmpfs,
    version_of,
)
from tests.support.kube_specs import ENVIRONMENT, PLAIN, RICH, SECRETS, VERSION, checks, ensure, specs

SECONDS = timedelta(seconds=1)


def pod(spec: ServiceSpec, **changes: object) -> dict:
    return template(ensure(spec, **changes), "default", SECRETS)["spec"]


def main(spec: ServiceSpec) -> dict:
    return pod(spec)["containers"][0]


def test_a_plain_service_is_restricted() -> None:
    found = pod(PLAIN)
    assert found == {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 20,
        "securityContext": {
            "runAsNonRoot": True,
            "fsGroup": 65532,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {
                    "matchLabels": {
                        "dev.reconciler.owner": "default",
                        "dev.reconciler.environment": ENVIRONMENT,
                        "dev.reconciler.service": "plain",
                        "dev.reconciler.group": "plain",
                    }
                },
                "matchLabelKeys": ["pod-template-hash"],
            }
        ],
        "containers": [
            {
                "name": "main",
                "image": PLAIN.image.pinned,
                "imagePullPolicy": "IfNotPresent",
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "lifecycle": {"preStop": {"sleep": {"seconds": 10}}},
            }
        ],
    }


def test_labels_select_and_annotations_say_all() -> None:
    found = template(ensure(RICH), "default", SECRETS)["metadata"]
    assert found["annotations"] == {
        "dev.reconciler.version": VERSION,
        "dev.reconciler.image": RICH.image.pinned,
    }
    assert found["labels"] == {
        "team": "shop",
        "dev.reconciler.owner": "default",
        "dev.reconciler.environment": ENVIRONMENT,
        "dev.reconciler.service": "web",
        "dev.reconciler.group": "web",
        "dev.reconciler.version": "a" * 12,
    }


def test_labels_of_a_service_cannot_take_the_place_of_ours() -> None:
    stolen = replace(PLAIN, labels={names.LABEL_OWNER: "me"})
    assert template(ensure(stolen), "default", {})["metadata"]["labels"][names.LABEL_OWNER] == "default"


def test_words_stay_what_they_are() -> None:
    found = main(replace(RICH, health=Health(ExecCheck(("check", "$(X)")))))
    assert found["command"] == ["/app", "$$(HOME)"]
    assert found["args"] == ["a$$$$b", ""]
    assert found["readinessProbe"]["exec"] == {"command": ["check", "$$(X)"]}


@given(st.text())
def test_what_the_kubelet_expands_is_what_was_written(text: str) -> None:
    # As its `expansion` package does: `$$` is `$`, `$(X)` a variable, any other `$` itself.
    written = main(replace(PLAIN, args=(text,)))["args"][0]
    assert not re.search(r"(?<!\$)(?:\$\$)*\$\(", written)
    assert re.sub(r"\$\$", "$", written) == text


def test_variables_are_in_order_and_secrets_come_by_reference() -> None:
    holder = main(RICH)["env"][2]["valueFrom"]["secretKeyRef"]["name"]
    assert holder.startswith("web-secret-")
    assert main(RICH)["env"] == [
        {"name": "A", "value": "x$$y"},
        {"name": "B"},
        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": holder, "key": "variable"}}},
    ]


def test_ports_have_names_where_kubernetes_allows_them() -> None:
    assert main(RICH)["ports"] == [
        {"name": "http", "containerPort": 8080, "protocol": "TCP"},
        {"containerPort": 9090, "protocol": "TCP"},
        {"name": "dns", "containerPort": 53, "protocol": "UDP"},
    ]
    assert "name" not in main(replace(PLAIN, ports=(Port("a--b", 1),)))["ports"][0]


def test_limits_are_requests_too() -> None:
    limits = {"memory": "500M", "cpu": "1500m"}
    assert main(RICH)["resources"] == {"limits": limits, "requests": limits}
    assert main(replace(PLAIN, resources=Resources(memory=2**20)))["resources"]["limits"] == {"memory": "1Mi"}


def test_a_drain_is_a_sleep_before_the_grace() -> None:
    found = pod(replace(PLAIN, drain=Drain(1.5 * SECONDS, 2.5 * SECONDS)))
    assert found["terminationGracePeriodSeconds"] == 5
    assert found["containers"][0]["lifecycle"] == {"preStop": {"sleep": {"seconds": 2}}}
    none = pod(replace(PLAIN, drain=Drain(0 * SECONDS, 0 * SECONDS)))
    assert none["terminationGracePeriodSeconds"] == 1
    assert "lifecycle" not in none["containers"][0]


@pytest.mark.parametrize(
    ("check", "how"),
    [
        (HttpCheck(80, "/a?b=c"), {"httpGet": {"path": "/a?b=c", "port": 80, "scheme": "HTTP"}}),
        (TcpCheck(81), {"tcpSocket": {"port": 81}}),
        (ExecCheck(("a", "b")), {"exec": {"command": ["a", "b"]}}),
    ],
)
def test_one_check_makes_three_probes(check: HttpCheck | TcpCheck | ExecCheck, how: dict) -> None:
    health = Health(check, 2.5 * SECONDS, 0.2 * SECONDS, 4, 5, 61 * SECONDS)
    found = main(replace(PLAIN, health=health))
    common = {**how, "periodSeconds": 3, "timeoutSeconds": 1}
    assert found["startupProbe"] == {**common, "successThreshold": 1, "failureThreshold": 21}
    assert found["readinessProbe"] == {**common, "successThreshold": 4, "failureThreshold": 5}
    assert found["livenessProbe"] == {**common, "successThreshold": 1, "failureThreshold": 10}


@given(checks)
def test_the_startup_window_is_at_least_as_long_as_declared(check: object) -> None:
    health = Health(check, startup=7 * SECONDS, interval=2 * SECONDS)  # type: ignore[arg-type]
    found = main(replace(PLAIN, health=health)).get("startupProbe")
    assert (found is None) == (check is None)
    assert found is None or found["failureThreshold"] * found["periodSeconds"] >= 7


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("1000", {"runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 65532}),
        ("1000:2000", {"runAsNonRoot": True, "runAsUser": 1000, "runAsGroup": 2000, "fsGroup": 2000}),
        ("0", {"runAsNonRoot": False, "runAsUser": 0, "fsGroup": 65532}),
        ("root:root", {"runAsNonRoot": False, "runAsUser": 0, "runAsGroup": 0, "fsGroup": 0}),
        ("nobody", {"runAsNonRoot": True, "fsGroup": 65532}),
    ],
)
def test_users_are_numbers_and_root_only_by_its_name(user: str, expected: dict) -> None:
    found = pod(replace(PLAIN, security=Security(user=user)))["securityContext"]
    assert {key: value for key, value in found.items() if key.startswith(("run", "fsGroup"))} == {
        **expected,
        "fsGroupChangePolicy": "OnRootMismatch",
    }


def test_security_is_loosened_only_as_declared() -> None:
    found = pod(replace(PLAIN, security=Security(writable_root=True, capabilities=("CHOWN",))))
    assert found["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": False,
        "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]},
    }
    much = pod(replace(PLAIN, security=Security(privileged=True, host_network=True)))
    assert much["containers"][0]["securityContext"]["privileged"] is True
    assert much["containers"][0]["securityContext"]["allowPrivilegeEscalation"] is True
    assert (much["hostNetwork"], much["dnsPolicy"]) == (True, "ClusterFirstWithHostNet")


def test_files_secrets_memory_and_claims_are_mounted() -> None:
    found = pod(RICH)
    volumes = {each["name"]: each for each in found["volumes"]}
    assert volumes["files-0"]["configMap"]["items"] == [
        {"key": "0", "path": "0", "mode": 0o444},
        {"key": "1", "path": "1", "mode": 0o400},
    ]
    assert volumes["secret-0"]["secret"]["items"] == [{"key": "content", "path": "content", "mode": 0o440}]
    assert volumes["tmpfs-0"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "64Mi"}
    assert volumes["volume-data"]["persistentVolumeClaim"] == {"claimName": "web.data", "readOnly": True}
    assert volumes["volume-cache"]["persistentVolumeClaim"] == {"claimName": "web.cache"}
    mounts = {each["mountPath"]: each for each in found["containers"][0]["volumeMounts"]}
    assert mounts["/etc/app/b.bin"] == {
        "name": "files-0",
        "mountPath": "/etc/app/b.bin",
        "subPath": "1",
        "readOnly": True,
    }
    assert mounts["/run/secrets/db"]["name"] == mounts["/run/secrets/again"]["name"] == "secret-0"
    assert mounts["/tmp"] == {"name": "tmpfs-0", "mountPath": "/tmp"}
    assert mounts["/data"] == {"name": "volume-data", "mountPath": "/data", "readOnly": True}
    assert {each["name"] for each in mounts.values()} == volumes.keys()


def test_no_two_volumes_share_a_claim() -> None:
    assert claim_name("a", "b-c") != claim_name("a-b", "c")


OPERATING = st.fixed_dictionaries(
    {},
    optional={
        "replicas": st.integers(0, 9),
        "rollout": st.builds(
            Rollout, st.sampled_from([Strategy.ROLLING, Strategy.RECREATE]), st.integers(1, 9), st.integers(0, 9)
        ),
        "depends_on": st.just(("db",)),
        "suspend": st.booleans(),
        "route": st.just(None),
        "scaling": st.just(Scaling(1, 5, cpu=1.0)),
    },
)


@settings(max_examples=40)
@given(specs, OPERATING, st.integers(0, 9), st.text("abcdef0123456789", min_size=40, max_size=40))
def test_what_only_operates_a_service_is_not_in_its_template(
    spec: ServiceSpec, changes: dict, count: int, revision: str
) -> None:
    order = ensure(spec)
    other = replace(order, spec=replace(spec, **changes), replicas=count, first=count, revision=revision, operated="x")
    assert template(order, "default", SECRETS) == template(other, "default", SECRETS)


SHAPES = (
    {"image": ImageRef("registry.test/web", "sha256:" + "9" * 64)},
    {"command": ("/other",)},
    {"args": ("other",)},
    {"env": {"A": "other"}},
    {"labels": {"other": "label"}},
    {"files": (File("/etc/app/a.conf", b"other"),)},
    {"files": (File("/etc/app/a.conf", b"hello", 0o555), RICH.files[1])},
    {"secrets": RICH.secrets[:2]},
    {"ports": (Port("http", 8081),)},
    {"resources": Resources(memory=2**30)},
    {"tmpfs": (Tmpfs("/tmp", 2**20),)},
    {"security": Security(user="1001:2000")},
    {"health": Health(HttpCheck(8080, "/other"))},
    {"volumes": RICH.volumes[:1]},
)


@pytest.mark.parametrize("changes", SHAPES, ids=[next(iter(each)) for each in SHAPES])
def test_what_makes_an_instance_what_it_is_changes_the_template(changes: dict) -> None:
    other = replace(RICH, **changes)
    assert version_of(other, SECRETS) != version_of(RICH, SECRETS)
    # Also without the version, which stands in it, too.
    assert template(ensure(RICH), "default", SECRETS) != template(ensure(other), "default", SECRETS)


def test_a_changed_secret_changes_the_template() -> None:
    before = template(ensure(RICH), "default", SECRETS)
    assert before != template(ensure(RICH), "default", {**SECRETS, "token": "v3"})


@settings(max_examples=40)
@given(specs)
def test_what_is_rendered_fits_the_rules_of_the_api(spec: ServiceSpec) -> None:
    found = template(ensure(spec), "default", SECRETS)
    for value in found["metadata"]["labels"].values():
        assert re.fullmatch(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?", value)
    for volume in found["spec"].get("volumes", ()):
        assert re.fullmatch(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", volume["name"])
    container = found["spec"]["containers"][0]
    wait = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    assert 0 <= wait <= found["spec"]["terminationGracePeriodSeconds"]
    for port in container.get("ports", ()):
        assert re.fullmatch(r"[a-z0-9-]{1,15}", port.get("name", "x"))
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = container.get(kind, {"periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 1})
        assert min(probe["periodSeconds"], probe["timeoutSeconds"], probe["failureThreshold"]) >= 1

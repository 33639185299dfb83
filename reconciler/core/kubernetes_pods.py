"""The pod template of a version: what Kubernetes replaces instances by when it changes. Pure.

It is a function of what makes an instance what it is and of `drain`, which is part of a pod there: a changed drain
replaces the pods, natively and without a new version. Nothing else that only operates a service is in it, nor is the
revision: two revisions with the same version have the same template.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, assert_never

from reconciler.core import kubernetes_config as config
from reconciler.core import names
from reconciler.core.kubernetes_json import Json
from reconciler.core.kubernetes_labels import GROUP, ownership
from reconciler.core.kubernetes_quantity import cpu, memory, seconds
from reconciler.core.model import (
    Drain,
    ExecCheck,
    Health,
    HttpCheck,
    Resources,
    SecretTarget,
    Security,
    ServiceSpec,
    TcpCheck,
)
from reconciler.core.steps import EnsureGroup

CONTAINER = "main"
"""The container of a service's pod. Others are put in by others."""
DEFAULT_GROUP = 65532
"""Owns the volumes where no group is declared; whoever runs in the pod is in it."""

_PORT_NAME = re.compile(r"(?!.*--)(?=.*[a-z])[a-z0-9](?:[a-z0-9-]{0,13}[a-z0-9])?")
"""A port of a container has a shorter name than one of a Service (RFC 6335)."""


def claim_name(service: str, volume: str) -> str:
    """The PersistentVolumeClaim of a service's volume: neither name has a dot, so no two volumes have the same."""
    return f"{service}.{volume}"


def selected(owner: str, environment: str, service: str, group: str) -> dict[str, str]:
    """The labels by which the pods of a group are told from all others."""
    return {**ownership(owner, environment), names.LABEL_SERVICE: service, GROUP: group}


def template(effect: EnsureGroup, owner: str, versions: Mapping[str, str]) -> Json:
    """The pod template of a group. `versions` are those of the service's secrets."""
    spec = effect.spec
    chosen = selected(owner, effect.environment, spec.name, effect.name)
    marks = {**spec.labels, **chosen, names.LABEL_VERSION: names.short(effect.version)}
    notes = {names.LABEL_VERSION: effect.version, names.LABEL_IMAGE: spec.image.pinned}
    volumes, mounts = _volumes(spec, versions)
    container: Json = {
        "name": CONTAINER,
        "image": spec.image.pinned,
        "imagePullPolicy": "IfNotPresent",
        "securityContext": _container_security(spec.security),
        **_words(spec),
        **_probes(spec.health),
        **_given("env", _environment(spec, versions)),
        **_given("ports", [_port(port.name, port.container, port.protocol) for port in spec.ports]),
        **_given("resources", _resources(spec.resources)),
        **_given("volumeMounts", mounts),
        **_given("lifecycle", _lifecycle(spec.drain)),
    }
    pod: Json = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": max(seconds(spec.drain.deadline) + seconds(spec.drain.grace), 1),
        "securityContext": _pod_security(spec.security),
        "topologySpreadConstraints": [_spread(chosen)],
        "containers": [container],
        **_given("volumes", volumes),
    }
    if spec.security.host_network:
        pod |= {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}
    return {"metadata": {"labels": marks, "annotations": notes}, "spec": pod}


def _given(name: str, value: Any) -> Json:  # noqa: ANN401 - JSON
    """The field, where it holds anything: what is empty would not be kept by the API server."""
    return {name: value} if value else {}


def _words(spec: ServiceSpec) -> Json:
    literal = {"command": [_literal(word) for word in spec.command], "args": [_literal(word) for word in spec.args]}
    return {name: value for name, value in literal.items() if value}


def _literal(text: str) -> str:
    """Text that stays what it is: the kubelet would replace `$(NAME)` in it, and make one of two `$`."""
    return text.replace("$", "$$")


def _environment(spec: ServiceSpec, versions: Mapping[str, str]) -> list[Json]:
    keys = config.secret_keys(spec)
    found = [{"name": name, **_given("value", _literal(value))} for name, value in spec.env.items()]
    for use in spec.secrets:
        if use.kind is SecretTarget.ENV:
            holder = config.secret_object(spec.name, use.secret, versions[use.secret], keys[use.secret])
            found.append({"name": use.target, "valueFrom": {"secretKeyRef": {"name": holder, "key": config.VARIABLE}}})
    return sorted(found, key=lambda variable: variable["name"])


def _port(name: str, number: int, protocol: str) -> Json:
    named = {"name": name} if _PORT_NAME.fullmatch(name) else {}
    return {**named, "containerPort": number, "protocol": protocol.upper()}


def _resources(resources: Resources) -> Json:
    found = {}
    if resources.memory is not None:
        found["memory"] = memory(resources.memory)
    if resources.nano_cpus is not None:
        found["cpu"] = cpu(resources.nano_cpus)
    return {"limits": found, "requests": dict(found)} if found else {}


def _lifecycle(drain: Drain) -> Json:
    """No new requests come while it sleeps: the pod left its Services when it was told to go."""
    wait = seconds(drain.deadline)
    return {"preStop": {"sleep": {"seconds": wait}}} if wait else {}


def _probes(health: Health) -> Json:
    """Three probes out of one check: it has started, it takes requests, it has to be started anew.

    The third waits twice as long as the second: an instance is out of traffic first, and may recover there.
    """
    if health.check is None:
        return {}
    period = seconds(health.interval, 1)
    check = {**_check(health.check), "periodSeconds": period, "timeoutSeconds": seconds(health.timeout, 1)}
    starting = max(-(-seconds(health.startup) // period), 1)
    return {
        "startupProbe": {**check, "successThreshold": 1, "failureThreshold": starting},
        "readinessProbe": {
            **check,
            "successThreshold": health.healthy_after,
            "failureThreshold": health.unhealthy_after,
        },
        "livenessProbe": {**check, "successThreshold": 1, "failureThreshold": 2 * health.unhealthy_after},
    }


def _check(check: HttpCheck | TcpCheck | ExecCheck) -> Json:
    match check:
        case HttpCheck():
            return {"httpGet": {"path": check.path, "port": check.port, "scheme": "HTTP"}}
        case TcpCheck():
            return {"tcpSocket": {"port": check.port}}
        case ExecCheck():
            return {"exec": {"command": [_literal(word) for word in check.command]}}
        case _:
            assert_never(check)


def _pod_security(security: Security) -> Json:
    """Who runs in the pod. Where no user is declared it is the image's, which must be a number other than 0."""
    user, _, group = (security.user or "").partition(":")
    uid, gid = _number(user), _number(group)
    found: Json = {
        "runAsNonRoot": uid != 0,
        "fsGroup": DEFAULT_GROUP if gid is None else gid,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    if uid is not None:
        found["runAsUser"] = uid
    if gid is not None:
        found["runAsGroup"] = gid
    return found


def _number(name: str) -> int | None:
    """The number of a user or group. Other names than root's are refused before (`core/rules_native.py`)."""
    if name == "root":
        return 0
    return int(name) if name.isdecimal() else None


def _container_security(security: Security) -> Json:
    capabilities: Json = {"drop": ["ALL"]}
    if security.capabilities:
        capabilities["add"] = list(security.capabilities)
    found: Json = {
        "allowPrivilegeEscalation": security.privileged,
        "readOnlyRootFilesystem": not security.writable_root,
        "capabilities": capabilities,
    }
    return {**found, "privileged": True} if security.privileged else found


def _spread(chosen: dict[str, str]) -> Json:
    """Over the nodes, each template for itself. It does nothing for one instance, so it need not come and go."""
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": chosen},
        "matchLabelKeys": ["pod-template-hash"],
    }


def _volumes(spec: ServiceSpec, versions: Mapping[str, str]) -> tuple[list[Json], list[Json]]:
    """The volumes of the pod and where they are mounted: each file by itself, as others may lie beside it."""
    volumes: list[Json] = []
    mounts: list[Json] = []
    for index, batch in enumerate(config.batches(spec)):
        name = f"files-{index}"
        entries = [{"key": key, "path": key, "mode": file.mode} for key, file in batch.files]
        volumes.append({"name": name, "configMap": {"name": batch.name, "items": entries}})
        mounts += [{"name": name, "mountPath": f.path, "subPath": key, "readOnly": True} for key, f in batch.files]
    keys = config.secret_keys(spec)
    holders: dict[str, str] = {}
    for use in (use for use in spec.secrets if use.kind is SecretTarget.FILE):
        if use.secret not in holders:
            name = holders[use.secret] = f"secret-{len(holders)}"
            holder = config.secret_object(spec.name, use.secret, versions[use.secret], keys[use.secret])
            entries = [{"key": config.CONTENT, "path": config.CONTENT, "mode": config.SECRET_MODE}]
            volumes.append({"name": name, "secret": {"secretName": holder, "items": entries}})
        place = {"mountPath": use.target, "subPath": config.CONTENT, "readOnly": True}
        mounts.append({"name": holders[use.secret], **place})
    for index, tmpfs in enumerate(spec.tmpfs):
        volumes.append({"name": f"tmpfs-{index}", "emptyDir": {"medium": "Memory", "sizeLimit": memory(tmpfs.size)}})
        mounts.append({"name": f"tmpfs-{index}", "mountPath": tmpfs.path})
    for volume in spec.volumes:
        name, read_only = f"volume-{volume.name}", {"readOnly": True} if volume.read_only else {}
        claim = {"claimName": claim_name(spec.name, volume.name), **read_only}
        volumes.append({"name": name, "persistentVolumeClaim": claim})
        mounts.append({"name": name, "mountPath": volume.path, **read_only})
    return volumes, mounts

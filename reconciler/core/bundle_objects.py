"""One file of Kubernetes manifests, or what a renderer made: its objects, each judged by itself.

Objects become JSON (RFC 8785) without what only the cluster sets. What an object asks for beyond the defaults is noted;
whether it may is said by `core/bundle_policy.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

import rfc8785

from reconciler.core import bundle_yaml, kubernetes_identity
from reconciler.core.bundle_yaml import Part
from reconciler.core.kubernetes_identity import Identity
from reconciler.core.names import LABEL
from reconciler.core.words import shown
from reconciler.core.yaml_reader import Flaw, Path

MAX_OBJECT = 1_500_000
"""Bytes of one object: what etcd takes."""

HOOK = "helm.sh/hook"
TEXTS = ("labels", "annotations")

_SET_BY_THE_CLUSTER = ("creationTimestamp", "managedFields", "selfLink", "generation")
_VERSION = re.compile(r"(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?/)?[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_KIND = re.compile(r"[A-Za-z](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_NAMESPACE = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NAME = re.compile(r"[^\s/%\x00-\x1f\x7f]{1,253}")
_CONTAINERS = ("initContainers", "containers", "ephemeralContainers")
_HARMLESS = frozenset(
    {"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE"}
    | {"SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"}
)
"""Capabilities that Kubernetes' Pod Security Standards let anybody add (level "baseline")."""


class Ask(StrEnum):
    """What takes a pod out of its isolation."""

    PRIVILEGED = "privileged"
    HOST_NETWORK = "hostNetwork"
    CAPABILITY = "capability"


class Wanted(NamedTuple):
    """One thing that an object asks for, and where in it; `what` is the field, or the capability."""

    ask: Ask
    what: str


@dataclass(frozen=True, slots=True)
class Found:
    """One object: `data` is its JSON, `line` and `column` say where it begins in its file.

    `wants`: what it asks for beyond the defaults. `hook`: when Helm would run it, "" for an object like any other.
    """

    identity: Identity
    data: bytes = field(repr=False)
    line: int
    column: int
    wants: tuple[Wanted, ...] = ()
    hook: str = ""


@dataclass(frozen=True, slots=True)
class Objects:
    """What is in one file, and everything wrong with it."""

    found: tuple[Found, ...]
    flaws: tuple[Flaw, ...]


def parse(data: bytes) -> Objects:
    """The objects in the documents of `data`, in their order; lists are taken apart. Never raises."""
    parts, flaws = bundle_yaml.read(data)
    if flaws:
        return Objects((), flaws)
    found: list[Found] = []
    wrong: list[Flaw] = []
    for part in parts:
        for value, path in _flattened(part):
            problems = list(_problems(part, value, path))
            wrong.extend(problems)
            if not problems:
                line, column = part.place(path)
                object_ = _found(value, line, column)
                found.append(object_)
                if len(object_.data) > MAX_OBJECT:
                    wrong.append(Flaw(line, column, f"{object_.identity.shown} has over {MAX_OBJECT} bytes; split it"))
    return Objects(tuple(found), tuple(wrong[: bundle_yaml.MAX_FLAWS]))


def _flattened(part: Part) -> Iterator[tuple[Any, Path]]:
    """The object of a document, or those of the list that it is, each with its path."""
    value = part.value
    kind = value.get("kind") if isinstance(value, dict) else None
    if isinstance(kind, str) and kind.endswith("List") and isinstance(value.get("items"), list):
        for index, item in enumerate(value["items"]):
            yield item, ("items", index)
    else:
        yield value, ()


def _problems(part: Part, value: Any, path: Path) -> Iterator[Flaw]:  # noqa: ANN401 - as people wrote it
    """What is wrong with one object by itself."""

    def flaw(*below: str, say: str) -> Flaw:
        return Flaw(*part.place((*path, *below)), say)

    if not isinstance(value, dict):
        yield flaw(say="this is no Kubernetes object; write a mapping with apiVersion, kind and metadata")
        return
    yield from (flaw(*below, say=say) for below, say in _kind(value))
    metadata = value.get("metadata")
    if not isinstance(metadata, dict):
        yield flaw("metadata", say="a Kubernetes object needs metadata with a name; add it")
    else:
        yield from (flaw("metadata", *below, say=say) for below, say in _metadata(metadata))
    claimed = claims(value)
    if claimed:
        yield flaw(say=f"{shown(claimed)} is how Reconciler marks what is its own; remove it, also from templates")


def _kind(value: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    """(place, problem) for each thing wrong with what the object says that it is."""
    texts = (("apiVersion", value.get("apiVersion"), _VERSION), ("kind", value.get("kind"), _KIND))
    for key, text, pattern in texts:
        if not isinstance(text, str):
            yield (key,), f"a Kubernetes object needs {key}; add it"
        elif not pattern.fullmatch(text):
            yield (key,), f"{shown(text)} is no {key}"
    group = str(value.get("apiVersion")).partition("/")[0]
    if group == "kustomize.config.k8s.io":
        yield (), "a kustomization is no object of a cluster; give its directory as path, or set kustomize: true"
    elif group == "reconciler.dev":
        yield (), "this belongs to Reconciler itself, not into the cluster; move it out of this path"
    if "sops" in value:
        yield ("sops",), "this is encrypted with SOPS, which cannot be read here; create the Secret another way"


def _metadata(metadata: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    """(place below metadata, problem) for each."""
    name, namespace = metadata.get("name"), metadata.get("namespace")
    if "generateName" in metadata:
        yield ("generateName",), "generateName would make another object each time; write name"
    elif not isinstance(name, str) or not _NAME.fullmatch(name) or name in (".", ".."):
        yield ("name",), "a Kubernetes object needs a name, as text without spaces, / and %"
    if namespace and not (isinstance(namespace, str) and _NAMESPACE.fullmatch(namespace)):
        yield ("namespace",), f"{shown(namespace)} is no name of a namespace"
    for key in ("uid", "resourceVersion"):
        if key in metadata:
            yield (key,), f"{key} is set by the cluster and would stop every change; remove it"
    for key in TEXTS:
        texts = metadata.get(key) or {}
        if not isinstance(texts, dict):
            yield (key,), f"{key} are a mapping of names to text"
            continue
        for label, text in texts.items():
            if not isinstance(text, str):
                yield (key, label), f"the values of {key} are text; quote this one"


def _found(value: Mapping[str, Any], line: int, column: int) -> Found:
    """The object that a mapping without problems is."""
    metadata = {key: each for key, each in value["metadata"].items() if key not in _SET_BY_THE_CLUSTER}
    for key in ("namespace", *TEXTS):
        if not metadata.get(key):
            metadata.pop(key, None)
    declared = {key: each for key, each in value.items() if key != "status"} | {"metadata": metadata}
    return Found(
        kubernetes_identity.identity(declared),
        rfc8785.dumps(declared),
        line,
        column,
        tuple(dict.fromkeys(wanted for pod in _pods(declared) for wanted in _wants(pod))),
        metadata.get("annotations", {}).get(HOOK, ""),
    )


def claims(value: object) -> str:
    """A label or annotation of ours that an object carries, at any depth (as for its pods); "" when there is none."""
    for each in _mappings(value):
        for key in TEXTS:
            texts = each.get(key)
            for name in texts if isinstance(texts, dict) else ():
                if name.startswith(LABEL):
                    return str(name)
    return ""


def _pods(value: object) -> Iterator[Mapping[str, Any]]:
    """All that looks like the specification of a pod, in whatever kind: a mapping with a list of containers."""
    return (each for each in _mappings(value) if isinstance(each.get("containers"), list))


def _mappings(value: object) -> Iterator[Mapping[str, Any]]:
    """All of them, at any depth."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, list):
            waiting.extend(each)
        elif isinstance(each, dict):
            yield each
            waiting.extend(each.values())


def _containers(pod: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for key in _CONTAINERS:
        each = pod.get(key)
        yield from (one for one in each if isinstance(one, dict)) if isinstance(each, list) else ()


def images(declared: object) -> Iterator[str]:
    """The images that the pods of an object run."""
    for pod in _pods(declared):
        for container in _containers(pod):
            if isinstance(container.get("image"), str):
                yield container["image"]


def _wants(pod: Mapping[str, Any]) -> Iterator[Wanted]:
    """What takes a pod out of its isolation, as far as the level "baseline" of Pod Security forbids it."""
    for key, ask in (("hostPID", Ask.PRIVILEGED), ("hostIPC", Ask.PRIVILEGED), ("hostNetwork", Ask.HOST_NETWORK)):
        if pod.get(key):
            yield Wanted(ask, key)
    volumes = pod.get("volumes")
    if isinstance(volumes, list) and any(isinstance(each, dict) and each.get("hostPath") for each in volumes):
        yield Wanted(Ask.PRIVILEGED, "hostPath")
    for holder in (pod, *_containers(pod)):
        yield from _context(holder.get("securityContext"))
    for container in _containers(pod):
        ports = container.get("ports")
        if isinstance(ports, list) and any(isinstance(each, dict) and each.get("hostPort") for each in ports):
            yield Wanted(Ask.HOST_NETWORK, "hostPort")


def _context(context: object) -> Iterator[Wanted]:
    """What a security context asks for."""
    if not isinstance(context, dict):
        return
    if context.get("privileged"):
        yield Wanted(Ask.PRIVILEGED, "privileged")
    windows, capabilities = context.get("windowsOptions"), context.get("capabilities")
    if isinstance(windows, dict) and windows.get("hostProcess"):
        yield Wanted(Ask.PRIVILEGED, "hostProcess")
    added = capabilities.get("add") if isinstance(capabilities, dict) else None
    for name in added if isinstance(added, list) else ():
        word = str(name).upper().removeprefix("CAP_")
        if word not in _HARMLESS:
            yield Wanted(Ask.CAPABILITY, word)

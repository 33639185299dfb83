"""The files and secrets of a service as ConfigMaps and Secrets, named after what is in them. Pure.

What is named after its content never changes: it is immutable, two versions share what is the same, and a rollback
finds what it needs. What no group refers to any more is a leftover. The content of a secret never comes in here but
through `filled`, and is in no name and no annotation: names are made of the versions of secrets, which do not reveal
them.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import rfc8785

from reconciler.core.errors import Reason, Stalled
from reconciler.core.kubernetes_json import Json
from reconciler.core.kubernetes_labels import SECRET, Place, Ref, annotation, rendered
from reconciler.core.model import File, SecretTarget, SecretUse, ServiceSpec

LARGEST = 2**20
"""How many bytes a ConfigMap may hold, by the API server's rules."""
CONTENT = "content"
"""The key of a secret as it is, for a file."""
VARIABLE = "variable"
"""The key of a secret as the value of a variable: one newline at the end is not part of it."""
SECRET_MODE = 0o440
"""Who runs in the instance is in the group that owns its volumes, and nobody else is."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Files that go into one ConfigMap, with their keys in it."""

    name: str
    files: tuple[tuple[str, File], ...]


def batches(spec: ServiceSpec) -> tuple[Batch, ...]:
    """The files of a service, in as few ConfigMaps as hold them."""
    found: list[list[File]] = []
    room = 0
    for file in sorted(spec.files, key=lambda file: file.path):
        if not found or len(file.content) > room:
            found.append([])
            room = LARGEST
        found[-1].append(file)
        room -= len(file.content)
    return tuple(_batch(spec.name, files) for files in found)


def _batch(service: str, files: list[File]) -> Batch:
    keyed = tuple((str(index), file) for index, file in enumerate(files))
    content = [[key, hashlib.sha256(file.content).hexdigest()] for key, file in keyed]
    return Batch(f"{service}-files-{_short(content)}", keyed)


def config_maps(spec: ServiceSpec, place: Place, environment: str) -> Iterator[Json]:
    """The ConfigMaps of a service."""
    for batch in batches(spec):
        plain: dict[str, str] = {}
        binary: dict[str, str] = {}
        for key, file in batch.files:
            try:
                plain[key] = file.content.decode()
            except UnicodeDecodeError:
                binary[key] = base64.b64encode(file.content).decode()
        body = {name: data for name, data in (("data", plain), ("binaryData", binary)) if data}
        found = Ref("ConfigMap", batch.name)
        yield rendered(found, place, environment, spec.name, {}, {}, {"immutable": True, **body})


def secret_object(service: str, secret: str, version: str, keys: frozenset[str]) -> str:
    """The name of the Secret that holds a secret's version for a service."""
    return f"{service}-secret-{_short([secret, version, sorted(keys)])}"


def secret_keys(spec: ServiceSpec) -> dict[str, frozenset[str]]:
    """The secrets of a service, and under which keys each is needed."""
    found: dict[str, set[str]] = {}
    for use in spec.secrets:
        found.setdefault(use.secret, set()).add(key_of(use))
    return {secret: frozenset(keys) for secret, keys in sorted(found.items())}


def key_of(use: SecretUse) -> str:
    """The key under which a use of a secret finds it."""
    return VARIABLE if use.kind is SecretTarget.ENV else CONTENT


def secrets(spec: ServiceSpec, place: Place, environment: str, versions: Mapping[str, str]) -> Iterator[Json]:
    """The Secrets of a service without their content: the values of `data` are empty; `filled` puts them in."""
    for secret, keys in secret_keys(spec).items():
        found = Ref("Secret", secret_object(spec.name, secret, versions[secret], keys))
        body: Json = {"type": "Opaque", "immutable": True, "data": dict.fromkeys(sorted(keys), "")}
        yield rendered(found, place, environment, spec.name, {}, {SECRET: secret}, body)


def secret_of(found: Json) -> str | None:
    """The operator's secret that a Secret is for; None for every other object."""
    return annotation(found, SECRET) if found["kind"] == "Secret" else None


def filled(skeleton: Json, content: bytes) -> Json:
    """A Secret with its content. Raises Stalled(SECRET_MISSING) for content that a variable cannot hold."""
    values = {CONTENT: content, VARIABLE: content.removesuffix(b"\n")}
    data = {key: base64.b64encode(values[key]).decode() for key in skeleton["data"]}
    if VARIABLE in data and not _is_text(content):
        raise Stalled(
            Reason.SECRET_MISSING,
            "its content cannot be an environment variable",
            where=f"secret {secret_of(skeleton)}",
            remedy="Give it to the service as a file",
        )
    return {**skeleton, "data": data}


def _is_text(content: bytes) -> bool:
    try:
        return "\0" not in content.decode()
    except UnicodeDecodeError:
        return False


def _short(value: object) -> str:
    return hashlib.sha256(rfc8785.dumps(value)).hexdigest()[:16]  # type: ignore[arg-type]

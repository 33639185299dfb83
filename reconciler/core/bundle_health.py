"""Which objects of a bundle are applied without being waited for. Pure.

Git says it once, in the bundle's file; in the cluster it is an annotation of each such object, so that it can be told
from the object alone, and is a part of the version.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import rfc8785

from reconciler.core.kubernetes_identity import Identity
from reconciler.core.kubernetes_json import Json
from reconciler.core.kubernetes_labels import annotation

HEALTH = "reconciler.dev/health"
IGNORE = "ignore"


class Ignored(NamedTuple):
    """Objects of a kind in whatever group, all of them or the one with this name."""

    kind: str
    name: str = ""

    def covers(self, about: Identity) -> bool:
        """Whether an object is one of these."""
        return about.kind == self.kind and self.name in ("", about.name)

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".rstrip()


def ignored(spec: Mapping[str, Any]) -> tuple[Ignored, ...]:
    """What the `spec` of manifests says in `health.ignore`, in its order."""
    return tuple(Ignored(each["kind"], each.get("name", "")) for each in spec.get("health", {}).get("ignore", ()))


def marked(data: bytes) -> bytes:
    """An object, as JSON (RFC 8785), with the mark that it is not waited for."""
    declared = json.loads(data)
    notes = {**(declared["metadata"].get("annotations") or {}), HEALTH: IGNORE}
    return rfc8785.dumps({**declared, "metadata": {**declared["metadata"], "annotations": notes}})


def is_awaited(live: Json) -> bool:
    """Whether a version is not well before this object is."""
    return annotation(live, HEALTH) != IGNORE

"""What is read of single objects, and what an earlier look made of them, for as long as they are the very same. Pure.

Objects are never changed in place: who has seen one knows it. Nothing here depends on the time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from reconciler.core import names
from reconciler.core.kubernetes_json import Json, number, text
from reconciler.core.kubernetes_labels import GROUP, Ref, annotation, is_owned, label
from reconciler.core.kubernetes_read_groups import neighbours, owner_of
from reconciler.core.kubernetes_read_pods import image_told
from reconciler.core.kubernetes_slim import references
from reconciler.core.live import ImageState

Made = TypeVar("Made")

_VERSION = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """One object of ours. `maker`: the uid of its controller; `active`: whether a ReplicaSet has any instance to keep
    up; `needs` are the files and secrets it refers to; `around` what is looked at with a Deployment; `image` is what a
    pod says of its image; `proper`: it says of which service and version it is."""

    live: Json
    ref: Ref
    service: str
    group: str
    version: str
    revision: str
    uid: str
    maker: str
    active: bool
    needs: frozenset[Ref]
    around: tuple[Ref, ...]
    image: tuple[str, ImageState | None] | None
    proper: bool


def facts(kind: str, live: Json) -> Facts:
    """What is read of an object of that kind."""
    service, version = label(live, names.LABEL_SERVICE), annotation(live, names.LABEL_VERSION)
    return Facts(
        live,
        Ref(kind, text(live, "metadata", "name")),
        service,
        label(live, GROUP),
        version,
        annotation(live, names.LABEL_REVISION),
        text(live, "metadata", "uid"),
        owner_of(live),
        active=kind != "ReplicaSet" or number(live, "spec", "replicas", default=1) > 0,
        needs=references(live) if kind in ("Deployment", "ReplicaSet", "Pod") else frozenset(),
        around=neighbours(live) if kind == "Deployment" else (),
        image=image_told(live) if kind == "Pod" else None,
        proper=bool(service) and _VERSION.fullmatch(version) is not None,
    )


@dataclass
class Told:
    """What the last look at one environment of one owner knew and made. Each look replaces all of it."""

    objects: dict[str, dict[int, tuple[Json, Facts | None]]] = field(default_factory=dict)
    made: dict[Hashable, tuple[tuple[object, ...], Any]] = field(default_factory=dict)


class Look:
    """One look, which knows what was `told` at the last one."""

    def __init__(self, told: Told, owner: str, environment: str) -> None:
        self._before = told
        self._mine = owner, environment
        self._objects: dict[str, dict[int, tuple[Json, Facts | None]]] = {}
        self._made: dict[Hashable, tuple[tuple[object, ...], Any]] = {}

    def ours(self, kind: str, objects: Iterable[Json]) -> list[Facts]:
        """Those objects that are ours."""
        known, kept = self._before.objects.get(kind, {}), self._objects.setdefault(kind, {})
        found = []
        for live in objects:
            told = known.get(id(live))
            if told is None or told[0] is not live:
                told = live, facts(kind, live) if is_owned(live, *self._mine) else None
            kept[id(live)] = told
            if told[1] is not None:
                found.append(told[1])
        return found

    def made(self, key: Hashable, inputs: tuple[object, ...], make: Callable[[], Made]) -> Made:
        """What `make` comes to, a function of `inputs` alone: made anew only where these are not the ones of before."""
        known = self._before.made.get(key)
        if known is None or known[0] != inputs:
            known = inputs, make()
        self._made[key] = known
        found: Made = known[1]
        return found

    def over(self) -> None:
        """Remember what this look knew."""
        self._before.objects, self._before.made = self._objects, self._made

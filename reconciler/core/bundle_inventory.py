"""What belongs to a bundle of plain manifests, written down in the cluster: a ConfigMap that stands for the bundle.

It names every object that may exist: those of the version in their order, and those of older versions that are still to
go. It is written before anything is applied and narrowed after the last removal, so that a crash leaves nothing
unknown. `operated` is in it only when all of the version was applied. Pure.

With each object stand two short digests: of what was applied, to know without asking whether it has to be applied
again, and of the values that our fields had in the answer, to know whether somebody changed them since. Values of
Secrets are in neither.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

from reconciler.core import names
from reconciler.core.kubernetes_identity import Identity, group_of, identity_of
from reconciler.core.kubernetes_json import Json, items, moment, table, text
from reconciler.core.kubernetes_labels import OPERATED, Place, annotation, label, ownership
from reconciler.core.kubernetes_read_pods import EPOCH
from reconciler.core.managed_fields import digest, owned

INVENTORY = "inventory"
"""The role of the ConfigMap."""
MEMBER = "bundle"
"""The role of each object of a bundle."""
PRUNE = names.LABEL + "prune"
TIME_TO_LIVE = "ttlSecondsAfterFinished"
"""Of a Job: when the cluster removes it, in seconds after its end."""
_SHORT = 16
_NONE = "-"
_BETWEEN = "\t"
_DEFINITION = ("apiextensions.k8s.io", "CustomResourceDefinition")


class Entry(NamedTuple):
    """An object of a bundle, with the version of the API by which it is applied. `applied` and `held` are digests."""

    identity: Identity
    version: str
    applied: str = ""
    held: str = ""

    @property
    def api_version(self) -> str:
        """As in a manifest: `apps/v1`."""
        return f"{self.identity.group}/{self.version}" if self.identity.group else self.version


@dataclass(frozen=True, slots=True)
class Inventory:
    """A bundle as it stands in the cluster: `objects` are those of its version, `leaving` those that are still to go.

    `operated` is empty while the version is being applied. Without `prune` nothing of it is ever removed.
    """

    name: str
    version: str
    revision: str
    image: str
    operated: str
    prune: bool
    objects: tuple[Entry, ...]
    leaving: tuple[Entry, ...] = ()
    created_at: datetime = EPOCH

    def entries(self) -> Iterator[Entry]:
        """All of them."""
        yield from self.objects
        yield from self.leaving


def is_inventory(found: Mapping[str, Any]) -> bool:
    """Whether a ConfigMap of ours stands for a bundle."""
    return label(found, names.LABEL_ROLE) == INVENTORY


def written(inventory: Inventory, place: Place, environment: str) -> Json:
    """The ConfigMap to apply."""
    marks = {**ownership(place.owner, environment), names.LABEL_SERVICE: inventory.name}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": names.inventory(inventory.name),
            "namespace": place.namespace,
            "labels": {**marks, names.LABEL_ROLE: INVENTORY},
            "annotations": {
                names.LABEL_VERSION: inventory.version,
                names.LABEL_REVISION: inventory.revision,
                names.LABEL_IMAGE: inventory.image,
                OPERATED: inventory.operated,
                PRUNE: "true" if inventory.prune else "false",
            },
        },
        "data": {"objects": _lines(inventory.objects), "leaving": _lines(inventory.leaving)},
    }


def inventory_of(found: Json) -> Inventory:
    """The bundle that such a ConfigMap stands for; lines that nobody of us wrote are left out."""
    return Inventory(
        label(found, names.LABEL_SERVICE),
        annotation(found, names.LABEL_VERSION),
        annotation(found, names.LABEL_REVISION),
        annotation(found, names.LABEL_IMAGE),
        annotation(found, OPERATED),
        annotation(found, PRUNE) == "true",
        tuple(_entries(text(found, "data", "objects"))),
        tuple(_entries(text(found, "data", "leaving"))),
        moment(found, "metadata", "creationTimestamp") or EPOCH,
    )


def same(one: Inventory, other: Inventory) -> bool:
    """Whether both say the same."""
    return replace(one, created_at=EPOCH) == replace(other, created_at=EPOCH)


def _lines(entries: Iterable[Entry]) -> str:
    return "".join(
        f"{_BETWEEN.join((str(each.identity), each.version, each.applied or _NONE, each.held or _NONE))}\n"
        for each in entries
    )


def _entries(lines: str) -> Iterator[Entry]:
    for line in lines.split("\n"):
        parts = line.split(_BETWEEN)
        identity = identity_of(parts[0])
        if identity is not None and len(parts) == 4:
            yield Entry(identity, parts[1], *("" if part == _NONE else part for part in parts[2:]))


def rendered(declared: Json, identity: Identity, place: Place, environment: str, service: str) -> Json:
    """A declared object as it is applied: in its namespace, with our labels. `identity` has the real namespace.

    The text of a Secret goes to `data`: the API server would do that too, and then own nothing that can be compared.
    What is no text stays where it is, for the API server to refuse. A Job is left without a time to live: once it was
    removed nothing would tell that it has run, and it would run again.
    """
    about = {key: value for key, value in declared["metadata"].items() if key != "namespace"}
    if identity.namespace:
        about["namespace"] = identity.namespace
    marks = {**ownership(place.owner, environment), names.LABEL_SERVICE: service, names.LABEL_ROLE: MEMBER}
    about["labels"] = {**table(about, "labels"), **marks}
    found = {**declared, "metadata": about}
    plain = found.get("stringData") if identity[:2] == ("", "Secret") else None
    if isinstance(plain, dict) and all(isinstance(value, str) for value in plain.values()):
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in found.pop("stringData").items()}
        found["data"] = {**table(found, "data"), **encoded}
    if removes_itself(identity, found):
        found["spec"] = {key: value for key, value in found["spec"].items() if key != TIME_TO_LIVE}
    return found


def removes_itself(about: Identity, declared: Json) -> bool:
    """Whether an object is a Job that the cluster would remove some time after its end."""
    return about[:2] == ("batch", "Job") and TIME_TO_LIVE in table(declared, "spec")


def entry_of(wanted: Json, identity: Identity, version: str) -> Entry:
    """The line of an object that is to be applied for the bundle's `version`."""
    secret = identity[:2] == ("", "Secret")
    shape = version if secret else json.dumps(wanted, sort_keys=True, separators=(",", ":"))
    short = hashlib.sha256(shape.encode(errors="surrogatepass")).hexdigest()[:_SHORT]
    return Entry(identity, wanted["apiVersion"].rpartition("/")[2], short)


def held(live: Json) -> str:
    """The digest of the values that our fields have; of a Secret only which fields these are."""
    return digest(owned(live), text(live, "kind"))[:_SHORT]


class Defined(NamedTuple):
    """A kind that a CustomResourceDefinition adds."""

    api_version: str
    kind: str
    namespaced: bool


def defined(declared: Json) -> Iterator[Defined]:
    """The kinds that an object adds to the cluster, one for each version served: none where it is no definition."""
    if (group_of(text(declared, "apiVersion")), text(declared, "kind")) != _DEFINITION:
        return
    group, kind = text(declared, "spec", "group"), text(declared, "spec", "names", "kind")
    namespaced = text(declared, "spec", "scope") == "Namespaced"
    for version in items(declared, "spec", "versions"):
        if version.get("served") is True:
            yield Defined(f"{group}/{text(version, 'name')}", kind, namespaced)

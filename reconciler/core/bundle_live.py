"""A bundle of plain manifests as a group: read from its inventory and from what its objects show. Pure.

Of each object little is kept: where it stands by the rules of kstatus, a digest of the values of our fields, and who
changed what of it since it was applied.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from reconciler.core import kstatus, names
from reconciler.core.bundle_health import is_awaited
from reconciler.core.bundle_inventory import Entry, Inventory, held
from reconciler.core.errors import Reason, ReconcilerError
from reconciler.core.kstatus import Standing, State
from reconciler.core.kubernetes_json import Json, items, one_line, table, text
from reconciler.core.kubernetes_labels import MANAGER, label
from reconciler.core.live import Difference, Group
from reconciler.core.managed_fields import CONTENT, MAX_DEPTH, MAX_DIFFERENCES, Path, at, is_of, said_by, words

TOLD = 3
"""So many changes are told of one object."""
_METADATA = ("name", "uid", "resourceVersion")

Look = Callable[[Entry], Json | ReconcilerError | None]
"""What is known of an object: its small form, None when it does not exist, an error when nobody can know."""


def small(live: Json) -> Json:
    """What is kept of an object, as the API server answers it with apiVersion and kind."""
    return {
        "kind": text(live, "kind"),
        "metadata": {key: text(live, "metadata", key) for key in _METADATA},
        "service": label(live, names.LABEL_SERVICE),
        "standing": kstatus.judge(live) if is_awaited(live) else kstatus.CURRENT,
        "held": held(live),
        "changes": tuple(_changes(live)),
    }


@dataclass
class _Sum:
    """What comes together while the objects are looked at. `waits` and `failed` keep it from being settled."""

    waits: list[tuple[Reason | None, str]] = field(default_factory=list)
    failed: list[tuple[Reason | None, str]] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)


def group(inventory: Inventory, look: Look) -> Group:
    """The group that stands for a bundle: settled when each of its objects is current."""
    found = _Sum()
    for entry in inventory.objects:
        _judge(entry, look(entry), inventory, found)
    left = [entry for entry in inventory.leaving if _exists(look(entry), inventory)]
    reason, detail = next(iter([*found.failed, *found.waits]), (None, ""))
    settled = bool(inventory.operated) and not found.failed and not found.waits
    return Group(
        name=inventory.name,
        service=inventory.name,
        version=inventory.version,
        revision=inventory.revision,
        image=inventory.image,
        operated=inventory.operated,
        replicas=1,
        ready=int(settled),
        settled=settled,
        created_at=inventory.created_at,
        reason=reason,
        detail=detail,
        differences=tuple(found.differences[:MAX_DIFFERENCES]),
        inventory=tuple(str(entry.identity) for entry in (*inventory.objects, *left)),
        leftovers=tuple(str(entry.identity) for entry in left),
    )


def _exists(found: Json | ReconcilerError | None, inventory: Inventory) -> bool:
    return isinstance(found, ReconcilerError) or (found is not None and found["service"] == inventory.name)


def _judge(entry: Entry, seen: Json | ReconcilerError | None, inventory: Inventory, found: _Sum) -> None:
    shown = entry.identity.shown
    if isinstance(seen, ReconcilerError):
        found.failed.append((seen.reason, f"{shown}: {seen}"))
        return
    if seen is None or not _exists(seen, inventory):
        if inventory.operated:
            found.differences.append(Difference(Reason.DRIFT_MISSING, f"{shown} is gone"))
        found.waits.append((None, f"{shown}: {'gone' if inventory.operated else 'not applied yet'}"))
        return
    standing: Standing = seen["standing"]
    if standing.state is not State.CURRENT:
        told = found.failed if standing.state is State.FAILED else found.waits
        told.append((_reason(standing), f"{shown}: {standing.said}"))
    if inventory.operated and seen["held"] != entry.held:
        changes = seen["changes"] or ("it is no longer as it was applied",)
        found.differences += [Difference(Reason.DRIFT_CHANGED, f"{shown}: {each}") for each in changes]


def _reason(standing: Standing) -> Reason | None:
    """Our word for what a controller says; none while it is only busy."""
    low = standing.said.lower()
    if "exceeded quota" in low or "failed quota" in low:
        return Reason.QUOTA_EXCEEDED
    if standing.reason == "Unschedulable":
        return Reason.UNSCHEDULABLE
    if standing.reason == "FailedCreate":  # Pod Security, a limit range, an admission webhook; or else the API itself
        return Reason.POLICY_DENIED if "forbidden" in low or "denied" in low else Reason.ENGINE_REFUSED
    return Reason.UNHEALTHY if standing.state is State.FAILED else None


def _changes(live: Json) -> Iterator[str]:
    """Which fields others set since our last apply. Not each of them is drift: whether there is any, a digest tells."""
    entries = items(live, "metadata", "managedFields")
    since = max((text(entry, "time") for entry in entries if is_of(entry, MANAGER)), default="")
    told = 0
    for entry in entries:
        status, when = text(entry, "subresource") == "status", text(entry, "time")
        if text(entry, "manager") == MANAGER or status or (when and when < since):  # a scale comes without a time
            continue
        for path in _leaves(table(entry, "fieldsV1"), ()):
            if path[:2] == ("f:metadata", "f:annotations"):
                continue
            if told == TOLD:
                return
            told += 1
            yield f"{words(path)}{_shown(live, path)}{said_by(_named(entry))}"


def _named(entry: Mapping[str, Any]) -> str:
    through = text(entry, "subresource")
    return f"{text(entry, 'manager')} ({through})" if through else text(entry, "manager")


def _leaves(fields: Mapping[str, Any], path: Path) -> Iterator[Path]:
    for element, below in fields.items():
        if element == ".":
            continue
        here = (*path, element)
        if isinstance(below, dict) and below.keys() - {"."} and len(here) < MAX_DEPTH:
            yield from _leaves(below, here)
        else:
            yield here


def _shown(live: Json, path: Path) -> str:
    """The value at `path` where it is a short one and nobody's secret."""
    if CONTENT & set(path):
        return " was changed"
    value = at(live, path)
    if isinstance(value, bool | int | float) or (isinstance(value, str) and 0 < len(value) <= 80):
        return f": now {one_line(json.dumps(value))}"
    return " was changed"

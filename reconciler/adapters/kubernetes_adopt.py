"""An object that we created becomes one that we apply: our entry in its managedFields is rewritten to that.

An object can be made without ever touching one of somebody else only by a POST, which fails where there is one. But a
POST counts as an Update, whose fields no later apply would take away, and it owns all defaults as well. So right after
it the list of owners becomes what an apply would have left there. What a controller noted of itself in that instant is
lost with it, and noted again when it acts next: nothing depends on that. Values only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.core.added_fields import tree
from reconciler.core.kubernetes_json import Json, items, table, text
from reconciler.core.kubernetes_labels import MANAGER
from reconciler.core.managed_fields import as_applied, field_set, is_of, our_entry, owners_patch


def entry_of(found: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The entry of our creation in its managedFields; None when there is none (any more).

    Beside one of our applies it is somebody else's, under our name.
    """
    entries = items(found, "metadata", "managedFields")
    if any(is_of(entry, MANAGER) for entry in entries):
        return None
    return next((entry for entry in entries if _is_creation(entry)), None)


def _is_creation(entry: Mapping[str, Any]) -> bool:
    return (text(entry, "manager"), text(entry, "operation"), text(entry, "subresource")) == (MANAGER, "Update", "")


def as_adopted(made: Json) -> Json | None:
    """An object whose creation was not finished as it would be by now if it had been; None where it does not say what
    was applied, as empty ConfigMaps do not."""
    applied = as_applied(made)
    if not applied:
        return None
    entries = [*_others(made), _entry(made, tree(applied))]
    return {**made, "metadata": {**made["metadata"], "managedFields": entries}}


def adoption(made: Json, wanted: Json) -> list[Json]:
    """The JSON patch that makes the fields of `wanted`, and no others, applied ones of the object `made`."""
    return owners_patch(made, [_entry(made, field_set(wanted))], state="uid")


def conversion(live: Json) -> list[Json]:
    """The JSON patch that makes the fields of our creation applied ones; an apply afterwards makes them exact.

    Some time has passed since: what others set meanwhile stays theirs, so that it is told.
    """
    return owners_patch(live, [*_others(live), _entry(live, table(entry_of(live), "fieldsV1"))], state="uid")


def _others(made: Json) -> list[Mapping[str, Any]]:
    return [entry for entry in items(made, "metadata", "managedFields") if not _is_creation(entry)]


def _entry(made: Json, fields: Mapping[str, Any]) -> Json:
    return our_entry(text(made, "apiVersion"), fields, entry_of(made))

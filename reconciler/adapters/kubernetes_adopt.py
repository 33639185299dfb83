"""An object that we created becomes one that we apply: our entry in its managedFields is rewritten to that.

An object can be made without ever touching one of somebody else only by a POST, which fails where there is one. But a
POST counts as an Update, whose fields no later apply would take away, and it owns all defaults as well. So right after
it the list of owners becomes what an apply would have left there. What a controller noted of itself in that instant is
lost with it, and noted again when it acts next: nothing depends on that. Values only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.core.kubernetes_json import Json, items, table, text
from reconciler.core.kubernetes_labels import MANAGER
from reconciler.core.managed_fields import field_set


def entry_of(found: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The entry of our creation in its managedFields; None when there is none (any more)."""
    for entry in items(found, "metadata", "managedFields"):
        mine = (text(entry, "manager"), text(entry, "operation"), text(entry, "subresource"))
        if mine == (MANAGER, "Update", ""):
            return entry
    return None


def adoption(made: Json, wanted: Json) -> list[Json]:
    """The JSON patch that makes the fields of `wanted`, and no others, applied ones of the object `made`."""
    return _owned(made, {**_entry(made), "fieldsV1": field_set(wanted)})


def conversion(live: Json) -> list[Json]:
    """The JSON patch that makes the fields of our creation applied ones; an apply afterwards makes them exact."""
    return _owned(live, _entry(live))


def _entry(made: Json) -> Json:
    return {"apiVersion": made["apiVersion"], "fieldsType": "FieldsV1", "manager": MANAGER, **(entry_of(made) or {})}


def _owned(made: Json, entry: Json) -> list[Json]:
    return [
        {"op": "test", "path": "/metadata/uid", "value": table(made, "metadata")["uid"]},
        {"op": "replace", "path": "/metadata/managedFields", "value": [{**entry, "operation": "Apply"}]},
    ]

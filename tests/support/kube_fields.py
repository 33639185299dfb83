"""Who owns which fields of an object in the fake of the Kubernetes API, in FieldsV1, and what an apply comes to."""

from __future__ import annotations

import copy
import json
from typing import Any

Json = dict[str, Any]
KEYED = {
    "containers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "ports": ("port", "protocol"),
}
WHOLE = ("selector", "scaleTargetRef", "labelSelector", "secretKeyRef")


def entries(found: Json) -> list[Json]:
    return found["metadata"].setdefault("managedFields", [])


def own(found: Json, manager: str, operation: str, fields: Json) -> None:
    """Make `manager` the owner of these fields; where it applies or updates, others lose them."""
    held = entries(found)
    for entry in held:
        _lose(entry["fieldsV1"], fields)
    held[:] = [e for e in held if (e["manager"], e["operation"]) != (manager, operation) and e["fieldsV1"]]
    held.append({"manager": manager, "operation": operation, "fieldsType": "FieldsV1", "fieldsV1": fields})


def _lose(mine: Json, theirs: Json) -> None:
    for key in list(mine):
        if key in theirs:
            if not mine[key] or not theirs[key]:
                del mine[key]
            else:
                _lose(mine[key], theirs[key])
                if not mine[key]:
                    del mine[key]


def fields_of(value: Json, top: bool = True) -> Json:
    found: Json = {}
    if top:
        given = value.get("metadata", {})
        about = {part: given[part] for part in ("labels", "annotations") if part in given}
        value = {key: each for key, each in value.items() if key not in ("apiVersion", "kind", "metadata", "status")}
        value |= {"metadata": about} if about else {}
    for key, each in value.items():
        by = KEYED.get(key)
        if isinstance(each, dict) and each and key not in WHOLE:
            found[f"f:{key}"] = fields_of(each, False)
        elif by and isinstance(each, list) and each and isinstance(each[0], dict):
            found[f"f:{key}"] = {_key(one, by): {".": {}, **fields_of(one, False)} for one in each}
        else:
            found[f"f:{key}"] = {}
    return found


def _key(one: Json, keys: tuple[str, ...]) -> str:
    named = ("containerPort", "protocol") if "containerPort" in one else keys
    found = {key: one.get(key, "TCP" if key == "protocol" else None) for key in named}
    return "k:" + json.dumps(found, separators=(",", ":"))


def merge(into: Json, value: Json) -> None:
    """A merge patch: None takes away, lists are replaced."""
    for key, each in value.items():
        if each is None:
            into.pop(key, None)
        elif isinstance(each, dict) and isinstance(into.get(key), dict) and key != "selector":
            merge(into[key], each)
        else:
            into[key] = copy.deepcopy(each)


def drop(live: Json, fields: Json, wanted: Json) -> None:
    """Take away what was applied before and is not any more."""
    for key, below in fields.items():
        name = key.removeprefix("f:")
        if key.startswith("f:") and isinstance(live, dict) and name in live:
            if name not in wanted:
                del live[name]
            elif below and isinstance(live[name], dict):
                drop(live[name], below, wanted[name])


def patch(found: Any, step: Json) -> None:
    """One step of a JSON patch. Raises ValueError."""
    *way, last = step["path"].strip("/").split("/")
    try:
        for word in way:
            found = found[int(word) if isinstance(found, list) else word]
        place: Any = int(last) if isinstance(found, list) else last
        if step["op"] == "test":
            assert found[place] == step["value"]
        else:
            found[place] = step["value"]
    except (KeyError, IndexError, AssertionError) as error:
        raise ValueError(step["path"]) from error

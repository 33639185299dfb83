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


def own(found: Json, manager: str, operation: str, fields: Json, before: Json | None = None) -> None:
    """Make `manager` the owner of these fields. Whoever had one whose value is another than in `before` loses it, and
    all lose what is not there any more. An apply owns nothing else, an update also what it owned before."""
    held = entries(found)
    who = (manager, operation)
    mine = [entry["fieldsV1"] for entry in held if (entry["manager"], entry["operation"]) == who]
    held[:] = [entry for entry in held if (entry["manager"], entry["operation"]) != who]
    changed = fields if before is None else differing(before, found)
    for entry in held:
        _lose(entry["fieldsV1"], changed)
        _prune(entry["fieldsV1"], found)
    held[:] = [entry for entry in held if entry["fieldsV1"]]
    if operation == "Update" and mine:
        fields = united(mine[0], fields)
        _prune(fields, found)
    if fields:
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


def _prune(fields: Json, found: Any) -> None:
    for key in [key for key in fields if key != "."]:
        inner = located(found, key)
        if inner is None:
            del fields[key]
        else:
            _prune(fields[key], inner)


def united(one: Json, other: Json) -> Json:
    found = dict(one)
    for key, below in other.items():
        found[key] = united(found[key], below) if key in found else below
    return found


def located(value: Any, key: str) -> Any:
    """What an element of FieldsV1 leads to; None when it is not there."""
    if key.startswith("f:"):
        return value.get(key[2:]) if isinstance(value, dict) else None
    wanted = json.loads(key[2:])
    return next((one for one in value if wanted.items() <= {"protocol": "TCP", **one}.items()), None)


def differing(before: Json, after: Json, top: bool = True) -> Json:
    """The fields that are new or have another value."""
    if top:
        before, after = _declared(before), _declared(after)
    found: Json = {}
    for key, each in after.items():
        was, by = before.get(key), KEYED.get(key)
        if was == each:
            continue
        if isinstance(each, dict) and isinstance(was, dict) and key not in WHOLE:
            inner = differing(was, each, False)
        elif by and isinstance(each, list) and isinstance(was, list):
            inner = {_key(one, by): _item(one, located(was, _key(one, by))) for one in each if one not in was}
        else:
            whole = fields_of({key: each}, False)[f"f:{key}"]
            found[f"f:{key}"] = {".": {}, **whole} if whole else {}
            continue
        if inner:
            found[f"f:{key}"] = inner
    return found


def _item(one: Json, was: Json | None) -> Json:
    return differing(was, one, False) if was is not None else {".": {}, **fields_of(one, False)}


def _declared(value: Json) -> Json:
    given = value.get("metadata", {})
    about = {part: given[part] for part in ("labels", "annotations") if part in given}
    value = {key: each for key, each in value.items() if key not in ("apiVersion", "kind", "metadata", "status")}
    return value | ({"metadata": about} if about else {})


def fields_of(value: Json, top: bool = True) -> Json:
    found: Json = {}
    if top:
        value = _declared(value)
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


def applied(known: Json, body: Json, manager: str) -> Json:
    """An object after an apply by force."""
    found = copy.deepcopy(known)
    mine: Json = {}
    others: Json = {}
    for entry in entries(found):
        if (entry["manager"], entry["operation"]) == (manager, "Apply"):
            mine = entry["fieldsV1"]
        else:
            others = united(others, entry["fieldsV1"])
    _drop(found, mine, body, others)
    _set(found, body)
    own(found, manager, "Apply", fields_of(body), known)
    return found


def _set(into: Json, value: Json) -> None:
    """Items of lists that are owned one by one stay where they are not named."""
    for key, each in value.items():
        by = KEYED.get(key)
        if isinstance(each, dict) and isinstance(into.get(key), dict) and key not in WHOLE:
            _set(into[key], each)
        elif by and isinstance(each, list) and isinstance(into.get(key), list):
            for one in each:
                known = located(into[key], _key(one, by))
                if known is None:
                    into[key].append(copy.deepcopy(one))
                else:
                    _set(known, one)
        else:
            into[key] = copy.deepcopy(each)


def _drop(live: Any, fields: Json, wanted: Any, others: Json) -> None:
    """Take away what was applied before, is not any more, and nobody else owns."""
    for key in [key for key in fields if key != "." and located(live, key) is not None]:
        below, inner = fields[key], located(wanted, key) if wanted else None
        if inner is None and key not in others and (not below or "." in below):
            if isinstance(live, list):
                live.remove(located(live, key))
            else:
                del live[key[2:]]
        elif below:
            _drop(located(live, key), below, inner, others.get(key, {}))


def count(before: Json, after: Json) -> None:
    """Another generation for every change of what is declared, as the real one counts."""
    if before.get("spec") != after.get("spec"):
        after["metadata"]["generation"] += 1


def patch(found: Any, step: Json) -> None:
    """One step of a JSON patch. Raises ValueError."""
    *way, last = step["path"].strip("/").split("/")
    try:
        for word in way:
            found = found[int(word) if isinstance(found, list) else word]
        place: Any = int(last) if isinstance(found, list) else last
        found[place] = step["value"]
    except (KeyError, IndexError) as error:
        raise ValueError(step["path"]) from error

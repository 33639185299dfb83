"""Which fields of an object are ours, and which of them were changed since they were applied. Pure, for any kind.

An API server keeps for every field who set it last (`metadata.managedFields`, format FieldsV1: `f:` a field, `k:` an
item of a list by its keys, `v:` an item by its value, `.` the thing itself). Ours are those that our manager applied.
Fields that others added are theirs; which of them are drift all the same is said by `core/added_fields.py`.

What was applied stands on the object in two annotations: SHAPE, a digest of all fields and values, tells at once that
nothing changed; APPLIED, the same as a tree in the form of FieldsV1, lets a difference be told in words. It holds short
values as they are and digests of long ones, so that it takes 2 to 5 KiB for a Deployment; beyond MAX_RECORD it is left
out, and a difference is only told as such. The content of a Secret is in neither.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from reconciler.core import names
from reconciler.core.errors import Reason
from reconciler.core.kubernetes_json import Json, items, one_line, table, text
from reconciler.core.kubernetes_labels import APPLIED, MANAGER, annotation
from reconciler.core.live import Difference

Path = tuple[str, ...]
"""Elements as in FieldsV1: `f:spec`, `k:{"name":"main"}`."""

SHAPE = names.LABEL_SHAPE
MAX_RECORD = 24 * 1024
MAX_DIFFERENCES = 5
MAX_DEPTH = 30
MAX_VALUE = 160

_ENCODE = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
_BETWEEN = "\0"
PAUSED = ("f:spec", "f:paused")
_ASIDE = (("f:metadata", "f:annotations", f"f:{SHAPE}"), ("f:metadata", "f:annotations", f"f:{APPLIED}"), PAUSED)
"""Not compared: what is said of the comparison itself, and a field that the API server leaves out where it is false."""
_KEYS: dict[str, tuple[tuple[str, ...], ...]] = {
    "containers": (("name",),),
    "env": (("name",),),
    "volumes": (("name",),),
    "volumeMounts": (("mountPath",),),
    "topologySpreadConstraints": (("topologyKey", "whenUnsatisfiable"),),
    "ports": (("containerPort", "protocol"), ("port", "protocol")),
}
"""The lists of the kinds we write whose items are owned one by one, and what tells the items apart."""
_WHOLE = frozenset({"selector", "labelSelector", "secretKeyRef"})
"""The mappings of the kinds we write that are owned as a whole."""
CONTENT = frozenset({"f:env", "f:data", "f:binaryData", "f:stringData"})
"""Values below these are not shown: they may be long, or nobody else's business."""


def owned(live: Json, manager: str = MANAGER) -> dict[Path, Any]:
    """The fields that `manager` applied and still owns, with their live values (None: it is not there)."""
    found: dict[Path, Any] = {}
    for entry in _entries(live):
        if is_of(entry, manager):
            _gather(table(entry, "fieldsV1"), live, (), found)
    for path in _ASIDE:
        found.pop(path, None)
    return found


def holds(live: Json, manager: str, path: Sequence[str]) -> bool:
    """Whether `manager` applied and still owns the field at `path`, given by its names."""
    wanted = tuple(f"f:{name}" for name in path)
    return any(is_of(entry, manager) and _has(entry, wanted) for entry in _entries(live))


def holder(live: Json, path: Path, besides: str = MANAGER) -> str:
    """Who else set the field at `path`, or something in it, last; empty when nobody did."""
    found = [
        entry
        for entry in _entries(live)
        if not is_of(entry, besides) and text(entry, "subresource") != "status" and _has(entry, path)
    ]
    if not found:
        return ""
    last = max(found, key=lambda entry: text(entry, "time"))
    name, through = text(last, "manager"), text(last, "subresource")
    return f"{name} ({through})" if through else name


def stamped(rendered: Json) -> Json:
    """An object with what is applied by it in its annotations."""
    flat = {path: value for path, value in _flat(rendered) if path not in _ASIDE}
    metadata = rendered["metadata"]
    notes = {**metadata.get("annotations", {}), SHAPE: digest(flat, rendered["kind"])}
    record = _ENCODE(_tree(flat, rendered["kind"]))
    if len(record) <= MAX_RECORD:
        notes[APPLIED] = record
    return {**rendered, "metadata": {**metadata, "annotations": notes}}


def field_set(rendered: Json) -> Json:
    """The fields of an object of ours in the form of FieldsV1, as an apply of it leaves them in `managedFields`."""
    root: Json = {}
    for path, _ in _flat(rendered):
        node = root
        for element in path:
            node = node.setdefault(element, {".": {}} if element.startswith("k:") else {})
    return root


def digest(fields: Mapping[Path, Any], kind: str) -> str:
    """The digest of fields and their values, as 64 hex digits."""
    lines = sorted(f"{_BETWEEN.join(path)}={_text(path, value, kind)}" for path, value in fields.items())
    return hashlib.sha256("\n".join(lines).encode(errors="surrogatepass")).hexdigest()


def drifted(live: Json, manager: str = MANAGER, kind: str = "") -> tuple[Difference, ...]:
    """The ways in which an object is no longer as `manager` applied it: at most MAX_DIFFERENCES, in a stable order.

    Objects in the answer to a list do not say their `kind`; then it has to be given.
    """
    kind = kind or text(live, "kind")
    mine = owned(live, manager)
    paused = [_line(PAUSED, "false", "true", holder(live, PAUSED))] if at(live, PAUSED) is True else []
    if annotation(live, SHAPE) == digest(mine, kind):
        return tuple(Difference(Reason.DRIFT_CHANGED, each) for each in paused)
    found = [*paused, *_changes(live, mine, as_applied(live), manager, kind)]
    if len(found) > MAX_DIFFERENCES:
        found[MAX_DIFFERENCES - 1 :] = [f"and {len(found) - MAX_DIFFERENCES + 1} more fields"]
    return tuple(Difference(Reason.DRIFT_CHANGED, each) for each in found)


def _changes(
    live: Json, mine: Mapping[Path, Any], record: Mapping[Path, str], manager: str, kind: str
) -> Iterator[str]:
    if not mine or not record:
        yield "it is no longer as it was applied" if mine else "no field of it is ours any more"
        return
    changed = False
    for path, applied in record.items():
        shown = _abridged(_text(path, mine[path], kind)) if path in mine else None
        if shown != applied:
            changed = True
            value = at(live, path)
            yield _line(path, applied, _abridged(_text(path, value, kind)), holder(live, path, manager))
    for path in sorted(mine.keys() - record.keys()):
        changed = True
        yield _line(path, "null", _abridged(_text(path, mine[path], kind)), manager)
    if not changed:
        by = holder(live, _ASIDE[0], manager) or holder(live, _ASIDE[1], manager)
        yield f"what says how it was applied was changed{said_by(by)}"


def _line(path: Path, before: str, after: str, by: str) -> str:
    if CONTENT & set(path):
        change = "was removed" if after == "null" else "was changed"
        return f"{words(path)} {change}{said_by(by)}"
    if before == after:
        return f"{words(path)} is no longer ours{said_by(by)}"
    if before.startswith("#") and after.startswith("#"):
        return f"{words(path)} was changed{said_by(by)}"
    return f"{words(path)}: {_shown(before)} -> {_shown(after)}{said_by(by)}"


def said_by(name: str) -> str:
    """Who did something, as the end of a sentence."""
    return f" by {one_line(name, 80)}" if name else ""


def _shown(value: str) -> str:
    if value == "null":
        return "none"
    return "a long text" if value.startswith("#") else value.strip('"')


def words(path: Path) -> str:
    """A path as people write it: `spec.template.spec.containers[name=main].image`."""
    found = ""
    for element in path:
        kind, _, name = element.partition(":")
        if kind == "f":
            found += f".{name}" if found else name
        else:
            keys = _element(name)
            inner = ",".join(f"{k}={v}" for k, v in keys.items()) if isinstance(keys, dict) else name
            found += f"[{inner}]"
    return one_line(found)


def _entries(live: Json) -> list[Mapping[str, Any]]:
    return items(live, "metadata", "managedFields")


def is_of(entry: Mapping[str, Any], manager: str) -> bool:
    """Whether an entry of `managedFields` is that of the applies of `manager`."""
    mine = (text(entry, "manager"), text(entry, "operation"), text(entry, "subresource"))
    return mine == (manager, "Apply", "")


def _has(entry: Mapping[str, Any], path: Path) -> bool:
    """Whether the fields of an entry have `path`, something below it, or all of what it is in."""
    fields = table(entry, "fieldsV1")
    for element in path:
        if element not in fields:
            return False
        fields = table(fields, element)
        if not fields.keys() - {"."}:
            return True
    return True


def _gather(fields: Mapping[str, Any], value: object, path: Path, found: dict[Path, Any]) -> None:
    """Add the leaves of `fields` with their live values: this is done for each object that an API server tells of."""
    for element, below in fields.items():
        if element == ".":
            continue
        here, inner = (*path, element), step(value, element)
        if isinstance(below, dict) and below and (len(below) > 1 or "." not in below):
            _gather(below, inner, here, found)
        else:
            found[here] = inner


def step(value: object, element: str) -> Any:  # noqa: ANN401 - JSON
    """What an element of a path leads to in a live value; None when it is not there."""
    kind, name = element[:1], element[2:]
    if kind == "f":
        return value.get(name) if isinstance(value, dict) else None
    wanted = _element(name)
    for each in value if isinstance(value, list) else ():
        if kind == "v" and each == wanted:
            return each
        if kind == "k" and isinstance(each, dict) and isinstance(wanted, dict) and wanted.items() <= each.items():
            return each
    return None


def at(value: object, path: Path) -> Any:  # noqa: ANN401 - JSON
    """The live value at a path; None when it is not there."""
    for element in path:
        value = step(value, element)
    return value


@lru_cache(maxsize=4096)
def _element(value: str) -> Any:  # noqa: ANN401 - JSON
    """Keys of items: the same few over and over."""
    return _parsed(value)


def _parsed(value: str) -> Any:  # noqa: ANN401 - JSON
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def our_entry(api_version: str, fields: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> Json:
    """The entry of managedFields by which we applied these fields. `before`: the one that becomes it."""
    mine = {"apiVersion": api_version, "fieldsType": "FieldsV1", "manager": MANAGER, **(before or {})}
    return {**mine, "operation": "Apply", "fieldsV1": fields}


def owners_patch(live: Json, entries: Sequence[Mapping[str, Any]], *, state: str = "resourceVersion") -> list[Json]:
    """The JSON patch that makes `entries` the managedFields of an object in this state of it, or with `state` "uid" in
    any state of just this object.

    What is replaced by another value is refused: a resourceVersion as a conflict (409), a uid as a change of it (422
    that names the field). A failed `test` would be told as an invalid request. So does client-go (util/csaupgrade).
    """
    return [
        {"op": "replace", "path": f"/metadata/{state}", "value": live["metadata"][state]},
        {"op": "add", "path": "/metadata/managedFields", "value": entries},
    ]


def _flat(rendered: Json) -> Iterator[tuple[Path, Any]]:
    """The fields of an object of ours as an API server will own them: what it is called is nobody's."""
    metadata = {key: rendered["metadata"][key] for key in ("labels", "annotations") if key in rendered["metadata"]}
    body = {key: value for key, value in rendered.items() if key not in ("apiVersion", "kind", "metadata")}
    return _fields({"metadata": metadata, **body}, ())


def _fields(value: Mapping[str, Any], path: Path) -> Iterator[tuple[Path, Any]]:
    for name, each in value.items():
        here = (*path, f"f:{name}")
        if isinstance(each, dict) and each and name not in _WHOLE:
            yield from _fields(each, here)
        elif isinstance(each, list) and name in _KEYS:
            yield from _items(each, _KEYS[name], here)
        else:
            yield here, each


def _items(value: Iterable[Json], choices: Iterable[tuple[str, ...]], path: Path) -> Iterator[tuple[Path, Any]]:
    for each in value:
        keys = next(choice for choice in choices if all(key in each for key in choice))
        element = json.dumps({key: each[key] for key in keys}, separators=(",", ":"), ensure_ascii=False)
        yield from _fields(each, (*path, f"k:{element}"))


def _text(path: Path, value: Any, kind: str) -> str:  # noqa: ANN401 - JSON
    if kind == "Secret" and path[0] == "f:data":
        return "hidden"
    return _ENCODE(value)


def _abridged(value: str) -> str:
    return value if len(value) <= MAX_VALUE else f"#{hashlib.sha256(value.encode()).hexdigest()[:16]}"


def _tree(fields: Mapping[Path, Any], kind: str) -> Json:
    root: Json = {}
    for path, value in fields.items():
        node = root
        for element in path[:-1]:
            node = node.setdefault(element, {})
        node[path[-1]] = _abridged(_text(path, value, kind))
    return root


def as_applied(live: Json) -> dict[Path, str]:
    """What was applied, by the annotation APPLIED: texts as they are shown. Empty when it is not there or damaged."""
    found = _parsed(annotation(live, APPLIED))
    return dict(_branches(found, ())) if isinstance(found, dict) else {}


def _branches(node: Mapping[str, Any], path: Path) -> Iterator[tuple[Path, str]]:
    for element, each in node.items() if len(path) < MAX_DEPTH else ():
        if isinstance(each, dict):
            yield from _branches(each, (*path, element))
        else:
            yield (*path, element), str(each)

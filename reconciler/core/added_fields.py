"""Which fields of an object others added to what we declared, and how an apply takes them away. Pure, for any kind.

An apply leaves alone what it does not own. Who sets a variable, a container or a node selector by hand owns just that
(`metadata.managedFields`), so nothing of ours changes, and yet the instances are no longer what was declared. All that
somebody else owns beside it is therefore drift, but for what is others' by right: the metadata of the object itself,
its status, the number of instances where an autoscaler sets it, and the mark of a restart by hand.

What admission changes in the course of a write is in nobody's entry, and the same holds for default values of the API
server that nobody asked for. So neither is told here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from reconciler.core.errors import Reason
from reconciler.core.kubernetes_json import Json, items, table, text
from reconciler.core.kubernetes_labels import MANAGER, annotation
from reconciler.core.live import Difference
from reconciler.core.managed_fields import (
    MAX_DIFFERENCES,
    PAUSED,
    SHAPE,
    Path,
    as_applied,
    digest,
    holder,
    is_of,
    our_entry,
    owned,
    owners_patch,
    said_by,
    step,
    words,
)

RESTARTED = "kubectl.kubernetes.io/restartedAt"
"""The annotation by which `kubectl rollout restart` has all instances replaced. It changes nothing in them, and to take
it away would replace them once more."""

_THEIRS = frozenset(
    {
        ("f:metadata",),
        ("f:status",),
        ("f:spec", "f:replicas"),
        PAUSED,
        ("f:spec", "f:template", "f:metadata", "f:annotations", f"f:{RESTARTED}"),
    }
)
"""Others may set these, or (PAUSED) they are told elsewhere."""


def added(live: Json, manager: str = MANAGER, kind: str = "") -> tuple[Difference, ...]:
    """What others added to an object, with who did it: at most MAX_DIFFERENCES, in a stable order.

    Objects in the answer to a list do not say their `kind`; then it has to be given.
    """
    if not touched(live, manager):
        return ()
    mine, applied = owned(live, manager), as_applied(live)
    ours = tree({*mine, *applied})
    if not ours:
        return ()  # that nothing is ours any more is told as a change
    # Where it is unknown what was applied, a field that we lost looks like one that was added.
    exact = bool(applied) or annotation(live, SHAPE) == digest(mine, kind or text(live, "kind"))
    paths = {path for entry in _others(live, manager) for path, _ in _beyond(_fields(entry), ours, live, ())}
    done = "was added" if exact else "was set"
    found = [f"{words(path)} {done}{said_by(holder(live, path, manager))}" for path in sorted(paths)]
    if len(found) > MAX_DIFFERENCES:
        found[MAX_DIFFERENCES - 1 :] = [f"and {len(found) - MAX_DIFFERENCES + 1} more fields were added"]
    return tuple(Difference(Reason.DRIFT_CHANGED, each) for each in found)


def touched(live: Json, manager: str = MANAGER) -> bool:
    """Whether others own anything in what we declare, be it together with us: an apply could not take that away."""
    return any(True for entry in _others(live, manager) for _ in _beyond(_fields(entry), _ASIDE, live, ()))


def claim(live: Json, version: str) -> list[Json]:
    """The JSON patch that makes all of that ours, for the next apply to take away what is not declared. `version` is
    the apiVersion that we apply. Empty when there is nothing. It fails on any other state of the object than this one.
    """
    claimed: Json = {}
    rest: list[Mapping[str, Any]] = []
    for entry in _others(live, MANAGER):
        fields = _fields(entry)
        found = list(_beyond(fields, _ASIDE, live, ()))
        for path, below in found:
            claimed = united(claimed, _nested(path, below))
            fields = _without(fields, path)
        if fields or not found:
            rest.append({**entry, "fieldsV1": fields} if found else entry)
    if not claimed:
        return []
    before = next((entry for entry in items(live, "metadata", "managedFields") if is_of(entry, MANAGER)), {})
    return owners_patch(live, [*rest, our_entry(version, united(_fields(before), claimed), before)])


def united(one: Mapping[str, Any], other: Mapping[str, Any]) -> Json:
    """Two sets of fields as one. A field that one has as a whole and the other in parts stays in parts."""
    found = dict(one)
    for element, below in other.items():
        found[element] = united(found[element], below) if element in found else below
    return found


def _fields(entry: Mapping[str, Any]) -> Json:
    return dict(table(entry, "fieldsV1"))


def _others(live: Json, manager: str) -> list[Mapping[str, Any]]:
    """The entries of all but the applies of `manager`."""
    return [entry for entry in items(live, "metadata", "managedFields") if not is_of(entry, manager)]


def _beyond(theirs: Json, ours: Json, value: object, path: Path) -> Iterator[tuple[Path, Json]]:
    """The parts of a set of fields that are outside of another one, with all that is in them. What is not there in the
    object (`value` is what it has at `path`), as it belongs to another version of its kind, is no part of it."""
    for element, below in theirs.items():
        here, inner = (*path, element), step(value, element)
        if element == "." or here in _THEIRS or inner is None:
            continue
        if element not in ours:
            yield here, below if isinstance(below, dict) else {}
        elif not _is_whole(ours[element]) and isinstance(below, dict):
            yield from _beyond(below, ours[element], inner, here)


def _is_whole(fields: Mapping[str, Any]) -> bool:
    """Whether a field is owned with all that is in it."""
    return not fields.keys() - {"."}


def tree(paths: Iterable[Path]) -> Json:
    """A set of fields as FieldsV1 has it."""
    root: Json = {}
    for path in paths:
        node = root
        for element in path:
            node = node.setdefault(element, {})
    return root


_ASIDE = tree(_THEIRS)
"""The same as a set of fields: beyond it is all that we look after."""


def _nested(path: Path, below: Json) -> Json:
    for element in reversed(path):
        below = {element: below}
    return below


def _without(fields: Mapping[str, Any], path: Path) -> Json:
    """A set of fields without what is at `path`, and without what holds nothing after that."""
    element, *more = path
    found = {key: below for key, below in fields.items() if key != element}
    if more:
        left = _without(fields[element], tuple(more))
        if left:
            found[element] = left
    return found

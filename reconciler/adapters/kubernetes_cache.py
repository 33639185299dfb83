"""What the watches of one namespace told, in small forms, and what we wrote since. It calls nobody.

An own write is shown at once and never undone by an older word of the API: an answer of a write goes in like an event,
and whoever has the higher resourceVersion wins. The API promises that they can be compared since Kubernetes 1.35, and
its storage has always numbered them so.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reconciler.adapters.kubernetes_adopt import as_adopted, entry_of
from reconciler.core.bundle_inventory import is_inventory
from reconciler.core.errors import Reason, ReconcilerError, Retryable
from reconciler.core.kubernetes_json import Json
from reconciler.core.kubernetes_labels import APPLIED
from reconciler.core.kubernetes_slim import slim

SHORT = 64
DELETED = "DELETED"
OWNERS = "owners"
_REVISION = "deployment.kubernetes.io/revision"
_TOLD = ("differences", "added", "touched", "references", "counts")
MADE = "made"
"""In a small form: the object was created by us and is not yet one that we apply."""


def small(found: Json, before: Json | None = None) -> Json:
    """What is kept of an object. `before` is what was kept of it: of what only got another status since, nobody changed
    what we declared, so that the costly look at its fields is spared."""
    owners = _owners(found)
    same = before is not None and before.get(MADE) is None and before.get(OWNERS) == owners
    if before is not None and same and _declared(found) == _declared(before):
        found = {**found, **{key: before[key] for key in _TOLD}}
    kept = slim(found) | {OWNERS: owners}
    if is_inventory(found):
        kept["data"] = found.get("data")
    if entry_of(found) is not None:
        adopted = as_adopted(found)
        told = slim(adopted) if adopted is not None else {"differences": (), "added": ()}
        kept |= {MADE: True, "differences": told["differences"], "added": told["added"]}
    shared: Json = _shared(kept)
    return shared


def _declared(found: Json) -> object:
    """By what is told that nothing but the status changed; a value that equals no other where that cannot be told.

    The controller of Deployments notes its own revision of each among the annotations, with the status.
    """
    metadata = found["metadata"]
    if "generation" not in metadata:
        return object()
    notes = {key: value for key, value in metadata.get("annotations", {}).items() if key not in (APPLIED, _REVISION)}
    return metadata["uid"], metadata["generation"], metadata.get("labels"), notes


def _owners(found: Json) -> list[str]:
    """Who owns fields of an object and since when, its status left out."""
    entries = found["metadata"].get("managedFields") or ()
    keys = ("manager", "operation", "time")
    return [" ".join(str(each.get(key)) for key in keys) for each in entries if each.get("subresource") != "status"]


def _shared(value: Any) -> Any:  # noqa: ANN401 - JSON
    """The same with equal short texts kept once: labels and field names are most of thousands of objects."""
    match value:
        case str() if len(value) <= SHORT:
            return sys.intern(value)
        case dict():
            return {sys.intern(key): _shared(each) for key, each in value.items()}
        case list():
            return [_shared(each) for each in value]
        case _:
            return value


@dataclass(slots=True)
class _Shelf:
    """One kind. `gone`: uids that we deleted and of which the watch has not told yet."""

    objects: dict[str, Json] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    filled: bool = False
    lost_at: float | None = None
    trouble: ReconcilerError | None = None


class Cache:
    """The objects of ours in one namespace. Thread-safe. `kinds` are those that are watched."""

    def __init__(self, kinds: Sequence[str]) -> None:
        self._changed = threading.Condition()
        self._shelves = {kind: _Shelf() for kind in kinds}

    def snapshot(self) -> Mapping[str, Mapping[str, Json]]:
        """All of it by kind and name; what is in it is never changed again."""
        with self._changed:
            return {kind: dict(shelf.objects) for kind, shelf in self._shelves.items()}

    def get(self, kind: str, name: str) -> Json | None:
        """One object, None when there is none of ours or its kind is not watched."""
        with self._changed:
            shelf = self._shelves.get(kind)
            return shelf.objects.get(name) if shelf else None

    def until(self, kind: str, name: str, settled: Callable[[Json], bool], seconds: float) -> Json | None:
        """One object as soon as it is `settled`, or as it is when the `seconds` are over; None when there is none."""
        with self._changed:
            shelf = self._shelves[kind]
            self._changed.wait_for(lambda: name in shelf.objects and settled(shelf.objects[name]), seconds)
            return shelf.objects.get(name)

    def check(self, seconds: float) -> None:
        """Return when all kinds are known, and none has been out of touch with the API for longer than `seconds`.

        Waits as long for the first lists. Raises the trouble of a kind otherwise, Retryable(ENGINE_UNREACHABLE).
        """
        deadline = time.monotonic() + seconds
        with self._changed:
            while missing := [kind for kind, shelf in self._shelves.items() if not shelf.filled]:
                troubles = [self._shelves[kind].trouble for kind in missing]
                first = next((trouble for trouble in troubles if trouble is not None), None)
                if first is not None:
                    raise _again(first)
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    said = f"has not listed {', '.join(missing)} within {seconds:g} s"
                    raise Retryable(Reason.ENGINE_UNREACHABLE, f"the API server {said}")
            for kind, shelf in self._shelves.items():
                if shelf.lost_at is not None and time.monotonic() - shelf.lost_at > seconds:
                    raise _again(shelf.trouble or _lost(kind, seconds))

    def filled(self, kind: str, listed: Iterable[Json], version: str) -> bool:
        """A whole list (of small forms) of the resourceVersion `version`; whether it tells anything new."""
        with self._changed:
            shelf = self._shelves[kind]
            before = shelf.objects
            found = {str(one["metadata"]["name"]): one for one in listed if one["metadata"]["uid"] not in shelf.gone}
            shelf.gone.intersection_update([one["metadata"]["uid"] for one in listed])
            for name, one in before.items():
                newer = _number(one) > (_number(found[name]) if name in found else _as_number(version))
                if newer:
                    found[name] = one
            shelf.objects = found
            news = not shelf.filled or _plain_all(before) != _plain_all(found)
            shelf.filled = True
            self._in_touch(shelf)
            return news

    def saw(self, kind: str, event: str, found: Json) -> bool:
        """One event of the watch, or the answer to a write of ours, in a small form; whether it tells anything new."""
        with self._changed:
            shelf = self._shelves[kind]
            name, uid = str(found["metadata"]["name"]), found["metadata"]["uid"]
            known = shelf.objects.get(name)
            if event == DELETED:
                shelf.gone.discard(uid)
                # It also comes for an object that lost our labels; one made anew since is not meant.
                if known is None or known["metadata"]["uid"] != uid:
                    return False
                del shelf.objects[name]
                return True
            if uid in shelf.gone or (known is not None and _number(known) > _number(found)):
                return False
            shelf.objects[name] = found
            self._changed.notify_all()
            return known is None or _plain(known) != _plain(found)

    def removed(self, kind: str, name: str, uid: str) -> None:
        """We deleted it: what the watch has still to tell of its life is old."""
        with self._changed:
            self._shelves[kind].gone.add(uid)
            self._drop(self._shelves[kind], name, uid)

    def doubted(self, kind: str, name: str, uid: str) -> None:
        """The API says that it is not there, or not any more what it was; if it is, the watch tells again."""
        with self._changed:
            self._drop(self._shelves[kind], name, uid)

    def connected(self, kind: str) -> bool:
        """The watch of a kind is open; whether it had been lost."""
        with self._changed:
            shelf = self._shelves[kind]
            was = shelf.trouble is not None
            self._in_touch(shelf)
            return was

    def parted(self, kind: str) -> None:
        """The watch of a kind broke: nothing is known to be wrong yet, but from now on nothing is heard."""
        with self._changed:
            shelf = self._shelves[kind]
            if shelf.lost_at is None:
                shelf.lost_at = time.monotonic()

    def lost(self, kind: str, trouble: ReconcilerError) -> bool:
        """The watch of a kind could not be opened, or its list failed; whether that is new."""
        with self._changed:
            shelf = self._shelves[kind]
            new = shelf.trouble is None
            if shelf.lost_at is None:
                shelf.lost_at = time.monotonic()
            shelf.trouble = trouble
            self._changed.notify_all()
            return new

    def outdated(self, kind: str) -> None:
        """What is known of a kind is too old to be followed any more: until it is listed anew nobody knows it."""
        with self._changed:
            self._shelves[kind].filled = False

    def _drop(self, shelf: _Shelf, name: str, uid: str) -> None:
        known = shelf.objects.get(name)
        if known is not None and known["metadata"]["uid"] == uid:
            del shelf.objects[name]

    def _in_touch(self, shelf: _Shelf) -> None:
        shelf.lost_at = shelf.trouble = None
        self._changed.notify_all()


def _again(error: ReconcilerError) -> ReconcilerError:
    """A copy to raise: one exception that several threads raise would collect all their tracebacks."""
    found = type(error)(error.reason, error.what, where=error.where, remedy=error.remedy)
    if isinstance(found, Retryable) and isinstance(error, Retryable):
        found.after = error.after
    return found


def _lost(kind: str, seconds: float) -> Retryable:
    return Retryable(Reason.ENGINE_UNREACHABLE, f"nothing was heard of {kind} for longer than {seconds:g} s")


def is_known(found: Json, known: Json) -> bool:
    """Whether an object is as old as what is known of it, or older."""
    return 0 < _number(found) <= _number(known)


def _number(one: Json) -> int:
    return _as_number(one["metadata"].get("resourceVersion"))


def _as_number(version: object) -> int:
    return int(version) if isinstance(version, str) and version.isascii() and version.isdigit() else 0


def _plain(one: Json) -> Json:
    """Without what changes at each write."""
    about = {key: value for key, value in one["metadata"].items() if key != "resourceVersion"}
    return {**one, "metadata": about}


def _plain_all(objects: Mapping[str, Json]) -> dict[str, Json]:
    return {name: _plain(one) for name, one in objects.items()}

"""Bundles of plain manifests in one namespace: applied in their order, followed, and removed by their inventory.

An inventory (a ConfigMap, `core/bundle_inventory.py`) says what belongs to a bundle. It is written before anything is
applied and again after it, so that a death in between leaves nothing unknown. Nothing is applied before the API has
said of each changed object that it would take it. What older versions had stays until `prune`, which is only asked for
when the new version has proved itself.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

from reconciler.adapters.kubernetes_apply import Objects
from reconciler.adapters.kubernetes_cache import Cache, small
from reconciler.adapters.kubernetes_client import Api, ApiError, translated
from reconciler.adapters.kubernetes_followed import Followed, Scope
from reconciler.adapters.kubernetes_kinds import Kinds, Resource
from reconciler.adapters.kubernetes_members import GONE_WITHIN, LOOK_EACH, Members, Wanted
from reconciler.core import bundle_live, names
from reconciler.core.bundle_inventory import (
    MEMBER,
    Defined,
    Entry,
    Inventory,
    defined,
    entry_of,
    held,
    inventory_of,
    is_inventory,
    rendered,
    same,
    written,
)
from reconciler.core.errors import Reason, ReconcilerError, Retryable, Stalled
from reconciler.core.kstatus import State
from reconciler.core.kubernetes_identity import Identity, identity, rank
from reconciler.core.kubernetes_json import Json
from reconciler.core.kubernetes_labels import Place, Ref, ownership
from reconciler.core.live import Group
from reconciler.core.steps import EnsureGroup

KIND_WITHIN = 20.0
"""Seconds within which a cluster serves a kind whose definition was applied."""
_CONFIG_MAP = Resource("v1", "ConfigMap", "configmaps", namespaced=True)


class Key(NamedTuple):
    """A kind in a namespace, as it stands in an inventory."""

    api_version: str
    kind: str
    namespace: str


class Bundles:
    """Those of one environment. `cache` has the inventories; `cluster_scoped`: the operator allows such objects.

    `tell(detail)` is called when `groups` would show something new.
    """

    def __init__(
        self,
        api: Api,
        cache: Cache,
        objects: Objects,
        place: Place,
        environment: str,
        tell: Callable[[str], None],
        *,
        cluster_scoped: bool,
    ) -> None:
        self._api = api
        self._cache = cache
        self._objects = objects
        self._place = place
        self._environment = environment
        self._tell = tell
        self._cluster_scoped = cluster_scoped
        self._stop = threading.Event()
        self._kinds = Kinds(api)
        self._followed = Followed(api, place, environment, tell)
        self._members = Members(api, self._stop)
        self._read: dict[str, tuple[object, Inventory]] = {}

    def groups(self, config_maps: Iterable[Json]) -> tuple[Group, ...]:
        """Each bundle that has its inventory among `config_maps`, as a group, by what the watches told. Waits for their
        first lists."""
        maps = [each for each in config_maps if is_inventory(each)]
        found = sorted((self._parsed(each) for each in maps), key=lambda each: each.name)
        kept = {each["metadata"]["uid"] for each in maps}
        for uid in self._read.keys() - kept:
            self._read.pop(uid, None)
        scopes = {key: self._told_scope(key) for key in {_key(entry) for each in found for entry in each.entries()}}
        self._followed.only([scope for scope in scopes.values() if isinstance(scope, Scope)])
        ways = {key: self._way(scope) for key, scope in scopes.items()}

        def look(entry: Entry) -> Json | ReconcilerError | None:
            way = ways[_key(entry)]
            return way if isinstance(way, ReconcilerError) else way(entry.identity.name)

        return tuple(bundle_live.group(each, look) for each in found)

    def ensure(self, effect: EnsureGroup) -> None:
        """Apply a version of a bundle: what changed in it, and what was changed by others.

        Raises ApiError, Stalled(NOT_OWNED, POLICY_DENIED), Rejected, Retryable.
        """
        assert effect.spec.bundle is not None
        before = self._inventory(effect.name)
        wanted = list(self._wanted(effect))
        todo = self._changed(wanted, before)
        lives = self._rehearsed(todo)
        entries = {each.entry.identity: each.entry for each in wanted}
        if before is not None:
            unchanged = entries.keys() - {each.entry.identity for each in todo}
            entries |= {entry.identity: entry for entry in before.objects if entry.identity in unchanged}
        inventory = self._next(effect, before, tuple(entries.values()))
        self._write(inventory, before)
        for each in todo:
            scope = self._awaited_scope(each.entry)
            live = self._members.ensure(each, scope, lives.get(each.entry.identity))
            self._followed.saw(scope, live)
            entries[each.entry.identity] = each.entry._replace(held=held(live))
        self._write(replace(inventory, objects=tuple(entries.values()), operated=effect.operated), inventory)

    def prune(self, name: str) -> None:
        """Remove what only older versions of a bundle had. Raises ApiError, Retryable while it is not gone."""
        inventory = self._inventory(name)
        if inventory is None or not inventory.leaving:
            return
        left = self._removed(inventory.name, inventory.leaving) if inventory.prune else []
        self._write(replace(inventory, leaving=tuple(left)), inventory)
        self._all_gone(left)

    def remove(self, name: str) -> None:
        """Remove a bundle: its objects, unless it is not to be pruned, then its inventory. Raises as `prune`."""
        inventory = self._inventory(name)
        if inventory is None:
            return
        if inventory.prune:
            self._all_gone(self._removed(name, tuple(inventory.entries())))
        self._objects.remove(Ref("ConfigMap", names.inventory(name)))

    def stop(self) -> None:
        """Ask all threads to end."""
        self._stop.set()
        self._followed.stop()

    def join(self, left: Callable[[], float]) -> None:
        """Wait for their end, each for as long as `left` says."""
        self._followed.join(left)

    def _inventory(self, name: str) -> Inventory | None:
        known = self._cache.get("ConfigMap", names.inventory(name))
        return self._parsed(known) if known is not None and is_inventory(known) else None

    def _parsed(self, found: Json) -> Inventory:
        """The inventory in a ConfigMap, kept until that changes: it is asked for at every look."""
        uid, version = found["metadata"]["uid"], found["metadata"]["resourceVersion"]
        kept = self._read.get(uid)
        if kept is None or kept[0] != version:
            kept = self._read[uid] = (version, inventory_of(found))
        return kept[1]

    def _wanted(self, effect: EnsureGroup) -> Iterator[Wanted]:
        """The objects of a bundle as they are applied."""
        assert effect.spec.bundle is not None
        came: dict[tuple[str, str], Defined] = {}
        for data in effect.spec.bundle.objects:
            declared = json.loads(data)
            came.update({(each.api_version, each.kind): each for each in defined(declared)})
            about = identity(declared)
            inside = self._is_namespaced(declared["apiVersion"], about, came)
            about = about._replace(namespace=(about.namespace or self._place.namespace) if inside else "")
            body = rendered(declared, about, self._place, self._environment, effect.name)
            yield Wanted(entry_of(body, about, effect.version), body)

    def _is_namespaced(self, api_version: str, about: Identity, came: Mapping[tuple[str, str], Defined]) -> bool:
        """`came`: the kinds that the bundle brings. Raises Retryable where nobody knows the kind,
        Stalled(POLICY_DENIED), ApiError."""
        kind = about.kind
        known = self._kinds.find(api_version, kind) or came.get((api_version, kind))
        known = known or self._kinds.find(api_version, kind, fresh=True)
        if known is None:
            raise _unknown(self._api.where, api_version, kind)
        if not known.namespaced and not self._cluster_scoped:
            raise Stalled(
                Reason.POLICY_DENIED,
                f"{about.shown} lies in no namespace",
                where=self._api.where,
                remedy="Take it out, or allow such objects by allow.clusterScoped in the environment's settings",
            )
        return known.namespaced

    def _rehearsed(self, todo: Sequence[Wanted]) -> dict[Identity, Json | None]:
        """What exists of the objects to be applied, after the API said that it would take them all.

        Those whose kind comes with the bundle are left out.
        """
        lives: dict[Identity, Json | None] = {}
        scopes = {}
        for each in todo:
            scope = self._scope(_key(each.entry))
            if scope is not None:
                scopes[each.entry.identity] = scope
                lives[each.entry.identity] = self._members.judged(each, scope)
        for each in todo:
            if each.entry.identity in scopes:
                self._members.rehearse(each, scopes[each.entry.identity], lives[each.entry.identity])
        return lives

    def _changed(self, wanted: Sequence[Wanted], before: Inventory | None) -> list[Wanted]:
        """Those that are not in the cluster as they are wanted, as far as that is known without asking."""
        known = {entry.identity: entry for entry in before.objects} if before is not None else {}
        found = []
        for each in wanted:
            entry = known.get(each.entry.identity)
            if entry is None or entry[:3] != each.entry[:3] or not self._stands(entry):
                found.append(each)
        return found

    def _stands(self, entry: Entry) -> bool:
        """Whether an object is as it was applied, and stays."""
        way = self._way(self._told_scope(_key(entry)))
        seen = way(entry.identity.name) if not isinstance(way, ReconcilerError) else None
        if seen is None or seen["standing"].state is State.TERMINATING:
            return False
        return bool(entry.held) and seen["held"] == entry.held

    def _way(self, scope: Scope | ReconcilerError) -> Callable[[str], Json | None] | ReconcilerError:
        return self._followed.look(scope) if isinstance(scope, Scope) else scope

    def _told_scope(self, key: Key) -> Scope | ReconcilerError:
        """Where the objects of a kind are, or why that is not known."""
        try:
            return self._scope(key) or _unknown(self._api.where, key.api_version, key.kind)
        except ApiError as error:
            return translated(error, self._api.where)
        except ReconcilerError as error:
            return error

    def _scope(self, key: Key, *, fresh: bool = False) -> Scope | None:
        """Where the objects of a kind are; None when the cluster does not know it. Raises ApiError."""
        resource = self._kinds.find(key.api_version, key.kind, fresh=fresh)
        return Scope(resource, key.namespace) if resource is not None else None

    def _awaited_scope(self, entry: Entry) -> Scope:
        """Where an object goes, once the definition of its kind that may just have been applied is served."""
        key = _key(entry)
        deadline = time.monotonic() + KIND_WITHIN
        while (scope := self._scope(key, fresh=True)) is None:
            if time.monotonic() >= deadline or self._stop.wait(LOOK_EACH):
                raise _unknown(self._api.where, key.api_version, key.kind)
        self._followed.follow([scope])
        return scope

    def _next(self, effect: EnsureGroup, before: Inventory | None, objects: tuple[Entry, ...]) -> Inventory:
        """The inventory of a version while it is applied: what is not in it leaves, if the bundle is to be pruned."""
        assert effect.spec.bundle is not None
        prune, mine = effect.spec.bundle.prune, {entry.identity for entry in objects}
        old = before.entries() if before is not None and prune else ()
        leaving = {entry.identity: entry for entry in old if entry.identity not in mine}
        return Inventory(
            effect.name,
            effect.version,
            effect.revision,
            effect.spec.image.pinned,
            "",
            prune,
            objects,
            tuple(leaving.values()),
        )

    def _write(self, inventory: Inventory, before: Inventory | None) -> None:
        if before is not None and same(inventory, before):
            return
        about = Identity("", "ConfigMap", self._place.namespace, names.inventory(inventory.name))
        body = written(inventory, self._place, self._environment)
        wanted, scope = Wanted(entry_of(body, about, ""), body), Scope(_CONFIG_MAP, self._place.namespace)
        answer = self._members.ensure(wanted, scope, self._members.judged(wanted, scope))
        if self._cache.saw("ConfigMap", "MODIFIED", small(answer)):
            self._tell(f"inventory of {inventory.name} written")

    def _removed(self, name: str, entries: Sequence[Entry]) -> list[Entry]:
        """Delete objects in the reverse order of their application, a rank when the one before is gone; what is left.

        A controller goes when what it has to tidy up is gone.
        """
        marks = {**ownership(self._place.owner, self._environment), names.LABEL_SERVICE: name}
        marks[names.LABEL_ROLE] = MEMBER
        deadline = time.monotonic() + GONE_WITHIN
        inorder = sorted(entries, key=_rank, reverse=True)
        for _, alike in groupby(inorder, key=_rank):
            # Of a kind that the cluster does not know (any more) there are no objects.
            placed = [(entry, scope) for entry in alike if (scope := self._scope(_key(entry), fresh=True)) is not None]
            going = [(entry, scope) for entry, scope in placed if self._members.delete(entry, scope, marks)]
            left = [each for each, scope in going if not self._members.is_gone(each, scope, marks, deadline)]
            if left:
                return [entry for entry in inorder if _rank(entry) < _rank(left[0])] + left
        return []

    def _all_gone(self, left: Sequence[Entry]) -> None:
        if left:
            shown = ", ".join(entry.identity.shown for entry in left[-3:])
            raise Retryable(
                Reason.ENGINE_REFUSED,
                f"{len(left)} objects are not gone yet: {shown}",
                where=self._api.where,
                remedy="It is looked at again; a finalizer on an object waits for whoever set it",
            )


def _key(entry: Entry) -> Key:
    return Key(entry.api_version, entry.identity.kind, entry.identity.namespace)


def _rank(entry: Entry) -> int:
    return rank(entry.identity.group, entry.identity.kind)


def _unknown(where: str, api_version: str, kind: str) -> Retryable:
    return Retryable(
        Reason.ENGINE_REFUSED,
        f"the cluster knows no kind {kind} in {api_version}",
        where=where,
        remedy="Install its CustomResourceDefinition; if another bundle brings it, name that in dependsOn",
    )

"""Bundles of plain manifests in the fake cluster: objects, and inventories that say which belong to what.

How a bundle stands is read from them by `core/bundle_live.py`, as from a real cluster. One object is applied or removed
after the other, so that a test can end the daemon in between.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from reconciler.core import bundle_live
from reconciler.core.bundle_inventory import Entry, Inventory
from reconciler.core.errors import Reason, Retryable, Stalled
from reconciler.core.kstatus import CURRENT, Standing, State
from reconciler.core.kubernetes_identity import Identity, identity
from reconciler.core.kubernetes_json import Json
from reconciler.core.live import Group
from reconciler.core.steps import EnsureGroup, RuntimeEffect
from reconciler.ports import Clock

SLOW = timedelta(seconds=2)
ON_ITS_WAY = Standing(State.IN_PROGRESS, "LessAvailable", "0 of 1 available")
NEVER = ON_ITS_WAY
FAILED = Standing(State.FAILED, "BackoffLimitExceeded", "BackoffLimitExceeded: Job has reached the backoff limit")


@dataclass
class FakeObject:
    """An object, applied by a bundle or (without a `service`) made by somebody else; `now` is its content."""

    service: str
    now: str
    at: datetime


@dataclass
class FakeBundles:
    """`sick`: words in whose presence an object does not become current; `stuck`: names of objects that do not go.

    `within` is called after each thing that an effect does.
    """

    clock: Clock
    within: Callable[[RuntimeEffect], None] = lambda effect: None
    inventories: dict[str, Inventory] = field(default_factory=dict)
    objects: dict[Identity, FakeObject] = field(default_factory=dict)
    sick: dict[str, Standing] = field(default_factory=dict)
    stuck: set[str] = field(default_factory=set)

    def groups(self) -> tuple[Group, ...]:
        return tuple(bundle_live.group(each, self._look) for each in self.inventories.values())

    def names(self, service: str = "web") -> dict[str, str]:
        """What there is of a service: the names of the objects and their contents."""
        return {about.name: it.now for about, it in sorted(self.objects.items()) if it.service == service}

    def change(self, name: str, now: str | None) -> None:
        """Somebody gives an object another content, or removes it."""
        about = next(about for about in self.objects if about.name == name)
        if now is None:
            del self.objects[about]
        else:
            self.objects[about].now = now

    def ensure(self, effect: EnsureGroup) -> None:
        assert effect.spec.bundle is not None
        wanted = {_placed(data, effect.environment): data.decode() for data in effect.spec.bundle.objects}
        for about in wanted.keys() & self.objects.keys():
            if self.objects[about].service != effect.name:
                raise Stalled(Reason.NOT_OWNED, f"{about.name} is not of this bundle")
        before = self.inventories.get(effect.name)
        entries = tuple(Entry(about, "v1", _short(data), _short(data)) for about, data in wanted.items())
        old = before.entries() if before is not None and effect.spec.bundle.prune else ()
        leaving = {entry.identity: entry for entry in old if entry.identity not in wanted}
        begun = Inventory(
            effect.name,
            effect.version,
            effect.revision,
            effect.spec.image.pinned,
            "",
            effect.spec.bundle.prune,
            entries,
            tuple(leaving.values()),
            before.created_at if before is not None else self.clock.now(),
        )
        self.inventories[effect.name] = begun
        self.within(effect)
        for about, data in wanted.items():
            if about not in self.objects or self.objects[about].now != data:
                self.objects[about] = FakeObject(effect.name, data, self.clock.now())
            self.within(effect)
        self.inventories[effect.name] = replace(begun, operated=effect.operated)

    def prune(self, name: str, effect: RuntimeEffect) -> None:
        inventory = self.inventories.get(name)
        if inventory is not None:
            left = self._removed(name, [entry.identity for entry in inventory.leaving], effect)
            kept = tuple(entry for entry in inventory.leaving if entry.identity in left)
            self.inventories[name] = replace(inventory, leaving=kept)
            _all_gone(left)

    def remove(self, name: str, effect: RuntimeEffect) -> None:
        inventory = self.inventories.get(name)
        if inventory is not None:
            mine = [entry.identity for entry in inventory.entries()]
            _all_gone(self._removed(name, mine, effect) if inventory.prune else [])
            del self.inventories[name]

    def _removed(self, name: str, identities: Collection[Identity], effect: RuntimeEffect) -> list[Identity]:
        for about in identities:
            there = self.objects.get(about)
            if there is not None and there.service == name and about.name not in self.stuck:
                del self.objects[about]
                self.within(effect)
        return [about for about in identities if about in self.objects and about.name in self.stuck]

    def _look(self, entry: Entry) -> Json | None:
        there = self.objects.get(entry.identity)
        if there is None:
            return None
        fresh = self.clock.now() < there.at + SLOW
        told = [standing for word, standing in self.sick.items() if word in there.now]
        standing = next(iter(told), ON_ITS_WAY if fresh else CURRENT)
        return {"service": there.service, "standing": standing, "held": _short(there.now), "changes": ()}


def _placed(data: bytes, namespace: str) -> Identity:
    about = identity(json.loads(data))
    return about._replace(namespace=about.namespace or namespace)


def _short(data: str | bytes) -> str:
    return hashlib.sha256(data if isinstance(data, bytes) else data.encode()).hexdigest()[:16]


def _all_gone(left: Collection[Identity]) -> None:
    if left:
        raise Retryable(Reason.ENGINE_REFUSED, f"{len(left)} objects are not gone yet", where="fake cluster")

"""One object of a bundle in a cluster: whose it is, whether it could be applied, the apply itself, and its removal.

Only what is ours, or moves to us from Flux or Argo CD, is applied to (`core/bundle_ownership.py`), with its uid as a
precondition. A new object is applied without force, so that one that somebody else made meanwhile is not taken over.
Only what still carries all our labels is ever deleted.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping
from typing import NamedTuple

import structlog

from reconciler.adapters.kubernetes_client import Api, ApiError, translated
from reconciler.adapters.kubernetes_followed import Scope
from reconciler.core.bundle_inventory import Entry
from reconciler.core.bundle_ownership import ADOPT, REPLACE, Whose, is_member, kept_because, takeover, whose
from reconciler.core.errors import Reason, Rejected, Retryable, Stalled
from reconciler.core.kubernetes_json import Json, text
from reconciler.core.kubernetes_labels import annotation
from reconciler.failpoints import hit

ATTEMPTS = 3
GONE_WITHIN = 10.0
"""Seconds for which an object is waited for that has to be gone before something else can be done."""
SERVED_WITHIN = 10.0
"""Seconds within which the API serves a kind that it lists already."""
LOOK_EACH = 0.1
_IMMUTABLE = re.compile(r"immutable|may not (be )?change|cannot change|updates to .* are forbidden", re.IGNORECASE)
"""In what words the kinds of Kubernetes say so: there is no code for it."""
_NO_RIGHT = re.compile(r'cannot \w+ resource "')
"""How the authorizer says no. Admission answers 403 as well, where a quota is exhausted or an account is missing."""
_LOG = structlog.get_logger("reconciler.kubernetes")


class Wanted(NamedTuple):
    """An object of a bundle: its line in the inventory, and how it is applied."""

    entry: Entry
    body: Json


class Members:
    """Those in one cluster. `stop` ends waits."""

    def __init__(self, api: Api, stop: threading.Event) -> None:
        self._api = api
        self._stop = stop

    def judged(self, wanted: Wanted, scope: Scope) -> Json | None:
        """What exists under the name of an object and may be applied to, None where the name is free.

        Raises Stalled(NOT_OWNED), Retryable where it is being deleted, ApiError.
        """
        live = self._get(wanted.entry, scope)
        if live is None:
            return None
        if whose(live, wanted.body) is Whose.FOREIGN:
            raise Stalled(
                Reason.NOT_OWNED,
                "it exists and is not of this bundle",
                where=self._where(wanted.entry),
                remedy=f'Rename or delete one of the two, or write the annotation {ADOPT}: "true" on the one in Git',
            )
        if text(live, "metadata", "deletionTimestamp"):
            what = "it is still being deleted"
            raise Retryable(Reason.ENGINE_REFUSED, what, where=self._where(wanted.entry))
        return live

    def rehearse(self, wanted: Wanted, scope: Scope, live: Json | None) -> None:
        """Ask the API whether it would take an object. Raises Rejected where it never will, Stalled(FORBIDDEN) where a
        right is missing.

        What may only come with the bundle, as its namespace or its kind, is no reason.
        """
        try:
            self._applied(wanted, scope, live, dry_run=True)
        except ApiError as error:
            found = translated(error, self._api.where)
            if error.status == 403 and _NO_RIGHT.search(error.message):
                raise found from error
            remade = live is not None and _is_immutable(error)
            if not isinstance(found, Rejected) or (remade and _may_be_remade(wanted)):
                return
            if remade:
                remedy = f'Give it another name, or have it deleted and made anew: annotation {REPLACE}: "true"'
                raise Rejected(found.reason, found.what, where=found.where, remedy=remedy) from error
            raise found from error

    def ensure(self, wanted: Wanted, scope: Scope, live: Json | None) -> Json:
        """Apply an object; `live` is what `judged` found. The object as it is then. Raises as `judged`."""
        served_by = time.monotonic() + SERVED_WITHIN
        attempts = 0
        while attempts < ATTEMPTS:
            try:
                if live is not None and whose(live, wanted.body) is Whose.MOVES:
                    live = self._taken(wanted, scope, live)
                hit("kubernetes.before_apply")
                answer = self._applied(wanted, scope, live)
                hit("kubernetes.after_apply")
            except ApiError as error:
                if _is_unserved(error) and time.monotonic() < served_by and not self._stop.wait(LOOK_EACH):
                    continue
                if live is not None and _is_immutable(error) and _may_be_remade(wanted):
                    self._remove_first(wanted.entry, scope, live)
                elif not error.is_another() or (live is None and error.status == 404):
                    raise
            else:
                return answer
            attempts += 1
            live = self.judged(wanted, scope)
        raise Retryable(
            Reason.ENGINE_REFUSED,
            "somebody else changes it at the same time",
            where=self._where(wanted.entry),
            remedy="Look for what else makes and deletes it",
        )

    def delete(self, entry: Entry, scope: Scope, marks: Mapping[str, str]) -> bool:
        """Have an object deleted that carries all of `marks`; False when there is nothing to be deleted or waited for.

        What must not be removed with the bundle is left, and no longer its own.
        """
        live = self._get(entry, scope)
        if live is None or not is_member(live, marks):
            return False
        why = kept_because(live)
        if why:
            _LOG.info("object kept", object=entry.identity.shown, why=why)
            return False
        if not text(live, "metadata", "deletionTimestamp"):
            self._api.remove(self._path(entry, scope), live["metadata"]["uid"])
        return True

    def is_gone(self, entry: Entry, scope: Scope, marks: Mapping[str, str], deadline: float) -> bool:
        """Whether an object that is being deleted is gone before `deadline` (monotonic)."""
        while True:
            live = self._get(entry, scope)
            if live is None or not is_member(live, marks):
                return True
            if time.monotonic() >= deadline or self._stop.wait(LOOK_EACH):
                return False

    def _get(self, entry: Entry, scope: Scope) -> Json | None:
        try:
            return self._api.call("GET", self._path(entry, scope))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def _applied(self, wanted: Wanted, scope: Scope, live: Json | None, *, dry_run: bool = False) -> Json:
        body = wanted.body
        if live is not None:
            body = {**body, "metadata": {**body["metadata"], "uid": live["metadata"]["uid"]}}
        return self._api.apply(self._path(wanted.entry, scope), body, force=live is not None, dry_run=dry_run)

    def _taken(self, wanted: Wanted, scope: Scope, live: Json) -> Json:
        """The object after the fields became ours that the tool applied which had it before."""
        hit("kubernetes.before_adopt")
        patch = takeover(live, wanted.body["apiVersion"])
        found = self._api.patch(self._path(wanted.entry, scope), patch)
        hit("kubernetes.after_adopt")
        return found

    def _remove_first(self, entry: Entry, scope: Scope, live: Json) -> None:
        """Delete an object that has to be made anew. Raises Retryable when it is not gone in time."""
        self._api.remove(self._path(entry, scope), live["metadata"]["uid"])
        if not self.is_gone(entry, scope, {}, time.monotonic() + GONE_WITHIN):
            raise Retryable(Reason.ENGINE_REFUSED, "it is still being deleted", where=self._where(entry))

    @staticmethod
    def _path(entry: Entry, scope: Scope) -> str:
        return scope.resource.path(scope.namespace, entry.identity.name)

    def _where(self, entry: Entry) -> str:
        return f"{self._api.where}, {entry.identity.shown}"


def _may_be_remade(wanted: Wanted) -> bool:
    return annotation(wanted.body, REPLACE) == "true"


def _is_unserved(error: ApiError) -> bool:
    """Whether nobody answers at the address of a kind: its definition came just now."""
    return error.status == 404 and not error.reason


def _is_immutable(error: ApiError) -> bool:
    """Whether an object was refused because it exists with another value in a field that never changes."""
    said = [error.message, *(str(each.get("message")) for each in error.causes())]
    return error.status == 422 and not error.is_another() and any(_IMMUTABLE.search(each) for each in said)

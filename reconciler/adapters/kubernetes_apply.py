"""Objects of ours in one namespace: made, applied, removed. What is not ours is never touched, also not in a race.

A name that is free for all we know is taken by a POST, which fails where something exists. What exists is looked at;
only what carries our labels is applied to, with its uid as a precondition, so that one that took its place meanwhile is
safe. What others added to it becomes ours first: an apply takes away nothing else. Deletions carry the uid too. Secrets
are only ever created, so that no right to read them is needed: each belongs to an empty ConfigMap of the same name, and
the cluster's garbage collector takes it away with that.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from reconciler.adapters.kubernetes_adopt import adoption, conversion, entry_of
from reconciler.adapters.kubernetes_cache import MADE, Cache, small
from reconciler.adapters.kubernetes_client import Api, ApiError
from reconciler.adapters.kubernetes_kinds import Resource
from reconciler.core import names
from reconciler.core.added_fields import claim
from reconciler.core.errors import Reason, Retryable, Stalled
from reconciler.core.kubernetes_json import Json
from reconciler.core.kubernetes_labels import API, COUNT_MANAGER, MANAGER, Place, Ref, annotation, is_owned, label, ref
from reconciler.core.kubernetes_objects import handover, must_be_remade
from reconciler.core.kubernetes_slim import counts
from reconciler.core.live import Difference
from reconciler.failpoints import hit

ANCHOR = "secret"
"""The role of the ConfigMap that a Secret belongs to."""
CLAIMS = 8
"""How often what others set is looked at anew, when the object changes in between."""
COLLECTED_WITHIN = 60.0
"""Seconds by which the garbage collector has taken a Secret whose ConfigMap went."""
_NEVER_AGAIN = ("ConfigMap", "Secret")
"""Kinds that are called by their content: they are made once and never changed."""


READ = {"ReplicaSet": ("apps/v1", "replicasets"), "Pod": ("v1", "pods")}
"""What is only read, beside what is written."""


def path(kind: str, namespace: str, name: str = "") -> str:
    """Where objects of a kind, or one of them, are in the API."""
    version, plural = API.get(kind) or READ[kind]
    return Resource(version, kind, plural, namespaced=True).path(namespace, name)


def is_anchor(found: Mapping[str, Any]) -> bool:
    """Whether a ConfigMap is there for a Secret only."""
    return label(found, names.LABEL_ROLE) == ANCHOR


class Objects:
    """Those of one environment. `squatted(ref)` is told of a name of ours that somebody else has, `tell(detail)` of
    what the cache shows anew by a write of ours."""

    def __init__(
        self,
        api: Api,
        cache: Cache,
        place: Place,
        environment: str,
        squatted: Callable[[Ref], None],
        tell: Callable[[str], None],
    ) -> None:
        self._api = api
        self._cache = cache
        self._place = place
        self._environment = environment
        self._squatted = squatted
        self._tell = tell
        self._lock = threading.Lock()
        self._anchored: dict[str, float] = {}
        self._admitted: dict[str, frozenset[Difference]] = {}

    def ensure(self, wanted: Json, *, first: int | None = None) -> None:
        """Make an object what is wanted. `first`: how many instances a Deployment begins with whose number is not ours.

        Nothing is asked of the API where the object is so already. Raises ApiError, Stalled(NOT_OWNED), Retryable.
        """
        if wanted["kind"] == "Secret":
            self._create_secret(wanted)
            return
        for _ in range(2):
            known = self._cache.get(*ref(wanted)) or self._create(wanted, first)
            if known is None or _is_so(known, wanted):
                return
            if must_be_remade(known, wanted):
                self.remove(ref(wanted))
                continue
            if self._applied(known, wanted):
                return
        raise self._contended(ref(wanted), "Look for what else makes and deletes it")

    def remove(self, found: Ref) -> None:
        """Delete an object of ours, its instances with their grace. Nothing is done where there is none."""
        kind = "ConfigMap" if found.kind == "Secret" else found.kind
        known = self._cache.get(kind, found.name)
        if known is None:
            return
        uid = str(known["metadata"]["uid"])
        answer = self._api.remove(self._path(Ref(kind, found.name)), uid)
        if answer.get("kind") == kind and answer["metadata"].get("finalizers"):
            self._cache.saw(kind, "MODIFIED", small(answer))  # it stays until somebody else is done with it
        else:
            self._cache.removed(kind, found.name, uid)
            with self._lock:
                self._admitted.pop(uid, None)
        self._tell(f"{kind} {found.name} removed")

    def admitted(self, uid: str) -> frozenset[Difference]:
        """In what an object differed from what we applied as soon as that was done: admission changed it, nobody else.

        To apply it again would change nothing.
        """
        with self._lock:
            return self._admitted.get(uid, frozenset())

    def _create(self, wanted: Json, first: int | None) -> Json | None:
        """Take a free name; what is there of ours already is returned in its small form, None when it was made."""
        kind, name = ref(wanted)
        body = wanted if first is None else {**wanted, "spec": {**wanted["spec"], "replicas": first}}
        hit("kubernetes.before_create")
        try:
            made = self._post(kind, body)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            return self._judged(Ref(kind, name))
        hit("kubernetes.after_create")
        if kind not in _NEVER_AGAIN:
            made = self._adopted(made, wanted)
        self._note(kind, made)
        return None

    def _post(self, kind: str, body: Json) -> Json:
        query = {"fieldManager": MANAGER, "fieldValidation": "Strict"}
        return self._api.call("POST", path(kind, self._place.namespace), query=query, body=body)

    def _judged(self, found: Ref) -> Json:
        """What is under a name that we want, if it is ours. Raises Stalled(NOT_OWNED), Retryable."""
        where = self._where(found)
        try:
            live = self._api.call("GET", self._path(found))
        except ApiError as error:
            if error.status != 404:
                raise
            raise Retryable(Reason.ENGINE_REFUSED, "it comes and goes", where=where, after=timedelta(0)) from error
        if not is_owned(live, self._place.owner, self._environment):
            self._squatted(found)
            raise Stalled(
                Reason.NOT_OWNED,
                "an object of this name exists that is not ours",
                where=where,
                remedy="Rename the service, or delete that object",
            )
        if live["metadata"].get("deletionTimestamp"):
            raise Retryable(Reason.ENGINE_REFUSED, "it is still being deleted", where=where)
        known = small(live)
        self._cache.saw(found.kind, "MODIFIED", known)
        return known

    def _adopted(self, made: Json, wanted: Json) -> Json:
        """The object after our entry became one of Apply."""
        hit("kubernetes.before_adopt")
        adopted = self._api.patch(self._path(ref(wanted)), adoption(made, wanted))
        hit("kubernetes.after_adopt")
        return adopted

    def _applied(self, known: Json, wanted: Json) -> bool:
        """Apply to the very object that is known; False when it is not there any more."""
        found, uid = ref(wanted), str(known["metadata"]["uid"])
        try:
            if MADE in known and not self._converted(found, uid):
                self._cache.doubted(found.kind, found.name, uid)
                return False
            if known.get("touched") and not self._claimed(wanted, uid):
                self._cache.doubted(found.kind, found.name, uid)
                return False
            if found.kind == "Deployment" and "replicas" not in wanted["spec"] and counts(known):
                self._hand_over(found, known)
            body = {**wanted, "metadata": {**wanted["metadata"], "uid": uid}}
            hit("kubernetes.before_apply")
            answer = self._api.apply(self._path(found), body)
        except ApiError as error:
            if not error.is_another():
                raise
            self._cache.doubted(found.kind, found.name, uid)
            return False
        hit("kubernetes.after_apply")
        self._note(found.kind, answer)
        return True

    def _converted(self, found: Ref, uid: str) -> bool:
        """Finish what a crash interrupted between creation and adoption; False when another object is there."""
        live = self._api.call("GET", self._path(found))
        if live["metadata"]["uid"] == uid and entry_of(live) is not None:
            self._api.patch(self._path(found), conversion(live))
        return bool(live["metadata"]["uid"] == uid)

    def _claimed(self, wanted: Json, uid: str) -> bool:
        """Make what others set in an object ours, for an apply to take away; False when another object is there."""
        refusal: ApiError | None = None
        for _ in range(CLAIMS):
            live = self._api.call("GET", self._path(ref(wanted)))
            if live["metadata"]["uid"] != uid:
                return False
            patch = claim(live, wanted["apiVersion"])
            if not patch:
                return True
            hit("kubernetes.before_claim")
            try:
                self._api.patch(self._path(ref(wanted)), patch)
            except ApiError as error:
                if error.status != 409:
                    raise
                refusal = error  # by now it is another state than the one that was read
                continue
            hit("kubernetes.after_claim")
            return True
        raise self._contended(ref(wanted), "Look for what else writes to it") from refusal

    def _hand_over(self, found: Ref, known: Json) -> None:
        """Let go of the number of instances before an autoscaler gets it: an apply without it would reset it to 1."""
        body = handover(found.name, self._place, known["spec"]["replicas"])
        body["metadata"]["uid"] = known["metadata"]["uid"]
        hit("kubernetes.before_hand_over")
        self._api.apply(self._path(found), body, manager=COUNT_MANAGER)
        hit("kubernetes.after_hand_over")

    def _create_secret(self, wanted: Json) -> None:
        about = wanted["metadata"]
        marks = {**about["labels"], names.LABEL_ROLE: ANCHOR}
        anchor = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": about["name"], "namespace": about["namespace"], "labels": marks},
        }
        if self._cache.get("ConfigMap", about["name"]) is None and self._create(anchor, None) is None:
            self._anchored[about["name"]] = time.monotonic()
        known = self._cache.get("ConfigMap", about["name"])
        if known is None:
            raise Retryable(Reason.ENGINE_REFUSED, "it comes and goes", where=self._where(ref(anchor)))
        belongs = {"apiVersion": "v1", "kind": "ConfigMap", "name": about["name"], "uid": known["metadata"]["uid"]}
        hit("kubernetes.before_create")
        try:
            self._post("Secret", {**wanted, "metadata": {**about, "ownerReferences": [belongs]}})
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            since = self._anchored.get(about["name"])
            if since is not None and time.monotonic() - since < COLLECTED_WITHIN:
                # It belongs to a ConfigMap that went before, so it will be taken away too.
                said = "one of this name is still being removed"
                where = self._where(ref(wanted))
                raise Retryable(Reason.ENGINE_REFUSED, said, where=where, after=timedelta(seconds=2)) from error
        hit("kubernetes.after_create")
        self._anchored.pop(about["name"], None)

    def _note(self, kind: str, answer: Json) -> None:
        known = small(answer)
        if self._cache.saw(kind, "MODIFIED", known):
            self._tell(f"{kind} {known['metadata']['name']} applied")
        with self._lock:
            self._admitted.pop(str(known["metadata"]["uid"]), None)
            # What is in somebody's entry was added by them just before, not by admission.
            told = frozenset(known["differences"]) - frozenset(known["added"])
            if told:
                self._admitted[str(known["metadata"]["uid"])] = told

    def _contended(self, found: Ref, remedy: str) -> Retryable:
        said = "somebody else changes it at the same time"
        return Retryable(Reason.ENGINE_REFUSED, said, where=self._where(found), remedy=remedy)

    def _path(self, found: Ref) -> str:
        return path(found.kind, self._place.namespace, found.name)

    def _where(self, found: Ref) -> str:
        return f"{self._api.where}, {found.kind} {found.name} in namespace {self._place.namespace}"


def _is_so(known: Json, wanted: Json) -> bool:
    """Whether an object is what was applied, and that is what is wanted."""
    if wanted["kind"] in _NEVER_AGAIN:
        return True
    alike = annotation(known, names.LABEL_SHAPE) == annotation(wanted, names.LABEL_SHAPE)
    return alike and not known.get("differences") and MADE not in known

"""The kinds that a cluster knows: where each is in its API, and whether its objects lie in namespaces.

Asked of the API by group and version, once; what it does not know is asked again after a moment, for a definition may
have come.
"""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

from reconciler.adapters.kubernetes_client import Api, ApiError
from reconciler.core.kubernetes_json import Json, items, text

AGAIN = 10.0
"""Seconds for which it is believed that the cluster does not know a kind."""


class Resource(NamedTuple):
    """A kind in the API: `plural` is the word for it in addresses."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool

    def path(self, namespace: str = "", name: str = "") -> str:
        """The address of one object, or without `name` of all; `namespace` is left out where there is none."""
        inside = f"/namespaces/{namespace}" if self.namespaced else ""
        return f"{_root(self.api_version)}{inside}/{self.plural}" + (f"/{name}" if name else "")


class Kinds:
    """What one cluster knows. Thread-safe."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._lock = threading.Lock()
        self._known: dict[str, dict[str, Resource]] = {}
        self._asked: dict[str, float] = {}

    def find(self, api_version: str, kind: str, *, fresh: bool = False) -> Resource | None:
        """Where a kind is, None when the cluster does not know it. `fresh`: ask, also when that was said just now.

        Raises ApiError, Stalled(SETTINGS_INVALID).
        """
        with self._lock:
            known = self._known.get(api_version, {}).get(kind)
            asked = self._asked.get(api_version)
        if known is not None or not (fresh or asked is None or time.monotonic() - asked > AGAIN):
            return known
        try:
            answer = self._api.call("GET", _root(api_version))
        except ApiError as error:
            if error.status != 404:
                raise
            answer = {}
        found = _resources(api_version, answer)
        with self._lock:
            self._known[api_version] = found
            self._asked[api_version] = time.monotonic()
        return found.get(kind)


def _root(api_version: str) -> str:
    return f"/{'apis' if '/' in api_version else 'api'}/{api_version}"


def _resources(api_version: str, answer: Json) -> dict[str, Resource]:
    """Those of an APIResourceList, its subresources left out."""
    return {
        text(each, "kind"): Resource(
            api_version, text(each, "kind"), text(each, "name"), each.get("namespaced") is True
        )
        for each in items(answer, "resources")
        if text(each, "kind") and text(each, "name") and "/" not in text(each, "name")
    }

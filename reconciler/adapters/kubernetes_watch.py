"""One kind of one namespace followed into the cache: a list in pages, then one watch, for as long as it holds.

A watch that ends is taken up where it ended; one that is too old (410) or broken in between is listed anew. All pauses
are jittered, so that many watches do not come back in one moment. It decides nothing.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping

from reconciler.adapters.kubernetes_cache import DELETED, Cache, is_known, small
from reconciler.adapters.kubernetes_client import Api, ApiError, translated
from reconciler.adapters.kubernetes_errors import UNANSWERED
from reconciler.core.errors import ReconcilerError
from reconciler.core.kubernetes_json import Json

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
ONE_WATCH = 300.0, 600.0
"""For how many seconds a watch is asked for at a time."""
PAGE = 250
BOOKMARK = "BOOKMARK"


class Watch:
    """A thread that follows one kind. `tell(detail)` is called when the cache has news; `first` before each list.

    `keep(found, before)` makes of an object what the cache gets; `before` is what that has of it, None in a list.
    """

    def __init__(
        self,
        api: Api,
        cache: Cache,
        kind: str,
        path: str,
        query: Mapping[str, str],
        tell: Callable[[str], None],
        explained: Callable[[ApiError], ReconcilerError | None],
        first: Callable[[], None] = lambda: None,
        keep: Callable[[Json, Json | None], Json] = small,
    ) -> None:
        self._api = api
        self._cache = cache
        self._kind = kind
        self._path = path
        self._query = query
        self._tell = tell
        self._explained = explained
        self._first = first
        self._keep = keep
        self._relist = api.settings.relist.total_seconds()
        self._stop = threading.Event()
        self._version = ""
        self._listed_at = 0.0
        self._pause = FIRST_PAUSE
        self._open = False
        self._thread = threading.Thread(target=self._run, name=f"kubernetes-{kind}", daemon=True)

    def start(self) -> None:
        """Follow from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end; it does when its call ends."""
        self._stop.set()

    @property
    def runs(self) -> bool:
        """Whether it has not ended yet."""
        return self._thread.is_alive()

    def join(self, seconds: float) -> None:
        """Wait for its end."""
        self._thread.join(seconds)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow()
            except ApiError as error:
                if error.status == 410:
                    self._version = ""
                    self._cache.outdated(self._kind)
                    self._breathe()
                elif error.status == UNANSWERED and self._open:
                    self._cache.parted(self._kind)
                    self._breathe()
                else:
                    self._lost(self._explained(error) or translated(error, self._api.where))
            except ReconcilerError as error:
                self._lost(error)
            except Exception as error:  # noqa: BLE001 - whatever the API sent, the others go on and this one tries again
                self._version = ""
                self._lost(translated(error, self._api.where))

    def _lost(self, error: ReconcilerError) -> None:
        if self._stop.is_set():
            return
        if self._cache.lost(self._kind, error):
            self._tell(f"{self._kind}: {error.what}")
        self._breathe()

    def _breathe(self) -> None:
        """Wait before the next try, longer each time until something is told again."""
        self._stop.wait(self._pause * random.uniform(0.3, 1.0))  # noqa: S311 - no secret
        self._pause = min(self._pause * 2, LONGEST_PAUSE)

    def _follow(self) -> None:
        """List if that is due, then follow one watch to its end."""
        self._open = False
        if not self._version or time.monotonic() - self._listed_at > self._relist:
            self._list()
        began = time.monotonic()
        left = max(1.0, self._listed_at + self._relist - began)
        seconds = min(random.uniform(*ONE_WATCH), left)  # noqa: S311 - no secret
        for event, found in self._api.watch(self._path, self._version, seconds, self._query, self._opened):
            if self._stop.is_set():
                return
            version = str(found.get("metadata", {}).get("resourceVersion") or "")
            if event != BOOKMARK:
                self._take(event, found)
            self._version = version or self._version
            self._pause = FIRST_PAUSE
        if time.monotonic() - began < 1.0:
            self._breathe()  # a server that ends each watch at once must not be asked without a pause

    def _list(self) -> None:
        self._first()
        began = time.monotonic()
        listed, version = self._api.pages(self._path, self._query, PAGE, lambda found: self._keep(found, None))
        self._listed_at, self._version = began, version
        if self._cache.filled(self._kind, listed, version):
            self._tell(f"{len(listed)} {self._kind} listed")

    def _opened(self) -> None:
        self._open = True
        if self._cache.connected(self._kind):
            self._tell(f"the API answers about {self._kind}")

    def _take(self, event: str, found: Json) -> None:
        before = self._cache.get(self._kind, str(found.get("metadata", {}).get("name")))
        if before is not None and event != DELETED and is_known(found, before):
            return  # most of all: what a write of ours was answered
        if self._cache.saw(self._kind, event, self._keep(found, before)):
            self._tell(f"{self._kind} {found['metadata']['name']} {event.lower()}")

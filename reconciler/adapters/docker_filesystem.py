"""Filesystems changed by hand: what the engine says differs from the image, without what the engine itself made.

An instance of ours never writes to its root, so anything there was put in by somebody.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Iterable

from reconciler.adapters.docker_connection import Connection, NotFound, engine_errors
from reconciler.core.errors import ReconcilerError

ENGINE_FILES = frozenset(
    {
        "/dev",
        "/proc",
        "/sys",
        "/etc/hosts",
        "/etc/hostname",
        "/etc/resolv.conf",
        "/etc/mtab",
        "/.dockerenv",
        "/run/secrets",
    }
)
MODIFIED, ADDED = 0, 1
SHOWN = 3
SWEEP_PAUSE = 2.0
SOON = 0.02


def changed_by_hand(changes: Iterable[tuple[str, int]], mounts: Iterable[str], writable: Iterable[str]) -> str:
    """The first paths that somebody changed, in words; empty when nobody did.

    `changes` are paths with the engine's kind (0 modified, 1 added, 2 deleted), `mounts` the mount points of the
    container, `writable` the paths that are the service's own. Pure.
    """
    given = {*ENGINE_FILES, *mounts, *writable}
    above = {parent for path in given for parent in _parents(path)}
    listed = dict(changes)
    # A directory is listed as modified whenever something in it changed: only the innermost paths tell something.
    inner = {parent for path in listed for parent in _parents(path)}
    found = []
    for path, kind in sorted(listed.items()):
        ours = path in given or any(parent in given for parent in _parents(path))
        made_for_mount = path in above and kind in (MODIFIED, ADDED)
        merely_around = path in inner and kind == MODIFIED
        if not (ours or made_for_mount or merely_around):
            found.append(f"{('changed', 'added', 'deleted')[kind] if kind in (0, 1, 2) else 'changed'} {path[:200]}")
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ", ".join(found[:SHOWN]) + more


def _parents(path: str) -> Iterable[str]:
    while "/" in path[1:]:
        path = path.rsplit("/", 1)[0]
        yield path


class Filesystems:
    """Asks for the differences of running containers: soon after somebody's exec or copy, and slowly in turn.

    `facts` gives the mount points and writable paths of a container, None when it is not one of our running ones;
    `on_change(container)` is called when the answer became another.
    """

    def __init__(
        self,
        connection: Connection,
        facts: Callable[[str], tuple[frozenset[str], tuple[str, ...]] | None],
        on_change: Callable[[str], None],
    ) -> None:
        self._connection = connection
        self._facts = facts
        self._on_change = on_change
        self._wake = threading.Condition()
        self._due: list[tuple[float, int, str]] = []
        self._serial = itertools.count()
        self._known: dict[str, str] = {}
        self._turn: dict[str, set[str]] = {}
        self._rotation: list[str] = []
        self._thread: threading.Thread | None = None
        self._closed = False

    def start(self) -> None:
        """From now on look by itself."""
        with self._wake:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="filesystems", daemon=True)
                self._thread.start()

    def follow(self, environment: str, containers: Iterable[str]) -> None:
        """These containers run in the environment: the new ones are looked at soon, all of them in turn."""
        with self._wake:
            now, before = set(containers), self._turn.get(environment, set())
            if now == before:
                return
            self._turn[environment] = now
            for container in sorted(now - before):
                heapq.heappush(self._due, (time.monotonic(), next(self._serial), container))
            for container in before - now:
                self._known.pop(container, None)
            self._wake.notify()

    def changed(self, container: str) -> str:
        """The paths changed by hand, as far as looked at."""
        return self._known.get(container, "")

    def suspect(self, container: str, delay: float = SOON) -> None:
        """Somebody had a hand in this container: look after `delay` seconds."""
        with self._wake:
            heapq.heappush(self._due, (time.monotonic() + delay, next(self._serial), container))
            self._wake.notify()

    def look(self, container: str) -> str:
        """Ask the engine now. Raises Retryable when it does not answer."""
        facts = self._facts(container)
        if facts is None:
            return ""
        with engine_errors(f"{self._connection.where}, container {container[:12]}"):
            try:
                changes = self._connection.client().diff(container) or []
            except NotFound:
                return ""
        found = changed_by_hand([(item["Path"], int(item["Kind"])) for item in changes], *facts)
        self._known[container] = found
        return found

    def close(self) -> None:
        """Stop looking."""
        with self._wake:
            self._closed = True
            self._wake.notify()

    def _run(self) -> None:
        while (container := self._next()) is not None:
            before = self._known.get(container, "")
            try:
                after = self.look(container)
            except ReconcilerError:
                continue  # the engine is away; the sweep comes round again
            if after != before:
                self._on_change(container)

    def _next(self) -> str | None:
        """The next container: what is due, else one of the slow rotation; None at the end."""
        sweep = time.monotonic() + SWEEP_PAUSE
        with self._wake:
            while not self._closed:
                now = time.monotonic()
                if self._due and self._due[0][0] <= now:
                    return heapq.heappop(self._due)[2]
                if now >= sweep:
                    if not self._rotation:
                        self._rotation = [c for group in self._turn.values() for c in group]
                    if self._rotation:
                        return self._rotation.pop()
                    sweep = now + SWEEP_PAUSE
                self._wake.wait(min(sweep, self._due[0][0] if self._due else sweep) - now)
        return None

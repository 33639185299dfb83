"""The older workers of a HAProxy that runs with `-W -S`: after a hitless reload they go on with what they had begun.

They answer questions and end single sessions, and nothing else: a worker that leaves refuses every `set server` and
`shutdown sessions server`, for its backends are disabled. Sources: "Master CLI" and "Unix Socket commands" in HAProxy's
management guide. From the outside the master alone reaches them.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from reconciler.adapters.haproxy_master import leaving
from reconciler.adapters.haproxy_socket import ask
from reconciler.adapters.haproxy_table import stat
from reconciler.adapters.haproxy_view import open_at
from reconciler.core.errors import Retryable

_STEP = 0.02
_SESSION = re.compile(r"(0x[0-9a-f]{1,16}): .*? be=(\S+) srv=(\S+) ")


class Former:
    """The older workers of the master whose socket is at `master()`. It is asked only while there may be some.

    That is: from a reload on, and once at the beginning, until it says that there is none any more. `seconds` bounds
    each call. Safe to use from several threads. A reload that somebody else makes is not known here.
    """

    def __init__(self, master: Callable[[], str], seconds: float) -> None:
        self._master = master
        self._seconds = seconds
        self._lock = threading.Lock()
        self._turn, self._none = 1, 0
        self._reloads = 0

    @contextmanager
    def reload(self) -> Iterator[None]:
        """Around a reload, until the new worker answers: whoever asks meanwhile learns nothing that stays true."""
        with self._lock:
            self._reloads += 1
        try:
            yield
        finally:
            with self._lock:
                self._reloads -= 1
                self._turn += 1

    def texts(self) -> Sequence[str]:
        """What each older worker answers to `show stat`: frontends, servers. Raises Retryable(PROXY_UNREACHABLE)."""
        with self._lock:
            turn = self._turn
            if turn == self._none and not self._reloads:
                return ()
        found = self._each(_servers)
        if not found:
            with self._lock:
                if not self._reloads:
                    self._none = turn
        return found

    def cut(self, backend: str, address: str, port: int) -> None:
        """Cut what goes on at `address`:`port` of `backend` in every older worker. Raises as `texts` does."""
        with self._lock:
            if self._turn == self._none and not self._reloads:
                return

        def cut(worker: str, end: float) -> str:
            rows = stat(_servers(worker, end), worker)
            slots = {row.server for row in rows if row.backend == backend and open_at(row) == (address, port)}
            if not slots:
                return ""
            sessions = _SESSION.findall(ask(worker, "show sess", end - time.monotonic()))
            mine = [f"shutdown session {name}" for name, at, slot in sessions if at == backend and slot in slots]
            return ask(worker, mine, end - time.monotonic())

        self._each(cut)

    def _each(self, ask_one: Callable[[str, float], str]) -> Sequence[str]:
        """Ask all of them; again when one ends, or the master starts itself anew for a reload, in the middle of it."""
        end = time.monotonic() + self._seconds
        while True:
            try:
                return tuple(ask_one(worker, end) for worker in leaving(self._master(), end - time.monotonic()))
            except Retryable:
                if time.monotonic() + _STEP >= end:
                    raise
            time.sleep(_STEP)


def _servers(worker: str, end: float) -> str:
    return ask(worker, "show stat -1 5 -1", end - time.monotonic())

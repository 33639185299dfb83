"""Follows the journal: what others wrote into it (a suspension from the command line, a newer epoch) is noticed here.

It asks once a second, of any kind of database in the same way, and reads only. What a record means for the plan is the
fold's business; here it is a hint like any other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from reconciler.core.errors import Fenced, Reason, ReconcilerError
from reconciler.core.record import Record, What
from reconciler.ports import Cause, Clock, Journal
from reconciler.telemetry import Metrics

EVERY = 1.0
PAGE = 1_000

_log = structlog.get_logger(__name__)


class JournalFollower:
    """A thread from `start` until `stop`. `request` is `Inbox.request`; `fatal` ends the daemon."""

    def __init__(
        self,
        journal: Journal,
        clock: Clock,
        metrics: Metrics,
        request: Callable[[str, Cause], None],
        fatal: Callable[[BaseException], None],
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._metrics = metrics
        self._request = request
        self._fatal = fatal
        self._stop = threading.Event()
        self._seen = 0
        self._thread = threading.Thread(target=self._follow, name="journal-follower", daemon=True)

    def start(self) -> None:
        """Begin after the records that are there now."""
        self._seen = max((record.index for record in self._journal.records(limit=1, newest=True)), default=0)
        self._metrics.journal_records.set(self._seen)
        self._thread.start()

    def look(self) -> None:
        """Read what is new, up to PAGE records."""
        for record in self._journal.records(after=self._seen, limit=PAGE):
            self._seen = record.index
            self._notice(record)
        self._metrics.journal_records.set(self._seen)

    def stop(self) -> None:
        """Read no more."""
        self._stop.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)

    def _notice(self, record: Record) -> None:
        entry = record.entry
        if record.epoch > self._journal.epoch:
            self._stop.set()
            self._fatal(
                Fenced(
                    Reason.FENCED,
                    f"another daemon opened epoch {record.epoch}, this one is epoch {self._journal.epoch}",
                    where=f"journal record {record.index}",
                    remedy="Run one daemon on a journal; look for the other one before you start this again",
                )
            )
        elif entry.what in (What.SUSPENDED, What.RESUMED, What.CONTINUED):
            self._request(entry.environment, Cause("operator", self._clock.now(), f"{entry.what} by {entry.author}"))
        elif entry.what is What.DRIFT_FOUND:
            self._metrics.drift.labels(entry.environment, entry.service, entry.reason).inc()

    def _follow(self) -> None:
        readable = True
        while not self._stop.wait(EVERY):
            try:
                self.look()
                readable = True
            except ReconcilerError as error:
                if readable:  # once, not every second for as long as a server is away
                    _log.warning("the journal cannot be read", error=str(error))
                readable = False
            except Exception:  # noqa: BLE001 (a bug must not end the thread)
                # Without this thread a newer epoch and a person's word would go unseen.
                _log.exception("a bug in Reconciler")

"""Counts the fetches of a Git source for the metrics, by what became of them. It changes nothing about them."""

from __future__ import annotations

import threading
from datetime import datetime

from reconciler.adapters.git_source import GitSource
from reconciler.core.errors import ReconcilerError
from reconciler.ports import Snapshot
from reconciler.telemetry import Metrics


class CountedSource:
    """`ports.Source` over a `GitSource`."""

    def __init__(self, source: GitSource, metrics: Metrics) -> None:
        self._source = source
        self._metrics = metrics
        self._lock = threading.Lock()
        self._known: dict[str, int] = {}

    def snapshot(self, repository: str, ref: str, *, since: datetime | None = None, known: str = "") -> Snapshot:
        """See `ports.Source`."""
        try:
            found = self._source.snapshot(repository, ref, since=since, known=known)
        except ReconcilerError:
            self._count(repository, "failed")
            raise
        self._count(repository, "ok")
        return found

    def at(self, repository: str, sha: str) -> Snapshot:
        """See `ports.Source`."""
        return self._source.at(repository, sha)

    def close(self) -> None:
        """End the commands that read."""
        self._source.close()

    def _count(self, repository: str, result: str) -> None:
        """Count the fetches begun since the last look: a shared one counts once, for whoever looks first."""
        with self._lock:
            begun = self._source.fetches(repository)
            new = begun - self._known.get(repository, 0)
            self._known[repository] = begun
        if new > 0:
            self._metrics.git_fetches.labels(repository, result).inc(new)

"""The board: the latest status of each environment, for the API, the command line and the metrics.

It holds immutable values that are swapped whole, so a reader never waits for a writer's work. It keeps nothing across
a restart and decides nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import MappingProxyType

from reconciler.core.status import EnvironmentStatus


class Board:
    """Shared by all threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._statuses: Mapping[str, EnvironmentStatus] = MappingProxyType({})
        self._version = 0

    @property
    def version(self) -> int:
        """Rises by one with each change."""
        with self._changed:
            return self._version

    def publish(self, status: EnvironmentStatus) -> None:
        """Replace what is shown of `status.environment`."""
        with self._changed:
            self._swap({**self._statuses, status.environment: status})

    def forget(self, environment: str) -> None:
        """`environment` is no longer configured."""
        with self._changed:
            self._swap({name: status for name, status in self._statuses.items() if name != environment})

    def get(self, environment: str) -> EnvironmentStatus | None:
        """The latest status of `environment`, None before its first cycle ended."""
        return self.all().get(environment)

    def all(self) -> Mapping[str, EnvironmentStatus]:
        """All of them, as they stood at one moment; the mapping does not change afterwards."""
        with self._changed:
            return self._statuses

    def wait(self, seen: int, timeout: float | None = None) -> int:
        """Wait up to `timeout` seconds until `version` is not `seen` any more; the version then."""
        with self._changed:
            self._changed.wait_for(lambda: self._version != seen, timeout)
            return self._version

    def _swap(self, statuses: dict[str, EnvironmentStatus]) -> None:
        self._statuses = MappingProxyType(statuses)
        self._version += 1
        self._changed.notify_all()

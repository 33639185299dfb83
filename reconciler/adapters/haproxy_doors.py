"""Who may change the proxies of one environment at the same time: many that shift traffic, or one that reloads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Doors:
    """A lock for many or for one alone; whoever wants to be alone comes before those who come later."""

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._inside = 0
        self._waiting = 0

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Together with others of this kind."""
        with self._free:
            self._free.wait_for(lambda: not self._waiting and self._inside >= 0)
            self._inside += 1
        try:
            yield
        finally:
            with self._free:
                self._inside -= 1
                self._free.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Together with nobody."""
        with self._free:
            self._waiting += 1
            try:
                self._free.wait_for(lambda: not self._inside)
            finally:
                self._waiting -= 1
            self._inside = -1
        try:
            yield
        finally:
            with self._free:
                self._inside = 0
                self._free.notify_all()

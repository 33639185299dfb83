"""What systemd is told: ready, alive, reloading, stopping. Silent where no systemd listens; decides nothing itself."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping

import sdnotify


class Systemd:
    """The notification protocol of `sd_notify(3)`, for a unit of `Type=notify` or `Type=notify-reload`.

    `WATCHDOG=1` is sent by whoever calls `alive`, at most four times in each watchdog interval: there is no timer
    of its own here, so a program that makes no progress is restarted.
    """

    def __init__(
        self, environ: Mapping[str, str] = os.environ, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._notifier = sdnotify.SystemdNotifier()
        self._monotonic = monotonic
        self._every = _watchdog_interval(environ) / 4
        self._sent = float("-inf")
        self._lock = threading.Lock()

    def ready(self, status: str) -> None:
        """The recovery cycles are done."""
        self._notifier.notify(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """A reload began; `ready` ends it."""
        microseconds = int(self._monotonic() * 1_000_000)
        self._notifier.notify(f"RELOADING=1\nMONOTONIC_USEC={microseconds}")

    def stopping(self) -> None:
        """No new work from here on."""
        self._notifier.notify("STOPPING=1\nSTATUS=finishing the step in hand")

    def alive(self) -> None:
        """Progress was made."""
        if not self._every:
            return
        with self._lock:
            now = self._monotonic()
            if now - self._sent < self._every:
                return
            self._sent = now
        self._notifier.notify("WATCHDOG=1")


def _watchdog_interval(environ: Mapping[str, str]) -> float:
    """Seconds, or 0 when systemd set no watchdog for this program (`sd_watchdog_enabled(3)`)."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    microseconds = environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1_000_000 if microseconds.isascii() and microseconds.isdigit() else 0.0

"""What of changed settings can be taken on while running. Values only; the daemon does the swapping."""

from __future__ import annotations

from reconciler.core.errors import Reason, Rejected
from reconciler.settings import Settings


def check(before: Settings, after: Settings) -> None:
    """Raise Rejected(SETTINGS_INVALID) naming every change that only a restart can bring about."""
    fixed = {
        "name": (before.name, after.name),
        "data": (before.data, after.data),
        "journal": (before.journal, after.journal),
        "http.host": (before.http.host, after.http.host),
        "http.port": (before.http.port, after.http.port),
        "concurrency": (before.concurrency, after.concurrency),
    }
    changed = [name for name, (old, new) in fixed.items() if old != new]
    if changed:
        raise Rejected(
            Reason.SETTINGS_INVALID,
            f"a change of {', '.join(changed)} needs a restart",
            where=str(after.file),
            remedy="Restart the daemon to take on this file; until then the settings from before stay in force",
        )

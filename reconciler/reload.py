"""What of changed settings can be taken on while running. Values only; the daemon does the swapping."""

from __future__ import annotations

from reconciler.core.errors import Reason, Rejected
from reconciler.settings import Settings


def check(before: Settings, after: Settings) -> None:
    """Raise Rejected(SETTINGS_INVALID) naming every change that only a restart can bring about."""
    fixed: dict[str, tuple[object, object]] = {
        "name": (before.name, after.name),
        "data": (before.data, after.data),
        "journal": ((before.journal, before.journal_settings), (after.journal, after.journal_settings)),
        "leader": (before.leader, after.leader),
        "shard": (before.shard, after.shard),
        "http.host": (before.http.host, after.http.host),
        "http.port": (before.http.port, after.http.port),
        "concurrency": (before.concurrency, after.concurrency),
    }
    if before.leader is not None:
        # The candidate keeps its connection for as long as it stands.
        runtime = before.leader.runtime
        fixed[f"runtimes.{runtime}, which keeps the Lease"] = (before.runtimes[runtime], after.runtimes.get(runtime))
    changed = [name for name, (old, new) in fixed.items() if old != new]
    if changed:
        raise Rejected(
            Reason.SETTINGS_INVALID,
            f"a change of {', '.join(changed)} needs a restart",
            where=str(after.file),
            remedy="Restart the daemon to take on this file; until then the settings from before stay in force",
        )

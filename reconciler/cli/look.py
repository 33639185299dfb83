"""A look at the world for `plan` and `status`: the same parts as the daemon's, but nothing is done or recorded."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from reconciler import journal_access, wiring
from reconciler.adapters.clock import SystemClock
from reconciler.core.errors import Reason, Stalled
from reconciler.loop import Reconciler
from reconciler.ports import Journal
from reconciler.redact import Redactor
from reconciler.settings import LogSettings, Settings
from reconciler.telemetry import configure_logs


@dataclass(frozen=True, slots=True)
class Look:
    """`note`: what the person should know about how this look was made; mostly empty."""

    reconciler: Reconciler
    journal: Journal
    clock: SystemClock
    note: str = ""


@contextmanager
def looking(settings: Settings) -> Iterator[Look]:
    """Build the parts, and close them afterwards."""
    redactor = Redactor()
    wiring.tell_redactor(redactor, settings)
    configure_logs(LogSettings(format="console", level="error"), redactor)
    clock = SystemClock()
    with ExitStack() as stack:
        journal, note = _journal(settings, clock)
        stack.callback(journal.close)
        mirrors = _mirrors(settings, stack)
        house = wiring.build_house(settings, journal, redactor, mirrors=mirrors, single_probe=True)
        stack.callback(wiring.close_house, house)
        reconciler = Reconciler(house)
        stack.callback(reconciler.close)
        yield Look(reconciler, journal, clock, note)


def _journal(settings: Settings, clock: SystemClock) -> tuple[Journal, str]:
    """The journal for reading; before the daemon's first start, an empty memory."""
    try:
        return journal_access.open_journal(settings, clock, act=False), ""
    except Stalled as error:
        if error.reason is not Reason.JOURNAL_UNAVAILABLE:
            raise
        return journal_access.NoJournal(), "there is no journal yet: this is what a first start would do"


def _mirrors(settings: Settings, stack: ExitStack) -> Path | None:
    """Where to keep the Git mirrors: the daemon's, unless it belongs to somebody else.

    Files of another user in there (those of root, typing with sudo) would be in the daemon's way.
    """
    try:
        if settings.data.stat().st_uid == os.geteuid():
            return None
    except FileNotFoundError:
        pass
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="reconciler-")))

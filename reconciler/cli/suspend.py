"""`reconciler suspend` and `resume`: a person's word, written to the journal, where a running daemon finds it."""

from __future__ import annotations

import getpass
import os
from difflib import get_close_matches
from typing import Annotated

import typer

from reconciler import journal_access
from reconciler.adapters.clock import SystemClock
from reconciler.cli.common import RefusedError, SettingsOption, choose, printable, read_settings, say
from reconciler.core.memory import EnvironmentMemory, Suspension
from reconciler.core.record import Entry, What
from reconciler.ports import Journal
from reconciler.settings import Settings

WHY_LIMIT = 500

Target = Annotated[str, typer.Argument(metavar="TARGET", help="ENVIRONMENT or ENVIRONMENT/SERVICE.")]
Why = Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, for the record.")]


def suspend(target: Target, *, why: Why = "", settings: SettingsOption = None) -> None:
    """Leave an environment or a service alone until `resume`: nothing there is started, replaced or removed."""
    _tell(target, What.SUSPENDED, why, read_settings(settings))


def resume(target: Target, *, why: Why = "", settings: SettingsOption = None) -> None:
    """End a suspension. For a service this also lifts its quarantines: the failed version is tried again."""
    _tell(target, What.RESUMED, why, read_settings(settings))


def _tell(target: str, what: What, why: str, settings: Settings) -> None:
    if len(why) > WHY_LIMIT:
        raise RefusedError(f"--why has {len(why)} characters", remedy=f"Keep it within {WHY_LIMIT}")
    environment, _, service = target.partition("/")
    choose([environment], settings)
    clock = SystemClock()
    journal = journal_access.open_journal(settings, clock, act=False)
    try:
        memory = journal.memory(environment)
        if service or target.endswith("/"):
            _check_service(environment, service, memory)
        held = _suspension(memory, service)
        if what is What.SUSPENDED and held is not None:
            say(f"{target} is already suspended, since {held.at:%Y-%m-%d %H:%M:%S} UTC by {held.by}: {held.why or '-'}")
            return
        record = _append(journal, clock, what, environment, service, why)
    finally:
        journal.close()
    say(f"{target}: {'suspended' if what is What.SUSPENDED else 'resumed'} (record {record})")


def _append(journal: Journal, clock: SystemClock, what: What, environment: str, service: str, why: str) -> int:
    entry = Entry(
        at=clock.now(),
        what=what,
        environment=environment,
        service=service,
        author=_person(),
        trigger="command line",
        reason=printable(why),
    )
    return journal.append(entry)[0].index


def _person() -> str:
    """Who types this; behind sudo, the person before it."""
    sudo = os.environ.get("SUDO_USER", "")
    return printable(sudo or getpass.getuser())


def _suspension(memory: EnvironmentMemory, service: str) -> Suspension | None:
    if not service:
        return memory.suspension
    known = memory.services.get(service)
    return known.suspension if known is not None else None


def _check_service(environment: str, service: str, memory: EnvironmentMemory) -> None:
    known = sorted({*memory.services, *memory.good})
    if service in known:
        return
    near = get_close_matches(service, known, n=1)
    advice = f"Did you mean {environment}/{near[0]}?" if near else f"Known: {', '.join(known) or 'none yet'}"
    raise RefusedError(f"the journal knows no service {service!r} in {environment}", remedy=advice)

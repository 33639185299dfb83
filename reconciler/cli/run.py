"""`reconciler run`: the daemon, or one convergence with `--once`."""

from __future__ import annotations

import sys
import threading
from dataclasses import replace
from typing import Annotated

import typer
from rich.live import Live

from reconciler import daemon, journal_access, wiring
from reconciler.adapters.clock import SystemClock
from reconciler.cli import progress, show
from reconciler.cli.common import SettingsOption, choose, complain, console, load_settings, read_settings, say
from reconciler.core.names import short
from reconciler.core.status import EnvironmentStatus
from reconciler.loop import Reconciler
from reconciler.once import Once
from reconciler.ports import Journal
from reconciler.redact import Redactor
from reconciler.settings import LogSettings, Settings
from reconciler.telemetry import configure_logs


def run(
    *,
    once: Annotated[bool, typer.Option("--once", help="Converge, then exit: 0 in sync, 1 failed.")] = False,
    environment: Annotated[
        list[str] | None, typer.Option("--environment", "-e", help="Only this environment; may be repeated.")
    ] = None,
    settings: SettingsOption = None,
) -> None:
    """Follow the repositories and keep the live state equal to them."""
    found = _only(read_settings(settings), environment)
    if once:
        raise typer.Exit(0 if _converge(found) else 1)
    raise typer.Exit(daemon.serve(found, lambda file: _only(load_settings(file), environment)))


def _only(settings: Settings, environments: list[str] | None) -> Settings:
    """The settings with the chosen environments alone."""
    chosen = choose(environments, settings)
    return replace(settings, environments={name: settings.environments[name] for name in chosen})


def _converge(settings: Settings) -> bool:
    redactor = Redactor()
    wiring.tell_redactor(redactor, settings)
    level = settings.log.level if settings.log.level in ("debug", "error") else "warning"
    configure_logs(LogSettings(format=settings.log.format, level=level), redactor)
    wiring.prepare_data(settings)
    journal = journal_access.open_journal(settings, SystemClock(), act=True)
    house = wiring.build_house(settings, journal, redactor)
    reconciler = Reconciler(house)
    try:
        if sys.stdout.isatty():
            with Live(console=console(), auto_refresh=False) as live:
                return Once(house, reconciler, _Screen(live, journal)).run()
        return Once(house, reconciler, _Lines()).run()
    finally:
        reconciler.close()
        wiring.close_house(house)
        journal.close()


class _Screen:
    """Redraws the table of all services with each status."""

    def __init__(self, live: Live, journal: Journal) -> None:
        self._live = live
        self._journal = journal
        self._lock = threading.Lock()
        self._statuses: dict[str, EnvironmentStatus] = {}

    def __call__(self, status: EnvironmentStatus) -> None:
        with self._lock:
            self._statuses[status.environment] = status
            memories = {name: self._journal.memory(name) for name in self._statuses}
            self._live.update(show.statuses(self._statuses, memories, status.at), refresh=True)


class _Lines:
    """One line for each change of a service, where no terminal can be redrawn; troubles go to standard error."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said: dict[str, str] = {}

    def __call__(self, status: EnvironmentStatus) -> None:
        with self._lock:
            trouble = [note.plain for note in show.environment_notes(status)]
            self._say(status.environment, "\n".join(trouble), error=True)
            for name, plan in sorted(status.plan.services.items() if status.plan else ()):
                wanted = short(plan.desired.version) if plan.desired is not None else "nothing"
                place, why = f"{status.environment}/{name}", show.reason(plan)
                said = ", ".join(filter(None, (plan.sync.value, plan.health.value, wanted, progress.brief(plan))))
                self._say(place, f"{place}: {said}" + (f" ({why})" if why else ""))

    def _say(self, key: str, line: str, *, error: bool = False) -> None:
        if line and self._said.get(key) != line:
            complain([line]) if error else say(line)
        self._said[key] = line

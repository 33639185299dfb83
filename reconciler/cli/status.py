"""`reconciler status`: how things stand now, seen with our own eyes rather than asked of the daemon."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.live import Live

from reconciler.cli import show
from reconciler.cli.common import (
    JsonOption,
    RefusedError,
    SettingsOption,
    choose,
    complain,
    console,
    draw,
    print_json,
    read_settings,
    writing,
)
from reconciler.cli.look import Look, looking
from reconciler.core import render
from reconciler.core.errors import ReconcilerError
from reconciler.core.status import EnvironmentStatus

EVERY = 1.0
"""Seconds between two looks of `--watch`."""


def status(
    environment: Annotated[str | None, typer.Argument(metavar="ENVIRONMENT", help="Only this one.")] = None,
    *,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep looking until Ctrl-C.")] = False,
    instances: Annotated[bool, typer.Option("--instances", "-i", help="Show each instance, too.")] = False,
    as_json: JsonOption = False,
    settings: SettingsOption = None,
) -> None:
    """Show each service: sync, health, version, instances; how far a release is; what is wrong, and why."""
    if watch and as_json:
        raise RefusedError(
            "--watch and --json exclude each other", remedy="Call `status --json` again and again instead"
        )
    found = read_settings(settings)
    names = choose([environment] if environment else None, found)
    with looking(found) as look:
        if watch:
            _watch(look, names, instances=instances)
            return
        statuses = {name: _status(look, name) for name in names}
        if as_json:
            print_json([render.environment_status(status) for status in statuses.values()])
        else:
            if look.note:
                complain([f"note: {look.note}"])
            draw(_table(look, statuses, instances=instances))
    if any(status.plan is None for status in statuses.values()):
        raise typer.Exit(1)


def _status(look: Look, environment: str) -> EnvironmentStatus:
    """How the admitted revision stands against the live state; before there is one, the head of the branch."""
    try:
        admitted = look.journal.memory(environment).admitted
        return look.reconciler.plan(environment, admitted or None)
    except ReconcilerError as error:
        return EnvironmentStatus(environment, look.clock.now(), reason=error.reason, message=str(error))


def _table(look: Look, statuses: dict[str, EnvironmentStatus], *, instances: bool) -> RenderableType:
    memories = {name: look.journal.memory(name) for name in statuses}
    return show.statuses(statuses, memories, look.clock.now(), instances=instances)


def _watch(look: Look, names: Sequence[str], *, instances: bool) -> None:
    with Live(console=console(), auto_refresh=False, screen=False) as live:
        while True:
            table = _table(look, {name: _status(look, name) for name in names}, instances=instances)
            with writing():
                live.update(table, refresh=True)
            time.sleep(EVERY)

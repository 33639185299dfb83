"""`reconciler plan`: what `run` would do now, without doing or recording anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from reconciler.cli import show
from reconciler.cli.common import JsonOption, SettingsOption, choose, complain, draw, print_json, read_settings, told
from reconciler.cli.look import Look, looking
from reconciler.core import render
from reconciler.core.errors import ReconcilerError
from reconciler.core.status import EnvironmentStatus

IN_SYNC, ERROR, CHANGES = 0, 1, 2

EnvironmentsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="ENVIRONMENT", help="Which environments. Default: all.")
]


def plan(
    environments: EnvironmentsArgument = None,
    *,
    ref: Annotated[
        str | None, typer.Option("--ref", metavar="REF", help="A branch, tag or commit instead of the followed branch.")
    ] = None,
    as_json: JsonOption = False,
    settings: SettingsOption = None,
) -> None:
    """Show what would happen and why. Exit code 0: in sync, 2: changes, 1: error."""
    found = read_settings(settings)
    with looking(found) as look:
        if look.note:
            complain([f"note: {look.note}"])
        statuses, errors = _plans(look, choose(environments, found), ref)
    if as_json:
        print_json([render.environment_status(status) for status in statuses])
    else:
        for status in statuses:
            draw(show.planned(status))
    complain([told(error) for error in errors])
    raise typer.Exit(exit_code(statuses, failed=bool(errors)))


def _plans(
    look: Look, environments: Sequence[str], ref: str | None
) -> tuple[list[EnvironmentStatus], list[ReconcilerError]]:
    """The plan of each environment; one that cannot be made does not keep the others from being shown."""
    statuses, errors = [], []
    for environment in environments:
        try:
            statuses.append(look.reconciler.plan(environment, ref))
        except ReconcilerError as error:
            errors.append(error)
    return statuses, errors


def exit_code(statuses: Sequence[EnvironmentStatus], *, failed: bool) -> int:
    """ERROR where something could not be planned, CHANGES where something would be done or is not as declared."""
    if failed or any(status.plan is None or status.reason is not None or status.problems for status in statuses):
        return ERROR
    in_sync = all(status.plan is not None and status.plan.in_sync for status in statuses)
    return IN_SYNC if in_sync else CHANGES

"""`reconciler proxy`: what the proxies of an environment need to know. It changes nothing."""

from __future__ import annotations

from typing import Annotated

import typer

from reconciler.cli.common import RefusedError, SettingsOption, choose, complain, read_settings, say
from reconciler.cli.look import looking

commands = typer.Typer(help="Show what the proxies are configured with.", no_args_is_help=True, add_completion=False)


@commands.callback()
def group() -> None:
    """Show what the proxies are configured with."""


@commands.command("config")
def config(
    environment: Annotated[str, typer.Argument(metavar="ENVIRONMENT", help="Which environment.")],
    *,
    settings: SettingsOption = None,
) -> None:
    """Print the HAProxy configuration for what Git declares now: the whole file for a proxy of Reconciler's, the
    fragment to include for an operator's own."""
    found = read_settings(settings)
    (name,) = choose([environment], found)
    if found.environments[name].proxy is None:
        raise RefusedError(
            f"the environment {name} has no proxy",
            where=str(found.file),
            remedy=f"Set environments.{name}.proxy; the guide says how",
        )
    with looking(found) as look:
        if look.note:
            complain([f"note: {look.note}"])
        text = look.reconciler.proxy_config(name)
    if not text:
        raise RefusedError(f"no configuration can be made for {name}", remedy="The lines above say why")
    say(text.rstrip("\n"))

"""`reconciler settings`: the operator's file, read and validated as the daemon would."""

from __future__ import annotations

import typer

from reconciler import banner, wiring
from reconciler.cli.common import SettingsOption, complain, read_settings, say
from reconciler.redact import Redactor

commands = typer.Typer(help="Check the operator's settings.", no_args_is_help=True, add_completion=False)


@commands.callback()
def group() -> None:
    """Check the operator's settings."""


@commands.command("check")
def check(*, settings: SettingsOption = None) -> None:
    """Validate the settings as a whole, with the files they name; warn of what is unwise."""
    found = read_settings(settings)
    wiring.credentials(found)
    redactor = Redactor()
    for name, repository in found.repositories.items():
        say(f"repository {name}: {redactor.text(repository.url)}")
    for name, docker in found.runtimes.items():
        say(f"engine {name}: {docker.host}")
    for name, environment in found.environments.items():
        say(f"environment {name}: {banner.describe(environment)}")
    complain([f"warning: {warning}" for warning in banner.warnings(found)])
    say(f"{found.file}: ok")

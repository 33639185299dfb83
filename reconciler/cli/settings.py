"""`reconciler settings`: the operator's file, read and validated as the daemon would."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import typer

from reconciler import banner, wiring
from reconciler.cli.common import RefusedError, SettingsOption, complain, read_settings, say
from reconciler.redact import Redactor
from reconciler.settings import KubernetesSettings, Settings

commands = typer.Typer(help="Check the operator's settings.", no_args_is_help=True, add_completion=False)


@commands.callback()
def group() -> None:
    """Check the operator's settings."""


@commands.command("check")
def check(*, settings: SettingsOption = None) -> None:
    """Validate the settings as a whole, with the files they name; warn of what is unwise."""
    found = read_settings(settings)
    wiring.credentials(found)
    for place, file in _files(found):
        _readable(place, file)
    redactor = Redactor()
    for name, repository in found.repositories.items():
        say(f"repository {name}: {redactor.text(repository.url)}")
    for name, runtime in found.runtimes.items():
        say(f"engine {name}: {runtime.address}")
    if found.shard is not None:
        mine = ", ".join(found.environments) or "no environment"
        say(f"shard {found.shard.index} of {found.shard.count}: {mine}")
    for name, environment in found.environments.items():
        namespace = f", namespace {environment.namespace}" if environment.namespace else ""
        say(f"environment {name}: {banner.describe(environment)}{namespace}")
    complain([f"warning: {warning}" for warning in banner.warnings(found)])
    say(f"{found.file}: ok")


def _files(settings: Settings) -> Iterator[tuple[str, Path]]:
    """The files that are opened later, again and again, and where they are named."""
    for name, runtime in settings.runtimes.items():
        if isinstance(runtime, KubernetesSettings) and runtime.kubeconfig is not None:
            yield f"runtimes.{name}.kubernetes.kubeconfig", runtime.kubeconfig
    journal = settings.journal_settings
    for place, file in (
        ("journalPasswordFile", journal.password_file),
        ("journalTls.ca", journal.tls_ca),
        ("journalTls.cert", journal.tls_cert),
        ("journalTls.key", journal.tls_key),
    ):
        if file is not None:
            yield place, file


def _readable(place: str, file: Path) -> None:
    try:
        with file.open("rb"):
            return
    except OSError as error:
        remedy = f"Make it readable for this user, or correct {place}"
        raise RefusedError(f"cannot be read: {error.strerror}", where=str(file), remedy=remedy) from error

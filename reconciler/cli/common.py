"""What all commands share: options, consoles, safe text, and how an expected error is told. Builds and decides nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from reconciler.core.errors import Reason, ReconcilerError

SETTINGS_VARIABLE = "RECONCILER_SETTINGS"
SETTINGS_PLACES = (Path("reconciler.yaml"), Path("/etc/reconciler/reconciler.yaml"))

SettingsOption = Annotated[
    Path | None,
    typer.Option(
        "--settings",
        envvar=SETTINGS_VARIABLE,
        metavar="FILE",
        help="The operator's settings. Default: ./reconciler.yaml, then /etc/reconciler/reconciler.yaml.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text for people.")]


class Refused(ReconcilerError):
    """What was typed cannot be done; nothing was changed."""

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__(Reason.SETTINGS_INVALID, what, where=where, remedy=remedy)


def settings_file(given: Path | None) -> Path:
    """The settings file that was named, or the first that exists in the usual places."""
    if given is not None:
        return given
    for place in SETTINGS_PLACES:
        if place.is_file():
            return place
    looked = " and ".join(str(place) for place in SETTINGS_PLACES)
    raise Refused(
        f"no settings file: looked for {looked}",
        remedy=f"Name one with --settings FILE or ${SETTINGS_VARIABLE}, or make one with `reconciler init`",
    )


def console() -> Console:
    """Standard output, for people. Text from outside goes through `safe`; markup in it is never interpreted."""
    return Console(markup=False, highlight=False, emoji=False, soft_wrap=not sys.stdout.isatty())


def printable(text: str) -> str:
    """`text` without the power over a terminal: control and direction-changing characters are shown as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def safe(text: str, style: str = "") -> Text:
    """Text from outside, for a table cell or a line."""
    return Text(printable(text), style=style)


def say(line: str = "") -> None:
    """One plain line to standard output, whatever the width of the terminal."""
    typer.echo("\n".join(printable(part) for part in line.split("\n")))


def complain(lines: Sequence[str]) -> None:
    """Lines to standard error."""
    for line in lines:
        typer.echo("\n".join(printable(part) for part in line.split("\n")), err=True)


def print_json(value: Any) -> None:
    """One JSON document to standard output."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=True))


@contextmanager
def expected_errors() -> Iterator[None]:
    """Tell an expected error on standard error, without a traceback, and end with exit code 1."""
    try:
        yield
    except ReconcilerError as error:
        complain([f"error: {error}"])
        raise typer.Exit(1) from error

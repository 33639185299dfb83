"""What all commands share: options, consoles, safe text, and how an expected error is told. It builds no parts."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.text import Text

from reconciler.core.errors import Reason, ReconcilerError, Rejected
from reconciler.settings import Settings, read

SETTINGS_VARIABLE = "RECONCILER_SETTINGS"
SHARD_VARIABLE = "RECONCILER_SHARD"
NO_TERMINAL_WIDTH = 1_000
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


class RefusedError(ReconcilerError):
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
    raise RefusedError(
        f"no settings file: looked for {looked}",
        remedy=f"Name one with --settings FILE or ${SETTINGS_VARIABLE}, or make one with `reconciler init`",
    )


def console() -> Console:
    """Standard output, for people. Markup in text is never interpreted; where no terminal is, no line is broken."""
    width = None if sys.stdout.isatty() else NO_TERMINAL_WIDTH
    return Console(markup=False, highlight=False, emoji=False, width=width)


def printable(text: str) -> str:
    """`text` without the power over a terminal: control and direction-changing characters are shown as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def safe(text: str, style: str = "") -> Text:
    """Text from outside, for a table cell or a line."""
    return Text(printable(text), style=style)


@contextmanager
def writing() -> Iterator[None]:
    """Around everything that writes to standard output: a full disk or a closed descriptor is an expected error.

    A reader that hangs up (`| head`) is none: the library ends the command for that without a word.
    """
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise
        _let_go()
        raise RefusedError(
            f"cannot be written: {error.strerror}",
            where="standard output",
            remedy="Make room there, or let it go elsewhere",
        ) from error


def _let_go() -> None:
    """What could not be written must not be tried again at the end: Python would end with a traceback and code 120."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def draw(what: RenderableType) -> None:
    """Something for people to standard output."""
    with writing():
        console().print(what)


def say(line: str = "") -> None:
    """One plain line to standard output, whatever the width of the terminal."""
    with writing():
        typer.echo("\n".join(printable(part) for part in line.split("\n")))


def complain(lines: Sequence[str]) -> None:
    """Lines to standard error."""
    for line in lines:
        typer.echo("\n".join(printable(part) for part in line.split("\n")), err=True)


def print_json(value: Mapping[str, Any] | Sequence[Any]) -> None:
    """One JSON document to standard output."""
    with writing():
        typer.echo(json.dumps(value, indent=2, ensure_ascii=True))


@contextmanager
def expected_errors() -> Iterator[None]:
    """Tell an expected error on standard error, without a traceback, and end with exit code 1."""
    try:
        yield
    except ReconcilerError as error:
        complain([told(error)])
        raise typer.Exit(1) from error


def told(error: ReconcilerError) -> str:
    """An error as a person reads it. Problems that name their place line by line stay as an editor understands them."""
    is_list = isinstance(error, Rejected) and error.reason is Reason.SETTINGS_INVALID and not error.where
    return str(error) if is_list else f"error: {error}"


def load_settings(file: Path) -> Settings:
    """The settings in `file`, read and validated as a whole. Raises Rejected(SETTINGS_INVALID) with every problem.

    RECONCILER_SHARD takes the place of `shard.index`, so that the daemons of all shards can share one file.
    """
    shard = os.environ.get(SHARD_VARIABLE, "")
    if shard and not (shard.isascii() and shard.isdecimal()):
        raise RefusedError(
            f"${SHARD_VARIABLE} is {shard!r}", remedy="Set it to a shard's number, from 0 on, or unset it"
        )
    return read(file, int(shard) if shard else None)


def read_settings(given: Path | None) -> Settings:
    """The settings that a command was told to use."""
    return load_settings(settings_file(given))


def unknown(what: str, name: str, known: Collection[str], *, where: str = "", prefix: str = "") -> RefusedError:
    """The refusal of a misspelt name, with the nearest of the `known` ones, or all of them."""
    near = get_close_matches(name, known, n=1)
    remedy = f"Did you mean {prefix}{near[0]}?" if near else f"Known: {', '.join(sorted(known)) or 'none yet'}"
    return RefusedError(what, where=where, remedy=remedy)


def choose(names: Sequence[str] | None, settings: Settings) -> list[str]:
    """The environments named by a person, each once, or all. Raises RefusedError for an unknown one."""
    for name in names or ():
        if name not in settings.environments:
            what = f"there is no environment {name!r} in the settings"
            raise unknown(what, name, settings.environments, where=str(settings.file))
    return list(dict.fromkeys(names)) if names else sorted(settings.environments)

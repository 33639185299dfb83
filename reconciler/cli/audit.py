"""`reconciler audit`: reads the journal; never writes to it."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from reconciler import journal_access
from reconciler.adapters.clock import SystemClock
from reconciler.cli.common import (
    JsonOption,
    RefusedError,
    SettingsOption,
    complain,
    draw,
    print_json,
    read_settings,
    safe,
    say,
    unknown,
    writing,
)
from reconciler.core import render
from reconciler.core.names import PREFIX, short
from reconciler.core.record import Entry, Record, VersionRef
from reconciler.ports import Journal
from reconciler.settings import Settings

commands = typer.Typer(
    help="Read, verify and export the record of everything that was done.", no_args_is_help=True, add_completion=False
)

_AGO = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
PAGE = 50

EnvironmentOption = Annotated[str, typer.Option("--environment", "-e", help="Only this environment.")]
ServiceOption = Annotated[str, typer.Option("--service", "-s", help="Only this service.")]
SinceOption = Annotated[
    str, typer.Option("--since", metavar="WHEN", help="Not older than: 30m, 2h, 7d, or an ISO 8601 time (UTC).")
]
LimitOption = Annotated[int, typer.Option("--limit", min=1, max=100_000, help="At most this many, the newest.")]


@contextmanager
def _journal(settings: Settings) -> Iterator[Journal]:
    journal = journal_access.open_journal(settings, SystemClock(), act=False)
    try:
        yield journal
    finally:
        journal.close()


@commands.command("list")
def list_records(
    *,
    environment: EnvironmentOption = "",
    service: ServiceOption = "",
    since: SinceOption = "",
    limit: LimitOption = PAGE,
    as_json: JsonOption = False,
    settings: SettingsOption = None,
) -> None:
    """Show the newest records, oldest first."""
    begin = moment(since, SystemClock().now()) if since else None
    found_settings = read_settings(settings)
    with _journal(found_settings) as journal:
        _check_environment(environment, found_settings, journal)
        if begin is None:
            found = list(journal.records(environment=environment, service=service, limit=limit, newest=True))
        else:
            every = journal.records(environment=environment, service=service)
            found = list(deque((record for record in every if record.entry.at >= begin), maxlen=limit))
    if as_json:
        print_json([render.record(record) for record in found])
    else:
        _show_table(found)


@commands.command("show")
def show(
    index: Annotated[int, typer.Argument(min=1, metavar="INDEX", help="The number of the record.")],
    *,
    as_json: JsonOption = False,
    settings: SettingsOption = None,
) -> None:
    """Show one record with everything in it."""
    with _journal(read_settings(settings)) as journal:
        found = next(islice(journal.records(after=index - 1, limit=1), 1), None)
    if found is None or found.index != index:
        raise RefusedError(f"the journal has no record {index}", remedy="See `reconciler audit list`")
    if as_json:
        print_json(render.record(found))
        return
    grid = Table.grid(padding=(0, 2))
    for name, value in _flat(render.record(found)):
        grid.add_row(name, safe(value))
    draw(grid)


@commands.command("verify")
def verify(*, as_json: JsonOption = False, settings: SettingsOption = None) -> None:
    """Check every hash, the chain, the epochs and the projections; exit code 1 when anything does not hold."""
    with _journal(read_settings(settings)) as journal:
        found = journal.verify()
    if as_json:
        print_json(
            {"records": found.records, "head": found.head, "epochs": found.epochs, "problem": found.problem or None}
        )
    elif not found.problem:
        epochs = "1 epoch" if found.epochs == 1 else f"{found.epochs} epochs"
        say(f"verified: {found.records} records in {epochs}, all hashes hold; head {found.head}")
    if found.problem:
        complain([f"error: the journal does not verify: {found.problem}"])
        raise typer.Exit(1)


@commands.command("export")
def export(
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write here instead of to standard output.")
    ] = None,
    settings: SettingsOption = None,
) -> None:
    """Write all records as JSON Lines, with their hashes: an auditor can verify them without this program."""
    with _journal(read_settings(settings)) as journal:
        if output is None:
            with writing():
                for line in journal_access.exported(journal):
                    typer.echo(line)
            return
        count = _write_new(output, journal_access.exported(journal))
    say(f"{count} records written to {output}")


def _check_environment(environment: str, settings: Settings, journal: Journal) -> None:
    """A misspelt filter must not look like a history without records. What was configured once may be asked for."""
    known = {*settings.environments, *journal.environments()}
    if environment and environment not in known:
        what = f"there is no environment {environment!r} in the settings or in the journal"
        raise unknown(what, environment, known)


def moment(text: str, now: datetime) -> datetime:
    """The time that `text` names: so long before `now` (30m, 2h, 7d), or ISO 8601, in UTC unless it says otherwise."""
    ago = _AGO.fullmatch(text)
    try:
        if ago is not None:
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        found = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise RefusedError(
            f"--since {text!r} is not a time", remedy="Write 30m, 2h, 7d, or for example 2026-05-31T14:00"
        ) from error
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _write_new(path: Path, lines: Iterator[str]) -> int:
    """Write `lines` to a file that must not exist yet; how many there were."""
    count = 0
    try:
        with path.open("x", encoding="utf-8") as file:
            for line in lines:
                file.write(line.rstrip("\n") + "\n")
                count += 1
    except FileExistsError as error:
        raise RefusedError(
            "the file exists already", where=str(path), remedy="Name another, or remove it first"
        ) from error
    except OSError as error:
        raise RefusedError(f"cannot be written: {error.strerror}", where=str(path)) from error
    return count


def _show_table(records: list[Record]) -> None:
    if not records:
        say("no records")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("#", "time (UTC)", "where", "what", "about", "revision", "author", "reason"):
        table.add_column(
            head, justify="right" if head == "#" else "left", no_wrap=head in ("#", "time (UTC)"), overflow="fold"
        )
    for record in records:
        entry = record.entry
        where = "/".join(part for part in (entry.environment, entry.service) if part)
        table.add_row(
            str(record.index),
            f"{entry.at:%Y-%m-%d %H:%M:%S}",
            safe(where or "-"),
            safe(_what(entry)),
            safe(_change(entry)),
            entry.revision[:12],
            safe(entry.author),
            safe(entry.reason),
        )
    draw(table)


def _what(entry: Entry) -> str:
    effect = entry.details.get("effect")
    return f"{entry.what.value} {effect}" if effect else entry.what.value


def _change(entry: Entry) -> str:
    name = str(entry.details.get("name", ""))
    if name.startswith(f"{PREFIX}.") or (entry.from_version is None and entry.to_version is None):
        return name
    return f"{_version(entry.from_version)} -> {_version(entry.to_version)}"


def _version(version: VersionRef | None) -> str:
    return short(version.version) if version is not None else "-"


def _flat(document: dict[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The document as (name, text) pairs; what is empty is left out, lists come one item a row."""
    for name, value in document.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield from ((f"{prefix}{name}", str(item)) for item in value)
        elif value not in (None, ""):
            yield f"{prefix}{name}", str(value)

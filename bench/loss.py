"""Requests that get lost: every kind of client, through every release and every fault, without a single retry.

docs/loss.md says how it is measured. The table is printed by scenario; the figures are sums, and the speeds of
`bench/loss_speed.py`.
"""

from __future__ import annotations

import sys

from rich.console import Console

from bench import loss_scenes as scenes
from bench import loss_speed as speed
from bench.figure import Figure, paper
from bench.loss_deaths import deaths
from bench.loss_scenes import Pace
from bench.loss_stage import Shape, Stage, stage
from bench.loss_table import Row, failures, table

REQUESTS, LONG = 200_000, 1_000_000
HARD = Pace(None)
MOST = 200


def run(*, long: bool = False, console: Console | None = None) -> list[Figure]:
    """All scenarios on one stage; `long`: a million requests, as fast as they are answered. Prints the table."""
    wanted, pace = (LONG, HARD) if long else (REQUESTS, Pace())
    rows: list[Row] = []
    with stage() as place:
        place.begin()
        place.settle(Shape("1.0"), place.release(Shape("1.0")))
        figures = speed.figures(place, _tell)
        _scenes(place, pace, rows)
        for number in range(MOST):
            if sum(row.tally.requests for row in rows) >= wanted:
                break
            _note(rows, scenes.rolling(place, pace, number))
    shown = console or paper()
    shown.print(table(rows))
    for line in failures(rows):
        shown.print(line, markup=False, highlight=False)
    return [*_sums(rows, wanted), *figures]


def _scenes(place: Stage, pace: Pace, rows: list[Row]) -> None:
    for row in scenes.releases(place, pace):
        _note(rows, row)
    for scene in (scenes.proxy_killed, scenes.term_ignored):
        _note(rows, scene(place, pace))
    for row in deaths(place, pace, _tell):
        _note(rows, row)
    _note(rows, scenes.engine_restarted(place, pace))


def _note(rows: list[Row], row: Row) -> None:
    rows.append(row)
    _tell(f"{row.name}: {row.failed} of {row.tally.requests} failed, {row.seconds:.1f} s")


def _tell(line: str) -> None:
    print(f"bench: loss: {line}", file=sys.stderr, flush=True)


def _sums(rows: list[Row], wanted: int) -> list[Figure]:
    requests = sum(row.tally.requests for row in rows)
    failed, cut = sum(row.failed for row in rows), sum(row.cut for row in rows)
    how = f"{len(rows)} scenarios, no retry in HAProxy or the clients; see docs/loss.md"
    killed = "under way in the proxy when it was killed, or asked before the engine had started it again"
    return [
        Figure("requests", requests, "", f">= {wanted:,}", requests >= wanted, how),
        Figure("failed requests", failed, "", "0", failed == 0, how),
        Figure("cut by the proxy's SIGKILL", cut, "", "", None, killed),
    ]

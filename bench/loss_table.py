"""What `bench loss` found, scenario by scenario, and how it is printed. It runs nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from bench.load import Failure, Tally

KINDS = ("keep-alive", "idle", "new-connection", "http2", "http2-tls", "websocket", "slow", "endless", "post")
SHOWN = 30


@dataclass(frozen=True)
class Row:
    """One scenario. `seconds` from the push (or the fault) until all was as declared again.

    `cut` of the failed ones were inevitable: under way inside the proxy when it was killed, or made while it was away.
    """

    name: str
    tally: Tally
    seconds: float
    cut: int = 0
    note: str = ""

    @property
    def failed(self) -> int:
        """What failed and should not have."""
        return self.tally.failed - self.cut


def table(rows: Sequence[Row]) -> Table:
    """A line for each scenario, and one for all."""
    found = Table(
        "scenario", *KINDS, "all", "failed", "cut by the kill", "reconnects", "s", title="requests", expand=False
    )
    for column in found.columns[1:]:
        column.justify = "right"
    for row in rows:
        counts = [row.tally.kinds[kind].requests if kind in row.tally.kinds else 0 for kind in KINDS]
        found.add_row(
            f"{row.name} ({row.note})" if row.note else row.name,
            *(f"{count:,}" for count in [*counts, row.tally.requests]),
            f"{row.failed:,}",
            f"{row.cut:,}" if row.cut else "",
            f"{row.tally.reconnects:,}",
            f"{row.seconds:.1f}",
        )
    total: Counter[str] = Counter()
    for row in rows:
        total.update({name: kind.requests for name, kind in row.tally.kinds.items()})
        total.update(all=row.tally.requests, failed=row.failed, cut=row.cut, reconnects=row.tally.reconnects)
    found.add_section()
    last = [total[name] for name in (*KINDS, "all", "failed", "cut", "reconnects")]
    found.add_row("all", *(f"{count:,}" for count in last), f"{sum(row.seconds for row in rows):.1f}")
    return found


def failures(rows: Sequence[Row]) -> list[str]:
    """The failures that should not have been, in words; the first ones of each scenario."""
    found = []
    for row in rows:
        if row.failed:
            found += [f"{row.name}: {_said(one)}" for one in row.tally.failures[-SHOWN:]]
    return found


def _said(one: Failure) -> str:
    return f"{one.kind} at {one.at:.3f} s: {one.reason} {one.status or ''} {one.version}".rstrip()

"""`python -m bench [NAME…] [--json] [--long]`: prints each figure with its value, its goal, and how it was measured."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from dataclasses import asdict

from rich.table import Table

from bench.figure import Figure, paper

NAMES = ("replace", "latency", "idle", "memory", "journal", "gates", "loss", "kube")


def main() -> int:
    """Run the named benchmarks, or all; the exit code is 0 also when a goal is missed, for a machine may be slow."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--json", action="store_true", help="one JSON array instead of a table")
    parser.add_argument("--long", action="store_true", help="loss: a million requests, as fast as they are answered")
    asked = parser.parse_args()
    figures: list[Figure] = []
    for name in asked.names or NAMES:
        print(f"bench: {name} …", file=sys.stderr, flush=True)
        # The table of this one is not made of figures; where those are for a program, it is for the person beside.
        options = {"long": asked.long, "console": paper(errors=asked.json)} if name == "loss" else {}
        figures.extend(importlib.import_module(f"bench.{name}").run(**options))
    if asked.json:
        print(json.dumps([asdict(figure) for figure in figures], indent=2))
    else:
        paper().print(_table(figures))
    return 0


def _table(figures: list[Figure]) -> Table:
    table = Table("figure", "value", "unit", "goal", "holds", "how it was measured", show_lines=True)
    for column in table.columns[:5]:
        column.no_wrap = True
    for figure in figures:
        holds = {True: "yes", False: "NO", None: "-"}[figure.holds]
        table.add_row(figure.name, f"{_shown(figure.value)}", figure.unit, figure.goal, holds, figure.method)
    return table


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.3g}"


if __name__ == "__main__":
    sys.exit(main())

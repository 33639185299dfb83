"""Runs the checks of this repository phase by phase, for `make lint`, `make unit` and `make test`.

It stops at the first phase that fails and says which one and why; at the end it shows how long each took and how
many tests ran. It must not decide what a check means: the settings of each tool stand in pyproject.toml.
"""

from __future__ import annotations

import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"
REPORTS = ROOT / ".cache" / "reports"
# One file of tests stays on one worker, so that what its tests share is made once. The order is that of the command
# line: what takes longest begins first. There is one worker more than the smallest machine has cores, for much of the
# time goes by in waiting for pods and containers.
PARALLEL = ("-n", "3", "--dist", "loadfile", "--no-loadscope-reorder")
SLOW = ("failpoints", "kube", "e2e", "contract", "deploy", "security", "simulation")
FAST = ("cli", "triggers", "web")


@dataclass(frozen=True, slots=True)
class Phase:
    """One command. `tests`: it is pytest, and its tests are counted."""

    name: str
    command: tuple[str, ...]
    tests: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a phase went: its exit code, wall time in seconds, and the tests that passed and did not."""

    phase: Phase
    code: int
    seconds: float
    passed: int = 0
    failed: int = 0


def _tool(name: str, *arguments: str) -> Phase:
    return Phase(f"{name} {' '.join(arguments)}".strip(), (str(BIN / name), *arguments))


def _pytest(name: str, folders: Sequence[str], *arguments: str) -> Phase:
    paths = [f"tests/{folder}" for folder in folders]
    command = (str(BIN / "python"), "-m", "pytest", "-q", *arguments, *paths)
    return Phase(f"tests: {name}", command, tests=True)


def _others() -> list[str]:
    """Folders of tests that are in none of the lists above: a new one is never forgotten."""
    listed = {"core", "tidy", *SLOW, *FAST}
    folders = [path for path in sorted((ROOT / "tests").iterdir()) if path.name not in listed]
    return [path.name for path in folders if any(path.glob("test_*.py"))]


def phases(which: str) -> list[Phase]:
    """The phases of `lint`, `unit` or `test`, the quickest first."""
    tidy = _pytest("tidy", ["tidy"])
    core = _pytest("core, every branch of it", ["core"], "--cov", *PARALLEL)
    match which:
        case "lint":
            return [
                _tool("ruff", "format", "--check", "."),
                _tool("ruff", "check", "."),
                _tool("lint-imports"),
                _tool("mypy", "reconciler", "bench", "tools"),
            ]
        case "unit":
            return [tidy, _pytest("core and the fast ones", ["core", *FAST], *PARALLEL)]
        case "test":
            rest = _pytest("all the others, on a real engine", [*SLOW, *_others(), *FAST], *PARALLEL, "--durations=10")
            return [tidy, core, rest]
        case _:
            raise SystemExit(f"unknown group of phases: {which}; known are lint, unit and test")


def _count(report: Path) -> tuple[int, int]:
    """Passed and failed tests in a JUnit report; errors count as failed, skipped ones as neither."""
    if not report.exists():
        return 0, 0
    passed = failed = 0
    for suite in ET.parse(report).getroot().iter("testsuite"):
        bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        failed += bad
        passed += int(suite.get("tests", 0)) - bad - int(suite.get("skipped", 0))
    return passed, failed


def run(phase: Phase, number: int, total: int) -> Outcome:
    """Run one phase on this screen."""
    print(f"\n=== {number}/{total}  {phase.name}", flush=True)
    report = REPORTS / f"{number}.xml"
    report.unlink(missing_ok=True)
    command = [*phase.command, f"--junitxml={report}"] if phase.tests else list(phase.command)
    began = time.monotonic()
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    seconds = time.monotonic() - began
    passed, failed = _count(report) if phase.tests else (0, 0)
    print(f"--- {number}/{total}  {phase.name}: {'ok' if code == 0 else 'FAILED'} in {seconds:.1f} s", flush=True)
    return Outcome(phase, code, seconds, passed, failed)


def show(outcomes: Sequence[Outcome]) -> None:
    """All phases with their durations, and the sum of the tests as the last line."""
    print()
    for outcome in outcomes:
        tests = f"{outcome.passed} passed, {outcome.failed} failed" if outcome.phase.tests else ""
        word = "ok    " if outcome.code == 0 else "FAILED"
        print(f"  {word} {outcome.seconds:7.1f} s  {outcome.phase.name:<42} {tests}".rstrip())
    print(f"  all    {sum(outcome.seconds for outcome in outcomes):7.1f} s")
    bad = next((outcome for outcome in outcomes if outcome.code != 0), None)
    if bad is not None:
        command = " ".join(bad.phase.command).replace(f"{ROOT}/", "")
        print(f"\nstopped at: {bad.phase.name} (exit code {bad.code}; the reason is above)\nagain, alone: {command}")
    if any(outcome.phase.tests for outcome in outcomes):
        passed = sum(outcome.passed for outcome in outcomes)
        print(f"total: {passed} passed, {sum(outcome.failed for outcome in outcomes)} failed")


def main(arguments: Sequence[str]) -> int:
    """Run the named groups one after the other; 0 when all of it is well."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    todo = [phase for which in arguments for phase in phases(which)]
    outcomes: list[Outcome] = []
    for number, phase in enumerate(todo, start=1):
        outcomes.append(run(phase, number, len(todo)))
        if outcomes[-1].code != 0:
            break
    show(outcomes)
    return int(outcomes[-1].code != 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

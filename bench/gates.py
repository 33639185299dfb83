"""How often a gate stops an innocent candidate, and how fast it stops a guilty one: simulated, from fixed seeds."""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import accumulate
from random import Random
from statistics import median

from bench.figure import Figure
from reconciler.core.analysis import Counts, Evidence, Limits, Verdict, judge, look

ALPHA = 0.01
MINIMUM = 50
BASE = 0.003
LOOKS = 60
INNOCENT_RUNS = 2_000
GUILTY_RUNS = 400
WINDOW, WINDOWS, FLOOR = 60, 10, 0.99
SEED = 20_240_229


@dataclass(frozen=True, slots=True)
class Load:
    """What both sides serve between two looks, and how likely a request of each is bad."""

    candidate: int
    baseline: int
    candidate_ratio: float
    baseline_ratio: float


Rule = Callable[[Counts, Counts], bool]
"""Given what came since the last look: stop the candidate?"""


def gate(limits: Limits) -> Rule:
    """The rule of a gate, with nothing seen yet."""
    evidence = Evidence()

    def stops(candidate: Counts, baseline: Counts) -> bool:
        nonlocal evidence
        evidence = look(evidence, candidate, baseline)
        return judge(evidence, limits).verdict is Verdict.FAIL

    return stops


def threshold(floor: float, failures: int) -> Rule:
    """The usual rule: stop after so many looks with a success ratio below a floor, whatever the baseline does."""
    failed = 0

    def stops(candidate: Counts, _: Counts) -> bool:
        nonlocal failed
        failed += 1 - candidate.bad / candidate.requests < floor
        return failed >= failures

    return stops


@cache
def _cumulated(requests: int, ratio: float) -> list[float]:
    def chance(bad: int) -> float:
        ways = math.lgamma(requests + 1) - math.lgamma(bad + 1) - math.lgamma(requests - bad + 1)
        return math.exp(ways + bad * math.log(ratio) + (requests - bad) * math.log1p(-ratio))

    return list(accumulate(map(chance, range(requests))))


def served(random: Random, requests: int, ratio: float, burst: int = 1) -> Counts:
    """So many requests with a binomial number of bad ones; these come `burst` at a time, at the same mean ratio."""
    bad = bisect(_cumulated(requests, ratio / burst), random.random())
    return Counts(requests, min(requests, bad * burst))


def stopped(loads: Sequence[Load], begin: Callable[[], Rule], runs: int, burst: int = 1) -> list[int | None]:
    """For each run: the requests that the candidate had served when the rule stopped it; None if it never did."""
    found: list[int | None] = []
    for run_number in range(runs):
        random, rule, requests, end = Random(SEED + run_number), begin(), 0, None
        for load in loads:
            requests += load.candidate
            candidate = served(random, load.candidate, load.candidate_ratio, burst)
            if rule(candidate, served(random, load.baseline, load.baseline_ratio, burst)):
                end = requests
                break
        found.append(end)
    return found


def share(found: Sequence[int | None]) -> float:
    """The share of runs that were stopped."""
    return sum(end is not None for end in found) / len(found)


def same(ratios: Sequence[float], candidate: int, baseline: int) -> list[Load]:
    """Loads of two equally good sides, one for each ratio of bad requests."""
    return [Load(candidate, baseline, ratio, ratio) for ratio in ratios]


def drifting(low: float, high: float, looks: int = LOOKS) -> list[float]:
    """Ratios that go up and down between two values, geometrically, three times."""
    return [low * (high / low) ** round(0.5 - 0.5 * math.cos(6 * math.pi * n / looks), 1) for n in range(looks)]


def run() -> list[Figure]:
    """Innocent candidates by the gate and by fixed thresholds, then guilty ones by the gate."""
    return [*_innocent(), *_naive(), *_guilty()]


def _innocent() -> list[Figure]:
    steady = [BASE] * LOOKS
    cases = [
        ("A/A, 100 + 100 requests a look", same(steady, 100, 100), None, 1),
        ("A/A, 50 + 950 requests a look", same(steady, 50, 950), None, 1),
        ("A/A, ratio drifting 0.1 % .. 20 %", same(drifting(0.001, 0.2), 100, 100), None, 1),
        ("A/A, a guardrail at the true ratio", same(steady, 100, 100), BASE, 1),
        ("A/A, errors in bursts of 3 on a side", same(steady, 100, 100), None, 3),
    ]
    figures = []
    for name, loads, guard, burst in cases:
        rate = share(stopped(loads, partial(gate, Limits(ALPHA, MINIMUM, guard)), INNOCENT_RUNS, burst))
        how = f"two equal sides, {BASE:.1%} bad unless said, a verdict at each of {LOOKS} looks, {INNOCENT_RUNS:,} runs"
        if burst > 1:
            figures.append(Figure(name, rate * 100, "% alarms", "", None, f"{how}; outside of what the test rests on"))
        else:
            figures.append(Figure(name, rate * 100, "% alarms", f"<= {ALPHA:.0%}", rate <= ALPHA, how))
    return figures


def _naive() -> list[Figure]:
    loads = same([BASE] * WINDOWS, WINDOW, WINDOW)
    how = f"{BASE:.1%} bad, {WINDOW} requests a side and look, {WINDOWS} looks, {INNOCENT_RUNS:,} runs"
    ours = share(stopped(loads, partial(gate, Limits(ALPHA, MINIMUM)), INNOCENT_RUNS))
    figures = [Figure("the same by the gate", ours * 100, "% alarms", f"<= {ALPHA:.0%}", ours <= ALPHA, how)]
    for failures in (1, 2, 5):
        rate = share(stopped(loads, partial(threshold, FLOOR, failures), INNOCENT_RUNS))
        name = f"fixed threshold, {failures} failed look{'s' * (failures > 1)}"
        figures.append(Figure(name, rate * 100, "% alarms", "", None, f"success below {FLOOR:.0%}; {how}"))
    return figures[1:] + figures[:1]


def _guilty() -> list[Figure]:
    figures = []
    for ratio in (0.01, 0.03, 0.10):
        for requests in (20, 100, 1_000):
            loads = [Load(requests, requests, ratio, BASE)] * LOOKS
            found = stopped(loads, partial(gate, Limits(ALPHA, MINIMUM)), GUILTY_RUNS)
            name = f"{BASE:.1%} -> {ratio:.0%}, {requests:,} a look"
            how = f"requests a side and look, at most {LOOKS} looks, alpha {ALPHA:.0%}, {GUILTY_RUNS} runs"
            figures.append(Figure(f"{name}: caught", share(found) * 100, "% of runs", "", None, how))
            ends = [end for end in found if end is not None]
            if ends:
                how = "median of the caught: requests of the candidate until then"
                figures.append(Figure(f"{name}: after", median(ends), "requests", "", None, how))
    return figures

"""The statistics of a gate: counts of a candidate beside those of a baseline. Counts in, words out.

It must not know where counts come from, when to look again, or what a verdict leads to.

**The comparison.** One look is a 2x2 table: requests and bad ones of both sides since the look before. Given the
requests of both sides and the total of bad ones, the candidate's share of these is hypergeometric if both sides are
equally good, whatever the common error ratio is, and follows Fisher's noncentral hypergeometric distribution if the
odds of the candidate are w times as high. The ratio of the two probabilities has the mean 1 if both sides are equally
good: it is an e-value. So is the product over looks; so is the mean of such products over the fixed grid `ODDS`. By
Ville's inequality that mean ever reaches 1/alpha with a probability of at most alpha, for an equal candidate:
at any number and time of looks, with any allocation, and with an error ratio that drifts for both sides alike.
Only "worse" counts as evidence: there is no alternative with w < 1.

**The guardrail.** With q the ratio whose odds are w times those of the guard g, the likelihood ratio of q to g is an
e-value for every candidate whose ratio is g or less, again mixed over `ODDS`; it depends on the totals alone.

Sources: J. Ville, Étude critique de la notion de collectif (1939); R. Turner, A. Ly, P. Grünwald, Generic E-variables
for exact sequential k-sample tests that allow for optional stopping (arXiv 2106.02693); M. Lindon, A. Malek,
Anytime-valid inference for multinomial count data (arXiv 2011.03567); M. Lindon, C. Sanden, V. Shirikian, Rapid
regression detection in software deployments through sequential testing (arXiv 2205.14762); the noncentral
distribution and its mode: J. G. Liao, O. Rosen, The American Statistician 55 (2001).

What it rests on: a request is bad independently of the others of its look; how many requests a side gets in a look
does not depend on how they end; no look spans a change of weights. Errors that come in bursts on one side alone look
like a difference, for they are one: `python -m bench gates` shows how much that matters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum, auto
from functools import lru_cache

ODDS = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
"""How many times as high the odds of a bad request may be: the alternatives, all of the same weight."""
LARGEST = 10_000_000
"""Requests of one look up to which its e-value is exact; above, a bound from below is used, which is as safe."""
_LOGS = tuple(map(math.log, ODDS))
_NEGLIGIBLE = 1e-17
_MOST = 700.0
"""The natural logarithm of the largest e-value that is told: a float can hold it."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What one side has served by now, or between two looks: requests, and the bad ones among them."""

    requests: int
    bad: int

    def __post_init__(self) -> None:
        assert 0 <= self.bad <= self.requests, f"{self.bad} bad ones of {self.requests} requests"

    def __add__(self, more: Counts) -> Counts:
        return Counts(self.requests + more.requests, self.bad + more.bad)

    def __sub__(self, earlier: Counts) -> Counts:
        """What came since `earlier` on the same counter.

        A counter that went back was reset, so all that it shows is new. Never more bad ones than requests, though a
        counter that is read while it moves may say so. Subtract counter by counter: a sum hides a reset.
        """
        if self.requests < earlier.requests or self.bad < earlier.bad:
            return self
        requests = self.requests - earlier.requests
        return Counts(requests, min(self.bad - earlier.bad, requests))


@dataclass(frozen=True, slots=True)
class Evidence:
    """The state of one metric's test: totals of both sides, and the logarithm of the e-value for each of `ODDS`.

    The guardrail needs the candidate's totals only, so it has no state of its own.
    """

    candidate: Counts = Counts(0, 0)
    baseline: Counts = Counts(0, 0)
    worse: tuple[float, ...] = (0.0,) * len(ODDS)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one metric is judged by.

    `alpha`: the chance of a false alarm over the whole release, this metric's share of it. `minimum`: requests of a
    side below which nothing is said of it. `guard`: the ratio of bad requests, 0..1, that the candidate may have.
    """

    alpha: float
    minimum: int
    guard: float | None = None

    def __post_init__(self) -> None:
        assert 0 < self.alpha < 1, f"alpha is {self.alpha}"
        assert self.minimum >= 0, f"the minimum is {self.minimum}"
        assert self.guard is None or 0 <= self.guard <= 1, f"the guardrail is {self.guard}"


class Verdict(StrEnum):
    """What a gate says. PASS: enough requests, and nothing found. HOLD: nothing can be said yet."""

    PASS = auto()
    HOLD = auto()
    FAIL = auto()


@dataclass(frozen=True, slots=True)
class Finding:
    """A verdict with its reason: `said` is one sentence for people.

    `e_value` is that of the comparison, or of the guardrail where that one decided, at most e^700: for an innocent
    candidate it is ever x or more with a chance of at most 1/x.
    """

    verdict: Verdict
    said: str
    candidate: Counts
    baseline: Counts
    e_value: float


def split(alpha: float, metrics: int) -> float:
    """The share of each of so many metrics (Bonferroni): the chance that any of them alarms falsely stays `alpha`."""
    assert metrics >= 1, f"{metrics} metrics"
    return alpha / metrics


def look(evidence: Evidence, candidate_delta: Counts, baseline_delta: Counts) -> Evidence:
    """The evidence after one more look, given what each side has served since the look before."""
    bad = candidate_delta.bad + baseline_delta.bad
    means = _log_means(candidate_delta.requests, baseline_delta.requests, bad)
    return Evidence(
        evidence.candidate + candidate_delta,
        evidence.baseline + baseline_delta,
        tuple(
            before + candidate_delta.bad * log - mean
            for before, log, mean in zip(evidence.worse, _LOGS, means, strict=True)
        ),
    )


def judge(evidence: Evidence, limits: Limits, what: str = "errors") -> Finding:
    """What the evidence says by now; `what` names the bad requests in the sentence.

    With a guardrail, it and the comparison get half of `alpha` each. The guardrail needs requests of the candidate
    only: it protects also when there is no baseline to compare with.
    """
    candidate, baseline = evidence.candidate, evidence.baseline
    worse = _mixed(evidence.worse)
    needed = max(limits.minimum, 1)
    threshold = -math.log(limits.alpha if limits.guard is None else limits.alpha / 2)
    both = f"{what} {_side(candidate)} beside {_side(baseline)}"
    if candidate.requests < needed:
        few = f"{both}: too few requests to judge by, each side needs {needed:,}"
        return Finding(Verdict.HOLD, few, candidate, baseline, _told(worse))
    if limits.guard is not None and (above := _log_above(candidate, limits.guard)) >= threshold:
        said = f"{what} {_side(candidate)}: above the limit of {_percent(limits.guard)} beyond doubt ({_chance(above)})"
        return Finding(Verdict.FAIL, said, candidate, baseline, _told(above))
    if baseline.requests < needed:
        few = f"{both}: too few requests to compare with, each side needs {needed:,}"
        return Finding(Verdict.HOLD, few, candidate, baseline, _told(worse))
    if worse < threshold:
        return Finding(Verdict.PASS, f"{both}: nothing speaks against it", candidate, baseline, _told(worse))
    # Totals mislead when the allocation and the error ratio both changed; the looks one by one do not.
    totals = candidate.bad * baseline.requests > baseline.bad * candidate.requests
    how = "worse" if totals else "worse look by look, though not in total,"
    return Finding(Verdict.FAIL, f"{both}: {how} beyond doubt ({_chance(worse)})", candidate, baseline, _told(worse))


def judge_value(value: float | None, *, maximum: float | None, minimum: float | None) -> tuple[Verdict, str]:
    """A single measured value beside its declared limits, which it may touch. Without a finite value: HOLD.

    This is no test: it believes the value, so what it averages over has to be chosen by who wrote the query.
    """
    if value is None:
        return Verdict.HOLD, "there is no value to judge by"
    if not math.isfinite(value):
        return Verdict.HOLD, f"the value is {value}, which is nothing to judge by"
    if maximum is not None and value > maximum:
        return Verdict.FAIL, f"the value {value:g} is above the maximum {maximum:g}"
    if minimum is not None and value < minimum:
        return Verdict.FAIL, f"the value {value:g} is below the minimum {minimum:g}"
    return Verdict.PASS, f"the value {value:g} is within its limits"


@lru_cache(maxsize=4096)
def _log_means(candidate: int, baseline: int, bad: int) -> tuple[float, ...]:
    """For each of `ODDS`: the logarithm of the mean of odds**X, X hypergeometric. Quiet looks repeat, so it is kept."""
    if candidate + baseline > LARGEST:
        return tuple(_log_mean_above(candidate, baseline, bad, odds) for odds in ODDS)
    return tuple(_log_mean(candidate, baseline, bad, odds) for odds in ODDS)


def _log_mean(candidate: int, baseline: int, bad: int, odds: float) -> float:
    """The logarithm of the sum of C(candidate, k) C(baseline, bad-k) odds**k / C(candidate+baseline, bad) over k.

    Summed from the largest term outwards, in units of that term, until the terms do not count any more. They fall off
    like a normal density with a deviation of at most sqrt(requests)/4, so that a look of 10^6 requests takes less
    than 5,000 terms for each of `ODDS`, and one of `LARGEST` less than 15,000, however many of them are bad.
    """
    lowest, highest = max(0, bad - baseline), min(bad, candidate)
    spare = baseline - bad
    middle = odds * (candidate + bad + 2) + spare
    product = odds * (candidate + 1) * (bad + 1)
    mode = int(2 * product / (middle + math.sqrt(middle * middle - 4 * (odds - 1) * product)))
    peak = min(max(mode, lowest), highest)
    total = 1.0
    term, k = 1.0, peak
    while k < highest and term > total * _NEGLIGIBLE:
        term *= odds * (candidate - k) * (bad - k) / ((k + 1) * (spare + k + 1))
        total += term
        k += 1
    term, k = 1.0, peak
    while k > lowest and term > total * _NEGLIGIBLE:
        term *= k * (spare + k) / (odds * (candidate - k + 1) * (bad - k + 1))
        total += term
        k -= 1
    ways = _log_ways(candidate, peak) + _log_ways(baseline, bad - peak) - _log_ways(candidate + baseline, bad)
    return ways + peak * math.log(odds) + math.log(total)


def _log_mean_above(candidate: int, baseline: int, bad: int, odds: float) -> float:
    """A bound of `_log_mean` from above, so that the e-value is never too large; tight while few requests are bad.

    Drawing with replacement spreads more (W. Hoeffding, JASA 58, 1963, theorem 4), and it is the same distribution
    whether bad requests are drawn from all, or the candidate's.
    """
    requests = candidate + baseline
    return min(
        bad * math.log1p((odds - 1) * candidate / requests),
        candidate * math.log1p((odds - 1) * bad / requests),
    )


def _log_ways(of: int, chosen: int) -> float:
    return math.lgamma(of + 1) - math.lgamma(chosen + 1) - math.lgamma(of - chosen + 1)


def _log_above(counts: Counts, guard: float) -> float:
    """The logarithm of the e-value of "the ratio is `guard` or less"."""
    if guard == 0:
        return math.inf if counts.bad else 0.0
    logs = (counts.bad * math.log(odds) - counts.requests * math.log1p(guard * (odds - 1)) for odds in ODDS)
    return _mixed(tuple(logs))


def _mixed(logs: tuple[float, ...]) -> float:
    """The logarithm of the mean of e-values that are given as logarithms."""
    largest = max(logs)
    return largest + math.log(math.fsum(math.exp(each - largest) for each in logs) / len(logs))


def _told(log: float) -> float:
    return math.exp(min(log, _MOST))


def _chance(log: float) -> str:
    """At most how often chance looks like this, rounded towards more often."""
    if log >= math.log(1e6):
        return "less than 1 in a million by chance"
    times = int(math.exp(log))
    unit = 10 ** max(0, len(str(times)) - 2)
    return f"1 in {times // unit * unit:,} by chance"


def _side(counts: Counts) -> str:
    if not counts.requests:
        return "unknown (no requests)"
    return f"{_percent(counts.bad / counts.requests)} ({counts.bad:,} of {counts.requests:,})"


def _percent(ratio: float) -> str:
    if 0 < ratio < 0.000_05:
        return "<0.01%"
    return f"{100 * ratio:.2f}".rstrip("0").rstrip(".") + "%"

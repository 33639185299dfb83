"""The statistics of a gate: exact on small tables, bounded on large ones, and said in words that people can check."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.analysis import (
    LARGEST,
    ODDS,
    Counts,
    Evidence,
    Limits,
    Verdict,
    judge,
    judge_value,
    look,
    split,
)

EMPTY = Evidence()


def chances(candidate: int, baseline: int, bad: int) -> dict[int, Fraction]:
    """How likely each number of the candidate's bad requests is if both sides are equally good: exact."""
    of = math.comb(candidate + baseline, bad)
    feasible = range(max(0, bad - baseline), min(bad, candidate) + 1)
    return {k: Fraction(math.comb(candidate, k) * math.comb(baseline, bad - k), of) for k in feasible}


def one_look(candidate: int, baseline: int, bad: int, k: int) -> tuple[float, ...]:
    return look(EMPTY, Counts(candidate, k), Counts(baseline, bad - k)).worse


def counted(requests: int, bad: int, other: int = 0, other_bad: int = 0) -> Evidence:
    """What was counted in one look."""
    return look(EMPTY, Counts(requests, bad), Counts(other, other_bad))


tables = st.tuples(st.integers(0, 60), st.integers(0, 60)).flatmap(
    lambda sides: st.tuples(st.just(sides[0]), st.just(sides[1]), st.integers(0, sum(sides)))
)


@given(tables)
def test_the_e_values_of_a_look_are_fair_bets(table):
    probabilities = chances(*table)
    for number in range(len(ODDS)):
        terms = (float(p) * math.exp(one_look(*table, k)[number]) for k, p in probabilities.items())
        assert math.fsum(terms) == pytest.approx(1, rel=1e-9)


@given(tables)
def test_they_are_the_ratio_of_two_exact_probabilities(table):
    probabilities = chances(*table)
    for number, odds in enumerate(map(Fraction, ODDS)):
        mean = sum(p * odds**k for k, p in probabilities.items())
        for k in probabilities:
            assert one_look(*table, k)[number] == pytest.approx(math.log(odds**k / mean), abs=1e-9)


@given(tables)
def test_more_bad_requests_of_the_candidate_are_more_evidence(table):
    evidence = [one_look(*table, k) for k in chances(*table)]
    for fewer, more in pairwise(evidence):
        assert all(a < b for a, b in zip(fewer, more, strict=True))


@given(tables.flatmap(lambda table: st.tuples(st.just(table), st.sampled_from(sorted(chances(*table))))))
def test_a_candidate_that_is_no_worse_gives_no_evidence(drawn):
    (candidate, baseline, bad), k = drawn
    if k * baseline <= (bad - k) * candidate:
        assert max(one_look(candidate, baseline, bad, k)) <= 1e-9


@pytest.mark.parametrize("table", [(0, 50, 7), (50, 0, 7), (50, 50, 0), (50, 30, 80)])
def test_a_look_that_cannot_tell_tells_nothing(table):
    for k in chances(*table):
        assert one_look(*table, k) == (0.0,) * len(ODDS)


@given(st.lists(tables.flatmap(lambda t: st.tuples(st.just(t), st.sampled_from(sorted(chances(*t))))), max_size=5))
def test_looks_add_up(drawn):
    evidence = EMPTY
    for (candidate, baseline, bad), k in drawn:
        evidence = look(evidence, Counts(candidate, k), Counts(baseline, bad - k))
    for number in range(len(ODDS)):
        parts = [one_look(*table, k)[number] for table, k in drawn]
        assert evidence.worse[number] == pytest.approx(math.fsum(parts), abs=1e-9)
    assert evidence.candidate == Counts(sum(t[0] for t, _ in drawn), sum(k for _, k in drawn))
    assert evidence.baseline == Counts(sum(t[1] for t, _ in drawn), sum(t[2] - k for t, k in drawn))


def log_sum_over_everything(candidate: int, baseline: int, bad: int, odds: float) -> float:
    def ways(n: int, k: int) -> float:
        return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)

    feasible = range(max(0, bad - baseline), min(bad, candidate) + 1)
    logs = [ways(candidate, k) + ways(baseline, bad - k) + k * math.log(odds) for k in feasible]
    top = max(logs)
    return top + math.log(math.fsum(math.exp(each - top) for each in logs)) - ways(candidate + baseline, bad)


def expected(candidate: int, baseline: int, bad: int) -> int:
    """How many bad requests an equal candidate would have."""
    return round(bad * candidate / (candidate + baseline))


@pytest.mark.parametrize(
    "table",
    [
        (500_000, 500_000, 5_000),
        (50_000, 950_000, 60_000),
        (500_000, 500_000, 30_000),
        (999_000, 1_000, 20_000),
        (1_000, 999_000, 990_000),
    ],
)
def test_a_large_look_is_summed_without_loss(table):
    k = expected(*table)
    for number, odds in enumerate(ODDS):
        exact = k * math.log(odds) - log_sum_over_everything(*table, odds)
        assert one_look(*table, k)[number] == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize(
    "table", [(LARGEST, 1, 5), (LARGEST, LARGEST, 12), (LARGEST // 20, LARGEST, 30), (3, LARGEST, 9_000_000)]
)
def test_a_look_that_is_too_large_is_bounded_from_below(table):
    probabilities = chances(*table) if table[2] < 100 else few_candidates(*table)
    for number, odds in enumerate(ODDS):
        mean = math.fsum(float(p) * odds**k for k, p in probabilities.items())
        for k in probabilities:
            exact, said = k * math.log(odds) - math.log(mean), one_look(*table, k)[number]
            assert exact - 0.01 <= said <= exact + 1e-9


def few_candidates(candidate: int, baseline: int, bad: int) -> dict[int, float]:
    """`chances` for a handful of the candidate's requests, one draw after the other."""
    found = dict.fromkeys(range(candidate + 1), 0.0)
    for drawn in range(2**candidate):
        chance, k = 1.0, 0
        for turn in range(candidate):
            left = candidate + baseline - turn
            hit = drawn >> turn & 1
            chance *= (bad - k if hit else left - bad + k) / left
            k += hit
        found[k] += chance
    return found


def test_a_look_of_any_size_is_finite():
    evidence = counted(10**12, 10**11, 10**12, 10**9)
    assert all(map(math.isfinite, evidence.worse))
    finding = judge(evidence, Limits(1e-6, 100))
    assert finding.verdict is Verdict.FAIL
    assert finding.e_value == pytest.approx(math.exp(700))


# Counts


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))
def test_what_was_added_comes_out_by_subtraction(good, bad, more_good, more_bad):
    before, new = Counts(good + bad, bad), Counts(more_good + more_bad, more_bad)
    assert before + new - before == new


@pytest.mark.parametrize(
    ("now", "before", "new"),
    [
        ((20, 1), (1_000, 3), (20, 1)),
        ((1_000, 1), (1_000, 3), (1_000, 1)),
        ((12, 5), (10, 1), (2, 2)),
    ],
    ids=["requests were reset", "bad ones were reset", "read while it moved"],
)
def test_a_counter_that_misbehaves_is_still_counted(now, before, new):
    assert Counts(*now) - Counts(*before) == Counts(*new)


@pytest.mark.parametrize("counts", [(1, 2), (-1, -2), (3, -1)])
def test_impossible_counts_are_refused(counts):
    with pytest.raises(AssertionError, match="bad ones of"):
        Counts(*counts)


# Limits


@pytest.mark.parametrize(
    ("limits", "what"),
    [
        ((0, 1, None), "alpha"),
        ((1, 1, None), "alpha"),
        ((0.1, -1, None), "minimum"),
        ((0.1, 1, -0.1), "guardrail"),
        ((0.1, 1, 1.1), "guardrail"),
    ],
)
def test_impossible_limits_are_refused(limits, what):
    with pytest.raises(AssertionError, match=what):
        Limits(*limits)


def test_alpha_is_split_over_the_metrics():
    assert split(0.05, 1) == 0.05
    assert split(0.05, 5) == pytest.approx(0.01)
    with pytest.raises(AssertionError, match="0 metrics"):
        split(0.05, 0)


# Verdicts


VERDICTS = [
    (
        (1_000, 31, 1_003, 2),
        (0.01, 100),
        Verdict.FAIL,
        "errors 3.1% (31 of 1,000) beside 0.2% (2 of 1,003): worse beyond doubt (less than 1 in a million by chance)",
    ),
    (
        (1_000, 21, 1_000, 2),
        (0.01, 100),
        Verdict.FAIL,
        "errors 2.1% (21 of 1,000) beside 0.2% (2 of 1,000): worse beyond doubt (1 in 3,100 by chance)",
    ),
    (
        (1_000, 3, 2_000_000, 60),
        (0.01, 100),
        Verdict.FAIL,
        "errors 0.3% (3 of 1,000) beside <0.01% (60 of 2,000,000): worse beyond doubt (1 in 1,600 by chance)",
    ),
    (
        (1_000, 3, 1_003, 2),
        (0.01, 100),
        Verdict.PASS,
        "errors 0.3% (3 of 1,000) beside 0.2% (2 of 1,003): nothing speaks against it",
    ),
    (
        (99, 99, 1_000, 0),
        (0.01, 100, 0.0),
        Verdict.HOLD,
        "errors 100% (99 of 99) beside 0% (0 of 1,000): too few requests to judge by, each side needs 100",
    ),
    (
        (1_000, 900, 99, 0),
        (0.01, 100),
        Verdict.HOLD,
        "errors 90% (900 of 1,000) beside 0% (0 of 99): too few requests to compare with, each side needs 100",
    ),
    (
        (0, 0, 5, 0),
        (0.01, 0),
        Verdict.HOLD,
        "errors unknown (no requests) beside 0% (0 of 5): too few requests to judge by, each side needs 1",
    ),
    (
        (1_000, 71, 1_000, 71),
        (0.01, 100, 0.03),
        Verdict.FAIL,
        "errors 7.1% (71 of 1,000): above the limit of 3% beyond doubt (less than 1 in a million by chance)",
    ),
    (
        (1_000, 71, 0, 0),
        (0.01, 100, 0.03),
        Verdict.FAIL,
        "errors 7.1% (71 of 1,000): above the limit of 3% beyond doubt (less than 1 in a million by chance)",
    ),
    (
        (1_000, 1, 1_000, 0),
        (0.01, 100, 0.0),
        Verdict.FAIL,
        "errors 0.1% (1 of 1,000): above the limit of 0% beyond doubt (less than 1 in a million by chance)",
    ),
    (
        (1_000, 0, 1_000, 5),
        (0.01, 100, 0.0),
        Verdict.PASS,
        "errors 0% (0 of 1,000) beside 0.5% (5 of 1,000): nothing speaks against it",
    ),
    (
        (1_000, 31, 1_000, 30),
        (0.01, 100, 0.03),
        Verdict.PASS,
        "errors 3.1% (31 of 1,000) beside 3% (30 of 1,000): nothing speaks against it",
    ),
    (
        (100, 100, 100, 100),
        (0.01, 100, 1.0),
        Verdict.PASS,
        "errors 100% (100 of 100) beside 100% (100 of 100): nothing speaks against it",
    ),
]


@pytest.mark.parametrize(("counts", "limits", "verdict", "said"), VERDICTS)
def test_verdicts_and_their_words(counts, limits, verdict, said):
    finding = judge(counted(*counts), Limits(*limits))
    assert (finding.verdict, finding.said) == (verdict, said)
    assert (finding.candidate, finding.baseline) == (Counts(*counts[:2]), Counts(*counts[2:]))
    assert math.isfinite(finding.e_value)


def test_the_words_name_what_is_counted():
    assert judge(counted(10, 1, 10, 1), Limits(0.1, 5), "slow answers").said.startswith("slow answers 10% (1 of 10)")


def test_totals_that_mislead_are_explained():
    """The candidate is ten times worse at each look, but it got most of its traffic when everything was quiet."""
    evidence = look(EMPTY, Counts(100, 60), Counts(10_000, 600))
    evidence = look(evidence, Counts(100_000, 100), Counts(1_000, 1))
    finding = judge(evidence, Limits(0.01, 100))
    assert finding.verdict is Verdict.FAIL
    assert (
        "0.16% (160 of 100,100) beside 5.46% (601 of 11,000): worse look by look, though not in total," in finding.said
    )


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 300), st.sampled_from([None, 0.0, 0.01, 0.5]))
def test_fewer_requests_than_the_minimum_never_fail(bad, good, minimum, guard):
    few = min(bad + good, minimum - 1) if minimum else 0
    evidence = counted(max(few, 0), min(bad, max(few, 0)), 1_000, 0)
    assert judge(evidence, Limits(0.1, minimum, guard)).verdict is Verdict.HOLD


def guard_e_value(requests: int, bad: int, guard: float) -> float:
    """The likelihood of ratios with higher odds beside that of the limit itself, by its definition."""
    ratios = [guard * odds / (1 - guard + guard * odds) for odds in ODDS]
    return math.fsum((q / guard) ** bad * ((1 - q) / (1 - guard)) ** (requests - bad) for q in ratios) / len(ODDS)


@given(st.integers(1, 200), st.sampled_from([0.001, 0.01, 0.2, 0.9]))
def test_the_guardrail_is_a_fair_bet_at_its_limit(requests, guard):
    """The mean of its e-value is 1 for a candidate just at the limit; a verdict needs twice 1/alpha of it."""
    alpha, mean, alarms = 0.2, 0.0, 0.0
    for bad in range(requests + 1):
        chance = math.comb(requests, bad) * guard**bad * (1 - guard) ** (requests - bad)
        e_value = guard_e_value(requests, bad, guard)
        finding = judge(counted(requests, bad), Limits(alpha, 1, guard))
        assert (finding.verdict is Verdict.FAIL) == (e_value >= 2 / alpha)
        if finding.verdict is Verdict.FAIL:
            assert finding.e_value == pytest.approx(e_value, rel=1e-9)
            alarms += chance
        mean += chance * e_value
    assert mean == pytest.approx(1, rel=1e-6)
    assert alarms <= alpha / 2


# Single values


@pytest.mark.parametrize(
    ("value", "maximum", "minimum", "verdict", "said"),
    [
        (None, 1, None, Verdict.HOLD, "there is no value to judge by"),
        (math.nan, 1, None, Verdict.HOLD, "the value is nan, which is nothing to judge by"),
        (math.inf, 1, None, Verdict.HOLD, "the value is inf, which is nothing to judge by"),
        (-math.inf, None, 1, Verdict.HOLD, "the value is -inf, which is nothing to judge by"),
        (1.5, 1, None, Verdict.FAIL, "the value 1.5 is above the maximum 1"),
        (0.5, 2, 1, Verdict.FAIL, "the value 0.5 is below the minimum 1"),
        (1, 1, 1, Verdict.PASS, "the value 1 is within its limits"),
        (7, None, None, Verdict.PASS, "the value 7 is within its limits"),
    ],
)
def test_a_single_value_beside_its_limits(value, maximum, minimum, verdict, said):
    assert judge_value(value, maximum=maximum, minimum=minimum) == (verdict, said)

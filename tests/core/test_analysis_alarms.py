"""A gate looks again and again: it must stop an equal candidate no more often than declared, and a worse one soon.

Seeded simulations, so that a failure is repeatable. Two usual rules alarm far more often on the same data: so can it.
"""

from __future__ import annotations

import math
from random import Random

import pytest

from bench.gates import SEED, Load, drifting, gate, same, served, share, stopped, threshold
from reconciler.core.analysis import Counts, Evidence, Limits, Verdict, judge, look

ALPHA = 0.05
RUNS = 1_000
LOOKS = 60

DRIFT = drifting(0.002, 0.1)
STEPS = [(10, DRIFT[:15]), (50, DRIFT[15:30]), (100, DRIFT[30:45]), (190, DRIFT[45:])]
AA = {
    "few errors": (same([0.003] * LOOKS, 100, 100), None),
    "many errors, small looks": (same([0.2] * LOOKS, 20, 20), None),
    "a drifting ratio": (same(drifting(0.001, 0.2), 50, 50), None),
    "5 % of the traffic": (same([0.02] * LOOKS, 50, 950), None),
    "95 % of the traffic": (same([0.02] * LOOKS, 950, 50), None),
    "steps of weight while the ratio drifts": (
        [load for weight, ratios in STEPS for load in same(ratios, weight, 200 - weight)],
        None,
    ),
    "a guardrail at the true ratio": (same([0.02] * LOOKS, 100, 100), 0.02),
}


@pytest.mark.parametrize(("loads", "guard"), AA.values(), ids=AA.keys())
def test_an_equal_candidate_is_stopped_at_most_as_often_as_declared(loads, guard):
    assert len(loads) == LOOKS
    assert share(stopped(loads, lambda: gate(Limits(ALPHA, 0, guard)), RUNS)) <= ALPHA


def test_so_it_is_when_the_traffic_follows_what_was_seen():
    """Whoever chooses the next allocation by the evidence so far cannot bring an alarm about."""
    alarms = 0
    for run in range(RUNS // 2):
        random, evidence, alarmed = Random(SEED + run), Evidence(), False
        while not alarmed and evidence.candidate.requests + evidence.baseline.requests < 6_000:
            size = 190 if max(evidence.worse) > 0 else 10
            evidence = look(evidence, served(random, size, 0.05), served(random, 200 - size, 0.05))
            alarmed = judge(evidence, Limits(ALPHA, 0)).verdict is Verdict.FAIL
        alarms += alarmed
    assert alarms / (RUNS // 2) <= ALPHA


def peeking():
    """The rule of those who repeat a one-sided test for two ratios at 5 % on the totals, whenever they look."""
    candidate, baseline = Counts(0, 0), Counts(0, 0)

    def stops(candidate_new: Counts, baseline_new: Counts) -> bool:
        nonlocal candidate, baseline
        candidate, baseline = candidate + candidate_new, baseline + baseline_new
        both = candidate + baseline
        ratio = both.bad / both.requests
        spread = math.sqrt(ratio * (1 - ratio) * (1 / candidate.requests + 1 / baseline.requests))
        return candidate.bad / candidate.requests - baseline.bad / baseline.requests > 1.645 * spread > 0

    return stops


@pytest.mark.parametrize("rule", [peeking, lambda: threshold(0.99, 1)], ids=["a test repeated", "a fixed threshold"])
def test_the_usual_rules_alarm_far_more_often_on_such_data(rule):
    assert share(stopped(AA["few errors"][0], rule, 200)) > 4 * ALPHA


def ends(ratio: float, requests: int) -> list[int | None]:
    loads = [Load(requests, requests, ratio, 0.003)] * LOOKS
    return stopped(loads, lambda: gate(Limits(ALPHA, 50)), 200)


@pytest.mark.parametrize(
    ("ratio", "requests", "within"), [(0.03, 100, 1_000), (0.03, 20, 1_000), (0.1, 100, 300), (0.01, 1_000, 6_000)]
)
def test_a_worse_candidate_is_stopped_within_so_many_requests(ratio, requests, within):
    caught = [end for end in ends(ratio, requests) if end is not None and end <= within]
    assert len(caught) >= 0.95 * 200


def test_a_worse_candidate_is_stopped_in_a_small_weightof_the_traffic():
    loads = [Load(50, 950, 0.03, 0.003)] * 20
    assert share(stopped(loads, lambda: gate(Limits(ALPHA, 50)), 200)) >= 0.95


def test_a_better_candidate_is_never_stopped():
    assert share(stopped([Load(100, 100, 0.003, 0.03)] * LOOKS, lambda: gate(Limits(ALPHA, 0)), 200)) == 0


def test_a_candidate_above_its_guardrail_is_stopped_though_its_baseline_is_as_bad():
    loads = same([0.1] * 20, 100, 100)
    assert share(stopped(loads, lambda: gate(Limits(ALPHA, 50, guard=0.03)), 200)) >= 0.95
    assert share(stopped(loads, lambda: gate(Limits(ALPHA, 50)), 200)) <= ALPHA

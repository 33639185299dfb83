"""What a gate has seen of a candidate and the instances beside it, look by look, and what it says by now.

It must not look anywhere itself, and keeps nothing: what was seen so far is a value that is handed in and out.
The statistics are in `core/analysis.py`, with their sources.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from reconciler.core.analysis import Counts, Evidence, Finding, Limits, Verdict, judge, judge_value, look, split
from reconciler.core.delivery import Gate, Query
from reconciler.core.live import Instance, Server, ServerMode

LONGEST = 200
"""Characters of a metrics server's words that are kept as evidence."""
_ORDER = (Verdict.FAIL, Verdict.HOLD, Verdict.PASS)
_NOTHING = Counts(0, 0)


@dataclass(frozen=True, slots=True)
class GateFinding:
    """A verdict with its reason in words, and what the journal shall hold as evidence: texts and whole numbers."""

    verdict: Verdict
    said: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Metric:
    """Which answers are bad: errors, or those slower than `slow` ms. `guard`: the share (0..1) that may be bad."""

    slow: int | None = None
    guard: float | None = None

    @property
    def words(self) -> str:
        """The bad ones, for people."""
        return "errors" if self.slow is None else f"answers over {self.slow} ms"

    @property
    def key(self) -> str:
        """The name in the evidence."""
        return "errors" if self.slow is None else "slow"

    def read(self, server: Server) -> Reading | None:
        """What the counters show now, None when this is not counted."""
        served = server.served
        if self.slow is None:
            return Reading(served.requests, served.errors)
        return Reading(served.requests, served.slow[self.slow]) if self.slow in served.slow else None


@dataclass(frozen=True, slots=True)
class Reading:
    """The counters of one instance: requests, and the bad ones that are accounted for."""

    requests: int
    bad: int


@dataclass(frozen=True, slots=True)
class Seen:
    """All that was seen of one candidate: the last counters by metric and instance, the shares of the traffic by
    instance that they were counted under, and each metric's evidence."""

    readings: Mapping[str, Mapping[str, Reading]] = field(default_factory=dict)
    shares: Mapping[str, int] = field(default_factory=dict)
    evidence: Mapping[str, Evidence] = field(default_factory=dict)


def metrics(gate: Gate) -> tuple[Metric, ...]:
    """What the gate compares; its alpha is split over them."""
    errors = (Metric(None, gate.max_errors),) if gate.errors else ()
    slow = (Metric(gate.slow // timedelta(milliseconds=1), gate.max_slow),) if gate.slow is not None else ()
    return errors + slow


def see(seen: Seen, gate: Gate, candidate: Sequence[Instance], beside: Sequence[Instance]) -> Seen:
    """What is known after one more look.

    An instance counts from the first look at it on. One whose counters went back starts anew, too. A look is left
    out when a proxy did not answer, for its part would be counted twice later; and requests between two looks are
    left out when weights were shifted meanwhile, for the comparison rests on steady shares within a look.
    """
    instances = (*candidate, *beside)
    if _silent(instances):
        return seen
    shares = {each.id: _share(each.server) for each in instances if each.server is not None}
    steady = all(seen.shares.get(each, share) == share for each, share in shares.items())
    readings: dict[str, Mapping[str, Reading]] = {}
    evidence: dict[str, Evidence] = {}
    for metric in metrics(gate):
        name = metric.words
        before = seen.readings.get(name, {})
        ours, our_growth = _grown(metric, before, candidate)
        theirs, their_growth = _grown(metric, before, beside)
        readings[name] = {**ours, **theirs}
        known = seen.evidence.get(name, Evidence())
        evidence[name] = look(known, our_growth, their_growth) if steady else known
    return Seen(readings, shares, evidence)


def judged(
    seen: Seen, gate: Gate, candidate: Sequence[Instance], beside: Sequence[Instance]
) -> tuple[GateFinding, ...]:
    """What each metric says by now. With nothing beside the candidate, now or before, only limits are judged.

    While a proxy does not answer nothing passes; what has failed by then has failed.
    """
    used = metrics(gate)
    findings = []
    for metric in used:
        evidence = seen.evidence.get(metric.words, Evidence())
        limits = Limits(split(gate.alpha, len(used)), gate.minimum, metric.guard)
        finding = judge(evidence, limits, metric.words)
        alone = not beside and not evidence.baseline.requests
        verdict, said = _alone(finding, metric, gate.minimum) if alone else (finding.verdict, finding.said)
        if verdict is Verdict.PASS and _silent((*candidate, *beside)):
            verdict, said = Verdict.HOLD, f"{metric.words}: a proxy does not answer"
        findings.append(GateFinding(verdict, said, {metric.key: _details(metric, verdict, finding)}))
    return tuple(findings)


def judged_query(query: Query, value: float | None, said: str) -> GateFinding:
    """What an answer to a query says; `said` are the metrics server's words, a reason where there is no value."""
    verdict, judgement = judge_value(value, maximum=query.maximum, minimum=query.minimum)
    words = judgement if value is not None or not said else said[:LONGEST]
    details = {
        "verdict": verdict.value,
        "value": _text(value),
        "maximum": _text(query.maximum),
        "minimum": _text(query.minimum),
        "said": said[:LONGEST],
    }
    found = {name: each for name, each in details.items() if each}
    return GateFinding(verdict, f"{query.name}: {words}", {f"query {query.name}": found})


def filled(promql: str, environment: str, service: str, version: str) -> str:
    """The query with `{environment}`, `{service}` and `{version}` replaced; every other brace is PromQL's own.

    The values are DNS labels and hex digits: none can end a string or a selector of PromQL, or hold a placeholder.
    """
    text = promql.replace("{environment}", environment).replace("{service}", service)
    return text.replace("{version}", version)


def combine(*findings: GateFinding) -> GateFinding:
    """FAIL if any fails, else HOLD if any holds, else PASS. The words of those that decide come first."""
    ordered = sorted(findings, key=lambda each: _ORDER.index(each.verdict))
    details: dict[str, Any] = {}
    for each in findings:
        details |= each.details
    if not ordered:
        return GateFinding(Verdict.PASS, "the gate asks for nothing")
    return GateFinding(ordered[0].verdict, "; ".join(each.said for each in ordered), details)


def _silent(instances: Sequence[Instance]) -> bool:
    return any(each.server is not None and each.server.sessions is None for each in instances)


def _share(server: Server) -> int:
    return server.weight if server.mode is ServerMode.READY else 0


def _grown(
    metric: Metric, before: Mapping[str, Reading], instances: Sequence[Instance]
) -> tuple[dict[str, Reading], Counts]:
    """The counters of one side by now, and by how much they grew together."""
    readings: dict[str, Reading] = {}
    grown = _NOTHING
    for each in instances:
        shown = metric.read(each.server) if each.server is not None else None
        if shown is None:
            continue
        last = before.get(each.id, shown)
        if shown.requests < last.requests or shown.bad < last.bad:
            last = shown
        requests = shown.requests - last.requests
        # A counter of bad answers may be read a moment after that of requests: what is ahead counts in the next look.
        bad = min(shown.bad - last.bad, requests)
        readings[each.id] = Reading(shown.requests, last.bad + bad)
        grown += Counts(requests, bad)
    return readings, grown


def _alone(finding: Finding, metric: Metric, minimum: int) -> tuple[Verdict, str]:
    """The verdict without anything to compare with."""
    if finding.verdict is Verdict.FAIL:
        return finding.verdict, finding.said
    counts = finding.candidate
    shown = f"{metric.words} {counts.bad:,} of {counts.requests:,}"
    if metric.guard is None:
        return Verdict.PASS, f"{shown}: nothing runs beside it, and no limit is set"
    if counts.requests < max(minimum, 1):
        return Verdict.HOLD, f"{shown}: too few requests to judge by, {max(minimum, 1):,} are needed"
    return Verdict.PASS, f"{shown}: nothing says that the limit of {100 * metric.guard:g}% is exceeded"


def _details(metric: Metric, verdict: Verdict, finding: Finding) -> dict[str, Any]:
    details: dict[str, Any] = {
        "verdict": verdict.value,
        "candidate": _side(finding.candidate),
        "beside": _side(finding.baseline),
        "eValue": _text(finding.e_value),
    }
    if metric.slow is not None:
        details["overMilliseconds"] = metric.slow
    if metric.guard is not None:
        details["limit"] = _text(metric.guard)
    return details


def _side(counts: Counts) -> dict[str, Any]:
    sides: dict[str, Any] = {"requests": counts.requests, "bad": counts.bad}
    if counts.requests:
        sides["ratio"] = _text(counts.bad / counts.requests)
    return sides


def _text(value: float | None) -> str:
    """A record holds no floats."""
    return "" if value is None else f"{value:.6g}"

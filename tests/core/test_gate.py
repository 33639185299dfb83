"""What a gate sees: counters of instances that come, go, start anew and are shifted; and what it says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from reconciler.core.analysis import Counts, Evidence, Verdict
from reconciler.core.delivery import Gate, Query
from reconciler.core.entry_codec import object_of
from reconciler.core.gate import GateFinding, Metric, Seen, combine, filled, judged, judged_query, metrics, see
from reconciler.core.live import Instance, Phase, Served, Server, ServerMode
from reconciler.core.record import Entry, What

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ERRORS = Gate(minimum=100)
SLOW = Gate(minimum=100, errors=False, slow=timedelta(milliseconds=250))
BOTH = Gate(minimum=100, slow=timedelta(milliseconds=250), max_errors=0.05, max_slow=0.1)


def instance(name: str, requests: int = 0, errors: int = 0, slow: Mapping[int, int] | None = None, **how) -> Instance:
    plain = Server("10.0.0.1", 80, ServerMode.READY, 10, up=True, served=Served(requests, errors, slow or {}))
    server = replace(plain, **how)
    return Instance(name, name, "web", "v", "r", 0, "i", Phase.RUNNING, NOW, server=server)


class Looks:
    """Looks at one candidate, one after the other."""

    def __init__(self, gate: Gate = ERRORS) -> None:
        self.gate = gate
        self.seen = Seen()
        self.sides: tuple[list[Instance], list[Instance]] = ([], [])

    def look(self, candidate: list[Instance], beside: list[Instance]) -> Looks:
        self.sides = (candidate, beside)
        self.seen = see(self.seen, self.gate, candidate, beside)
        return self

    def evidence(self, name: str = "errors") -> Evidence:
        return self.seen.evidence[name]

    def say(self) -> GateFinding:
        return combine(*judged(self.seen, self.gate, *self.sides))


def test_growth_since_the_look_before_is_summed_over_the_instances_of_a_side():
    looks = Looks().look([instance("a", 10, 1), instance("b", 5)], [instance("s", 100, 9)])
    assert looks.evidence() == Evidence()
    looks.look([instance("a", 30, 4), instance("b", 6, 1)], [instance("s", 150, 10)])
    assert (looks.evidence().candidate, looks.evidence().baseline) == (Counts(21, 4), Counts(50, 1))
    looks.look([instance("a", 31, 4), instance("b", 6, 1)], [instance("s", 150, 10)])
    assert (looks.evidence().candidate, looks.evidence().baseline) == (Counts(22, 4), Counts(50, 1))


@pytest.mark.parametrize(
    "then",
    [
        instance("a", 3, 1),
        instance("a", 60, 1),
        replace(instance("a"), server=None),
        instance("b", 500, 400),
    ],
    ids=["requests went back", "errors went back", "no server", "another one"],
)
def test_what_starts_anew_starts_at_what_it_shows(then):
    looks = Looks().look([instance("a", 50, 2)], []).look([then], [])
    assert looks.evidence().candidate == Counts(0, 0)
    grown = instance(then.id, 1000, 410)
    looks.look([grown], [])
    assert looks.evidence().candidate == (
        Counts(0, 0)
        if then.server is None
        else Counts(1000 - then.server.served.requests, 410 - then.server.served.errors)
    )


def test_errors_that_are_ahead_of_the_requests_count_in_the_next_look():
    looks = Looks().look([instance("a", 10)], []).look([instance("a", 11, 3)], [])
    assert looks.evidence().candidate == Counts(1, 1)
    looks.look([instance("a", 20, 3)], [])
    assert looks.evidence().candidate == Counts(10, 3)


def test_a_look_without_the_answer_of_a_proxy_counts_nothing_twice():
    looks = Looks().look([instance("a", 1000, 10)], [instance("s", 1000)])
    looks.look([instance("a", 500, 5, sessions=None)], [instance("s", 1000)])
    looks.look([instance("a", 1100, 12)], [instance("s", 1200)])
    assert (looks.evidence().candidate, looks.evidence().baseline) == (Counts(100, 2), Counts(200, 0))


@pytest.mark.parametrize("shift", [{"weight": 50}, {"mode": ServerMode.DRAIN}])
def test_a_look_during_which_weights_were_shifted_is_left_out(shift):
    looks = Looks().look([instance("a", 10)], [instance("s", 10)])
    looks.look([instance("a", 400, 300, **shift)], [instance("s", 500)])
    assert looks.evidence() == Evidence()
    looks.look([instance("a", 410, 301, **shift)], [instance("s", 510)])
    assert (looks.evidence().candidate, looks.evidence().baseline) == (Counts(10, 1), Counts(10, 0))


def test_slow_answers_are_those_over_the_bound_where_the_proxy_counts_them():
    looks = Looks(SLOW).look([instance("a", 0, 0, {250: 0, 500: 0})], [instance("s")])
    looks.look([instance("a", 200, 9, {250: 7, 500: 1})], [instance("s", 200)])
    assert set(looks.seen.evidence) == {"answers over 250 ms"}
    evidence = looks.evidence("answers over 250 ms")
    assert (evidence.candidate, evidence.baseline) == (Counts(200, 7), Counts(0, 0))
    assert looks.say().verdict is Verdict.HOLD


def test_alpha_is_split_over_what_the_gate_compares():
    assert metrics(ERRORS) == (Metric(),)
    assert metrics(BOTH) == (Metric(None, 0.05), Metric(250, 0.1))
    assert metrics(replace(ERRORS, errors=False)) == ()
    bad = [instance("a", 120, 8, {250: 0})]
    good = [instance("s", 1000, 14, {250: 0})]
    empty = [instance("a", slow={250: 0})], [instance("s", slow={250: 0})]
    alone = Looks(ERRORS).look(*empty).look(bad, good)
    e_value = float(alone.say().details["errors"]["eValue"])
    alpha = 1.5 / e_value  # just enough for one metric, not for half of it
    both = replace(ERRORS, slow=timedelta(milliseconds=250), alpha=alpha)
    assert Looks(replace(ERRORS, alpha=alpha)).look(*empty).look(bad, good).say().verdict is Verdict.FAIL
    assert Looks(both).look(*empty).look(bad, good).say().verdict is Verdict.PASS


def test_too_few_requests_hold_and_worse_ones_fail_with_the_evidence():
    looks = Looks().look([instance("a")], [instance("s")]).look([instance("a", 50, 50)], [instance("s", 500)])
    assert looks.say().verdict is Verdict.HOLD
    found = looks.look([instance("a", 500, 200)], [instance("s", 1000, 1)]).say()
    assert found.verdict is Verdict.FAIL
    assert "beyond doubt" in found.said
    errors = found.details["errors"]
    assert errors["verdict"] == "fail"
    assert errors["candidate"] == {"requests": 500, "bad": 200, "ratio": "0.4"}
    assert errors["beside"] == {"requests": 1000, "bad": 1, "ratio": "0.001"}
    assert float(errors["eValue"]) > 20


def test_nothing_passes_while_a_proxy_does_not_answer_but_what_failed_has_failed():
    good = Looks().look([instance("a")], [instance("s")]).look([instance("a", 500)], [instance("s", 500)])
    assert good.say().verdict is Verdict.PASS
    held = good.look([instance("a", 500)], [instance("s", 250, sessions=None)]).say()
    assert (held.verdict, held.said) == (Verdict.HOLD, "errors: a proxy does not answer")
    bad = Looks().look([instance("a")], [instance("s")]).look([instance("a", 500, 400)], [instance("s", 500)])
    assert bad.look([instance("a", 500, 400, sessions=None)], [instance("s", 500)]).say().verdict is Verdict.FAIL


def test_with_nothing_beside_it_only_the_limits_are_judged():
    gate = replace(ERRORS, max_errors=0.05)
    free = Looks(ERRORS).look([instance("a")], []).look([instance("a", 300, 300)], []).say()
    assert (free.verdict, free.said) == (
        Verdict.PASS,
        "errors 300 of 300: nothing runs beside it, and no limit is set",
    )
    few = Looks(gate).look([instance("a")], []).look([instance("a", 99, 2)], []).say()
    assert (few.verdict, few.said) == (
        Verdict.HOLD,
        "errors 2 of 99: too few requests to judge by, 100 are needed",
    )
    good = Looks(gate).look([instance("a")], []).look([instance("a", 1000, 2)], []).say()
    assert (good.verdict, good.said) == (
        Verdict.PASS,
        "errors 2 of 1,000: nothing says that the limit of 5% is exceeded",
    )
    bad = Looks(gate).look([instance("a")], []).look([instance("a", 1000, 200)], []).say()
    assert bad.verdict is Verdict.FAIL
    assert bad.details["errors"]["limit"] == "0.05"


def test_what_ran_beside_it_before_is_still_compared_with():
    looks = Looks().look([instance("a")], [instance("s")]).look([instance("a", 500)], [instance("s", 50)])
    assert looks.look([instance("a", 500)], []).say().verdict is Verdict.HOLD
    assert looks.look([instance("a", 500, 400)], []).say().verdict is Verdict.HOLD
    enough = Looks().look([instance("a")], [instance("s")]).look([instance("a", 500, 200)], [instance("s", 500)])
    assert enough.look([instance("a", 500, 200)], []).say().verdict is Verdict.FAIL


def test_the_evidence_of_everything_fits_into_a_record():
    looks = Looks(BOTH).look([instance("a", slow={250: 0})], [instance("s", slow={250: 0})])
    looks.look([instance("a", 400, 100, {250: 90})], [instance("s", 400, 0, {250: 1})])
    query = judged_query(Query("memory", "x", maximum=1e9, minimum=0.5), 2.5e9, "")
    found = combine(*judged(looks.seen, BOTH, *looks.sides), query)
    assert set(found.details) == {"errors", "slow", "query memory"}
    assert found.details["slow"]["overMilliseconds"] == 250
    entry = Entry(NOW, What.ROLLOUT_FAILED, details={"gate": found.details})
    assert object_of(entry)["details"]["gate"] == found.details


@pytest.mark.parametrize(
    ("value", "said", "verdict", "words", "details"),
    [
        (3.0, "", Verdict.FAIL, "load: the value 3 is above the maximum 2", {"value": "3"}),
        (1.0, "it warns", Verdict.PASS, "load: the value 1 is within its limits", {"value": "1", "said": "it warns"}),
        (None, "refused" * 100, Verdict.HOLD, "load: " + ("refused" * 100)[:200], {"said": ("refused" * 100)[:200]}),
        (None, "", Verdict.HOLD, "load: there is no value to judge by", {}),
        (float("nan"), "", Verdict.HOLD, "load: the value is nan, which is nothing to judge by", {"value": "nan"}),
    ],
)
def test_the_answer_to_a_query(value, said, verdict, words, details):
    found = judged_query(Query("load", "x", maximum=2), value, said)
    assert (found.verdict, found.said) == (verdict, words)
    assert found.details == {"query load": {"verdict": verdict.value, "maximum": "2", **details}}


def test_placeholders_are_replaced_and_all_other_braces_stay():
    text = 'sum(rate(x{env="{environment}",svc=~"{service}|{other}",v="{version}"}[1m])) / {service}'
    assert filled(text, "prod", "web", "abc") == 'sum(rate(x{env="prod",svc=~"web|{other}",v="abc"}[1m])) / web'


def test_one_failure_decides_then_one_doubt_and_the_words_that_decide_come_first():
    passed, held = GateFinding(Verdict.PASS, "p", {"a": 1}), GateFinding(Verdict.HOLD, "h", {"b": 2})
    failed = GateFinding(Verdict.FAIL, "f", {"c": 3})
    assert combine(passed, held, failed) == GateFinding(Verdict.FAIL, "f; h; p", {"a": 1, "b": 2, "c": 3})
    assert combine(passed, held) == GateFinding(Verdict.HOLD, "h; p", {"a": 1, "b": 2})
    assert combine(passed) == passed
    assert combine().verdict is Verdict.PASS

"""The fold of what releases behind a proxy write: stages, pauses, warmth, numbers, and the tables of the proxies."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from reconciler.core.memory import RolloutMemory, ServiceMemory
from reconciler.core.record import Entry, What
from tests.core.test_memory import AT, LATER, A, B, did, of, web

ROLLOUT = RolloutMemory(A, AT, AT)
ON_TRIAL = ServiceMemory(rollout=ROLLOUT)
FRONT = "rec.prod.web"
TABLE = {"web.1": "ready 95", "web.2": "ready 5", "web.3": "drain", "web.4": "ready 0"}


def on(what: What, version: object = A, **details: object) -> Entry:
    return of(what, at=LATER, to_version=version, details=details)


def shift(what: What, shares: object = TABLE, name: str = FRONT, at: object = LATER, **more: object) -> Entry:
    return of(what, at=at, details={"effect": "ShiftTraffic", "name": name, "shares": shares, **more})


# A release


@pytest.mark.parametrize("what", [What.STAGE_PASSED, What.PAUSED, What.INSTANCE_WARM, What.CONTINUED])
def test_without_a_release_nothing_is_on_trial(what: What) -> None:
    assert web(on(what, stage=1, name="web.1")).rollout is None


@pytest.mark.parametrize("what", [What.STAGE_PASSED, What.PAUSED, What.INSTANCE_WARM])
def test_what_is_said_of_another_version_does_not_count(what: What) -> None:
    assert web(on(what, B, stage=1, name="web.1"), before=ON_TRIAL) == ON_TRIAL


@pytest.mark.parametrize("what", [What.STAGE_PASSED, What.PAUSED])
@pytest.mark.parametrize("details", [{}, {"stage": "1"}, {"stage": None}])
def test_a_stage_that_is_no_number_changes_nothing(what: What, details: dict[str, object]) -> None:
    assert web(on(what, **details), before=ON_TRIAL) == ON_TRIAL


def test_a_stage_that_was_passed_is_progress() -> None:
    assert web(on(What.STAGE_PASSED, stage=1), before=ON_TRIAL).rollout == replace(
        ROLLOUT, stage=2, progressed_at=LATER
    )


def test_a_pause_is_none_and_going_on_is_progress() -> None:
    paused = web(on(What.PAUSED, stage=1), before=ON_TRIAL)
    assert paused.rollout == replace(ROLLOUT, paused=1)
    gone_on = web(of(What.CONTINUED, at=LATER), before=paused)
    assert gone_on.rollout == replace(ROLLOUT, paused=1, continued=1, progressed_at=LATER)


def test_each_warm_instance_is_progress() -> None:
    found = web(on(What.INSTANCE_WARM, name="web.1"), on(What.INSTANCE_WARM, name="web.2"), before=ON_TRIAL)
    assert found.rollout == replace(ROLLOUT, warm=frozenset({"web.1", "web.2"}), progressed_at=LATER)


@pytest.mark.parametrize(("to", "scale"), [(3, 3), (0, 0), (-1, None), ("3", None), (None, None)])
def test_the_number_that_was_decided_is_kept(to: object, scale: int | None) -> None:
    assert web(on(What.SCALED, to=to)).scale == scale


# The tables of the proxies


def test_while_a_shift_has_no_outcome_the_table_is_not_known_and_all_of_it_may_have_had_traffic() -> None:
    before = ServiceMemory(shares={"web.1": "ready 100"}, served=frozenset({"web.1", "web.9"}))
    found = web(shift(What.INTENT), before=before)
    assert found.shares is None
    assert found.exposed == {"web.1", "web.2"}
    assert found.served == {"web.1"}
    assert web(shift(What.FAILED), before=found).shares is None


def test_a_shift_that_is_done_is_the_table() -> None:
    before = ServiceMemory(detached={"web.1": AT, "web.3": AT, "web.8": AT}, stalled="ProxyFull")
    found = web(shift(What.DONE), before=before)
    assert found.shares == TABLE
    assert found.served == {"web.1", "web.2"}
    assert found.detached == {"web.3": AT, "web.8": AT}, "what drains already does so since then"
    assert found.stalled == ""
    assert web(shift(What.DONE)).detached == {"web.3": LATER}


def test_a_shift_that_reaches_a_stage_is_progress_of_the_release() -> None:
    expected = replace(ROLLOUT, shifted=1, shifted_at=LATER, progressed_at=LATER)
    assert web(shift(What.DONE, stage=1), before=ON_TRIAL).rollout == expected
    assert web(shift(What.DONE), before=ON_TRIAL).rollout == ROLLOUT
    assert web(shift(What.DONE, stage="1"), before=ON_TRIAL).rollout == ROLLOUT
    assert web(shift(What.DONE, stage=1)).rollout is None


@pytest.mark.parametrize("what", [What.INTENT, What.DONE])
def test_the_preview_is_no_traffic(what: What) -> None:
    assert web(shift(what, name=FRONT + ".preview"), before=ON_TRIAL) == ON_TRIAL


@pytest.mark.parametrize("shares", [None, "x", ["web.1"], {}])
def test_a_table_that_is_none_is_empty(shares: object) -> None:
    assert web(shift(What.DONE, shares)).shares == {}


def test_what_is_found_by_name_again_is_in_no_table() -> None:
    before = ServiceMemory(shares={"web.1": "ready 100", "web.2": "ready 100"})
    assert web(did("AttachTraffic"), before=before).shares == {"web.2": "ready 100"}
    assert web(did("AttachTraffic"), did("AttachTraffic", name="web.2"), before=before).shares is None
    assert web(did("AttachTraffic")).shares is None


def test_what_ends_forgets_what_was_known_of_the_release() -> None:
    passed = web(on(What.STAGE_PASSED, stage=0), on(What.PAUSED, stage=1), before=ON_TRIAL)
    for what in (What.PROMOTED, What.ROLLOUT_SUPERSEDED, What.ROLLOUT_FAILED):
        assert web(on(what), before=passed).rollout is None
    again = of(What.ROLLOUT_STARTED, at=LATER + timedelta(1), to_version=B)
    assert web(again, before=passed).rollout == RolloutMemory(B, again.at, again.at)

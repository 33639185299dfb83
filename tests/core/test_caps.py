"""The caps on what one revision removes or changes, at their edges, and the trailer that passes them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from reconciler.core import names
from reconciler.core.caps import CONFIRM, changed, changes_held, confirmed, removals_held
from reconciler.core.errors import Reason
from reconciler.core.memory import Quarantine, RolloutMemory, ServiceMemory
from reconciler.core.model import ChangeCap, Prune
from reconciler.core.record import VersionRef

AT = datetime(2026, 1, 1, tzinfo=UTC)


def services(count: int) -> set[str]:
    return {f"s{number}" for number in range(count)}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (None, set()),
        ("", set()),
        ("removals", {"removals"}),
        (" Changes ,REMOVALS", {"changes", "removals"}),
        ("everything, changes", {"changes"}),
        ("removals changes", set()),
    ],
)
def test_only_known_words_confirm(said: str | None, words: set[str]) -> None:
    assert confirmed({} if said is None else {CONFIRM: said}) == words


@pytest.mark.parametrize(
    ("there", "left", "prune", "held"),
    [
        (10, 5, Prune(), False),
        (10, 4, Prune(), True),
        (10, 9, Prune(0), False),
        (10, 8, Prune(0), True),
        (10, 8, Prune(29), False),
        (10, 7, Prune(29), True),
        (10, 1, Prune(100), False),
        (10, 9, Prune(100, 0), True),
        (10, 10, Prune(100, 0), False),
        (10, 7, Prune(100, 3), False),
        (10, 6, Prune(100, 3), True),
        (10, 6, Prune(30, 5), True),
        (1, 1, Prune(0), False),
    ],
)
def test_both_bounds_hold_for_removals(there: int, left: int, prune: Prune, held: bool) -> None:
    found = removals_held(services(there), services(left), prune, {})
    assert (found is not None) is held
    assert removals_held(services(there), services(left), prune, {CONFIRM: "removals"}) is None
    assert removals_held(services(there), services(left), prune, {CONFIRM: "changes"}) == found


def test_a_removal_that_is_held_says_how_many_and_what_to_do() -> None:
    found = removals_held(services(10), {*services(4), "new"}, Prune(), {})
    assert found == (
        Reason.PRUNE_CAP_EXCEEDED,
        "this revision removes 6 of 10 services, more than 5; if that is meant, "
        "commit with the trailer Reconciler-Confirm: removals, or raise spec.prune in environment.yaml",
    )


def test_an_environment_without_services_is_not_believed_even_if_confirmed() -> None:
    for there in (set(), services(3)):
        found = removals_held(there, (), Prune(100), {CONFIRM: "removals, changes"})
        assert found is not None
        assert found[0] is Reason.ENVIRONMENT_EMPTY


def memory(stable: str = "", rollout: str = "", failed: str = "") -> ServiceMemory:
    return ServiceMemory(
        stable=VersionRef(stable, "i", "r") if stable else None,
        rollout=RolloutMemory(VersionRef(rollout, "i", "r"), AT, AT) if rollout else None,
        quarantine={failed: Quarantine("Unhealthy", AT, "r")} if failed else {},
    )


@pytest.mark.parametrize(
    ("known", "counts"),
    [
        (memory(), False),
        (memory(rollout="new"), False),
        (memory("new"), False),
        (memory("old"), True),
        (memory("old", rollout="new"), False),
        (memory("old", rollout="other"), True),
        (memory("new", rollout="other"), False),
        (memory("old", failed="new"), False),
        (memory("old", failed="other"), True),
    ],
)
def test_a_change_is_another_version_of_a_service_that_runs(known: ServiceMemory, counts: bool) -> None:
    assert changed({"web": "new"}, {"web": known, "other": memory("old")}) == ({"web"} if counts else set())


def test_a_return_to_the_version_before_is_no_change() -> None:
    version = "a" * 64
    name = names.instance("prod", "web", version, 0)
    known = ServiceMemory(stable=VersionRef("b", "i", "r2"), previous=VersionRef(version, "i", "r1"))
    held = replace(known, exposed=frozenset({name}), detached={name: AT})
    assert changed({"web": version}, {"web": held}) == set()
    assert changed({"web": "c"}, {"web": held}) == {"web"}
    assert changed({"web": version}, {"web": known}) == {"web"}, "nothing of it is held any more"
    assert changed({"web": version}, {"web": replace(held, terminated={name: AT})}) == {"web"}


def test_a_service_that_nobody_knows_is_new() -> None:
    assert changed({"web": "new"}, {}) == set()


@pytest.mark.parametrize(
    ("changes", "cap", "held"),
    [
        (10, ChangeCap(), False),
        (3, ChangeCap(30), False),
        (4, ChangeCap(30), True),
        (1, ChangeCap(0), False),
        (2, ChangeCap(0), True),
        (2, ChangeCap(None, 2), False),
        (3, ChangeCap(None, 2), True),
        (1, ChangeCap(None, 0), True),
        (0, ChangeCap(0, 0), False),
        (3, ChangeCap(50, 2), True),
        (6, ChangeCap(50, 8), True),
        (10, ChangeCap(100), False),
    ],
)
def test_both_bounds_hold_for_changes(changes: int, cap: ChangeCap, held: bool) -> None:
    found = changes_held(services(10), services(changes), cap, {})
    assert (found is not None) is held
    assert changes_held(services(10), services(changes), cap, {CONFIRM: "changes"}) is None
    assert changes_held(services(10), services(changes), cap, {CONFIRM: "removals"}) == found


def test_a_change_that_is_held_says_how_many_and_what_to_do() -> None:
    assert changes_held(services(10), services(4), ChangeCap(30), {}) == (
        Reason.CHANGE_CAP_EXCEEDED,
        "this revision changes 4 of 10 services, more than 3; if that is meant, "
        "commit with the trailer Reconciler-Confirm: changes, or raise spec.changes in environment.yaml",
    )

"""A bundle does not lose more objects at once than the environment's bounds, nor takes it over what was a service."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.bundle_guard import guarded
from reconciler.core.caps import CONFIRM, objects_held
from reconciler.core.errors import Reason
from reconciler.core.kubernetes_identity import Identity
from reconciler.core.memory import RolloutMemory, ServiceMemory
from reconciler.core.model import Bundle, ImageRef, Prune, ServiceSpec, Target, version_of
from reconciler.core.question import Wish
from reconciler.core.record import VersionRef
from tests.support.bundles import CLUSTER, Bundles, config

CONFIRMED = {CONFIRM: "removals"}
OLD = VersionRef("old", "image", "1")


def spec(*names: str, prune: bool = True) -> ServiceSpec:
    found = Bundles({"apps/shop/a.yaml": config(*names)}, f"{{path: apps/shop, prune: {str(prune).lower()}}}")
    return found.spec(CLUSTER)


SERVICE = ServiceSpec("shop", ImageRef("shop", "sha256:" + "0" * 64))
FOUR = spec("a", "b", "c", "d")


def wish(new: ServiceSpec, old: ServiceSpec | None = FOUR) -> Wish:
    fallback = None if old is None else Target(old, "old", "1")
    return Wish("shop", Target(new, "new", "2"), fallback)


AT = datetime(2026, 1, 1, tzinfo=UTC)
KNOWN = ServiceMemory(stable=OLD)


def test_a_revision_that_removes_too_much_is_held_and_the_stable_version_kept_up():
    asked = wish(spec("a", "x"))
    found = guarded(asked, KNOWN, Prune(), {})
    assert found == replace(asked, held=Reason.PRUNE_CAP_EXCEEDED, message=found.message, waits=True)
    assert found.message == (
        "this revision removes 3 of 4 objects, more than 2 (ConfigMap b, ConfigMap c, ConfigMap d); if that is meant, "
        "commit with the trailer Reconciler-Confirm: removals, or raise spec.prune in environment.yaml"
    )


@pytest.mark.parametrize(
    ("new", "prune", "trailers"),
    [
        (spec("a", "b"), Prune(), {}),
        (spec("a"), Prune(75), {}),
        (spec("a"), Prune(), CONFIRMED),
        (spec("a", prune=False), Prune(), {}),
        (spec("a", "b", "c", "d", "e"), Prune(0), {}),
        (spec("a", "b", "c"), Prune(0), {}),
    ],
)
def test_what_is_within_the_bounds_goes_on(new, prune, trailers):
    assert guarded(wish(new), KNOWN, prune, trailers) == wish(new)


def test_the_count_bounds_as_well():
    assert guarded(wish(spec("a", "b")), KNOWN, Prune(100, 1), {}).held is Reason.PRUNE_CAP_EXCEEDED


@pytest.mark.parametrize(
    ("asked", "known"),
    [
        (Wish("shop"), KNOWN),
        (wish(spec("a")), ServiceMemory()),
        (replace(wish(spec("a")), suspended="why"), KNOWN),
        (replace(wish(spec("a")), held=Reason.SECRET_MISSING), KNOWN),
        (wish(spec("a")), ServiceMemory(stable=replace(OLD, version="new"))),
        (wish(spec("a")), replace(KNOWN, quarantine={"new": None})),
        (
            wish(spec("a")),
            replace(KNOWN, rollout=RolloutMemory(VersionRef("new", "image", "2"), AT, AT)),
        ),
        (wish(SERVICE, SERVICE), KNOWN),
        (wish(SERVICE, None), KNOWN),
    ],
)
def test_what_does_not_begin_now_is_not_judged(asked, known):
    assert guarded(asked, known, Prune(), {}) == asked


def test_where_the_stable_version_cannot_be_read_nothing_is_removed_unless_it_is_confirmed():
    asked = wish(spec("a"), None)
    found = guarded(asked, KNOWN, Prune(), {})
    assert (found.desired, found.held) == (None, Reason.PRUNE_CAP_EXCEEDED)
    assert guarded(asked, KNOWN, Prune(), CONFIRMED) == asked
    kept = wish(spec("a", prune=False), None)
    assert guarded(kept, KNOWN, Prune(), {}) == kept


@pytest.mark.parametrize(
    ("new", "old", "said"),
    [
        (FOUR, SERVICE, "shop was a service until now and cannot become manifests; give what is new another name"),
        (SERVICE, FOUR, "shop was manifests until now and cannot become a service; give what is new another name"),
    ],
)
def test_a_service_does_not_become_manifests(new, old, said):
    found = guarded(wish(new, old), KNOWN, Prune(), CONFIRMED)
    assert (found.held, found.message, found.waits) == (Reason.NAME_TAKEN, said, True)


def test_many_are_counted_and_some_named():
    there = [Identity("", "Secret", "", f"n{number:02}") for number in range(20)]
    held = objects_held(there, [], Prune(), {})
    assert held is not None
    assert (
        "20 of 20 objects, more than 10 (Secret n00, Secret n01, Secret n02, Secret n03, Secret n04 and 15 more)"
        in held[1]
    )


NAMES = st.sets(st.integers(0, 30)).map(lambda found: [Identity("", "Secret", "", str(each)) for each in found])


@given(NAMES, NAMES, st.integers(0, 100), st.none() | st.integers(0, 20))
def test_no_more_goes_at_once_than_both_bounds_allow(there, declared, percent, count):
    removed = len(set(there) - set(declared))
    held = objects_held(there, declared, Prune(percent, count), {})
    if held is None:
        assert removed <= max(1, len(there) * percent // 100)
        assert count is None or removed <= count
    else:
        assert removed > min(max(1, len(there) * percent // 100), 99 if count is None else count)
    assert objects_held(there, declared, Prune(percent, count), CONFIRMED) is None


def test_a_bundle_is_what_its_objects_are_in_their_order():
    assert version_of(spec("a"), {}) == version_of(spec("a", prune=False), {})
    assert version_of(spec("a", "b"), {}) != version_of(spec("b", "a"), {})
    assert Bundle("x", (b"1", b"2")).digest != Bundle("x", (b"2", b"1")).digest
    assert Bundle("x", (b"1",)).digest == Bundle("y", (b"1",), prune=False).digest

"""The fold over the journal: each record's effect, that no record makes it fail, and its form in the projections."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import reduce

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core import memory_codec
from reconciler.core.entry_codec import UnreadableError
from reconciler.core.fold import LOSSES_KEPT, QUARANTINES_KEPT, remember
from reconciler.core.memory import (
    EnvironmentMemory,
    Quarantine,
    RolloutMemory,
    ServiceMemory,
    Suspension,
)
from reconciler.core.memory_codec import MisfitError
from reconciler.core.record import Entry, VersionRef, What

AT = datetime(2026, 1, 1, tzinfo=UTC)
LATER = AT + timedelta(seconds=5)
A = VersionRef("a" * 64, "registry.test/web@sha256:a", "r1")
B = VersionRef("b" * 64, "registry.test/web@sha256:b", "r2")
EMPTY = EnvironmentMemory()

names = st.sampled_from(["web.1", "web.2", "api.1"])
effects = st.sampled_from(
    [
        "CreateInstance",
        "DetachTraffic",
        "AttachTraffic",
        "TerminateInstance",
        "StartInstance",
        "RemoveInstance",
        "PullImage",
    ]
)
anything = st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.lists(st.text(max_size=2) | st.none())
sound = st.fixed_dictionaries(
    {"name": names, "effect": effects},
    optional={"keep": st.booleans(), "names": st.lists(names), "served": st.lists(names), "gone": st.lists(names)},
)
odd = st.dictionaries(
    st.sampled_from(["name", "effect", "keep", "names", "served", "gone", "invalid", "differences"]),
    anything | st.dictionaries(st.text(max_size=2), anything, max_size=2),
)
entries = st.builds(
    Entry,
    at=st.datetimes(datetime(2026, 1, 1), datetime(2026, 1, 2), timezones=st.just(UTC)),  # noqa: DTZ001
    what=st.sampled_from(What),
    environment=st.just("prod"),
    service=st.sampled_from(["", "web", "api"]),
    to_version=st.sampled_from([None, A, B]),
    revision=st.sampled_from(["", "r1", "r2"]),
    author=st.text(max_size=3),
    reason=st.sampled_from(["", "Unhealthy"]),
    details=sound | odd,
)


def fold(memory: EnvironmentMemory, *found: Entry) -> EnvironmentMemory:
    return reduce(remember, found, memory)


def of(what: What, service: str = "web", **more: object) -> Entry:
    return Entry(at=more.pop("at", AT), what=what, environment="prod", service=service, **more)  # type: ignore[arg-type]


def did(effect: str, what: What = What.DONE, **details: object) -> Entry:
    return of(what, details={"effect": effect, "name": "web.1", **details})


def web(*found: Entry, before: ServiceMemory | None = None) -> ServiceMemory:
    start = replace(EMPTY, services={"web": before}) if before else EMPTY
    return fold(start, *found).services["web"]


@given(st.lists(entries, max_size=30), st.integers(0, 30))
def test_folding_on_from_a_projection_is_folding_all(found: list[Entry], cut: int) -> None:
    stored = rfc8785.dumps(memory_codec.dump(fold(EMPTY, *found[:cut])))
    assert fold(memory_codec.load(json.loads(stored)), *found[cut:]) == fold(EMPTY, *found)


def test_an_admission_replaces_the_one_before_and_the_refusal() -> None:
    admitted = of(What.REVISION_ADMITTED, "", revision="r1", author="A", committer="C")
    memory = fold(EMPTY, of(What.REVISION_REJECTED, "", revision="r0", reason="ManifestInvalid"))
    assert (memory.rejected, memory.rejected_reason) == ("r0", "ManifestInvalid")
    memory = fold(memory, admitted)
    assert (memory.admitted, memory.admitted_at, memory.author, memory.committer) == ("r1", AT, "A", "C")
    assert (memory.rejected, memory.rejected_reason) == ("", "")


def test_a_service_not_valid_any_more_is_taken_from_the_last_revision_in_which_it_was() -> None:
    first = of(What.REVISION_ADMITTED, "", revision="r1")
    second = of(What.REVISION_ADMITTED, "", revision="r2", details={"invalid": ["web"]})
    third = of(What.REVISION_ADMITTED, "", revision="r3", details={"invalid": ["web", "api"]})
    assert fold(EMPTY, first, second).good == {"web": "r1"}
    assert fold(EMPTY, first, second, third).good == {"web": "r1", "api": "r2"}
    assert fold(EMPTY, first, second, of(What.REVISION_ADMITTED, "", revision="r3")).good == {}
    assert fold(EMPTY, second).good == {}, "there is no revision in which it was valid"


def test_a_person_suspends_and_resumes_an_environment() -> None:
    memory = fold(EMPTY, of(What.SUSPENDED, "", author="Ann", reason="drill"))
    assert memory.suspension == Suspension("Ann", AT, "drill")
    assert fold(memory, of(What.RESUMED, "")).suspension is None


def test_resuming_after_a_refusal_lets_the_head_be_judged_anew() -> None:
    memory = replace(EMPTY, admitted="r1")
    assert fold(memory, of(What.RESUMED, "")).admitted == "r1"
    rejected = of(What.REVISION_REJECTED, "", revision="r2", reason="HistoryUnrelated")
    resumed = fold(memory, rejected, of(What.RESUMED, ""))
    assert (resumed.admitted, resumed.rejected) == ("", "")
    invalid = of(What.REVISION_REJECTED, "", revision="r2", reason="ManifestInvalid")
    resumed = fold(memory, invalid, of(What.RESUMED, ""))
    assert (resumed.admitted, resumed.rejected) == ("r1", "r2"), "what was admitted stays in use"


def test_what_is_in_the_way_is_remembered_until_it_is_gone() -> None:
    found = of(What.DRIFT_FOUND, "", details={"name": "squatter", "differences": "no label"})
    assert fold(EMPTY, found).foreign == {"squatter": "no label"}
    assert fold(EMPTY, found, of(What.DRIFT_REPAIRED, "")).foreign == {}


def test_a_removed_service_is_forgotten() -> None:
    memory = fold(EMPTY, of(What.PROMOTED, to_version=A), of(What.PROMOTED, "api", to_version=B))
    assert fold(memory, of(What.SERVICE_REMOVED)).services.keys() == {"api"}
    assert fold(memory, of(What.SERVICE_REMOVED, "unknown")) == memory


@pytest.mark.parametrize("service", ["", "web"])
def test_a_record_that_says_nothing_here_changes_nothing(service: str) -> None:
    assert remember(EMPTY, of(What.UNKNOWN, service)) is EMPTY


@pytest.mark.parametrize("what", [What.ROLLOUT_STARTED, What.ROLLOUT_FAILED, What.PROMOTED, What.ADOPTED])
def test_a_record_without_the_version_it_needs_changes_nothing(what: What) -> None:
    before = ServiceMemory(stable=A)
    assert web(of(what), before=before) == before


def test_the_effects_on_an_instance_follow_its_life() -> None:
    intended = web(did("CreateInstance", What.INTENT))
    assert (intended.intended, intended.made) == ({"web.1"}, frozenset())
    made = web(did("CreateInstance"), before=replace(intended, drift={"web.1": "gone", "web.2": "x"}))
    assert (made.intended, made.made, made.drift) == (frozenset(), {"web.1"}, {"web.2": "x"})
    exposed = web(did("AttachTraffic", What.INTENT), before=made)
    assert (exposed.exposed, exposed.served) == ({"web.1"}, frozenset())
    served = web(did("AttachTraffic"), before=exposed)
    assert served.served == {"web.1"}
    leaving = web(did("DetachTraffic", What.INTENT), before=served)
    assert (leaving.served, leaving.detached) == (frozenset(), {})
    detached = web(did("DetachTraffic"), before=leaving)
    assert detached.detached == {"web.1": AT}
    ended = web(did("TerminateInstance", What.INTENT), did("TerminateInstance"), before=detached)
    assert (ended.terminated, ended.kept) == ({"web.1": AT}, frozenset())
    going = web(did("RemoveInstance", What.INTENT), before=ended)
    assert (going.made, going.intended) == (frozenset(), {"web.1"})
    gone = web(did("RemoveInstance"), before=replace(going, lost=frozenset({"web.1"})))
    assert gone == ServiceMemory(drift={"web.2": "x"})


def test_attaching_again_ends_the_detachment() -> None:
    assert web(did("DetachTraffic"), did("AttachTraffic")).detached == {}


def test_a_kept_instance_is_the_way_back_and_starts_afresh() -> None:
    kept = web(did("DetachTraffic"), did("TerminateInstance", keep=True))
    assert (kept.kept, kept.terminated) == ({"web.1"}, {"web.1": AT})
    started = web(did("StartInstance"), before=kept)
    assert (started.terminated, started.detached) == ({}, {})


@pytest.mark.parametrize("what", [What.DONE, What.INTENT])
def test_other_effects_leave_nothing_behind(what: What) -> None:
    assert web(did("PullImage", what)) == ServiceMemory()


def test_a_rollout_goes_from_its_start_to_its_promotion() -> None:
    before = ServiceMemory(stable=A, returning=AT, stalled="PortTaken", losses=(AT,))
    started = web(of(What.ROLLOUT_STARTED, to_version=B), before=before)
    assert started.rollout == RolloutMemory(B, AT, AT)
    assert (started.returning, started.stalled) == (None, "")
    healthy = of(What.INSTANCE_HEALTHY, to_version=B, at=LATER, details={"name": "web.1"})
    moved = web(healthy, before=started)
    assert moved.rollout == RolloutMemory(B, AT, LATER, frozenset({"web.1"}))
    assert web(replace(healthy, to_version=A), before=started) == started, "not an instance of this rollout"
    assert web(healthy, before=before) == before, "no rollout"
    promoted = web(of(What.PROMOTED, to_version=B, at=LATER), before=moved)
    assert (promoted.stable, promoted.previous, promoted.promoted_at) == (B, A, LATER)
    assert (promoted.rollout, promoted.losses) == (None, ())
    again = web(of(What.PROMOTED, to_version=B), before=promoted)
    assert again.previous == A


def test_a_superseded_rollout_is_no_more() -> None:
    assert web(of(What.ROLLOUT_STARTED, to_version=B), of(What.ROLLOUT_SUPERSEDED)) == ServiceMemory()


def test_a_failed_version_is_quarantined_and_the_way_back_begins() -> None:
    failed = of(What.ROLLOUT_FAILED, to_version=B, reason="Unhealthy", revision="r2")
    memory = web(of(What.ROLLOUT_STARTED, to_version=B), failed, before=ServiceMemory(stable=A))
    assert memory.quarantine == {B.version: Quarantine("Unhealthy", AT, "r2")}
    assert (memory.rollout, memory.returning, memory.stable) == (None, AT, A)
    assert web(of(What.ROLLED_BACK), before=memory).returning is None
    assert web(of(What.QUARANTINE_LIFTED), before=memory).quarantine == {}


def test_a_stable_version_that_fails_gives_way_to_the_one_before() -> None:
    before = ServiceMemory(stable=B, previous=A, losses=(AT,))
    memory = web(of(What.ROLLOUT_FAILED, to_version=B), before=before)
    assert (memory.stable, memory.previous, memory.losses) == (A, None, ())


def test_only_the_youngest_quarantines_and_losses_are_kept() -> None:
    failures = [
        of(What.ROLLOUT_FAILED, to_version=replace(A, version=f"{n:03}"), at=AT + timedelta(seconds=n))
        for n in range(QUARANTINES_KEPT + 3)
    ]
    kept = web(*reversed(failures)).quarantine
    assert sorted(kept) == [f"{n:03}" for n in range(3, QUARANTINES_KEPT + 3)]
    losses = [of(What.INSTANCE_LOST, at=AT + timedelta(seconds=n), details={"name": "web.1"}) for n in range(30)]
    memory = web(*losses)
    assert memory.losses == tuple(AT + timedelta(seconds=n) for n in range(30 - LOSSES_KEPT, 30))
    assert memory.lost == {"web.1"}


def test_adoption_tells_what_is_stable_and_what_exists() -> None:
    memory = web(of(What.ADOPTED, to_version=A, details={"names": ["web.1", "web.2"], "served": ["web.1"]}))
    assert (memory.stable, memory.promoted_at) == (A, AT)
    assert (memory.made, memory.served, memory.exposed) == ({"web.1", "web.2"}, {"web.1"}, {"web.1"})


def test_drift_is_remembered_until_its_repair() -> None:
    memory = web(of(What.DRIFT_FOUND, details={"name": "web.1", "differences": "DriftFilesystem"}))
    assert (memory.drift, memory.drifted) == ({"web.1": "DriftFilesystem"}, True)
    memory = web(
        of(What.DRIFT_REPAIRED, details={"gone": ["web.2"]}), before=replace(memory, made=frozenset({"web.2"}))
    )
    assert (memory.drift, memory.drifted, memory.made) == ({}, False, frozenset())


def test_a_person_suspends_and_resumes_a_service() -> None:
    memory = web(of(What.SUSPENDED, author="Ann", reason="drill"), of(What.STALLED, reason="PortTaken"))
    assert (memory.suspension, memory.stalled) == (Suspension("Ann", AT, "drill"), "PortTaken")
    memory = web(of(What.RESUMED), before=replace(memory, quarantine={"v": Quarantine("Unhealthy", AT, "r")}))
    assert memory == ServiceMemory()


@pytest.mark.parametrize(
    "found",
    [
        None,
        [],
        {"newField": 1},
        {"admitted": 1},
        {"admitted_at": "noon"},
        {"good": []},
        {"services": {"web": {"drifted": "yes"}}},
        {"services": {"web": {"kept": "web.1"}}},
        {"services": {"web": {"losses": [5]}}},
        {"services": {"web": {"rollout": {"to": {"version": "v"}}}}},
    ],
)
def test_what_is_no_memory_is_refused(found: object) -> None:
    with pytest.raises((MisfitError, UnreadableError)):
        memory_codec.load(found)


def test_an_empty_memory_has_an_empty_form() -> None:
    assert memory_codec.dump(EMPTY) == {}
    assert memory_codec.load({}) == EMPTY
    assert memory_codec.load({"suspension": None}) == EMPTY


def test_a_person_needed_for_the_environment_is_remembered_until_something_works() -> None:
    stalled = fold(EMPTY, of(What.STALLED, "", reason="NotOwned"))
    assert stalled.stalled == "NotOwned"
    assert fold(stalled, of(What.DONE, "")).stalled == ""


def test_the_codec_keeps_every_kind_of_value_there_is() -> None:
    service = ServiceMemory(losses=(AT, AT), lost=frozenset({"a", "b"}), detached={"a": AT}, drifted=True)
    memory = replace(EMPTY, admitted="r1", services={"web": service})
    assert memory_codec.load(memory_codec.dump(memory)) == memory

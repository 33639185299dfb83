"""What a look at Git is recorded as: each change of mind about a revision once, and nothing that says nothing of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from reconciler.core.admission import Wanted, admission, describe
from reconciler.core.errors import Reason, ReconcilerError, Rejected, Retryable, Stalled
from reconciler.core.fold import remember
from reconciler.core.live import LiveState
from reconciler.core.memory import EnvironmentMemory
from reconciler.core.model import DesiredState, Problem, Revision
from reconciler.core.plan import plan
from reconciler.core.question import Question, Wish
from reconciler.core.record import What

AT = datetime(2026, 1, 1, tzinfo=UTC)
BAD = Rejected(Reason.MANIFEST_INVALID, "line 3")
HELD = Stalled(Reason.HISTORY_UNRELATED, "no common history")
AWAY = Retryable(Reason.REPOSITORY_UNREACHABLE, "no answer")


def revision(sha: str) -> Revision:
    return Revision(sha, ("p",), "Ann", "Bob", AT, "subject")


def seen(sha: str, error: ReconcilerError | None = None, **changes: object) -> Wanted:
    head = revision(sha)
    return replace(Wanted("prod", head, None if error else head, None, error), **changes)


def told(memory: EnvironmentMemory, *looks: Wanted) -> tuple[list[str], EnvironmentMemory]:
    found = []
    for wanted in looks:
        for entry in admission(wanted, memory, "poll", AT):
            found.append(f"{entry.what} {entry.revision}")
            memory = remember(memory, entry)
    return found, memory


@pytest.mark.parametrize(
    ("looks", "records"),
    [
        ([Wanted("prod", error=AWAY)], []),
        ([seen("a"), seen("a")], ["RevisionAdmitted a"]),
        ([seen("a"), seen("b", BAD), seen("b", BAD)], ["RevisionAdmitted a", "RevisionRejected b"]),
        # Settings that allow more make a revision acceptable that was not: it runs, so it is admitted first.
        ([seen("b", BAD), seen("b"), seen("b")], ["RevisionRejected b", "RevisionAdmitted b"]),
        # Back at the admitted one: the refusal is over.
        (
            [seen("a"), seen("b", BAD), seen("a"), seen("a")],
            ["RevisionAdmitted a", "RevisionRejected b", "RevisionAdmitted a"],
        ),
        # Settings that allow less make the admitted one unacceptable.
        ([seen("a"), seen("a", BAD), seen("a", BAD)], ["RevisionAdmitted a", "RevisionRejected a"]),
        # Git in trouble says nothing about a revision.
        ([seen("a"), seen("b", AWAY), seen("b")], ["RevisionAdmitted a", "RevisionAdmitted b"]),
        ([seen("a"), seen("b", HELD, unrelated=True)], ["RevisionAdmitted a", "RevisionRejected b"]),
    ],
)
def test_each_change_of_mind_is_recorded_once(looks: list[Wanted], records: list[str]) -> None:
    assert told(EnvironmentMemory(), *looks)[0] == records


def test_the_memory_agrees_with_the_records() -> None:
    memory = told(EnvironmentMemory(), seen("a"), seen("b", BAD))[1]
    assert (memory.admitted, memory.rejected) == ("a", "b")
    assert told(memory, seen("a"))[1].rejected == ""


def test_rewritten_history_is_told_with_what_was_there_before() -> None:
    memory = told(EnvironmentMemory(), seen("a"))[1]
    first, second = admission(seen("b", rewritten=True), memory, "poll", AT)
    assert (first.what, first.details["before"]) == (What.HISTORY_REWRITTEN, "a")
    assert second.what is What.REVISION_ADMITTED


@pytest.mark.parametrize(
    ("trailers", "details"),
    [
        ({}, {}),
        ({"signed-off-by": "Ann"}, {}),
        ({"reconciler-emergency": "the shop is down"}, {"emergency": "the shop is down"}),
        ({"reconciler-emergency": ""}, {}),
        ({"reconciler-confirm": "removals, changes, x"}, {"confirmed": ["changes", "removals"]}),
        ({"reconciler-confirm": "x"}, {}),
    ],
)
def test_what_passes_a_freeze_or_a_cap_is_recorded(trailers: dict[str, str], details: dict[str, object]) -> None:
    head = replace(revision("a"), trailers=trailers)
    (entry,) = admission(Wanted("prod", head, head), EnvironmentMemory(), "poll", AT)
    assert entry.details == {"subject": "subject", "parents": ["p"], "invalid": [], **details}
    (entry,) = admission(Wanted("prod", head, error=BAD), EnvironmentMemory(), "poll", AT)
    assert not entry.details.keys() & {"emergency", "confirmed"}


def test_invalid_services_are_part_of_the_admission_and_of_the_status() -> None:
    problem = Problem("web.yaml", 3, 1, "no image")
    state = DesiredState("prod", revision("a"), {}, {"web": (problem,)})
    wanted = seen("a", state=state)
    entry = admission(wanted, EnvironmentMemory(), "poll", AT)[0]
    assert entry.details["invalid"] == ["web"]
    wishes = {"web": Wish("web", held=Reason.MANIFEST_INVALID, message="no image")}
    found = plan(Question("prod", None, wishes, LiveState("prod", AT), EnvironmentMemory(), AT))
    failed = {"web": Stalled(Reason.PORT_TAKEN, "in use"), "gone": AWAY}
    status = describe(wanted, EnvironmentMemory(), found, failed, AT)
    assert (status.revision, status.last_success_at) == ("a", AT)
    assert status.problems == {"web": ("web.yaml:3:1: no image",)}
    assert status.plan is not None
    assert status.plan.services["web"].reason is Reason.PORT_TAKEN
    status = describe(Wanted("prod", error=AWAY), EnvironmentMemory(admitted="z"), found, {}, AT)
    assert (status.revision, status.reason, status.last_success_at) == ("z", Reason.REPOSITORY_UNREACHABLE, None)

"""What a leader does right before an effect, and what one that stands by shows: small parts, by hand."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from reconciler import reload, standby
from reconciler.adapters.clock import SystemClock
from reconciler.adapters.journal import SqlJournal
from reconciler.board import Board
from reconciler.core.errors import Fenced, Reason, Rejected, Retryable, Stalled
from reconciler.core.record import Entry, What
from reconciler.core.steps import EnsureNetwork, StartInstance
from reconciler.guard import GuardedRuntime, GuardedTraffic
from reconciler.ports import Journal, Runtime, Traffic
from reconciler.settings import EnvironmentSettings, KubernetesSettings, LeaderSettings, Settings, ShardSettings
from reconciler.standby import ShownJournal

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Told:
    """Remembers each call that reaches it."""

    calls: list[tuple[Any, ...]] = field(default_factory=list)

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments: self.calls.append((name, *arguments))


def test_an_effect_begins_only_while_the_lease_is_held() -> None:
    told, held = Told(), [True]
    runtime = GuardedRuntime(cast(Runtime, told), lambda: held[0])
    traffic = GuardedTraffic(cast(Traffic, told), lambda: held[0])
    runtime.apply(EnsureNetwork("prod"))
    held[0] = False
    with pytest.raises(Fenced) as refused:
        runtime.apply(StartInstance("x"))
    assert refused.value.reason is Reason.NOT_LEADER
    with pytest.raises(Fenced):
        traffic.apply("prod", cast(Any, "effect"))
    assert told.calls == [("apply", EnsureNetwork("prod"))]


def test_looking_needs_no_lease() -> None:
    told = Told()
    runtime = GuardedRuntime(cast(Runtime, told), lambda: False)
    traffic = GuardedTraffic(cast(Traffic, told), lambda: False)
    runtime.observe("prod", {}, ["image"], ["web"])
    runtime.logs("web", 5)
    runtime.watch(print)
    runtime.close()
    traffic.observe("prod")
    traffic.watch(print)
    traffic.close()
    assert [call[0] for call in told.calls] == ["observe", "logs", "watch", "close", "observe", "watch", "close"]
    assert told.calls[0] == ("observe", "prod", {}, ["image"], ["web"])


def settings(tmp_path: Path, **changes: object) -> Settings:
    environment = EnvironmentSettings("prod", "fleet", "here", "environments/prod")
    found = Settings(tmp_path / "r.yaml", tmp_path, f"sqlite:///{tmp_path}/j.db", {}, {"prod": environment}, {})
    return replace(found, **changes)  # type: ignore[arg-type]


def test_before_the_first_leader_there_is_nothing_to_show(tmp_path: Path) -> None:
    clock, board = SystemClock(), Board()
    url = f"sqlite:///{tmp_path}/j.db"
    shown = ShownJournal(lambda: SqlJournal.open(url, clock, "reader", act=False))
    with closing(shown):
        assert list(shown.records()) == []
        assert (shown.environments(), shown.epoch, shown.verify().records) == ((), 0, 0)
        standby.show(board, shown, settings(tmp_path), clock, "")
        status = board.get("prod")
        assert status is not None
        assert (status.reason, status.revision) == (Reason.NOT_LEADER, "")
        assert status.message.startswith("nobody leads now")
        with pytest.raises(Stalled):
            shown.append(Entry(at=NOW, what=What.INTENT))
        with closing(SqlJournal.open(url, clock, "leader", act=True)) as leading:
            leading.append(Entry(at=NOW, what=What.REVISION_ADMITTED, environment="prod", revision="a" * 40))
            assert shown.epoch == 1
            assert shown.environments() == ("prod",)
            standby.show(board, shown, settings(tmp_path), clock, "pod-1")
        status = board.get("prod")
        assert status is not None
        assert status.revision == "a" * 40
        assert status.message.startswith("pod-1 leads")
        version = board.version
        standby.show(board, shown, settings(tmp_path), clock, "pod-1")
        assert board.version == version


def test_a_journal_that_cannot_be_opened_is_told_and_tried_again(tmp_path: Path) -> None:
    errors = [Retryable(Reason.JOURNAL_UNAVAILABLE, "away"), Stalled(Reason.JOURNAL_DAMAGED, "broken")]
    journal = SqlJournal.open(f"sqlite:///{tmp_path}/j.db", SystemClock(), "a test", act=True)

    def opening() -> Journal:
        if errors:
            raise errors.pop(0)
        return journal

    shown = ShownJournal(opening)
    for reason in (Reason.JOURNAL_UNAVAILABLE, Reason.JOURNAL_DAMAGED):
        with pytest.raises((Retryable, Stalled)) as told:
            shown.records(limit=1)
        assert told.value.reason is reason
    assert len(list(shown.records())) == 2
    shown.close()
    shown.close()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"leader": LeaderSettings("here", "other")}, "leader"),
        ({"leader": None}, "leader"),
        ({"shard": ShardSettings(1, 2)}, "shard"),
        ({"runtimes": {"here": KubernetesSettings("here", context="other")}}, "runtimes.here, which keeps the Lease"),
    ],
)
def test_another_candidacy_needs_a_restart(tmp_path: Path, changes: dict[str, object], named: str) -> None:
    here = {"here": KubernetesSettings("here")}
    before = settings(tmp_path, leader=LeaderSettings("here"), shard=ShardSettings(0, 2), runtimes=here)
    with pytest.raises(Rejected, match=f"a change of {named} needs a restart"):
        reload.check(before, replace(before, **changes))  # type: ignore[arg-type]
    reload.check(before, replace(before, runtimes=here | {"more": KubernetesSettings("more")}))

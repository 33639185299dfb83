"""The follower of the journal, on a real one: what others write is noticed, a newer epoch ends the daemon."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue

import pytest

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.journal import SqlJournal
from reconciler.core.errors import Fenced
from reconciler.core.record import Entry, What
from reconciler.journal_follower import JournalFollower
from reconciler.ports import Cause
from reconciler.telemetry import Metrics

CLOCK = SystemClock()


class Stage:
    """A daemon's journal and its follower."""

    def __init__(self, root: Path) -> None:
        self.url = f"sqlite:///{root}/journal.db"
        self.lock = root / "journal.db.lock"
        self.journal = SqlJournal.open(self.url, CLOCK, "the daemon", act=True)
        self.metrics = Metrics()
        self.requests: SimpleQueue[tuple[str, Cause]] = SimpleQueue()
        self.fatal: SimpleQueue[BaseException] = SimpleQueue()
        self.follower = JournalFollower(
            self.journal, CLOCK, self.metrics, lambda name, cause: self.requests.put((name, cause)), self.fatal.put
        )

    def sample(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    found = Stage(tmp_path)
    yield found
    found.follower.stop()
    found.journal.close()


def word(what: What, **fields: str) -> Entry:
    return Entry(CLOCK.now(), what, environment="staging", author="grace", **fields)  # type: ignore[arg-type]


def test_a_persons_word_becomes_a_hint(stage: Stage) -> None:
    stage.journal.append(word(What.SUSPENDED))  # before the start: the first cycle reads it anyway
    stage.follower.start()
    person = SqlJournal.open(stage.url, CLOCK, "grace", act=False)
    person.append(word(What.PROMOTED), word(What.RESUMED))
    person.close()
    name, cause = stage.requests.get(timeout=60)
    assert (name, cause.kind, cause.detail) == ("staging", "operator", "Resumed by grace")
    assert stage.requests.empty()


def test_records_and_drift_are_counted(stage: Stage) -> None:
    stage.journal.append(word(What.DRIFT_FOUND, service="web", reason="DriftExtra"))
    stage.follower.look()
    stage.follower.look()
    assert stage.sample("reconciler_drift_total", environment="staging", service="web", reason="DriftExtra") == 1
    assert stage.sample("reconciler_journal_records") == 3
    assert stage.requests.empty()


def test_a_newer_epoch_ends_the_daemon_even_when_it_has_nothing_to_do(stage: Stage) -> None:
    stage.follower.start()
    stage.lock.unlink()  # the lock does not hold, as on some network file systems
    other = SqlJournal.open(stage.url, CLOCK, "another daemon", act=True)
    try:
        error = stage.fatal.get(timeout=60)
    finally:
        other.close()
    assert isinstance(error, Fenced)
    assert "epoch 2" in str(error)

"""Polling: every environment of a repository gets its hint, also after the clock was set back."""

import queue
from dataclasses import replace
from datetime import datetime, timedelta

import apscheduler.schedulers.base
import apscheduler.triggers.interval
import pytest

from reconciler.adapters.clock import SystemClock
from reconciler.settings import EnvironmentSettings, RepositorySettings, Settings
from reconciler.triggers.schedule import Schedule
from tests.support.webhouse import ManualClock


def settings(tmp_path, seconds=0.05, environments=("production", "staging")):
    return Settings(
        file=tmp_path / "settings.yaml",
        data=tmp_path,
        journal="",
        repositories={"fleet": RepositorySettings("fleet", "https://git.test/f", poll=timedelta(seconds=seconds))},
        environments={name: EnvironmentSettings(name, "fleet", "local", "environments") for name in environments},
        runtimes={},
    )


@pytest.fixture
def hints():
    return queue.Queue()


@pytest.fixture
def schedule(hints):
    made = Schedule(SystemClock(), lambda name, cause: hints.put((name, cause)))
    yield made
    made.stop()


def test_each_environment_gets_hints_again_and_again(schedule, hints, tmp_path):
    schedule.start(settings(tmp_path))
    got = [hints.get(timeout=60) for _ in range(6)]
    assert {name for name, _ in got} == {"production", "staging"}
    assert all(cause.kind == "poll" and cause.git for _, cause in got)


def test_the_environments_of_one_poll_share_its_time(schedule, hints, tmp_path):
    schedule.start(settings(tmp_path, seconds=3600))
    schedule.poll("fleet")
    assert hints.get(timeout=60)[1].at == hints.get(timeout=60)[1].at


def test_new_settings_count_at_once(schedule, hints, tmp_path):
    schedule.start(settings(tmp_path, seconds=3600))
    schedule.apply(settings(tmp_path, seconds=0.05, environments=("other",)))
    assert hints.get(timeout=60)[0] == "other"


def test_a_repository_that_is_gone_is_not_polled(schedule, hints, tmp_path):
    schedule.start(settings(tmp_path, seconds=3600))
    schedule.apply(replace(settings(tmp_path), repositories={}, environments={}))
    schedule.poll("fleet")
    assert schedule.check() == ()
    assert hints.empty()


def test_polling_goes_on_after_the_clock_was_set_back(schedule, hints, tmp_path, monkeypatch):
    """APScheduler alone would now wait for an hour."""
    jumped = []

    class Jumped(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) - timedelta(hours=1)

    schedule.start(settings(tmp_path, seconds=0.2, environments=("production",)))
    hints.get(timeout=60)
    monkeypatch.setattr(apscheduler.schedulers.base, "datetime", Jumped)
    monkeypatch.setattr(apscheduler.triggers.interval, "datetime", Jumped)
    jumped.extend(hints.get(timeout=60) for _ in range(6))
    assert len(jumped) == 6


def test_only_what_is_overdue_by_the_monotonic_clock_is_polled(hints, tmp_path):
    clock = ManualClock()
    schedule = Schedule(clock, lambda name, cause: hints.put((name, cause)))
    try:
        schedule.start(settings(tmp_path, seconds=3600, environments=("production",)))
        clock.seconds = 3601.0 + 3600 * 0.2
        clock.jump = -86_400
        assert schedule.check() == ()
        clock.seconds += 0.1
        assert schedule.check() == ("fleet",)
        assert hints.get(timeout=60)[0] == "production"
        assert schedule.check() == ()
    finally:
        schedule.stop()


def test_stopping_before_starting_is_harmless():
    Schedule(ManualClock(), lambda name, cause: None).stop()

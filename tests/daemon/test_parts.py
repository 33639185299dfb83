"""The small parts of the daemon: pauses, what systemd is told, reloads, the data directory, warnings."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler import banner, reload, wiring
from reconciler.backoff import LONGEST, SHORTEST, Backoff, delay
from reconciler.core.errors import Reason, Rejected, Stalled
from reconciler.notify_systemd import Systemd
from reconciler.redact import Redactor
from reconciler.settings import HttpSettings, LogSettings, RepositorySettings, Settings

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_a_pause_has_a_floor_and_a_ceiling(failures: int, chance: float) -> None:
    pause = delay(failures, lambda low, high: low + chance * (high - low)).total_seconds()
    assert SHORTEST <= pause <= LONGEST


def test_pauses_double_until_five_minutes_and_begin_anew() -> None:
    backoff = Backoff()
    pauses = [(backoff.failed(NOW, lambda _low, high: high) - NOW).total_seconds() for _ in range(10)]
    assert pauses == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert backoff.holds(NOW + timedelta(seconds=299))
    assert not backoff.holds(NOW + timedelta(seconds=300))
    backoff.reset()
    assert not backoff.holds(NOW)
    assert backoff.failed(NOW, lambda _low, high: high, after=timedelta(seconds=7)) == NOW + timedelta(seconds=7)


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as found:
        found.bind(str(tmp_path / "notify"))
        found.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield found


def test_systemd_is_told(listener: socket.socket) -> None:
    systemd = Systemd({}, monotonic=lambda: 12.5)
    systemd.ready("well")
    systemd.alive()
    systemd.reloading()
    systemd.stopping()
    assert listener.recv(999) == b"READY=1\nSTATUS=well"
    assert listener.recv(999) == b"RELOADING=1\nMONOTONIC_USEC=12500000"
    assert listener.recv(999).startswith(b"STOPPING=1")


def test_the_watchdog_hears_of_progress_four_times_an_interval(listener: socket.socket) -> None:
    now = [100.0]
    systemd = Systemd({"WATCHDOG_USEC": "8000000", "WATCHDOG_PID": str(os.getpid())}, monotonic=lambda: now[0])
    for step in (0.0, 0.5, 1.4, 0.2):
        now[0] += step
        systemd.alive()
    systemd.stopping()
    assert listener.recv(999) == b"WATCHDOG=1"
    assert listener.recv(999) == b"WATCHDOG=1"
    assert listener.recv(999).startswith(b"STOPPING=1")


@pytest.mark.parametrize("environ", [{"WATCHDOG_USEC": "8000000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "x"}, {}])
def test_a_watchdog_that_is_not_ours_hears_nothing(listener: socket.socket, environ: dict[str, str]) -> None:
    systemd = Systemd(environ)
    systemd.alive()
    systemd.stopping()
    assert listener.recv(999).startswith(b"STOPPING=1")


def settings(root: Path) -> Settings:
    fleet = RepositorySettings("fleet", "https://git.example/fleet.git")
    return Settings(root / "reconciler.yaml", root / "data", f"sqlite:///{root}/j.db", {"fleet": fleet}, {}, {})


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"name": "other"}, "name"),
        ({"data": Path("/elsewhere")}, "data"),
        ({"journal": "sqlite:////elsewhere"}, "journal"),
        ({"http": HttpSettings(port=1)}, "http.port"),
        ({"http": HttpSettings(host="::1")}, "http.host"),
        ({"concurrency": 3}, "concurrency"),
    ],
)
def test_what_needs_a_restart_is_refused_by_name(tmp_path: Path, changes: dict[str, object], named: str) -> None:
    before = settings(tmp_path)
    with pytest.raises(Rejected, match=f"a change of {named} needs a restart") as refused:
        reload.check(before, replace(before, **changes))  # type: ignore[arg-type]
    assert refused.value.reason is Reason.SETTINGS_INVALID


def test_the_rest_can_be_taken_on(tmp_path: Path) -> None:
    before = settings(tmp_path)
    http = HttpSettings(token_file=tmp_path / "token")
    reload.check(before, replace(before, repositories={}, log=LogSettings(level="debug"), http=http))


def test_the_data_directory_is_for_one_user(tmp_path: Path) -> None:
    umask = os.umask(0o022)
    try:
        wiring.prepare_data(settings(tmp_path))
        assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
        (tmp_path / "data").chmod(0o777)
        with pytest.raises(Stalled, match="chmod o-w"):
            wiring.prepare_data(settings(tmp_path))
        (tmp_path / "data").rmdir()
        (tmp_path / "data").write_text("")
        with pytest.raises(Stalled, match="cannot be used"):
            wiring.prepare_data(settings(tmp_path))
    finally:
        os.umask(umask)


def test_what_is_unwise_is_said(tmp_path: Path) -> None:
    found = replace(settings(tmp_path), warnings=("from the settings",))
    assert banner.warnings(found, user=1000) == (
        "from the settings",
        "http.tokenFile is not set: the API answers health checks and webhooks only",
    )
    quiet = replace(settings(tmp_path), http=HttpSettings(token_file=tmp_path / "token"))
    assert banner.warnings(quiet, user=1000) == ()
    (root,) = banner.warnings(quiet, user=0)
    assert "running as root" in root


def test_the_banner_names_what_is_followed_and_hides_what_is_secret(tmp_path: Path) -> None:
    found = banner.Banner(settings(tmp_path), epoch=7, engines={"local": "API 1.41"}, warnings=("careful",))
    text = "\n".join(found.lines(Redactor(["git.example"])))
    for part in ("epoch 7", "local: API 1.41", "127.0.0.1:8480", "warning: careful", "[redacted]/fleet.git"):
        assert part in text
    assert "git.example" not in text

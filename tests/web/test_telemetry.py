"""Logs and metrics: one form for all lines, no secrets, no series of what is gone."""

import io
import json
import logging

import pytest
import structlog

from reconciler.core.status import ServiceHealth, ServicePlan, Sync
from reconciler.redact import HIDDEN, Redactor
from reconciler.settings import LogSettings
from reconciler.telemetry import QUIET_FOR, Metrics, Quiet, configure_logs
from tests.support.webhouse import START, ManualClock, status

NAMES = {
    "reconciler_reconcile_duration_seconds",
    "reconciler_reconcile",
    "reconciler_service_info",
    "reconciler_git_fetch",
    "reconciler_webhook_requests",
    "reconciler_inbox_depth",
    "reconciler_last_success_timestamp_seconds",
    "reconciler_leader",
    "reconciler_drift",
    "reconciler_journal_records",
}


@pytest.fixture
def lines():
    """Configures logs into a buffer; what was configured before comes back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def read(form="json", level="debug"):
        stream = io.StringIO()
        configure_logs(LogSettings(form, level), Redactor(["hunter2"]), stream)
        return stream

    yield read
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def test_json_lines_carry_time_level_and_context(lines):
    stream = lines()
    with structlog.contextvars.bound_contextvars(environment="production"):
        structlog.get_logger("x").info("reconciled", seconds=1.5, steps=[1])
    line = json.loads(stream.getvalue())
    assert line.pop("time").endswith("Z")
    assert line == {
        "event": "reconciled",
        "level": "info",
        "logger": "x",
        "environment": "production",
        "seconds": 1.5,
        "steps": [1],
    }


def test_the_standard_librarys_lines_have_the_same_form(lines):
    stream = lines()
    logging.getLogger("some.library").warning("cannot %s hunter2", "reach")
    line = json.loads(stream.getvalue())
    assert (line["event"], line["level"], line["logger"]) == (f"cannot reach {HIDDEN}", "warning", "some.library")


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_secret_gets_into_a_line_not_even_in_a_traceback(lines, form):
    stream = lines(form)
    try:
        raise ValueError("https://u:pw123456@git.test said hunter2")
    except ValueError:
        structlog.get_logger("x").exception("broke", url="https://u:pw123456@git.test", hunter2="hunter2")
        logging.getLogger("y").exception("broke hunter2")
    written = stream.getvalue()
    assert "ValueError" in written
    assert "hunter2" not in written
    assert "pw123456" not in written


def test_a_line_is_one_line_and_cannot_move_the_cursor(lines):
    stream = lines("console")
    structlog.get_logger("x").info("a\x1b[2J", b="\x1b[31m")
    assert "\x1b" not in stream.getvalue()
    json_stream = lines("json")
    structlog.get_logger("x").info("a\nb", c="d\ne")
    assert json_stream.getvalue().count("\n") == 1


def test_the_level_counts(lines):
    stream = lines(level="warning")
    structlog.get_logger("x").info("quiet")
    logging.getLogger("uvicorn.error").warning("strangers must not fill the log")
    structlog.get_logger("x").warning("loud")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["loud"]


def test_these_metrics_and_no_others():
    metrics = Metrics()
    assert {family.name for family in metrics.registry.collect()} == NAMES


def test_labels_name_things_never_revisions_or_urls():
    metrics = Metrics()
    metrics.show(status("production", services=2))
    labels = {key for family in metrics.registry.collect() for sample in family.samples for key in sample.labels}
    assert labels <= {"environment", "service", "sync", "health", "le"}


def services(metrics):
    return {
        (s.labels["service"], s.labels["health"])
        for family in metrics.registry.collect()
        for s in family.samples
        if s.name == "reconciler_service_info"
    }


def test_series_of_what_is_gone_are_removed():
    metrics = Metrics()
    metrics.show(status("production", services=2))
    metrics.drift.labels("production", "web0", "DriftMissing").inc()
    metrics.drift.labels("production", "web1", "DriftMissing").inc()
    changed = status("production")
    degraded = ServicePlan("web0", Sync.SYNCED, ServiceHealth.DEGRADED)
    changed.plan.services["web0"] = degraded
    metrics.show(changed)
    assert services(metrics) == {("web0", "Degraded")}
    get = metrics.registry.get_sample_value
    assert (
        get("reconciler_drift_total", {"environment": "production", "service": "web0", "reason": "DriftMissing"}) == 1
    )
    assert (
        get("reconciler_drift_total", {"environment": "production", "service": "web1", "reason": "DriftMissing"})
        is None
    )
    assert get("reconciler_last_success_timestamp_seconds", {"environment": "production"}) == START.timestamp()
    metrics.reconciles.labels("production", "ok").inc()
    metrics.show(status("staging"))
    metrics.forget("production")
    assert services(metrics) == {("web0", "Healthy")}
    assert get("reconciler_last_success_timestamp_seconds", {"environment": "production"}) is None
    assert get("reconciler_reconcile_total", {"environment": "production", "result": "ok"}) is None


def test_strangers_cannot_fill_the_log():
    clock = ManualClock()
    quiet = Quiet(clock.monotonic)
    assert quiet.allows("a") == 0
    assert [quiet.allows("a") for _ in range(50)] == [None] * 50
    assert quiet.allows("b") == 0
    clock.seconds = QUIET_FOR
    assert quiet.allows("a") == 50
    clock.seconds = 2 * QUIET_FOR
    assert quiet.allows("a") == 0

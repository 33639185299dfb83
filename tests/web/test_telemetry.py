"""Logs and metrics: one form for all lines, no secrets, no series of what is gone."""

import io
import json
import logging
from dataclasses import replace

import pytest
import structlog

from reconciler.core.delivery import Strategy
from reconciler.core.live import Instance, Phase
from reconciler.core.status import Progress, ServiceHealth, ServicePlan, StageProgress, Sync, VersionTraffic
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
    "reconciler_traffic_weight",
    "reconciler_rollout_stage",
    "reconciler_rollout_paused",
    "reconciler_instances",
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
    metrics.show(released("staging", VersionTraffic("a" * 64, 1.0, 0, 1)))
    labels = {key for family in metrics.registry.collect() for sample in family.samples for key in sample.labels}
    assert labels <= {"environment", "service", "sync", "health", "le", "version", "phase"}
    assert {s["version"] for s in series(metrics, "reconciler_traffic_weight")} == {"a" * 12}, "short ones"


def released(environment, *split, stage=None, instances=()):
    """A status whose only service is behind a proxy."""
    found = status(environment)
    plan = replace(found.plan.services["web0"], progress=Progress(Strategy.CANARY, stage=stage, split=split))
    return replace(found, plan=replace(found.plan, services={"web0": replace(plan, instances=instances)}))


def series(metrics, name):
    """The labels and the value, as `value`, of each series."""
    return [
        {**sample.labels, "value": sample.value}
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == name
    ]


def instance(version, number, phase=Phase.RUNNING):
    return Instance(str(number), f"i{number}", "web0", version, "r", number, "image", phase, START)


def test_a_release_is_seen_in_shares_stages_and_instances():
    metrics = Metrics()
    a, b = "a" * 64, "b" * 64
    split = (VersionTraffic(a, 0.95, 3, 2), VersionTraffic(b, 0.05, None, 1))
    instances = (instance(a, 1), instance(a, 2), instance(b, 3, Phase.CREATED))
    where = {"environment": "production", "service": "web0"}
    metrics.show(released("production", *split, stage=StageProgress(2, 4, 5, paused=True), instances=instances))
    assert series(metrics, "reconciler_traffic_weight") == [
        {**where, "version": "a" * 12, "value": 0.95},
        {**where, "version": "b" * 12, "value": 0.05},
    ]
    assert series(metrics, "reconciler_rollout_stage") == [{**where, "value": 2}]
    assert series(metrics, "reconciler_rollout_paused") == [{**where, "value": 1}]
    assert series(metrics, "reconciler_instances") == [
        {**where, "version": "a" * 12, "phase": "running", "value": 2},
        {**where, "version": "b" * 12, "phase": "created", "value": 1},
    ]
    metrics.show(released("production", VersionTraffic(b, 1.0, 0, 1), instances=(instance(b, 3),)))
    assert series(metrics, "reconciler_traffic_weight") == [{**where, "version": "b" * 12, "value": 1}]
    assert series(metrics, "reconciler_rollout_stage") == [{**where, "value": 0}]
    assert series(metrics, "reconciler_rollout_paused") == [{**where, "value": 0}]
    assert [found["phase"] for found in series(metrics, "reconciler_instances")] == ["running"]
    metrics.show(status("production"))
    for name in ("traffic_weight", "rollout_stage", "rollout_paused", "instances"):
        assert series(metrics, f"reconciler_{name}") == []


def test_a_thousand_versions_leave_no_series_behind():
    metrics = Metrics()
    for number in range(1000):
        version = f"{number:064x}"[::-1]
        metrics.show(released("production", VersionTraffic(version, 1.0, 0, 1), instances=(instance(version, 1),)))
    for name in ("traffic_weight", "rollout_stage", "rollout_paused", "instances"):
        assert len(series(metrics, f"reconciler_{name}")) == 1
    metrics.forget("production")
    for name in ("traffic_weight", "rollout_stage", "rollout_paused", "instances"):
        assert series(metrics, f"reconciler_{name}") == []


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

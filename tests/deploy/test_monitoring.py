"""Alerts and dashboard: Prometheus takes the rules, each fires when it should, and every metric they name exists."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.core.status import ServiceHealth, Sync
from reconciler.telemetry import Metrics
from tests.support.kustomize import DEPLOY, rendered
from tests.support.promtool import promtool

RULES = DEPLOY / "prometheus" / "reconciler.rules.yaml"
SELECTOR = re.compile(r"\b(reconciler_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
TARGET = {"job", "service", "namespace", "pod", "instance", "le"}
"""Labels that Prometheus adds."""
VALUES = {"health": set(ServiceHealth), "sync": set(Sync)}


@cache
def known() -> dict[str, frozenset[str]]:
    """Each series that /metrics can have, with its labels."""
    found: dict[str, frozenset[str]] = {}
    for metric in Metrics().registry._collector_to_names:
        name, labels = metric._name, frozenset(metric._labelnames)
        ends = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}.get(metric._type, ("",))
        found |= {f"{name}{end}": labels for end in ends}
    return found


def dashboard() -> Any:
    return json.loads((DEPLOY / "grafana" / "reconciler.json").read_text())


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def expressions() -> Iterator[tuple[str, str]]:
    """Each query with the place where it stands."""
    for rule in rules():
        yield f"alert {rule['alert']}", rule["expr"]
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            yield f"panel {panel['title']}", target["expr"]


@pytest.mark.parametrize(("place", "query"), list(expressions()), ids=lambda value: value[:40])
def test_every_series_and_label_exists(place: str, query: str) -> None:
    selectors = SELECTOR.findall(query)
    assert selectors, place
    labels = set().union(*(known()[name] for name, _ in selectors))  # KeyError: there is no such metric
    for name, matchers in selectors:
        for label, value in MATCHER.findall(matchers):
            assert label in known()[name], f"{place}: {name} has no label {label}"
            assert label not in VALUES or value in VALUES[label], f"{place}: {label} is never {value}"
    for grouped in re.findall(r"\bby \(([^)]*)\)", query):
        assert {word.strip() for word in grouped.split(",")} <= labels | TARGET, place


def test_every_metric_is_shown_somewhere() -> None:
    shown = {name for _, query in expressions() for name, _ in SELECTOR.findall(query)}
    left = {name for name in known() if name not in shown and not name.endswith(("_count", "_sum"))}
    assert left == {"reconciler_journal_records"}, "shown nowhere; it grows, and that is all there is to say"


def test_what_the_alerts_say_can_be_filled_in() -> None:
    for rule in rules():
        query = rule["expr"]
        grouped = {word.strip() for text in re.findall(r"\bby \(([^)]*)\)", query) for word in text.split(",")}
        meant = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
        assert meant <= grouped, rule["alert"]
        assert rule["labels"]["severity"] in ("info", "warning", "critical")


def test_the_operators_object_has_the_same_rules() -> None:
    (found,) = [one for one in rendered("prometheus") if one["kind"] == "PrometheusRule"]
    assert found["spec"] == yaml.safe_load(RULES.read_text())


def test_the_monitor_finds_the_services_of_each_overlay() -> None:
    (monitor,) = [one for one in rendered("prometheus") if one["kind"] == "ServiceMonitor"]
    wanted = monitor["spec"]["selector"]["matchLabels"]
    for overlay in ("single", "highly-available", "sharded"):
        services = [one for one in rendered(f"kubernetes/overlays/{overlay}") if one["kind"] == "Service"]
        for service in services:
            assert wanted.items() <= service["metadata"]["labels"].items()
            assert monitor["spec"]["endpoints"][0]["port"] in {port["name"] for port in service["spec"]["ports"]}


def test_the_dashboard_is_whole() -> None:
    found = dashboard()
    assert len({panel["id"] for panel in found["panels"]}) == len(found["panels"])
    places = [
        (row, column)
        for panel in found["panels"]
        for row in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
        for column in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
    ]
    assert len(set(places)) == len(places), "panels lie over each other"
    assert max(column for _, column in places) < 24
    (stored,) = [one for one in rendered("prometheus") if one["kind"] == "ConfigMap"]
    assert json.loads(stored["data"]["reconciler.json"]) == found


ALERTS = {
    "ReconcilerAbsent": ({}, "10m", {}),
    "ReconcilerShardAbsent": (
        {
            'reconciler_leader{job="r",service="s-0",pod="a"}': "1x30",
            'reconciler_leader{job="r",service="s-1",pod="b"}': "1x10 stale",
        },
        "20m",
        {"job": "r", "service": "s-1"},
    ),
    "ReconcilerWithoutLeader": (
        {'reconciler_leader{job="r",service="s",pod="a"}': "0x20"},
        "5m",
        {"job": "r", "service": "s"},
    ),
    "ReconcilerTwoLeaders": (
        {
            'reconciler_leader{job="r",service="s",pod="a"}': "1x20",
            'reconciler_leader{job="r",service="s",pod="b"}': "1x20",
        },
        "5m",
        {"job": "r", "service": "s"},
    ),
    "ReconcilerFailing": (
        {
            'reconciler_reconcile_total{environment="e",result="failed"}': "0+1x40",
            'reconciler_reconcile_total{environment="e",result="synced"}': "7x40",
            'reconciler_reconcile_total{environment="fine",result="failed"}': "0+1x40",
            'reconciler_reconcile_total{environment="fine",result="synced"}': "0+1x40",
        },
        "30m",
        {"environment": "e"},
    ),
    "ReconcilerStale": (
        {
            'reconciler_last_success_timestamp_seconds{environment="e"}': "0x60",
            'reconciler_last_success_timestamp_seconds{environment="fine"}': "0+60x60",
        },
        "30m",
        {"environment": "e"},
    ),
    "ReconcilerServiceDegraded": (
        {'reconciler_service_info{environment="e",service="web",sync="Synced",health="Degraded"}': "1x20"},
        "15m",
        {"environment": "e", "service": "web"},
    ),
    "ReconcilerServiceOutOfSync": (
        {'reconciler_service_info{environment="e",service="web",sync="OutOfSync",health="Healthy"}': "1x90"},
        "70m",
        {"environment": "e", "service": "web"},
    ),
    "ReconcilerReleasePaused": (
        {
            'reconciler_rollout_paused{environment="e",service="web"}': "1x90",
            'reconciler_rollout_paused{environment="e",service="other"}': "0x90",
        },
        "70m",
        {"environment": "e", "service": "web"},
    ),
    "ReconcilerDrift": (
        {
            'reconciler_drift_total{environment="e",service="web",reason="DriftChanged"}': "0+1x90",
            'reconciler_drift_total{environment="e",service="other",reason="DriftChanged"}': "1x90",
        },
        "70m",
        {"environment": "e", "service": "web"},
    ),
    "ReconcilerFetchFailing": (
        {
            'reconciler_git_fetch_total{repository="fleet",result="failed"}': "0+1x40",
            'reconciler_git_fetch_total{repository="other",result="failed"}': "0+1x40",
            'reconciler_git_fetch_total{repository="other",result="ok"}': "0+1x40",
        },
        "30m",
        {"repository": "fleet"},
    ),
    "ReconcilerBehind": ({"reconciler_inbox_depth": "1+0x40"}, "30m", {}),
}
"""To each alert: series, each with what a minute adds in Prometheus' notation, when one looks, and what it names."""


def expected(name: str, labels: dict[str, str], at: str) -> dict[str, Any]:
    (rule,) = [one for one in rules() if one["alert"] == name]
    found = {"exp_labels": {"severity": rule["labels"]["severity"], **labels}}
    return {"eval_time": at, "alertname": name, "exp_alerts": [found]}


def test_each_alert_fires_for_what_it_is_for_and_not_before(tmp_path: Path) -> None:
    assert ALERTS.keys() == {rule["alert"] for rule in rules()}
    tests = []
    for name, (series, at, labels) in ALERTS.items():
        quiet = {"eval_time": "0m", "alertname": name, "exp_alerts": []}
        given = [{"series": key, "values": value} for key, value in series.items()]
        tests.append({"interval": "1m", "input_series": given, "alert_rule_test": [quiet, expected(name, labels, at)]})
    # The words are tested elsewhere: here they would have to be repeated.
    bare = yaml.safe_load(RULES.read_text())
    for group in bare["groups"]:
        for rule in group["rules"]:
            del rule["annotations"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(bare))
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "tests": tests}))
    done = subprocess.run(
        [promtool(), "test", "rules", "tests.yaml"], check=False, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_rules() -> None:
    done = subprocess.run([promtool(), "check", "rules", str(RULES)], check=False, capture_output=True, text=True)
    assert (done.returncode, f"{len(rules())} rules found" in done.stdout) == (0, True), done.stdout + done.stderr

"""What operators watch: the configuration of logs and the definition of every metric.

Logs go to one stream through the redactor. Labels hold names, reasons and short versions only, never the SHA of a
commit or a URL, and the series of a version, service or environment that is gone are removed.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import Counter as Tally
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from reconciler.core.names import short
from reconciler.core.status import EnvironmentStatus, ServicePlan
from reconciler.redact import Redactor
from reconciler.settings import LogSettings

Labels = tuple[str, ...]

QUIET_FOR = 10.0
_QUIET_LIBRARIES = ("apscheduler", "asyncio", "docker", "git", "urllib3", "uvicorn", "watchdog")


def configure_logs(settings: LogSettings, redactor: Redactor, stream: TextIO | None = None) -> None:
    """Send every log line, structlog's and the standard library's, to `stream` (standard error) in one form.

    JSON: one object a line, `time` in ISO 8601 UTC, `level`, `logger`, `event` and the fields. Secrets are removed
    last, when exceptions are text already.
    """
    stream = stream or sys.stderr
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.typing.Processor = structlog.processors.JSONRenderer(ensure_ascii=True)
    if settings.format == "console":
        renderer = structlog.dev.ConsoleRenderer(colors=stream.isatty(), timestamp_key="time")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, redactor, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    for library in _QUIET_LIBRARIES:
        logging.getLogger(library).setLevel(max(root.level, logging.ERROR if library == "uvicorn" else logging.WARNING))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


class Quiet:
    """Bounds what strangers can make us log: one line for each `key` in QUIET_FOR seconds."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._last: dict[str, float] = {}
        self._held: dict[str, int] = {}

    def allows(self, key: str) -> int | None:
        """How many lines were held back since the last one, or None when this one is to be held back too."""
        with self._lock:
            now = self._monotonic()
            last = self._last.get(key)
            if last is not None and now - last < QUIET_FOR:
                self._held[key] = self._held.get(key, 0) + 1
                return None
            self._last[key] = now
            return self._held.pop(key, 0)


class Shown:
    """A gauge of which each environment has the series that it is given last, and no others. For one thread at a time.

    The first label is the environment, the second the service.
    """

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._known: dict[str, set[Labels]] = {}

    def show(self, environment: str, values: Mapping[Labels, float]) -> frozenset[Labels]:
        """Set all series of `environment`; the labels of those that were removed."""
        gone = self._known.get(environment, set()) - values.keys()
        for labels in gone:
            self._gauge.remove(*labels)
        for labels, value in values.items():
            self._gauge.labels(*labels).set(value)
        self._known[environment] = set(values)
        return frozenset(gone)

    def forget(self, environment: str) -> None:
        """Remove all series of `environment`."""
        self.show(environment, {})
        del self._known[environment]


class Releases:
    """What is shown of releases, traffic and instances. For one thread at a time."""

    def __init__(self, registry: CollectorRegistry) -> None:
        traffic_weight = Gauge(
            "reconciler_traffic_weight",
            "The share of new requests that a version gets by the weights in the proxies, 0 to 1.",
            ("environment", "service", "version"),
            registry=registry,
        )
        rollout_stage = Gauge(
            "reconciler_rollout_stage",
            "At which stage a release is, from 1; 0 while none goes through stages.",
            ("environment", "service"),
            registry=registry,
        )
        rollout_paused = Gauge(
            "reconciler_rollout_paused",
            "1 while a release waits for a person to say `reconciler promote`.",
            ("environment", "service"),
            registry=registry,
        )
        instances = Gauge(
            "reconciler_instances",
            "Instances by version and phase.",
            ("environment", "service", "version", "phase"),
            registry=registry,
        )
        self._shown = (
            (Shown(traffic_weight), _weights),
            (Shown(rollout_stage), _stages),
            (Shown(rollout_paused), _pauses),
            (Shown(instances), _instances),
        )

    def show(self, environment: str, plans: Sequence[ServicePlan]) -> None:
        """Set what is shown of the services of `environment`; the series of what is gone are removed."""
        for shown, values in self._shown:
            found = {
                (environment, plan.service, *labels): value for plan in plans for labels, value in values(plan).items()
            }
            shown.show(environment, found)

    def forget(self, environment: str) -> None:
        """Remove all series of `environment`."""
        for shown, _ in self._shown:
            shown.forget(environment)


class Metrics:
    """Every metric, in a registry of its own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        self._lock = threading.Lock()
        self.reconcile_duration = Histogram(
            "reconciler_reconcile_duration_seconds",
            "How long one reconcile of an environment took.",
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100),
            registry=registry,
        )
        self.reconciles = Counter(
            "reconciler_reconcile_total", "Reconciles by result.", ("environment", "result"), registry=registry
        )
        self.service_info = Gauge(
            "reconciler_service_info",
            "1 for each service, with its sync and its health.",
            ("environment", "service", "sync", "health"),
            registry=registry,
        )
        self._info = Shown(self.service_info)
        self._releases = Releases(registry)
        self.git_fetches = Counter(
            "reconciler_git_fetch_total", "Fetches by result.", ("repository", "result"), registry=registry
        )
        self.webhook_requests = Counter(
            "reconciler_webhook_requests_total",
            "Webhook deliveries by what became of them; those for unknown repositories are counted as 'unknown'.",
            ("repository", "result"),
            registry=registry,
        )
        self.inbox_depth = Gauge("reconciler_inbox_depth", "Environments due for a look.", registry=registry)
        self.last_success = Gauge(
            "reconciler_last_success_timestamp_seconds",
            "When an environment was last reconciled without an error, in seconds since 1970.",
            ("environment",),
            registry=registry,
        )
        self.leader = Gauge("reconciler_leader", "1 when this daemon may act.", registry=registry)
        self.drift = Counter(
            "reconciler_drift_total",
            "Differences that Git did not cause.",
            ("environment", "service", "reason"),
            registry=registry,
        )
        self.journal_records = Gauge("reconciler_journal_records", "Records in the journal.", registry=registry)

    def show(self, status: EnvironmentStatus) -> None:
        """Set what is shown of an environment and its services; the series of what is gone are removed."""
        environment = status.environment
        plans = list(status.plan.services.values()) if status.plan else []
        with self._lock:
            info: dict[Labels, float] = {
                (environment, plan.service, plan.sync.value, plan.health.value): 1.0 for plan in plans
            }
            gone = {labels[1] for labels in self._info.show(environment, info)}
            for service in gone - {plan.service for plan in plans}:
                self.drift.remove_by_labels({"environment": environment, "service": service})
            self._releases.show(environment, plans)
            if status.last_success_at is not None:
                self.last_success.labels(environment).set(status.last_success_at.timestamp())

    def forget(self, environment: str) -> None:
        """`environment` is no longer configured: remove all of its series."""
        with self._lock:
            self._info.forget(environment)
            self._releases.forget(environment)
            for metric in (self.reconciles, self.last_success, self.drift):
                metric.remove_by_labels({"environment": environment})


def _weights(plan: ServicePlan) -> dict[Labels, float]:
    return {(short(each.version),): each.share for each in plan.progress.split} if plan.progress is not None else {}


def _stages(plan: ServicePlan) -> dict[Labels, float]:
    stage = plan.progress.stage if plan.progress is not None else None
    return {(): float(stage.number if stage is not None else 0)} if plan.progress is not None else {}


def _pauses(plan: ServicePlan) -> dict[Labels, float]:
    stage = plan.progress.stage if plan.progress is not None else None
    return {(): float(stage is not None and stage.paused)} if plan.progress is not None else {}


def _instances(plan: ServicePlan) -> dict[Labels, float]:
    counted = Tally((short(each.version), each.phase.value) for each in plan.instances)
    return {labels: float(count) for labels, count in counted.items()}

"""What operators watch: the configuration of logs and the definition of every metric.

Logs go to one stream through the redactor. Labels hold names and reasons only, never a SHA or a URL, and the series of
a service or environment that is gone are removed.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from reconciler.core.status import EnvironmentStatus
from reconciler.redact import Redactor
from reconciler.settings import LogSettings

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


class Metrics:
    """Every metric, in a registry of its own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        self._lock = threading.Lock()
        self._services: dict[str, set[tuple[str, str, str, str]]] = {}
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
        services = status.plan.services.values() if status.plan else ()
        new = {(environment, plan.service, plan.sync.value, plan.health.value) for plan in services}
        with self._lock:
            old = self._services.get(environment, set())
            for labels in old - new:
                self.service_info.remove(*labels)
            for labels in new:
                self.service_info.labels(*labels).set(1)
            for gone in {labels[1] for labels in old} - {labels[1] for labels in new}:
                self.drift.remove_by_labels({"environment": environment, "service": gone})
            self._services[environment] = new
            if status.last_success_at is not None:
                self.last_success.labels(environment).set(status.last_success_at.timestamp())

    def forget(self, environment: str) -> None:
        """`environment` is no longer configured: remove all of its series."""
        with self._lock:
            self._services.pop(environment, None)
            for metric in (self.reconciles, self.service_info, self.last_success, self.drift):
                metric.remove_by_labels({"environment": environment})

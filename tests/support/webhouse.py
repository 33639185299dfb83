"""The HTTP side for tests: the real server on a free port, the real journal in a folder, the real inbox and board."""

import socket
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.journal import SqlJournal
from reconciler.board import Board
from reconciler.core.record import Entry, VersionRef, What
from reconciler.core.status import EnvironmentStatus, Plan, ServiceHealth, ServicePlan, Sync
from reconciler.redact import Redactor
from reconciler.settings import EnvironmentSettings, HttpSettings, RepositorySettings, Settings, WebhookSettings
from reconciler.telemetry import Metrics
from reconciler.triggers.inbox import Inbox
from reconciler.triggers.webhook import Webhook
from reconciler.web.app import create_app
from reconciler.web.house import WebHouse
from reconciler.web.serve import BoundedProtocol, Server
from tests.support.webhook_payloads import CONFIGURED, SECRET

TOKEN = b"correct-horse-battery"
START = datetime(2026, 1, 1, tzinfo=UTC)


class ManualClock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.jump = 0.0

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds + self.jump)

    def monotonic(self) -> float:
        return self.seconds


def fleet_settings(tmp_path: Path, *, host: str = "127.0.0.1") -> Settings:
    """One repository for each forge, called like it; `production` follows main and `staging` follows release."""
    repositories = {
        forge: RepositorySettings(forge, url, webhook=WebhookSettings(forge, tmp_path / "secret"))
        for forge, url in CONFIGURED.items()
    }
    repositories["plain"] = RepositorySettings("plain", "https://git.test/plain.git")
    environments = {}
    for forge in CONFIGURED:
        for kind, ref in (("production", "main"), ("staging", "release")):
            name = f"{forge}-{kind}"
            environments[name] = EnvironmentSettings(name, forge, "local", f"environments/{kind}", ref)
    return Settings(
        file=tmp_path / "settings.yaml",
        data=tmp_path,
        journal=f"sqlite:///{tmp_path}/journal.db",
        repositories=repositories,
        environments=environments,
        runtimes={},
        http=HttpSettings(host=host, port=0),
    )


@dataclass
class Running:
    """Everything a test may look at or turn. `token` and `secrets` count at the next request."""

    base: str
    port: int
    client: httpx.Client
    settings: Settings
    inbox: Inbox
    board: Board
    journal: SqlJournal
    metrics: Metrics
    redactor: Redactor
    secrets: dict[str, bytes]
    token: bytes
    house: WebHouse | None = None
    live: dict[str, str] | None = None
    ready: dict[str, str] | None = None

    def take_all(self) -> list[str]:
        """The environments due now."""
        found = []
        while (taken := self.inbox.take(0)) is not None:
            found.append(taken[0])
        for name in found:
            self.inbox.done(name)
        return found

    def raw(self, timeout: float = 60) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout)

    def count(self, repository: str, result: str) -> float:
        labels = {"repository": repository, "result": result}
        return self.metrics.registry.get_sample_value("reconciler_webhook_requests_total", labels) or 0


class Quick(BoundedProtocol):
    """Deadlines short enough to wait for."""

    header_seconds = 1.0
    read_seconds = 1.0


@contextmanager
def running(
    tmp_path: Path,
    *,
    host: str = "127.0.0.1",
    body_seconds: float = 10.0,
    protocol=BoundedProtocol,
    silence: float = 0.0,
    port: int = 0,
):
    clock = SystemClock()
    settings = fleet_settings(tmp_path, host=host)
    journal = SqlJournal.open(settings.journal, clock, "test", act=True)
    it = Running(
        base="",
        port=0,
        client=httpx.Client(),
        settings=settings,
        inbox=Inbox(clock),
        board=Board(),
        journal=journal,
        metrics=Metrics(),
        redactor=Redactor([TOKEN, SECRET]),
        secrets=dict.fromkeys(CONFIGURED, SECRET),
        token=TOKEN,
        live={"loop": ""},
        ready={"journal": ""},
    )
    hook = Webhook(
        settings=lambda: it.settings,
        secret=lambda name: it.secrets.get(name, b""),
        request=it.inbox.request,
        clock=clock,
        metrics=it.metrics,
        redactor=it.redactor,
        body_seconds=body_seconds,
        silence=silence,
    )
    it.house = WebHouse(
        settings=lambda: it.settings,
        token=lambda: it.token,
        board=it.board,
        journal=journal,
        look=it.inbox.request,
        webhook=hook.respond,
        clock=clock,
        metrics=it.metrics,
        redactor=it.redactor,
        live=lambda: it.live,
        ready=lambda: it.ready,
    )
    server = Server(create_app(it.house), host, port, protocol)
    server.start()
    it.port, it.base = server.port, f"http://127.0.0.1:{server.port}"
    it.client = httpx.Client(base_url=it.base, headers={"Authorization": f"Bearer {TOKEN.decode()}"}, timeout=60)
    try:
        yield it
    finally:
        it.client.close()
        server.stop()
        journal.close()


def status(environment: str, *, services: int = 1, **changes) -> EnvironmentStatus:
    """A plausible status."""
    version = VersionRef("ab" * 32, "registry.test/web@sha256:" + "a" * 64, "c" * 40)
    plans = {
        f"web{i}": ServicePlan(
            f"web{i}", Sync.SYNCED, ServiceHealth.HEALTHY, desired=version, stable=version, replicas=2
        )
        for i in range(services)
    }
    plain = EnvironmentStatus(
        environment, START, revision="c" * 40, plan=Plan(environment, None, plans), last_success_at=START
    )
    return replace(plain, **changes)


def entry(number: int, **changes) -> Entry:
    """A plausible record."""
    plain = Entry(START + timedelta(seconds=number), What.PROMOTED, "github-production", "web0", details={"n": number})
    return replace(plain, **changes)

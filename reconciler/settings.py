"""The operator's configuration: read and validated once, whole, before anything uses it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from reconciler.core.policy import Allow


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """How deliveries of a forge are authenticated. The secret file is read at start and on reload."""

    forge: str
    secret_file: Path


@dataclass(frozen=True, slots=True)
class RepositorySettings:
    """One Git repository. `on_rewrite`: follow the branch head, or hold for a person."""

    name: str
    url: str
    poll: timedelta = timedelta(seconds=60)
    allow_file: bool = False
    username: str = "git"
    token_file: Path | None = None
    ssh_key: Path | None = None
    known_hosts: Path | None = None
    on_rewrite: str = "follow"
    timeout: timedelta = timedelta(seconds=60)
    webhook: WebhookSettings | None = None


@dataclass(frozen=True, slots=True)
class DockerSettings:
    """One Docker Engine: `unix://`, `ssh://`, or `tcp://` with the three TLS files.

    `registry_config` is a Docker config.json with the credentials of registries.
    """

    name: str
    host: str = "unix:///var/run/docker.sock"
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    registry_config: Path | None = None
    timeout: timedelta = timedelta(seconds=20)
    pull_timeout: timedelta = timedelta(minutes=10)
    relist: timedelta = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class EnvironmentSettings:
    """Which directory of which repository runs where, and what it may do there."""

    name: str
    repository: str
    runtime: str
    path: str
    ref: str = "main"
    allow: Allow = Allow()


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """The HTTP API. Without a token file only the health endpoints and webhooks answer."""

    host: str = "127.0.0.1"
    port: int = 8480
    token_file: Path | None = None


@dataclass(frozen=True, slots=True)
class LogSettings:
    """`format`: json or console."""

    format: str = "json"
    level: str = "info"


@dataclass(frozen=True, slots=True)
class Settings:
    """All of it. `name` is the owner written on every container, so that two installations can share an engine."""

    file: Path
    data: Path
    journal: str
    repositories: Mapping[str, RepositorySettings]
    environments: Mapping[str, EnvironmentSettings]
    runtimes: Mapping[str, DockerSettings]
    name: str = "default"
    secrets: Path | None = None
    http: HttpSettings = field(default_factory=HttpSettings)
    log: LogSettings = field(default_factory=LogSettings)
    concurrency: int = 8

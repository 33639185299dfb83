"""The operator's settings as values. `reconciler/settings.py` reads them; nothing is opened here."""

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

    @property
    def address(self) -> str:
        """Where the engine is, for people."""
        return self.host


@dataclass(frozen=True, slots=True)
class KubernetesSettings:
    """One Kubernetes cluster: a kubeconfig file and one of its contexts, or `in_cluster` the pod's own service account.

    `run_plugins` allows the kubeconfig to name programs that are run for credentials. `relist`: how often all is listed
    anew although the watches say that nothing was missed. `requests`: how many requests a second are made at most.
    """

    name: str
    kubeconfig: Path | None = None
    context: str = ""
    in_cluster: bool = False
    run_plugins: bool = False
    timeout: timedelta = timedelta(seconds=20)
    relist: timedelta = timedelta(minutes=30)
    requests: int = 200

    @property
    def address(self) -> str:
        """How the cluster is reached, for people."""
        if self.in_cluster:
            return "the cluster that Reconciler runs in"
        return f"context {self.context} of {self.kubeconfig}" if self.context else str(self.kubeconfig)


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """The Gateway (Gateway API) to which the routes of an environment's services are attached."""

    name: str
    namespace: str = ""
    section: str = ""


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """The front of an environment: a HAProxy that Reconciler runs from `image`, or the operator's own at `sockets`.

    `sockets` are runtime sockets of level admin: `unix:///path` or `tcp://host:port`. For a proxy of ours, `http` and
    `https` are the addresses it is published at, `certificates` a directory of PEM files, `tcp` the address and the
    ranges of ports that services may listen at, `metrics` where Prometheus finds `/metrics`. `state` is a directory in
    which the state of the operator's own proxies is saved: `0.state`, `1.state` … in the order of `sockets`.
    """

    image: str = ""
    http: tuple[str, int] | None = None
    https: tuple[str, int] | None = None
    certificates: Path | None = None
    tcp_address: str = "127.0.0.1"
    tcp: tuple[tuple[int, int], ...] = ()
    metrics: tuple[str, int] | None = None
    sockets: tuple[str, ...] = ()
    state: Path | None = None
    timeout: timedelta = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class PrometheusSettings:
    """Where gates ask their PromQL queries."""

    url: str
    token_file: Path | None = None
    timeout: timedelta = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class EnvironmentSettings:
    """Which directory of which repository runs where, and what it may do there.

    `namespace` and `gateway` are those of a Kubernetes cluster; by default the namespace is called as the environment.
    `shard`: which of several daemons looks after it; None: the one that `core/shards.py` reckons.
    """

    name: str
    repository: str
    runtime: str
    path: str
    ref: str = "main"
    allow: Allow = Allow()
    proxy: ProxySettings | None = None
    prometheus: PrometheusSettings | None = None
    namespace: str = ""
    gateway: GatewaySettings | None = None
    shard: int | None = None


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
class JournalSettings:
    """How a journal in PostgreSQL is reached, beside its URL. The files are read at each new connection."""

    password_file: Path | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None


@dataclass(frozen=True, slots=True)
class LeaderSettings:
    """Leader election by a Lease (coordination.k8s.io/v1) that the cluster `runtime` keeps.

    `namespace`: where; "" is the pod's own one in the cluster, else that of the kubeconfig's context. `lease`: its
    name, to which a shard adds its index. `duration`: how long it holds; `renew`: how long the leader tries to renew it
    before it gives up; `retry`: the time between two attempts.
    """

    runtime: str
    namespace: str = ""
    lease: str = "reconciler"
    duration: timedelta = timedelta(seconds=15)
    renew: timedelta = timedelta(seconds=10)
    retry: timedelta = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class ShardSettings:
    """Of `count` daemons side by side this one is `index`, and looks after its share of the environments only."""

    index: int
    count: int


@dataclass(frozen=True, slots=True)
class Settings:
    """All of it. `name` is the owner written on every container, so that two installations can share an engine.

    `journal` is a URL: sqlite:/// with an absolute path, or postgresql://. `environments` are those that this daemon
    looks after: with `shard` its share of them, which may be none. `leader`: only the one that holds the Lease acts.
    `warnings` are sentences for the operator about what is allowed but unsafe.
    """

    file: Path
    data: Path
    journal: str
    repositories: Mapping[str, RepositorySettings]
    environments: Mapping[str, EnvironmentSettings]
    runtimes: Mapping[str, DockerSettings | KubernetesSettings]
    name: str = "default"
    secrets: Path | None = None
    http: HttpSettings = field(default_factory=HttpSettings)
    log: LogSettings = field(default_factory=LogSettings)
    concurrency: int = 8
    journal_settings: JournalSettings = field(default_factory=JournalSettings)
    leader: LeaderSettings | None = None
    shard: ShardSettings | None = None
    warnings: tuple[str, ...] = ()

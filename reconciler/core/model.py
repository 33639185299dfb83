"""What Git declares: frozen values with the units in their types. No I/O, no parsing.

`core/manifest.py` makes these out of files; `core/plan.py` compares them with `core/live.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import rfc8785

from reconciler.core.delivery import Rollout, Route, Scaling, Strategy, Volume, WarmUp
from reconciler.core.errors import Reason


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image pinned by digest: `repository[:tag]@sha256:<64 hex>`. The tag is for people only."""

    repository: str
    digest: str
    tag: str | None = None

    @property
    def pinned(self) -> str:
        """`repository@digest`: the only form an engine is ever asked for."""
        return f"{self.repository}@{self.digest}"

    def __str__(self) -> str:
        return f"{self.repository}:{self.tag}@{self.digest}" if self.tag else self.pinned


@dataclass(frozen=True, slots=True)
class Revision:
    """One commit: the full SHA and what the journal keeps of it.

    `trailers` are those of its message, by their names in lower case; of several with one name the last.
    """

    sha: str
    parents: tuple[str, ...]
    author: str
    committer: str
    committed_at: datetime
    subject: str
    trailers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class File:
    """A file out of the same commit, put at an absolute `path` in the instance, read-only."""

    path: str
    content: bytes = field(repr=False)
    mode: int = 0o444


class SecretTarget(StrEnum):
    """How an instance sees a secret."""

    ENV = "env"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class SecretUse:
    """A reference to an operator's secret, given as environment variable or file `target`."""

    secret: str
    kind: SecretTarget
    target: str


@dataclass(frozen=True, slots=True)
class Port:
    """A port of the instance; `host` publishes it on the engine's host at `address`."""

    name: str
    container: int
    protocol: str = "tcp"
    host: int | None = None
    address: str = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Tmpfs:
    """A writable, memory-backed directory; `size` in bytes."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class Resources:
    """Limits: memory in bytes, cpus in billionths of a core, pids as a count. None means no limit."""

    memory: int | None = None
    nano_cpus: int | None = None
    pids: int | None = None


@dataclass(frozen=True, slots=True)
class HttpCheck:
    """GET `path` on the instance's `port`; any status 200..399 is a success."""

    port: int
    path: str = "/"


@dataclass(frozen=True, slots=True)
class TcpCheck:
    """A TCP connection to the instance's `port` is a success."""

    port: int


@dataclass(frozen=True, slots=True)
class ExecCheck:
    """`command` run inside the instance; exit code 0 is a success."""

    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Health:
    """When an instance counts as healthy: `healthy_after` checks in a row, `unhealthy_after` to lose it.

    Until it was healthy once, failures are forgiven for `startup`. Without a `check` an instance is
    healthy when it has been running for `healthy_after` intervals.
    """

    check: HttpCheck | TcpCheck | ExecCheck | None = None
    interval: timedelta = timedelta(seconds=5)
    timeout: timedelta = timedelta(seconds=2)
    healthy_after: int = 2
    unhealthy_after: int = 3
    startup: timedelta = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Drain:
    """How an instance goes: up to `deadline` without new requests, then SIGTERM and up to `grace`.

    Behind a proxy the drain ends with the last request; what still goes on at the deadline (websockets, endless
    answers) may do so for `tail` more, then it is cut.
    """

    deadline: timedelta = timedelta(seconds=10)
    grace: timedelta = timedelta(seconds=10)
    tail: timedelta = timedelta(seconds=20)


@dataclass(frozen=True, slots=True)
class Security:
    """What an instance may do. The defaults are the immutable ones; the operator's settings allow more.

    `writable_root` opens the root filesystem; changes below a path of `writable_paths` are then the
    service's own, any other is drift.
    """

    user: str | None = None
    writable_root: bool = False
    writable_paths: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    privileged: bool = False
    host_network: bool = False


class DriftPolicy(StrEnum):
    """Whether a difference that Git did not cause is repaired or only reported."""

    CORRECT = "correct"
    REPORT = "report"


@dataclass(frozen=True, slots=True)
class Bundle:
    """Plain Kubernetes manifests, as one: `objects` are JSON (RFC 8785) in the order in which they are applied.

    `source` says for people where they stand, `prune` whether what is no longer among them is removed.
    """

    source: str
    objects: tuple[bytes, ...] = field(repr=False)
    prune: bool = True

    @property
    def digest(self) -> str:
        """64 hex digits over all objects in their order."""
        return hashlib.sha256(b"\0".join(self.objects)).hexdigest()


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """All that Git declares of one service. `digest_of_shape` covers what makes an instance what it is.

    With a `bundle` it stands for plain manifests: its image is named after their content, and it has no instances.
    """

    name: str
    image: ImageRef
    replicas: int = 1
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    files: tuple[File, ...] = ()
    secrets: tuple[SecretUse, ...] = ()
    ports: tuple[Port, ...] = ()
    resources: Resources = Resources()
    tmpfs: tuple[Tmpfs, ...] = ()
    security: Security = Security()
    health: Health = Health()
    labels: Mapping[str, str] = field(default_factory=dict)
    drain: Drain = Drain()
    rollout: Rollout = Rollout()
    depends_on: tuple[str, ...] = ()
    drift: DriftPolicy = DriftPolicy.CORRECT
    suspend: bool = False
    lifetime: timedelta | None = None
    volumes: tuple[Volume, ...] = ()
    route: Route | None = None
    warm_up: WarmUp | None = None
    scaling: Scaling | None = None
    bundle: Bundle | None = None

    @property
    def stop_first(self) -> bool:
        """Whether one instance only can run: the old one stops before the new one starts.

        So it is where a host port is published, where a volume cannot be shared, and where Git says so.
        """
        return (
            any(port.host is not None for port in self.ports)
            or any(not volume.shared for volume in self.volumes)
            or self.rollout.strategy is Strategy.RECREATE
        )

    def operated_as(self, newest: ServiceSpec) -> ServiceSpec:
        """This version, run the way `newest` asks: what is not part of a version is taken from there.

        Where only one instance of this one can run, there is one, however many `newest` wants.
        """
        alone = replace(self, rollout=newest.rollout).stop_first
        return replace(
            self,
            replicas=min(newest.replicas, 1) if alone else newest.replicas,
            drain=newest.drain,
            rollout=newest.rollout,
            depends_on=newest.depends_on,
            drift=newest.drift,
            suspend=newest.suspend,
            lifetime=newest.lifetime,
            route=_at_port_of(self.route, newest.route),
            warm_up=newest.warm_up,
            scaling=newest.scaling,
        )

    def shape(self) -> dict[str, Any]:
        """The parts that make an instance what it is, as plain JSON values; what is at its default is left out.

        Leaving defaults out keeps the version of a service the same when a release of Reconciler learns a new field.
        """
        found: dict[str, Any] = {"image": self.image.pinned}
        plain = {
            "command": list(self.command),
            "args": list(self.args),
            "env": dict(self.env),
            "labels": dict(self.labels),
            "files": [[f.path, hashlib.sha256(f.content).hexdigest(), f.mode] for f in self.files],
            "secrets": [[s.secret, s.kind.value, s.target] for s in self.secrets],
            "ports": [_differences(p, Port("", 0)) for p in self.ports],
            "resources": _differences(self.resources, Resources()),
            "tmpfs": [[t.path, t.size] for t in self.tmpfs],
            "security": _differences(self.security, Security()),
            "health": _health_shape(self.health),
            "volumes": [[v.name, v.path, v.read_only] for v in self.volumes],
        }
        if self.bundle is not None:
            plain["objects"] = self.bundle.digest
        found.update({key: value for key, value in plain.items() if value})
        return found


def _at_port_of(mine: Route | None, newest: Route | None) -> Route | None:
    """The newest route, to the port at which this version listens."""
    return replace(newest, port=mine.port) if mine is not None and newest is not None else newest


def _differences(value: Port | Resources | Security | Health, default: object) -> dict[str, Any]:
    """The fields of a dataclass that differ from `default`, as JSON values."""
    found = {}
    for name in value.__dataclass_fields__:
        mine = getattr(value, name)
        if mine != getattr(default, name):
            found[name] = mine.total_seconds() if isinstance(mine, timedelta) else _plain(mine)
    return found


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _health_shape(health: Health) -> dict[str, Any]:
    found = _differences(replace(health, check=None), Health())
    if health.check is not None:
        kind = type(health.check).__name__
        found[kind] = {name: _plain(getattr(health.check, name)) for name in health.check.__dataclass_fields__}
    return found


def version_of(spec: ServiceSpec, secret_versions: Mapping[str, str]) -> str:
    """The version of a service: 64 hex digits over its shape and the versions of its secrets (RFC 8785, SHA-256)."""
    used = {use.secret: secret_versions[use.secret] for use in spec.secrets}
    body = spec.shape() | ({"secretVersions": used} if used else {})
    return hashlib.sha256(rfc8785.dumps(body)).hexdigest()


@dataclass(frozen=True, slots=True)
class Problem:
    """One error in what a person wrote, with its place (1-based)."""

    file: str
    line: int
    column: int
    message: str
    reason: Reason = Reason.MANIFEST_INVALID

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}"


@dataclass(frozen=True, slots=True)
class Prune:
    """How much of an environment one revision may remove: `max_percent` of its services (one is always allowed), and
    `max_count` of them at most."""

    max_percent: int = 50
    max_count: int | None = None


@dataclass(frozen=True, slots=True)
class ChangeCap:
    """How many services one revision may change: both bounds hold, None means no bound."""

    max_percent: int | None = None
    max_count: int | None = None


@dataclass(frozen=True, slots=True)
class FreezeWindow:
    """A time in which nothing new is released: once (`start`, `end`), or each week.

    Weekly: on `days` (0 is Monday) from `opens` to `closes`, minutes after midnight in `zone`; a window that closes
    before it opens ends on the next day. `zone` is an IANA name.
    """

    why: str
    zone: str = "UTC"
    start: datetime | None = None
    end: datetime | None = None
    days: tuple[int, ...] = ()
    opens: int = 0
    closes: int = 24 * 60


@dataclass(frozen=True, slots=True)
class DesiredState:
    """One environment as a revision declares it. `problems` holds the services that are not usable, and why."""

    environment: str
    revision: Revision
    services: Mapping[str, ServiceSpec]
    problems: Mapping[str, tuple[Problem, ...]] = field(default_factory=dict)
    prune: Prune = Prune()
    suspend: bool = False
    changes: ChangeCap = ChangeCap()
    freezes: tuple[FreezeWindow, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """A service as it shall run now: the declared one, or the last good one where that is not usable.

    `obstacle`: why no new instance can be made of it, although those that run may stay.
    """

    spec: ServiceSpec
    version: str
    revision: str
    obstacle: str = ""

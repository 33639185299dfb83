"""The operator's configuration: read and validated once, whole, before anything uses it.

Variables, `~` and `%` are never expanded, no file named in it is opened here, and nothing in it comes from Git.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from reconciler.core import document, quantity
from reconciler.core.addresses import is_loopback, listen, port_range
from reconciler.core.errors import Reason, Rejected
from reconciler.core.fields import Table, given
from reconciler.core.overlay import ordered, single
from reconciler.core.policy import Allow
from reconciler.core.schema import Checker
from reconciler.core.settings_rules import rules
from reconciler.schemas import load_schemas

_SQLITE = "sqlite:///"


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
    """Which directory of which repository runs where, and what it may do there."""

    name: str
    repository: str
    runtime: str
    path: str
    ref: str = "main"
    allow: Allow = Allow()
    proxy: ProxySettings | None = None
    prometheus: PrometheusSettings | None = None


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
    """All of it. `name` is the owner written on every container, so that two installations can share an engine.

    `warnings` are sentences for the operator about what is allowed but unsafe.
    """

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
    warnings: tuple[str, ...] = ()


def read(path: Path) -> Settings:
    """The settings in the file at `path`. Raises Rejected(SETTINGS_INVALID): one problem a line, with its place."""
    try:
        with path.open("rb") as file:
            data = file.read(document.MAX_BYTES + 1)
    except OSError as error:
        raise Rejected(
            Reason.SETTINGS_INVALID,
            f"the settings cannot be read: {error.strerror or error}",
            where=str(path),
            remedy="Give the path of a settings file that you may read; `reconciler init` writes one",
        ) from error
    return parse(data, path)


def parse(data: bytes, path: Path) -> Settings:
    """The settings in `data`, which stood in the file at `path`. Raises Rejected as `read` does."""
    manifest = single(str(path), document.read(data))
    findings = manifest.findings(Checker(load_schemas()["settings"]))
    problems = manifest.problems(findings)
    for place, message in rules(manifest.value, [finding.path for finding in findings]):
        problems.append(manifest.problem(place, message))
    if problems:
        raise Rejected(Reason.SETTINGS_INVALID, "\n".join(str(problem) for problem in ordered(problems)))
    return _settings(manifest.value, path.absolute())


def _settings(value: Mapping[str, Any], file: Path) -> Settings:
    def path(text: str) -> Path:
        return file.parent / text

    data = path(value["data"])
    general: Table = {"name": ("name", str), "secrets": ("secrets", path), "concurrency": ("concurrency", int)}
    journal = path(value["journal"].removeprefix(_SQLITE)) if "journal" in value else data / "journal.db"
    found = Settings(
        file=file,
        data=data,
        journal=f"{_SQLITE}{journal}",
        repositories={name: _repository(name, each, path) for name, each in value["repositories"].items()},
        environments={name: _environment(name, each, path) for name, each in value["environments"].items()},
        runtimes={name: _docker(name, each["docker"], path) for name, each in value["runtimes"].items()},
        http=HttpSettings(**_http(value.get("http", {}), path)),
        log=LogSettings(**value.get("log", {})),
        **given(value, general),
    )
    return replace(found, warnings=tuple(_warnings(found)))


def _http(section: Mapping[str, Any], path: Callable[[str], Path]) -> dict[str, Any]:
    found = given(section, {"tokenFile": ("token_file", path)})
    if "listen" in section:
        found["host"], found["port"] = listen(section["listen"])
    return found


def _repository(name: str, section: Mapping[str, Any], path: Callable[[str], Path]) -> RepositorySettings:
    def webhook(value: Mapping[str, Any]) -> WebhookSettings:
        return WebhookSettings(value["forge"], path(value["secretFile"]))

    table: Table = {
        "url": ("url", str),
        "poll": ("poll", quantity.duration),
        "allowFile": ("allow_file", bool),
        "username": ("username", str),
        "tokenFile": ("token_file", path),
        "sshKey": ("ssh_key", path),
        "knownHosts": ("known_hosts", path),
        "onRewrite": ("on_rewrite", str),
        "timeout": ("timeout", quantity.duration),
        "webhook": ("webhook", webhook),
    }
    return RepositorySettings(name=name, **given(section, table))


def _docker(name: str, section: Mapping[str, Any], path: Callable[[str], Path]) -> DockerSettings:
    table: Table = {
        "host": ("host", str),
        "registryConfig": ("registry_config", path),
        "timeout": ("timeout", quantity.duration),
        "pullTimeout": ("pull_timeout", quantity.duration),
        "relist": ("relist", quantity.duration),
    }
    tls: Table = {"ca": ("tls_ca", path), "cert": ("tls_cert", path), "key": ("tls_key", path)}
    return DockerSettings(name=name, **given(section, table), **given(section.get("tls", {}), tls))


def _environment(name: str, section: Mapping[str, Any], path: Callable[[str], Path]) -> EnvironmentSettings:
    allow: Table = {
        "writableRoot": ("writable_root", bool),
        "rootUser": ("root_user", bool),
        "privileged": ("privileged", bool),
        "hostNetwork": ("host_network", bool),
        "capabilities": ("capabilities", tuple),
        "hostPorts": ("host_ports", _ranges),
        "volumes": ("volumes", bool),
        "emergency": ("emergency", bool),
    }
    proxy = _proxy(section["proxy"], path) if "proxy" in section else None
    prometheus: Table = {
        "url": ("url", str),
        "tokenFile": ("token_file", path),
        "timeout": ("timeout", quantity.duration),
    }
    return EnvironmentSettings(
        name=name,
        repository=section["repository"],
        runtime=section["runtime"],
        path=section.get("path", f"environments/{name}"),
        ref=section.get("ref", "main"),
        allow=Allow(
            **given(section.get("allow", {}), allow),
            proxy=proxy is not None,
            listen=_listening(proxy),
            prometheus="prometheus" in section,
        ),
        proxy=proxy,
        prometheus=PrometheusSettings(**given(section["prometheus"], prometheus)) if "prometheus" in section else None,
    )


def _ranges(values: Sequence[str]) -> tuple[tuple[int, int], ...]:
    return tuple(port_range(each) for each in values)


def _proxy(section: Mapping[str, Any], path: Callable[[str], Path]) -> ProxySettings:
    table: Table = {
        "image": ("image", str),
        "http": ("http", listen),
        "https": ("https", listen),
        "certificates": ("certificates", path),
        "metrics": ("metrics", listen),
        "sockets": ("sockets", tuple),
        "state": ("state", path),
        "timeout": ("timeout", quantity.duration),
    }
    tcp: Table = {"address": ("tcp_address", str), "ports": ("tcp", _ranges)}
    return ProxySettings(**given(section, table), **given(section.get("tcp", {}), tcp))


def _listening(proxy: ProxySettings | None) -> tuple[tuple[int, int], ...]:
    """At which ports services may listen: where the operator's own proxies do is written in their configuration."""
    if proxy is None:
        return ()
    return ((1, 65535),) if proxy.sockets else proxy.tcp


def _warnings(settings: Settings) -> Iterator[str]:
    for name, docker in settings.runtimes.items():
        if docker.host.startswith("tcp://") and docker.tls_cert is None:
            yield f"runtime {name}: {docker.host} without tls lets anybody on the network become root; set docker.tls"
    if not is_loopback(settings.http.host):
        host = settings.http.host
        yield f"http.listen: {host} is not loopback and not encrypted; put a TLS proxy in front of it"
    for name, environment in settings.environments.items():
        for socket in environment.proxy.sockets if environment.proxy else ():
            if socket.startswith("tcp://") and not is_loopback(listen(socket.removeprefix("tcp://"))[0]):
                yield f"environment {name}: anybody who reaches {socket} steers its traffic; use a unix:// socket"
        prometheus = environment.prometheus
        if prometheus is not None and prometheus.token_file and _in_the_open(prometheus.url):
            yield f"environment {name}: prometheus.tokenFile is sent unencrypted; use an https URL"


def _in_the_open(url: str) -> bool:
    """Whether what is sent to an HTTP URL passes a network as it is."""
    scheme, _, rest = url.partition("://")
    return scheme == "http" and not is_loopback(re.sub(r":[0-9]+$", "", rest.partition("/")[0]))

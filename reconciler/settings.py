"""The operator's configuration: read and validated once, whole, before anything uses it.

Variables, `~` and `%` are never expanded, no file named in it is opened here, and nothing in it comes from Git.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from reconciler.core import document, quantity, shards
from reconciler.core.addresses import is_loopback, listen, port_range
from reconciler.core.errors import Reason, Rejected
from reconciler.core.fields import Table, given
from reconciler.core.journal_rules import SQLITE, of_shard, unverified
from reconciler.core.overlay import ordered, single
from reconciler.core.policy import Allow
from reconciler.core.schema import Checker
from reconciler.core.settings_rules import rules
from reconciler.schemas import load_schemas
from reconciler.settings_values import (
    DockerSettings,
    EnvironmentSettings,
    GatewaySettings,
    HttpSettings,
    JournalSettings,
    KubernetesSettings,
    LeaderSettings,
    LogSettings,
    PrometheusSettings,
    ProxySettings,
    RepositorySettings,
    Settings,
    ShardSettings,
    WebhookSettings,
)

__all__ = [
    "DockerSettings",
    "EnvironmentSettings",
    "GatewaySettings",
    "HttpSettings",
    "JournalSettings",
    "KubernetesSettings",
    "LeaderSettings",
    "LogSettings",
    "PrometheusSettings",
    "ProxySettings",
    "RepositorySettings",
    "Settings",
    "ShardSettings",
    "WebhookSettings",
    "parse",
    "read",
]


def read(path: Path, shard: int | None = None) -> Settings:
    """The settings in the file at `path`. Raises Rejected(SETTINGS_INVALID): one problem a line, with its place.

    `shard` takes the place of `shard.index` in the file, so that the daemons of all shards can share it.
    """
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
    return parse(data, path, shard)


def parse(data: bytes, path: Path, shard: int | None = None) -> Settings:
    """The settings in `data`, which stood in the file at `path`. Raises Rejected as `read` does."""
    manifest = single(str(path), document.read(data))
    findings = manifest.findings(Checker(load_schemas()["settings"]))
    problems = manifest.problems(findings)
    value = manifest.value if shard is None else _as_shard(manifest.value, shard)
    for place, message in rules(value, [finding.path for finding in findings]):
        problems.append(manifest.problem(place, message))
    if problems:
        raise Rejected(Reason.SETTINGS_INVALID, "\n".join(str(problem) for problem in ordered(problems)))
    if shard is not None and "shard" not in value:
        message = f"shard {shard} is asked for, but the settings have none"
        remedy = "Add shard: {count: N} to them, or start without a shard"
        raise Rejected(Reason.SETTINGS_INVALID, message, where=str(path), remedy=remedy)
    return _settings(value, path.absolute())


def _as_shard(value: Any, index: int) -> Any:  # noqa: ANN401 - what was written, not yet known to be right
    """The settings with another `shard.index`, where they have shards."""
    shard = value.get("shard") if isinstance(value, dict) else None
    return {**value, "shard": {**shard, "index": index}} if isinstance(shard, dict) else value


def _settings(value: Mapping[str, Any], file: Path) -> Settings:
    def path(text: str) -> Path:
        return file.parent / text

    data = path(value["data"])
    runtimes = {name: _runtime(name, each, path) for name, each in value["runtimes"].items()}
    general: Table = {"name": ("name", str), "secrets": ("secrets", path), "concurrency": ("concurrency", int)}
    shard = ShardSettings(**value["shard"]) if "shard" in value else None
    environments = {name: _environment(name, each, runtimes, path) for name, each in value["environments"].items()}
    if shard is not None:
        environments = {
            name: each for name, each in environments.items() if shards.mine(name, each.shard, shard.index, shard.count)
        }
    found = Settings(
        file=file,
        data=data,
        journal=_journal(value.get("journal"), data, shard, path),
        repositories={name: _repository(name, each, path) for name, each in value["repositories"].items()},
        environments=environments,
        runtimes=runtimes,
        http=HttpSettings(**_http(value.get("http", {}), path)),
        log=LogSettings(**value.get("log", {})),
        journal_settings=_journal_settings(value, path),
        leader=LeaderSettings(**given(value["leader"], _LEADER)) if "leader" in value else None,
        shard=shard,
        **given(value, general),
    )
    return replace(found, warnings=tuple(_warnings(found)))


_LEADER: Table = {
    "runtime": ("runtime", str),
    "namespace": ("namespace", str),
    "lease": ("lease", str),
    "duration": ("duration", quantity.duration),
    "renew": ("renew", quantity.duration),
    "retry": ("retry", quantity.duration),
}


def _journal(url: str | None, data: Path, shard: ShardSettings | None, path: Callable[[str], Path]) -> str:
    """The URL of the journal, which is another one for each shard."""
    if url is None:
        return f"{SQLITE}{data / ('journal.db' if shard is None else f'journal-{shard.index}.db')}"
    if url.startswith(SQLITE):
        return f"{SQLITE}{path(url.removeprefix(SQLITE))}"
    return url if shard is None else of_shard(url, shard.index)


def _journal_settings(value: Mapping[str, Any], path: Callable[[str], Path]) -> JournalSettings:
    tls: Table = {"ca": ("tls_ca", path), "cert": ("tls_cert", path), "key": ("tls_key", path)}
    password = given(value, {"journalPasswordFile": ("password_file", path)})
    return JournalSettings(**password, **given(value.get("journalTls", {}), tls))


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


def _runtime(name: str, section: Mapping[str, Any], path: Callable[[str], Path]) -> DockerSettings | KubernetesSettings:
    if "docker" in section:
        return _docker(name, section["docker"], path)
    return _kubernetes(name, section["kubernetes"], path)


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


def _kubernetes(name: str, section: Mapping[str, Any], path: Callable[[str], Path]) -> KubernetesSettings:
    table: Table = {
        "kubeconfig": ("kubeconfig", path),
        "context": ("context", str),
        "inCluster": ("in_cluster", bool),
        "runPlugins": ("run_plugins", bool),
        "timeout": ("timeout", quantity.duration),
        "relist": ("relist", quantity.duration),
        "requests": ("requests", int),
    }
    return KubernetesSettings(name=name, **given(section, table))


def _environment(
    name: str,
    section: Mapping[str, Any],
    runtimes: Mapping[str, DockerSettings | KubernetesSettings],
    path: Callable[[str], Path],
) -> EnvironmentSettings:
    allow: Table = {
        "writableRoot": ("writable_root", bool),
        "rootUser": ("root_user", bool),
        "privileged": ("privileged", bool),
        "hostNetwork": ("host_network", bool),
        "capabilities": ("capabilities", tuple),
        "hostPorts": ("host_ports", _ranges),
        "volumes": ("volumes", bool),
        "emergency": ("emergency", bool),
        "namespaces": ("namespaces", tuple),
        "clusterScoped": ("cluster_scoped", bool),
    }
    native = isinstance(runtimes[section["runtime"]], KubernetesSettings)
    namespace = section.get("namespace", name) if native else ""
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
            native=native,
            gateway="gateway" in section,
            namespace=namespace,
        ),
        proxy=proxy,
        prometheus=PrometheusSettings(**given(section["prometheus"], prometheus)) if "prometheus" in section else None,
        namespace=namespace,
        gateway=GatewaySettings(**section["gateway"]) if "gateway" in section else None,
        shard=section.get("shard"),
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
    for runtime in settings.runtimes.values():
        yield from _engine_warnings(runtime)
    if not is_loopback(settings.http.host):
        host = settings.http.host
        yield f"http.listen: {host} is not loopback and not encrypted; put a TLS proxy in front of it"
    mode = unverified(settings.journal)
    if mode:
        yield f"journal: with sslmode={mode} somebody else can answer as the database; use verify-full"
    if settings.leader is not None and settings.journal.startswith(SQLITE):
        yield (
            "leader: a SQLite journal can be opened on one machine only, and a stopped leader keeps its lock; "
            "use PostgreSQL for several replicas"
        )
    for environment in settings.environments.values():
        yield from _environment_warnings(environment)


def _engine_warnings(runtime: DockerSettings | KubernetesSettings) -> Iterator[str]:
    name = runtime.name
    if isinstance(runtime, KubernetesSettings):
        if runtime.run_plugins:
            yield f"runtime {name}: runPlugins runs what the kubeconfig says, as this user; prefer a token in it"
    elif runtime.host.startswith("tcp://") and runtime.tls_cert is None:
        yield f"runtime {name}: {runtime.host} without tls lets anybody on the network become root; set docker.tls"


def _environment_warnings(environment: EnvironmentSettings) -> Iterator[str]:
    name, prometheus = environment.name, environment.prometheus
    for socket in environment.proxy.sockets if environment.proxy else ():
        if socket.startswith("tcp://") and not is_loopback(listen(socket.removeprefix("tcp://"))[0]):
            yield f"environment {name}: anybody who reaches {socket} steers its traffic; use a unix:// socket"
    if prometheus is not None and prometheus.token_file and _in_the_open(prometheus.url):
        yield f"environment {name}: prometheus.tokenFile is sent unencrypted; use an https URL"


def _in_the_open(url: str) -> bool:
    """Whether what is sent to an HTTP URL passes a network as it is."""
    scheme, _, rest = url.partition("://")
    return scheme == "http" and not is_loopback(re.sub(r":[0-9]+$", "", rest.partition("/")[0]))

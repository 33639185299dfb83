"""Wiring: the operator's settings become parts that fit together. It starts nothing and decides nothing.

The command line and the daemon both build from here, so that `plan` looks at the world exactly as `run` does.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.docker_connection import Connection
from reconciler.adapters.docker_proxy import ManagedFront
from reconciler.adapters.docker_runtime import DockerRuntime
from reconciler.adapters.git_source import GitSource
from reconciler.adapters.haproxy import HaproxyTraffic
from reconciler.adapters.haproxy_front import Front, OwnFront
from reconciler.adapters.kubernetes_client import Api, ApiError, translated
from reconciler.adapters.kubernetes_runtime import KubernetesRuntime
from reconciler.adapters.kubernetes_site import Site
from reconciler.adapters.prometheus import Prometheus
from reconciler.adapters.rendering import ProgramRenderer
from reconciler.adapters.secrets import DirectorySecrets
from reconciler.core.errors import Reason, ReconcilerError, Stalled
from reconciler.counted_source import CountedSource
from reconciler.loop import House
from reconciler.ports import Clock, Gauge, Journal, Runtime, Secrets, Traffic
from reconciler.redact import Redactor
from reconciler.schemas import load_schemas
from reconciler.settings import DockerSettings, KubernetesSettings, ProxySettings, Settings
from reconciler.telemetry import Metrics
from reconciler.web.auth import read_secret


def prepare_data(settings: Settings) -> None:
    """Make the data directory, for this user only. Raises Stalled(SETTINGS_INVALID) when everybody can write to it."""
    os.umask(0o077)
    data = settings.data
    try:
        data.mkdir(parents=True, exist_ok=True)
        mode = data.stat().st_mode
    except OSError as error:
        raise Stalled(
            Reason.SETTINGS_INVALID,
            f"the data directory cannot be used: {error.strerror}",
            where=str(data),
            remedy="Make it, owned by the user that runs Reconciler, or set another one as `data`",
        ) from error
    if mode & stat.S_IWOTH:
        raise Stalled(
            Reason.SETTINGS_INVALID,
            "everybody on this machine can write to the data directory",
            where=str(data),
            remedy=f"Run `chmod o-w {data}`",
        )


def build_house(
    settings: Settings,
    journal: Journal,
    redactor: Redactor,
    *,
    mirrors: Path | None = None,
    single_probe: bool = False,
    metrics: Metrics | None = None,
    before: House | None = None,
) -> House:
    """All parts for `settings`. What is the same as `before` is taken over, with the checks and caches in it.

    `mirrors` is where the Git mirrors are, by default in the data directory. `single_probe`: checks of health are made
    once, when asked, instead of all the time. `metrics`: count the fetches.
    """
    clock = before.clock if before is not None else SystemClock()
    secrets = RedactedSecrets(DirectorySecrets(settings.secrets), redactor)
    same_secrets = before is not None and before.settings.secrets == settings.secrets
    same_git = before is not None and before.settings.repositories == settings.repositories
    if before is not None and same_git:
        source = before.source
    else:
        git = GitSource(settings.repositories, mirrors or settings.data / "mirrors", clock)
        source = git if metrics is None else CountedSource(git, metrics)
    gauges = _gauges(settings)
    runtimes: dict[str, Runtime] = {}
    same_fronts = before is not None and _fronts_of(before.settings) == _fronts_of(settings)
    for name, engine in settings.runtimes.items():
        kept = before.runtimes.get(name) if before is not None else None
        if before is not None and kept is not None and same_secrets and _same_engine(before.settings, settings, name):
            runtimes[name] = kept
        elif isinstance(engine, KubernetesSettings):
            runtimes[name] = KubernetesRuntime(engine, _sites(settings, name), settings.name, secrets, clock)
        else:
            runtimes[name] = DockerRuntime(engine, settings.name, secrets, clock, single_probe=single_probe)
    return House(
        settings=settings,
        source=source,
        runtimes=runtimes,
        journal=journal,
        secrets=before.secrets if before is not None and same_secrets else secrets,
        clock=clock,
        schemas=load_schemas(),
        redact=redactor.text,
        traffic=before.traffic if before is not None and same_fronts else _traffic(settings, clock),
        gauges=gauges,
        renderer=before.renderer if before is not None else ProgramRenderer(clock, settings.data / "renderings"),
    )


def _sites(settings: Settings, runtime: str) -> dict[str, Site]:
    """Where the environments of a cluster are in it."""
    return {
        name: Site(each.namespace, each.gateway, each.allow.cluster_scoped)
        for name, each in settings.environments.items()
        if each.runtime == runtime
    }


def _same_engine(before: Settings, settings: Settings, name: str) -> bool:
    """Whether the runtime of this name, with all that it was made of, is as it was."""
    engine = settings.runtimes[name]
    if before.runtimes.get(name) != engine or isinstance(engine, DockerSettings):
        return before.runtimes.get(name) == engine
    return before.name == settings.name and _sites(before, name) == _sites(settings, name)


def _fronts_of(settings: Settings) -> object:
    """All that the proxies are made of."""
    proxies = {name: (each.proxy, each.runtime) for name, each in settings.environments.items()}
    return proxies, settings.runtimes, settings.name, settings.data


def _traffic(settings: Settings, clock: Clock) -> Traffic | None:
    """The proxies of all environments; None where there are none."""
    fronts: dict[str, Front] = {}
    proxies: dict[str, ProxySettings] = {}
    for name, environment in settings.environments.items():
        proxy = environment.proxy
        if proxy is None:
            continue
        proxies[name] = proxy
        if proxy.sockets:
            fronts[name] = OwnFront(name, proxy)
        else:
            engine = settings.runtimes[environment.runtime]
            assert isinstance(engine, DockerSettings), "settings_rules lets only Docker have a proxy"
            fronts[name] = ManagedFront(name, proxy, Connection(engine), settings.name, settings.data, clock)
    return HaproxyTraffic(fronts, proxies, clock) if fronts else None


def _gauges(settings: Settings) -> dict[str, Gauge]:
    """The operator's metrics, by environment."""
    found: dict[str, Gauge] = {}
    for name, environment in settings.environments.items():
        prometheus = environment.prometheus
        if prometheus is not None:
            token = read_secret(prometheus.token_file) if prometheus.token_file else None
            found[name] = Prometheus(prometheus.url, prometheus.timeout.total_seconds(), token)
    return found


def close_house(house: House, keep: House | None = None) -> None:
    """Close what `house` holds open, but for what `keep` uses, too. The instances run on."""
    kept = {id(runtime) for runtime in keep.runtimes.values()} if keep is not None else set()
    for runtime in house.runtimes.values():
        if id(runtime) not in kept:
            runtime.close()
    if house.traffic is not None and (keep is None or keep.traffic is not house.traffic):
        house.traffic.close()
    for gauge in house.gauges.values():
        if isinstance(gauge, Prometheus):
            gauge.close()
    if isinstance(house.source, GitSource | CountedSource) and (keep is None or keep.source is not house.source):
        house.source.close()


def engine_version(engine: DockerSettings | KubernetesSettings) -> str:
    """What the engine says of itself, for people. Raises Retryable(ENGINE_UNREACHABLE) and Stalled."""
    if isinstance(engine, KubernetesSettings):
        api = Api(engine)
        try:
            return f"Kubernetes {api.call('GET', '/version').get('gitVersion', 'of unknown version')}"
        except ApiError as error:
            raise translated(error, api.where) from error
        finally:
            api.close()
    connection = Connection(engine)
    try:
        return f"API {connection.client().api_version}"
    finally:
        connection.close()


def credentials(settings: Settings) -> dict[str, bytes]:
    """The API's token as `http`, and the webhook secrets as `webhook REPOSITORY`. Raises Stalled(SETTINGS_INVALID)."""
    found = {"http": read_secret(settings.http.token_file)}
    for name, repository in settings.repositories.items():
        if repository.webhook is not None:
            found[f"webhook {name}"] = read_secret(repository.webhook.secret_file)
    return found


def tell_redactor(redactor: Redactor, settings: Settings) -> None:
    """Let the redactor know every credential of the operator that can be read now."""
    files = [repository.token_file for repository in settings.repositories.values()]
    files += [repository.webhook.secret_file for repository in settings.repositories.values() if repository.webhook]
    files += [each.prometheus.token_file for each in settings.environments.values() if each.prometheus]
    files += [settings.http.token_file, settings.journal_settings.password_file]
    for file in files:
        try:
            redactor.add(read_secret(file))
        except ReconcilerError:
            # Whoever needs the file says so; here it only means that there is nothing to hide.
            continue


class RedactedSecrets:
    """`ports.Secrets` that lets the redactor know each secret as soon as a service uses it."""

    def __init__(self, secrets: Secrets, redactor: Redactor) -> None:
        self._secrets = secrets
        self._redactor = redactor
        self._told: dict[tuple[str, str], str] = {}

    def versions(self, environment: str, names: Sequence[str]) -> Mapping[str, str]:
        """See `ports.Secrets`. Instances of an earlier daemon hold the same secrets, so these are told already here."""
        found = self._secrets.versions(environment, names)
        for name, version in found.items():
            if self._told.get((environment, name)) != version:
                self._redactor.add(self._secrets.reveal(environment, name))
                self._told[environment, name] = version
        return found

    def reveal(self, environment: str, name: str) -> bytes:
        """See `ports.Secrets`."""
        content = self._secrets.reveal(environment, name)
        self._redactor.add(content)
        return content

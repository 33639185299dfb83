"""How a cluster is reached: the client library's configuration out of a kubeconfig or the pod's service account.

No program is started and no proxy is taken from the environment's variables unless the operator's settings say so.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from kubernetes.client.configuration import Configuration
from kubernetes.config.config_exception import ConfigException
from kubernetes.config.incluster_config import SERVICE_CERT_FILENAME, SERVICE_TOKEN_FILENAME, InClusterConfigLoader
from kubernetes.config.kube_config import KubeConfigLoader

from reconciler.core.addresses import is_loopback
from reconciler.core.errors import Reason, Retryable, Stalled
from reconciler.settings import KubernetesSettings

MAX_KUBECONFIG = 1024 * 1024
POOL = 64
TOKEN, AUTHORITY = Path(SERVICE_TOKEN_FILENAME), Path(SERVICE_CERT_FILENAME)
_PLUGINS = ("exec", "auth-provider")
_files = threading.Lock()
"""The library keeps inline certificates in temporary files that it shares before they are written."""


def where(settings: KubernetesSettings) -> str:
    """How errors name this cluster."""
    return f"cluster {settings.name}"


def configuration(settings: KubernetesSettings) -> Configuration:
    """The configuration to call the API with, read anew.

    Raises Stalled(SETTINGS_INVALID): it cannot be read, names a program that may not run, or is not safe to use;
    Retryable(ENGINE_UNREACHABLE): a program that may run does not end by `timeout`.
    """
    found = Configuration(proxy="", no_proxy="", connection_pool_maxsize=POOL, retries=False)
    found.proxy = None
    found.keep_alive = True
    try:
        if settings.in_cluster:
            loader = InClusterConfigLoader(str(TOKEN), str(AUTHORITY), environ=os.environ)  # type: ignore[no-untyped-call]
            loader.load_and_set(found)  # type: ignore[no-untyped-call]
        elif settings.kubeconfig is not None:
            _from_file(settings, settings.kubeconfig, found)
        else:
            raise _invalid(settings, "neither kubeconfig nor inCluster is set", "Set one of them")
    except (ConfigException, OSError, yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError) as error:
        place = "the pod's service account" if settings.in_cluster else f"kubeconfig {settings.kubeconfig}"
        said = type(error).__name__ if isinstance(error, yaml.YAMLError) else " ".join(str(error).split())[:300]
        raise _invalid(settings, f"{place} cannot be used: {said}", "Give a kubeconfig that kubectl can use") from error
    _check(settings, found)
    return found


def _from_file(settings: KubernetesSettings, path: Path, into: Configuration) -> None:
    with path.open("rb") as file:
        text = file.read(MAX_KUBECONFIG + 1)
    if len(text) > MAX_KUBECONFIG:
        raise ValueError(f"it is larger than {MAX_KUBECONFIG} bytes")
    content = yaml.safe_load(text)
    if not isinstance(content, dict):
        raise TypeError("it is no mapping")
    user = _user(content, settings.context or str(content.get("current-context") or ""))
    plugins = [name for name in _PLUGINS if name in user]
    if plugins and not settings.run_plugins:
        raise _invalid(
            settings,
            f"its kubeconfig names a program for credentials ({plugins[0]}), which is not run",
            "Use a token or a certificate, or set runPlugins if you trust that file to start programs",
        )
    base = str(path.parent.absolute())
    loader = KubeConfigLoader(content, settings.context or None, config_base_path=base)  # type: ignore[no-untyped-call]
    if not plugins:
        with _files:
            loader.load_and_set(into)  # type: ignore[no-untyped-call]
        return
    _within(settings, loader, into)
    if not into.api_key and not into.cert_file:
        raise ValueError(f"the program of {plugins[0]} gave no credentials")


def _within(settings: KubernetesSettings, loader: KubeConfigLoader, into: Configuration) -> None:
    """Load with a deadline, which the library does not set for the program that it runs."""
    failed: list[Exception] = []

    def load() -> None:
        try:
            loader.load_and_set(into)  # type: ignore[no-untyped-call]
        except Exception as error:  # noqa: BLE001 - raised again by the one who waits
            failed.append(error)

    thread = threading.Thread(target=load, name="kubernetes-plugin", daemon=True)
    thread.start()
    thread.join(settings.timeout.total_seconds())
    if thread.is_alive():
        raise Retryable(
            Reason.ENGINE_UNREACHABLE,
            "the program for credentials does not end",
            where=where(settings),
            remedy="Run the command of the kubeconfig's user by hand",
        )
    if failed:
        raise ValueError(str(failed[0])) from failed[0]


def _user(content: dict[str, Any], context: str) -> dict[str, Any]:
    chosen = _named(content.get("contexts"), context).get("context") or {}
    found = _named(content.get("users"), str(chosen.get("user"))).get("user") or {}
    return found if isinstance(found, dict) else {}


def _named(entries: object, name: str) -> dict[str, Any]:
    listed = entries if isinstance(entries, list) else []
    return next((one for one in listed if isinstance(one, dict) and one.get("name") == name), {})


def _check(settings: KubernetesSettings, found: Configuration) -> None:
    parts = urlsplit(str(found.host))
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _invalid(settings, f"its server {str(found.host)[:200]!r} is no URL", "Set `server` in the kubeconfig")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise _invalid(settings, "its server is plain HTTP, where credentials can be read", "Use an https server")
    if not found.verify_ssl:
        raise _invalid(
            settings,
            "insecure-skip-tls-verify would give the credentials to anybody in between",
            "Set certificate-authority in the kubeconfig",
        )


def _invalid(settings: KubernetesSettings, what: str, remedy: str) -> Stalled:
    return Stalled(Reason.SETTINGS_INVALID, what, where=where(settings), remedy=remedy)

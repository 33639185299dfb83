"""What a person reads when the daemon starts: what it is, what it follows, what it reaches, and what is unwise."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from reconciler import __version__
from reconciler.core.errors import ReconcilerError
from reconciler.redact import Redactor
from reconciler.settings import DockerSettings, EnvironmentSettings, KubernetesSettings, Settings


@dataclass(frozen=True, slots=True)
class Banner:
    """`epoch`: None for a daemon that stands for election, as `candidate` at `lease`. `engines`: what each answered."""

    settings: Settings
    epoch: int | None
    engines: Mapping[str, str]
    warnings: tuple[str, ...]
    candidate: str = ""
    lease: str = ""

    def fields(self, redactor: Redactor) -> dict[str, object]:
        """For one log line."""
        settings = self.settings
        return {
            "version": __version__,
            "name": settings.name,
            "settings": str(settings.file),
            "journal": redactor.text(settings.journal),
            **({"epoch": self.epoch} if self.epoch is not None else {"lease": self.lease, "identity": self.candidate}),
            **({"shard": f"{settings.shard.index} of {settings.shard.count}"} if settings.shard is not None else {}),
            "repositories": {name: redactor.text(found.url) for name, found in settings.repositories.items()},
            "environments": {name: describe(found) for name, found in settings.environments.items()},
            "engines": dict(self.engines),
            "listen": f"{settings.http.host}:{settings.http.port}",
            "warnings": list(self.warnings),
        }

    def lines(self, redactor: Redactor) -> list[str]:
        """For a person at a terminal."""
        fields = self.fields(redactor)
        found = [f"Reconciler {__version__}" + (f", epoch {self.epoch}" if self.epoch is not None else "")]
        titles = ("settings", "journal", "listen", "lease", "identity", "shard")
        found.extend(f"  {title:<13}{fields[title]}" for title in titles if title in fields)
        for title in ("repositories", "environments", "engines"):
            group = fields[title]
            assert isinstance(group, dict)
            for number, (name, what) in enumerate(sorted(group.items())):
                found.append(f"  {title if number == 0 else '':<13}{name}: {what}")
        found.extend(f"  warning: {warning}" for warning in self.warnings)
        return found


def describe(found: EnvironmentSettings) -> str:
    """Which directory of which repository runs where."""
    return f"{found.repository}/{found.path} at {found.ref} on {found.runtime}"


def reach(settings: Settings, ask: Callable[[DockerSettings | KubernetesSettings], str]) -> dict[str, str]:
    """What each engine and cluster answers; one that does not answer is no reason not to start."""
    found = {}
    for name, runtime in settings.runtimes.items():
        try:
            found[name] = f"{runtime.address}, {ask(runtime)}"
        except ReconcilerError as error:
            found[name] = f"{runtime.address}, not reached: {error.what}"
    return found


def warnings(settings: Settings, user: int | None = None) -> tuple[str, ...]:
    """What is allowed but unwise. `user` is the effective user id, by default that of this program."""
    found = list(settings.warnings)
    if (os.geteuid() if user is None else user) == 0:
        found.append("running as root: use a user of its own, in the group that may use the engine's socket")
    if settings.http.token_file is None:
        found.append("http.tokenFile is not set: the API answers health checks and webhooks only")
    for place, title in ((settings.file, "the settings file"), (settings.secrets, "the directory of secrets")):
        if place is not None and _has_mode(place, 0o002):
            found.append(f"{title} {place} can be written by everybody on this machine: run `chmod o-w {place}`")
    for name, runtime in settings.runtimes.items():
        kubeconfig = runtime.kubeconfig if isinstance(runtime, KubernetesSettings) else None
        if kubeconfig is not None and _has_mode(kubeconfig, 0o004):
            found.append(f"runtime {name}: {kubeconfig} can be read by everybody here: run `chmod o-r {kubeconfig}`")
    return tuple(found)


def _has_mode(place: Path, bits: int) -> bool:
    try:
        return bool(place.stat().st_mode & bits)
    except OSError:
        return False

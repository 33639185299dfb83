"""What a person reads when the daemon starts: what it is, what it follows, what it reaches, and what is unwise."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from reconciler import __version__
from reconciler.core.errors import ReconcilerError
from reconciler.redact import Redactor
from reconciler.settings import DockerSettings, EnvironmentSettings, Settings


@dataclass(frozen=True, slots=True)
class Banner:
    """`engines`: what each engine answered, by name."""

    settings: Settings
    epoch: int
    engines: Mapping[str, str]
    warnings: tuple[str, ...]

    def fields(self, redactor: Redactor) -> dict[str, object]:
        """For one log line."""
        settings = self.settings
        return {
            "version": __version__,
            "name": settings.name,
            "settings": str(settings.file),
            "journal": redactor.text(settings.journal),
            "epoch": self.epoch,
            "repositories": {name: redactor.text(found.url) for name, found in settings.repositories.items()},
            "environments": {name: describe(found) for name, found in settings.environments.items()},
            "engines": dict(self.engines),
            "listen": f"{settings.http.host}:{settings.http.port}",
            "warnings": list(self.warnings),
        }

    def lines(self, redactor: Redactor) -> list[str]:
        """For a person at a terminal."""
        fields = self.fields(redactor)
        found = [f"Reconciler {__version__}, epoch {self.epoch}"]
        found.extend(f"  {title:<13}{fields[title]}" for title in ("settings", "journal", "listen"))
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


def reach(settings: Settings, ask: Callable[[DockerSettings], str]) -> dict[str, str]:
    """What each engine answers; one that does not answer is no reason not to start."""
    found = {}
    for name, docker in settings.runtimes.items():
        try:
            found[name] = f"{docker.host}, {ask(docker)}"
        except ReconcilerError as error:
            found[name] = f"{docker.host}, not reached: {error.what}"
    return found


def warnings(settings: Settings, user: int | None = None) -> tuple[str, ...]:
    """What is allowed but unwise. `user` is the effective user id, by default that of this program."""
    found = list(settings.warnings)
    if (os.geteuid() if user is None else user) == 0:
        found.append("running as root: use a user of its own, in the group that may use the engine's socket")
    if settings.http.token_file is None:
        found.append("http.tokenFile is not set: the API answers health checks and webhooks only")
    for place, title in ((settings.file, "the settings file"), (settings.secrets, "the directory of secrets")):
        if place is not None and _writable_by_all(place):
            found.append(f"{title} {place} can be written by everybody on this machine: run `chmod o-w {place}`")
    return tuple(found)


def _writable_by_all(place: Path) -> bool:
    try:
        return bool(place.stat().st_mode & 0o002)
    except OSError:
        return False

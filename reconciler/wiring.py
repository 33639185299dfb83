"""Wiring: the operator's settings become parts that fit together. It starts nothing and decides nothing.

The command line and the daemon both build from here, so that `plan` looks at the world exactly as `run` does.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.docker_runtime import DockerRuntime
from reconciler.adapters.git_source import GitSource
from reconciler.adapters.journal import SqlJournal
from reconciler.adapters.secrets import DirectorySecrets
from reconciler.core import audit
from reconciler.core.errors import Reason, ReconcilerError, Stalled
from reconciler.loop import House
from reconciler.ports import Clock, Journal, Runtime, Secrets
from reconciler.redact import Redactor
from reconciler.schemas import load_schemas
from reconciler.settings import Settings

SECRET_FILE_LIMIT = 64 * 1024


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


def open_journal(settings: Settings, clock: Clock, *, act: bool) -> SqlJournal:
    """The journal: to `act` on it (one daemon at a time), or to read it and add a person's word."""
    writer = f"{socket.gethostname()}:{os.getpid()}"
    return SqlJournal.open(settings.journal, clock, writer, act=act)


def exported(journal: Journal) -> Iterator[str]:
    """All records as lines of JSON Lines."""
    return (audit.export(record) for record in journal.records())


def build_house(
    settings: Settings,
    journal: Journal,
    redactor: Redactor,
    *,
    single_probe: bool = False,
    before: House | None = None,
) -> House:
    """All parts for `settings`. What is the same as `before` is taken over, with the checks and caches in it."""
    clock = before.clock if before is not None else SystemClock()
    secrets = RedactedSecrets(DirectorySecrets(settings.secrets), redactor)
    same_secrets = before is not None and before.settings.secrets == settings.secrets
    same_git = before is not None and before.settings.repositories == settings.repositories
    if before is not None and same_git:
        source = before.source
    else:
        source = GitSource(settings.repositories, settings.data / "mirrors", clock)
    runtimes: dict[str, Runtime] = {}
    for name, docker in settings.runtimes.items():
        kept = before.runtimes.get(name) if before is not None else None
        if before is not None and kept is not None and same_secrets and before.settings.runtimes.get(name) == docker:
            runtimes[name] = kept
        else:
            runtimes[name] = DockerRuntime(docker, settings.name, secrets, clock, single_probe=single_probe)
    return House(
        settings=settings,
        source=source,
        runtimes=runtimes,
        journal=journal,
        secrets=before.secrets if before is not None and same_secrets else secrets,
        clock=clock,
        schemas=load_schemas(),
        redact=redactor.text,
    )


def close_runtimes(house: House, keep: Mapping[str, Runtime] | None = None) -> None:
    """Close the runtimes of `house` that are not in `keep`; the instances run on."""
    kept = {id(runtime) for runtime in (keep or {}).values()}
    for runtime in house.runtimes.values():
        if id(runtime) not in kept:
            runtime.close()


def read_secret(path: Path | None) -> bytes:
    """The content of one of the operator's secret files without the white space around it; empty without a file.

    Raises Stalled(SECRET_MISSING) when it cannot be read.
    """
    if path is None:
        return b""
    try:
        with path.open("rb") as file:
            return file.read(SECRET_FILE_LIMIT).strip()
    except OSError as error:
        raise Stalled(
            Reason.SECRET_MISSING,
            f"cannot be read: {error.strerror}",
            where=str(path),
            remedy="Make the file, readable for the user that runs Reconciler",
        ) from error


def webhook_secrets(settings: Settings) -> dict[str, bytes]:
    """The webhook secret of each repository that has one."""
    return {
        name: read_secret(repository.webhook.secret_file)
        for name, repository in settings.repositories.items()
        if repository.webhook is not None
    }


def tell_redactor(redactor: Redactor, settings: Settings) -> None:
    """Let the redactor know every credential of the operator that can be read now."""
    files = [repository.token_file for repository in settings.repositories.values()]
    files += [repository.webhook.secret_file for repository in settings.repositories.values() if repository.webhook]
    files.append(settings.http.token_file)
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

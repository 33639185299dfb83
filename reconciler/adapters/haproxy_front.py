"""What stands behind an environment's proxies: where their runtime sockets are, and whose configuration they run.

The operator's own proxies are here; those that Reconciler runs are in `docker_proxy`. Nothing here knows weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from reconciler.adapters import haproxy_table
from reconciler.adapters.durable_file import replace_file
from reconciler.adapters.haproxy_socket import ask
from reconciler.core.errors import Reason, Stalled
from reconciler.core.live import ProxyStatus
from reconciler.settings import ProxySettings


class Front(Protocol):
    """The proxies of one environment. Safe to use from several threads."""

    def sockets(self) -> Sequence[str]:
        """The runtime sockets there are now, `unix:///path` or `tcp://host:port`; a proxy keeps its number."""

    def ensure(self, config: str, text: str) -> None:
        """Have them run the configuration `text`, whose digest is `config`, without a lost request. Idempotent.

        Raises Stalled(PROXY_REFUSED) when that cannot be, Retryable when something does not answer.
        """

    def status(self) -> tuple[ProxyStatus, str, str]:
        """Whether they are there, the digest of the configuration they run ("" when not known), words for people."""

    def keep(self, index: int, state: str) -> None:
        """Save the server state of proxy number `index`, whole or not at all, for its next start.

        Raises Stalled(PROXY_REFUSED) when it cannot be saved.
        """

    def former(self) -> Sequence[str]:
        """The servers that older workers show in `show stat`, one text a worker: they go on after a hitless reload.

        Nothing where there is none, or none that can be asked. Raises Retryable when one does not answer.
        """

    def cut(self, backend: str, address: str, port: int) -> None:
        """Cut what goes on at `address`:`port` of `backend` in older workers. Raises as `former` does."""

    def close(self) -> None:
        """Let go of what was opened; the proxies run on."""


class OwnFront:
    """The operator's own proxies: reached by their runtime sockets, configured by the operator.

    He reloads them, too: a runtime socket shows the newest worker only, so that requests which go on in an older one
    are his affair. He lets no release run until they have ended.
    """

    def __init__(self, environment: str, settings: ProxySettings) -> None:
        self._environment = environment
        self._settings = settings

    def sockets(self) -> Sequence[str]:
        """As the settings name them."""
        return self._settings.sockets

    def ensure(self, config: str, text: str) -> None:  # noqa: ARG002 - the digest says nothing about a foreign file
        """Check that each proxy has the backends of `text`: the operator alone reloads these proxies."""
        wanted = haproxy_table.backends_of(text)
        lacking: list[str] = []
        for address in self.sockets():
            answer = ask(address, "show stat -1 2 -1", self._settings.timeout.total_seconds())
            there = {row.backend for row in haproxy_table.stat(answer, address)}
            missing = [name for name in wanted if name not in there]
            if missing:
                lacking.append(f"{address} lacks the backends {', '.join(missing)}")
        if lacking:
            raise Stalled(
                Reason.PROXY_REFUSED,
                "; ".join(lacking),
                where=f"the proxies of {self._environment}",
                remedy=f"Include what `reconciler proxy config {self._environment}` prints in their configuration, "
                "and reload them",
            )

    def status(self) -> tuple[ProxyStatus, str, str]:
        """READY: whether they answer shows when they are asked; their configuration is not ours."""
        return ProxyStatus.READY, "", ""

    def keep(self, index: int, state: str) -> None:
        """Save to `INDEX.state` in the settings' directory, if there is one."""
        if self._settings.state is not None:
            save(self._settings.state / f"{index}.state", state)

    def former(self) -> Sequence[str]:
        """Always nothing: see above."""
        return ()

    def cut(self, backend: str, address: str, port: int) -> None:
        """Nothing: see above."""

    def close(self) -> None:
        """Nothing is held."""


def save(path: Path, text: str) -> None:
    """Replace a file. Raises Stalled(PROXY_REFUSED), with the remedy, when the directory cannot be written."""
    try:
        replace_file(path, text)
    except OSError as error:
        raise Stalled(
            Reason.PROXY_REFUSED,
            f"the state of the proxy's servers cannot be saved: {error.strerror or error}",
            where=str(path),
            remedy="Give the daemon a directory that it may write to; the proxy has to be able to read it",
        ) from error

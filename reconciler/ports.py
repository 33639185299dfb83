"""The ports: everything outside that Reconciler needs, as Protocols of values. No implementation, no library.

Adapters translate every library exception into an error of `reconciler.core.errors`. Every call that leaves the
program has a deadline inside the adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from reconciler.core.live import LiveState, ProxyState
from reconciler.core.memory import EnvironmentMemory
from reconciler.core.model import Health, Revision
from reconciler.core.record import Entry, Record
from reconciler.core.steps import RuntimeEffect, TrafficEffect


class Clock(Protocol):
    """Time from outside: `now` is aware and in UTC, `monotonic` counts seconds."""

    def now(self) -> datetime: ...

    def monotonic(self) -> float: ...


class Tree(Protocol):
    """The files of one revision, read from the object database: regular files only, within the caps."""

    def files(self, directory: str) -> Mapping[str, str]:
        """Paths below `directory` (recursive) to blob ids. Empty when the directory does not exist.

        Raises Rejected(REPOSITORY_HOSTILE) for a symlink or submodule in there, or beyond a cap.
        """

    def read(self, path: str) -> bytes:
        """The content of one file. Raises KeyError when there is no regular file at `path`; Rejected beyond a cap."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One revision of a repository. `rewritten`: the branch moved to something that does not contain `known`."""

    repository: str
    revision: Revision
    tree: Tree = field(repr=False)
    fetched_at: datetime
    rewritten: bool = False
    unrelated: bool = False


class Source(Protocol):
    """Git."""

    def snapshot(self, repository: str, ref: str, *, since: datetime | None = None, known: str = "") -> Snapshot:
        """The head of `ref`.

        Fetches unless a fetch of (repository, ref) that began at or after `since` has already succeeded; callers at
        the same time share one fetch. `since=None` never fetches when there is a mirror. `known` is the SHA admitted
        before, to tell rewritten and unrelated history. Raises Retryable (unreachable, unauthorized),
        Rejected (hostile), Stalled (branch missing, repository empty).
        """

    def at(self, repository: str, sha: str) -> Snapshot:
        """An older revision from the mirror, or any revision name a person typed. Raises Rejected(REVISION_MISSING)."""


class Runtime(Protocol):
    """An engine that runs instances."""

    def observe(
        self, environment: str, checks: Mapping[str, Health], images: Sequence[str], metered: Collection[str] = ()
    ) -> LiveState:
        """Every instance of ours in `environment`, what is in the way there, and the state of `images` (pinned).

        `checks` maps a version to how its instances' health is told; `metered` are the services whose use of cpu is
        asked for. Raises Retryable when the engine does not answer.
        """

    def apply(self, effect: RuntimeEffect) -> None:
        """Do one effect. Idempotent by name; raises Retryable, Stalled or Rejected, each with reason and remedy.

        Refuses (Stalled, NOT_OWNED) to touch anything that does not carry our labels for that environment.
        """

    def logs(self, name: str, lines: int) -> tuple[str, ...]:
        """The last `lines` lines of an instance's output; empty when there is none."""

    def watch(self, notify: Callable[[str, str], None]) -> None:
        """From now on call `notify(environment, detail)` within a second of anything that `observe` would show anew."""

    def close(self) -> None:
        """Stop watching and checking; the instances run on."""


class Traffic(Protocol):
    """The proxies in front of the environments: the truth for weights, of which nothing is kept elsewhere."""

    def observe(self, environment: str) -> ProxyState:
        """What the proxies of `environment` show. A proxy that does not answer is a status, not an error."""

    def apply(self, environment: str, effect: TrafficEffect) -> None:
        """Do one effect at every proxy of `environment`; idempotent. Each must confirm.

        Raises Retryable(PROXY_UNREACHABLE) when one does not answer, or a READY address does not come up in time:
        nothing was taken from the others then. Stalled(PROXY_FULL): no place is free. Stalled(PROXY_REFUSED): the
        configuration is refused, or an operator's own proxy lacks a backend.
        """

    def watch(self, notify: Callable[[str, str], None]) -> None:
        """From now on call `notify(environment, detail)` soon after what `observe` would show anew: a server that got
        idle, went up or down, a request that waits, a table that somebody changed, a proxy that came back."""

    def close(self) -> None:
        """Stop watching; the proxies run on."""


class Gauge(Protocol):
    """The operator's metrics."""

    def query(self, promql: str) -> tuple[float | None, str]:
        """The value of an instant query, None when there is none for whatever reason; and words for people."""


class Secrets(Protocol):
    """The operator's secrets of an environment."""

    def versions(self, environment: str, names: Sequence[str]) -> Mapping[str, str]:
        """A version for each secret that exists: changes with its content, does not reveal it."""

    def reveal(self, environment: str, name: str) -> bytes:
        """The content. Raises Stalled(SECRET_MISSING)."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What a look through the whole journal found. `problem` is empty when all of it holds."""

    records: int
    head: str
    epochs: int
    problem: str = ""


class Journal(Protocol):
    """The append-only log, and the memory that is its fold."""

    @property
    def epoch(self) -> int:
        """The epoch this writer opened."""

    def append(self, *entries: Entry) -> tuple[Record, ...]:
        """Durable on return. Raises Fenced (a newer epoch exists) or Retryable(JOURNAL_UNAVAILABLE)."""

    def memory(self, environment: str) -> EnvironmentMemory:
        """The fold of all records of an environment, those of other writers included."""

    def environments(self) -> tuple[str, ...]:
        """All environments the journal has records of."""

    def records(
        self,
        *,
        after: int = 0,
        environment: str = "",
        service: str = "",
        limit: int | None = None,
        newest: bool = False,
    ) -> Iterator[Record]:
        """Records by index; with `newest` the last `limit` of them, still in rising order."""

    def verify(self) -> Verification:
        """Check every hash, the chain, the epochs and the projections."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Cause:
    """Why an environment is looked at. `git`: Git may have changed since `at`, so a fetch is due."""

    kind: str
    at: datetime
    detail: str = ""
    git: bool = False

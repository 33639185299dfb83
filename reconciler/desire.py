"""Git -> what is wanted: reads revisions through the Source, judges them with the core, and caches what it parsed.

A revision that cannot be read or is not acceptable never takes anything away: the one admitted before stays in use,
and so does the last good specification of a service that is not valid now.
"""

from __future__ import annotations

import threading
import traceback
from collections import OrderedDict
from collections.abc import Collection, Hashable, Iterator, Mapping, MutableMapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import structlog

from reconciler.core import caps, freeze, manifest, names
from reconciler.core.admission import Wanted
from reconciler.core.bundle_guard import guarded
from reconciler.core.bundle_rendering import Rendering
from reconciler.core.errors import Reason, ReconcilerError, Rejected, Retryable, Stalled
from reconciler.core.freeze import Held
from reconciler.core.manifest import Fleet, Refusal
from reconciler.core.memory import EnvironmentMemory, ServiceMemory
from reconciler.core.model import DesiredState, ServiceSpec, Target, version_of
from reconciler.core.question import Wish
from reconciler.core.record import VersionRef
from reconciler.ports import Secrets, Snapshot, Source
from reconciler.rendering_port import Renderer
from reconciler.settings import EnvironmentSettings, Settings

ENTRIES_KEPT = 40_000
"""Parsed files and services: two for each service, for some revisions of the largest fleet."""
STATES_KEPT = 64
PROBLEMS_SHOWN = 20
_UNKNOWN = ServiceMemory()
"""Of a service that the journal does not know. One for all: thousands of them at each look would be costly to make."""

_log = structlog.get_logger(__name__)


class Recent(MutableMapping[Hashable, Any]):
    """A mapping that forgets what was not asked for in the longest time. Safe for several threads."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __getitem__(self, key: Hashable) -> Any:  # noqa: ANN401 - as varied as what is cached
        with self._lock:
            self._entries.move_to_end(key)
            return self._entries[key]

    def __setitem__(self, key: Hashable, value: Any) -> None:  # noqa: ANN401
        with self._lock:
            self._entries[key] = value
            self._entries.move_to_end(key)
            while len(self._entries) > self._limit:
                self._entries.popitem(last=False)

    def __delitem__(self, key: Hashable) -> None:
        with self._lock:
            del self._entries[key]

    def __iter__(self) -> Iterator[Hashable]:
        return iter(list(self._entries))

    def __len__(self) -> int:
        return len(self._entries)


class Desire:
    """Answers, for each environment, what Git wants of it."""

    def __init__(
        self,
        settings: Settings,
        source: Source,
        secrets: Secrets,
        schemas: Mapping[str, Any],
        renderer: Renderer | None = None,
    ) -> None:
        self._settings = settings
        self._source = source
        self._secrets = secrets
        self._schemas = schemas
        self._renderer = renderer
        self._files = Recent(ENTRIES_KEPT)
        self._states = Recent(STATES_KEPT)
        self._older = Recent(ENTRIES_KEPT)

    def wanted(self, environment: EnvironmentSettings, memory: EnvironmentMemory, since: datetime | None) -> Wanted:
        """The head of the environment's branch, fetched anew if it may have moved since `since`; or what was before."""
        repository = self._settings.repositories[environment.repository]
        try:
            snapshot = self._source.snapshot(
                environment.repository, environment.ref, since=since, known=memory.admitted
            )
        except ReconcilerError as error:
            return self._before(environment, memory, Wanted(environment.name, error=error))
        head = Wanted(
            environment.name,
            head=snapshot.revision,
            rewritten=snapshot.rewritten and snapshot.revision.sha != memory.admitted,
            unrelated=snapshot.unrelated,
        )
        if head.unrelated or (head.rewritten and repository.on_rewrite == "hold"):
            return self._before(environment, memory, replace(head, error=_held(environment, head, memory)))
        return self._judged(environment, memory, head, snapshot)

    def proposed(
        self, environment: EnvironmentSettings, memory: EnvironmentMemory, revision: str | None, now: datetime
    ) -> Wanted:
        """Any revision that a person names (a branch, a tag, a SHA), as if it were the head. Raises what Git raises."""
        if revision is None:
            return self.wanted(environment, memory, now)
        try:
            snapshot = self._source.snapshot(environment.repository, revision, since=now)
        except (Stalled, Rejected):
            self._source.snapshot(environment.repository, environment.ref, since=now)
            snapshot = self._source.at(environment.repository, revision)
        return self._judged(environment, memory, Wanted(environment.name, head=snapshot.revision), snapshot)

    def _judged(
        self, environment: EnvironmentSettings, memory: EnvironmentMemory, head: Wanted, snapshot: Snapshot
    ) -> Wanted:
        try:
            found = self._parse(environment, snapshot)
        except ReconcilerError as error:
            return self._before(environment, memory, replace(head, error=error))
        if isinstance(found, Refusal):
            shown = "; ".join(str(problem) for problem in found.problems[:PROBLEMS_SHOWN])
            refusal = Rejected(
                found.reason,
                f"revision {snapshot.revision.sha[:12]} is not acceptable: {shown}",
                where=environment.name,
                remedy="mend the files and commit, or revert; until then the revision before stays in use",
            )
            return self._before(environment, memory, replace(head, error=refusal))
        return replace(head, revision=snapshot.revision, state=found)

    def _before(self, environment: EnvironmentSettings, memory: EnvironmentMemory, head: Wanted) -> Wanted:
        """What was admitted before, read from the mirror; nothing where there is no such revision any more."""
        if not memory.admitted:
            return head
        try:
            snapshot = self._source.at(environment.repository, memory.admitted)
            found = self._parse(environment, snapshot)
        except ReconcilerError:
            return head
        return head if isinstance(found, Refusal) else replace(head, revision=snapshot.revision, state=found)

    def _parse(self, environment: EnvironmentSettings, snapshot: Snapshot) -> DesiredState | Refusal:
        key = (environment, snapshot.repository, snapshot.revision.sha)
        found: DesiredState | Refusal | None = self._states.get(key)
        if found is None:
            rendering = _Renderings(self._renderer)
            found = manifest.parse(
                environment.name,
                snapshot.revision,
                _fleet(environment, snapshot, rendering),
                schemas=self._schemas,
                allow=environment.allow,
                cache=self._files,
            )
            if not rendering.troubled:
                self._states[key] = found
        return found

    def wishes(self, environment: EnvironmentSettings, wanted: Wanted, memory: EnvironmentMemory) -> Mapping[str, Wish]:
        """What shall become of each service that Git declares, well or badly, and the way back for each other one."""
        state = wanted.state
        if state is None:
            return {}
        paused = _paused(state, memory)
        found = {}
        for name, spec in state.services.items():
            known = memory.services.get(name, _UNKNOWN)
            wish = self._wish_or_held(environment, state.revision.sha, spec, known, paused)
            found[name] = guarded(wish, known, state.prune, state.revision.trailers)
        for name, problems in state.problems.items():
            known = memory.services.get(name, _UNKNOWN)
            shown = "; ".join(str(problem) for problem in problems[:PROBLEMS_SHOWN])
            stable = self._stable(environment, name, known.stable)
            held = Wish(name, fallback=stable, suspended=paused, held=problems[0].reason, message=shown)
            spec_before = self._spec_at(environment, memory.good.get(name, ""), name)
            if spec_before is not None:
                last_good = self._wish_or_held(environment, memory.good[name], spec_before, known, paused)
                last_good = guarded(last_good, known, state.prune, state.revision.trailers)
                held = replace(last_good, held=last_good.held or held.held, message=last_good.message or held.message)
            found[name] = held
        for name, known in memory.services.items():
            if name not in found:
                stable = self._stable(environment, name, known.stable)
                found[name] = Wish(name, fallback=stable, suspended=_by_person(known) or paused)
        return found

    def _wish_or_held(
        self, environment: EnvironmentSettings, sha: str, spec: ServiceSpec, known: ServiceMemory, paused: str
    ) -> Wish:
        """As `_wish`; what goes wrong for one service holds that one, never the others."""
        try:
            return self._wish(environment, sha, spec, known, paused)
        except ReconcilerError as error:
            return Wish(spec.name, fallback=_way(spec, known), suspended=paused, held=error.reason, message=str(error))
        except Exception as bug:  # noqa: BLE001 - our own bug: this service is held, the others go on
            shown = "".join(traceback.format_exception(bug))
            _log.error("internal error", environment=environment.name, service=spec.name, traceback=shown)
            said = f"a fault of Reconciler, {type(bug).__name__}: {bug}; the log has the traceback"
            fallback = _way(spec, known)
            return Wish(spec.name, fallback=fallback, suspended=paused, held=Reason.INTERNAL_ERROR, message=said)

    def _wish(
        self, environment: EnvironmentSettings, sha: str, spec: ServiceSpec, known: ServiceMemory, paused: str
    ) -> Wish:
        suspended = _by_person(known) or paused or ("suspended in Git" if spec.suspend else "")
        version, absent = self._version(environment.name, spec)
        if absent:
            message = f"secret {absent} is not there: put it where the operator's settings say"
            fallback = _way(spec, known)
            return Wish(spec.name, fallback=fallback, suspended=suspended, held=Reason.SECRET_MISSING, message=message)
        desired = Target(spec, version, sha)
        if known.stable is None or known.stable.version == version:
            return Wish(spec.name, desired, desired if known.stable else None, suspended)
        stable = self._stable(environment, spec.name, known.stable)
        fallback = replace(stable, spec=stable.spec.operated_as(spec)) if stable else None
        return Wish(spec.name, desired, fallback, suspended)

    def _version(self, environment: str, spec: ServiceSpec) -> tuple[str, str]:
        """The version of a specification, or the name of a secret that is missing."""
        secrets = self._secrets.versions(environment, sorted({use.secret for use in spec.secrets}))
        for use in spec.secrets:
            if use.secret not in secrets:
                return "", use.secret
        key = (id(spec), tuple(sorted(secrets.items())))
        known = self._older.get(key)
        if known is None or known[0] is not spec:
            known = self._older[key] = (spec, version_of(spec, secrets))
        return str(known[1]), ""

    def earlier(self, environment: EnvironmentSettings, name: str, version: VersionRef) -> Target | None:
        """A version of which instances may still be held, as its own revision describes it; None: not to be read."""
        return self._stable(environment, name, version)

    def _stable(self, environment: EnvironmentSettings, name: str, stable: VersionRef | None) -> Target | None:
        """The stable version as its own revision describes it."""
        spec = self._spec_at(environment, stable.revision, name) if stable else None
        if spec is None or stable is None:
            return None
        obstacle = ""
        if self._version(environment.name, spec)[0] != stable.version:
            what = f"version {names.short(stable.version)}"
            obstacle = (
                f"a secret of {what} has changed since: no new instance of it can be made; restore the secret, or "
                "commit a version for the new one"
                if spec.bundle is None
                else f"what renders {what} makes something else of it by now: it cannot be declared again; install the "
                "release of kustomize or helm from before, or commit a version for the new one"
            )
        return Target(spec, stable.version, stable.revision, obstacle)

    def _spec_at(self, environment: EnvironmentSettings, sha: str, name: str) -> ServiceSpec | None:
        if not sha:
            return None
        key = (environment, sha, name)
        if key not in self._older:
            try:
                snapshot = self._source.at(environment.repository, sha)
                found = manifest.parse_service(
                    environment.name,
                    name,
                    _fleet(environment, snapshot, _Renderings(self._renderer)),
                    schemas=self._schemas,
                    allow=environment.allow,
                    cache=self._files,
                )
            except ReconcilerError:
                # Git may have it at the next look: what could not be read is not remembered as if it were not there.
                return None
            self._older[key] = found if isinstance(found, ServiceSpec) else None
        spec: ServiceSpec | None = self._older[key]
        return spec

    def held(self, wanted: Wanted, memory: EnvironmentMemory, wishes: Mapping[str, Wish], now: datetime) -> Held | None:
        """Why no new version may begin now, if so: a freeze, or a revision that changes too much at once.

        What is on its way already, repairs and returns never wait for this.
        """
        state = wanted.state
        if state is None:
            return None
        trailers = state.revision.trailers
        emergency = self._settings.environments[wanted.environment].allow.emergency
        frozen = freeze.held(state.freezes, trailers, now, emergency=emergency)
        if frozen is not None:
            return frozen
        desired = {
            name: wish.desired.version
            for name, wish in wishes.items()
            if wish.desired is not None and not wish.suspended
        }
        there = {name for name, known in memory.services.items() if known.stable}
        capped = caps.changes_held(there, caps.changed(desired, memory.services), state.changes, trailers)
        return Held(*capped) if capped else None

    def removals_held(
        self, wanted: Wanted, memory: EnvironmentMemory, owned: Collection[str], held: Held | None = None
    ) -> tuple[Reason, str] | None:
        """Why nothing may be removed now, if so: Git cannot be read, declares nothing, or removes too much at once.

        `held` is what `held` said: in a freeze nothing is removed either.
        """
        state = wanted.state
        if state is None:
            error = wanted.error
            reason = error.reason if error else Reason.REVISION_MISSING
            return reason, str(error or "no revision is in use yet")
        if paused := _paused(state, memory):
            return Reason.SUSPENDED, paused
        if held is not None and held.reason is Reason.FROZEN:
            return held.reason, held.message
        there = set(owned) | {name for name, known in memory.services.items() if known.stable}
        declared = state.services.keys() | state.problems.keys()
        return caps.removals_held(there, declared, state.prune, state.revision.trailers)


class _Renderings:
    """Asks the renderer, and knows whether it was in trouble: what was parsed then may come out better soon."""

    def __init__(self, renderer: Renderer | None) -> None:
        self._renderer = renderer
        self.troubled = False

    def render(self, rendering: Rendering) -> bytes:
        try:
            if self._renderer is None:
                what = f"{rendering.tool} is needed to render this, and it is not set up"
                raise Stalled(Reason.SETTINGS_INVALID, what)
            return self._renderer.render(rendering)
        except (Stalled, Retryable):
            self.troubled = True
            raise


def _fleet(environment: EnvironmentSettings, snapshot: Snapshot, renderings: _Renderings) -> Fleet:
    tree = snapshot.tree
    return Fleet(environment.path, tree.files(environment.path), tree.read, tree.files, renderings.render)


def _way(spec: ServiceSpec, known: ServiceMemory) -> Target | None:
    """How a service that is held is reached meanwhile: as Git says, by the version that runs."""
    return Target(spec, known.stable.version, known.stable.revision) if known.stable is not None else None


def _paused(state: DesiredState, memory: EnvironmentMemory) -> str:
    if memory.suspension is not None:
        return f"the environment is suspended by {memory.suspension.by}: {memory.suspension.why}"
    return "the environment is suspended in Git" if state.suspend else ""


def _by_person(known: ServiceMemory) -> str:
    return f"suspended by {known.suspension.by}: {known.suspension.why}" if known.suspension is not None else ""


def _held(environment: EnvironmentSettings, head: Wanted, memory: EnvironmentMemory) -> Stalled:
    """A history that a person has to look at first."""
    assert head.head is not None
    what = "shares no history with" if head.unrelated else "does not contain"
    return Stalled(
        Reason.HISTORY_UNRELATED if head.unrelated else Reason.HISTORY_REWRITTEN,
        f"{environment.ref} is now at {names.short(head.head.sha)}, which {what} the admitted {memory.admitted[:12]}",
        where=environment.name,
        remedy=f"if that is meant, say `reconciler resume {environment.name}`; otherwise restore the branch",
    )

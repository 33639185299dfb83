"""From the engine's answers to `Instance` values: reads, projects, and inspects again only what may have changed.

Changes nothing on the engine.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from reconciler.adapters import docker_projection
from reconciler.adapters.docker_connection import Json, engine_errors, moment
from reconciler.adapters.docker_create import ROLE_FILLER, ROLE_PROXY, ROLE_VOLUME, instance_of
from reconciler.adapters.docker_network import endpoint_of
from reconciler.adapters.docker_ownership import Ownership, derived_name
from reconciler.core import names
from reconciler.core.errors import Reason
from reconciler.core.health import HealthState
from reconciler.core.live import Difference, Foreign, HealthStatus, Instance, Phase, Warmth

INSPECTORS = 8
KILLED = 137
"""The exit code of a program that SIGKILL ended."""
_DURATION = re.compile(r"(Up|Exited|Created|Restarting)( \(\d+\))?.*?(\(Paused\))?$")

PORT_TAKEN = ("port is already allocated", "address already in use", "failed to bind")
"""What the engine says when a host port is in use: that is no fault of the instance, which can start later."""
_PHASES = {"created": Phase.CREATED, "running": Phase.RUNNING, "paused": Phase.PAUSED}


@dataclass(frozen=True, slots=True)
class Facts:
    """What is kept of an inspect result beside the instance's own value: a whole one would take 40 KiB in memory."""

    image_id: str
    exit_code: int
    error: str
    address: str
    host_network: bool
    published: Mapping[str, tuple[tuple[str, int], ...]]
    mounts: frozenset[str]
    writable: tuple[str, ...]
    limited: bool


@dataclass(slots=True)
class Seen:
    """One container as last inspected: `base` is what that says alone, `instance` what was answered, given `told`."""

    environment: str
    summary: tuple[Any, ...]
    facts: Facts
    base: Instance
    instance: Instance
    told: Told | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """What others know of a container. `changed` are the paths changed by hand, `expected_image` the id of the image
    that it has to run, `host` the address of the engine's host in the private network, `cores` its use of cpu."""

    health: HealthState
    changed: str = ""
    expected_image: str | None = None
    host: str = ""
    warmth: Warmth | None = None
    cores: float | None = None


@dataclass(frozen=True, slots=True)
class Population:
    """All containers of ours in an environment: the instances by container id, leftovers, and mislabelled ones."""

    seen: dict[str, Seen]
    orphans: tuple[str, ...]
    mislabelled: tuple[Foreign, ...]


class Inspections:
    """The inspect results of one engine, kept while its events tell of every change."""

    def __init__(self, owned: Ownership) -> None:
        self._owned = owned
        self._lock = threading.Lock()
        self._seen: dict[str, Seen] = {}
        self._dirty: set[str] = set()
        self.exit_codes: dict[str, int] = {}
        self.trusted_since: datetime | None = None

    def doubt(self, container: str | None = None) -> None:
        """Inspect this container anew at the next look; all of them without a name. Ids and names are both known."""
        with self._lock:
            if container is None:
                self._seen.clear()
                self._dirty.clear()
            elif len(self._dirty) < 100_000:
                self._dirty.add(container)

    def ended(self, container: str, exit_code: int) -> None:
        """An event told how a container ended. After a crash of the engine its own memory of that is not reliable."""
        with self._lock:
            if len(self.exit_codes) > 10_000:
                self.exit_codes.clear()
            self.exit_codes[container] = exit_code

    def known(self, container: str) -> Seen | None:
        """What was last seen of a container, by id."""
        with self._lock:
            return self._seen.get(container)

    def population(self, environment: str, *, fresh: bool) -> Population:
        """One list call, and an inspect for each container that is new or may have changed (for all when `fresh`)."""
        orphans, mislabelled, wanted = _sorted_out(self._owned.listed(environment), names.proxy(environment))
        with self._lock:
            stale = [i for i, item in wanted.items() if fresh or self._is_stale(i, item)]
            for identity in stale:
                self._dirty -= {identity, _name(wanted[identity])}
        inspected = self._inspect(stale)
        seen = {}
        with self._lock:
            for identity, item in wanted.items():
                answer = inspected.get(identity)
                if answer is not None:
                    base, facts = read(answer, environment)
                    self._seen[identity] = Seen(environment, _fingerprint(item), facts, base, base)
                elif identity in stale:
                    self._seen.pop(identity, None)  # it went away in between
                if identity in self._seen:
                    seen[identity] = self._seen[identity]
            gone = [i for i, s in self._seen.items() if i not in wanted and s.environment == environment]
            for identity in gone:
                del self._seen[identity]
                self.exit_codes.pop(identity, None)
        return Population(seen, tuple(sorted(orphans)), tuple(mislabelled))

    def _is_stale(self, identity: str, item: Json) -> bool:
        seen = self._seen.get(identity)
        if seen is None or identity in self._dirty or _name(item) in self._dirty:
            return True
        return seen.summary != _fingerprint(item)

    def _inspect(self, identities: list[str]) -> dict[str, Json]:
        if len(identities) > 1:
            with ThreadPoolExecutor(min(INSPECTORS, len(identities)), "inspect") as pool:
                answers: Iterable[Json | None] = list(pool.map(self._owned.inspect, identities))
        else:
            answers = [self._owned.inspect(identity) for identity in identities]
        return {i: answer for i, answer in zip(identities, answers, strict=True) if answer is not None}

    def instance(self, identity: str, seen: Seen, told: Told) -> Instance:
        """The value for a container; the same object as before while nothing changed."""
        code = self._exit(identity, seen)
        if seen.told != told or seen.instance.exit_code != code:
            seen.instance = _told(seen.base, seen.facts, told, code)
            seen.told = told
        return seen.instance

    def _exit(self, identity: str, seen: Seen) -> int | None:
        """The exit code; unknown when only the engine's memory says 0 of an end that happened before we listened."""
        if seen.base.phase is not Phase.EXITED:
            return None
        if identity in self.exit_codes:
            return self.exit_codes[identity]
        code = seen.facts.exit_code
        finished = seen.base.finished_at
        listened = self.trusted_since is not None and finished is not None and finished >= self.trusted_since
        return code if code or listened else None


def _sorted_out(summaries: list[Json], proxy: str) -> tuple[list[str], list[Foreign], dict[str, Json]]:
    """Names of leftovers, what is labelled badly, and the instances by id. The container `proxy` is none of these."""
    taken = {_name(item) for item in summaries if derived_name(_labels(item)) == _name(item)}
    orphans, mislabelled, wanted = [], [], {}
    for item in summaries:
        labels, name = _labels(item), _name(item)
        derived = derived_name(labels)
        if labels.get(names.LABEL_ROLE) == ROLE_PROXY and name.startswith(proxy):
            continue  # also one that is just being replaced, with more behind its name
        if labels.get(names.LABEL_ROLE) == ROLE_FILLER:
            orphans.append(name)
        elif not derived:
            mislabelled.append(Foreign(name, Reason.DRIFT_UNLABELLED, "it carries only some of our labels"))
        elif name != derived and derived in taken:
            orphans.append(name)
        elif item.get("State") != "removing":
            taken.add(derived)
            wanted[str(item["Id"])] = item
    return orphans, mislabelled, wanted


def _labels(item: Json) -> dict[str, str]:
    return item.get("Labels") or {}


def _name(item: Json) -> str:
    """The container's own name; the other entries are links."""
    return next((n.lstrip("/") for n in item.get("Names") or () if n.count("/") == 1), "")


def _fingerprint(item: Json) -> tuple[Any, ...]:
    """What of a list entry changes when something happened; its texts about durations are left out."""
    status = _DURATION.match(str(item.get("Status", "")))
    joined = (item.get("NetworkSettings") or {}).get("Networks") or {}
    return (
        item.get("State"),
        _name(item),
        status.groups() if status else "",
        tuple(sorted((name, place.get("EndpointID")) for name, place in joined.items())),
    )


def _phase(state: Json) -> Phase:
    status, error = str(state.get("Status")), str(state.get("Error") or "").lower()
    if status == "created" and error and not any(words in error for words in PORT_TAKEN):
        return Phase.EXITED  # its program could not be run at all
    return _PHASES.get(status, Phase.EXITED)


def read(inspected: Json, environment: str) -> tuple[Instance, Facts]:
    """What an inspect result of one of our instances alone says."""
    return _instance(inspected, environment), _facts(inspected, environment)


def _instance(inspected: Json, environment: str) -> Instance:
    labels, state = inspected["Config"]["Labels"], inspected["State"]
    derived, phase = derived_name(labels), _phase(state)
    service = labels[names.LABEL_SERVICE]
    endpoint = endpoint_of(inspected, environment) or {}
    findable = service in (endpoint.get("Aliases") or ()) or inspected["HostConfig"].get("NetworkMode") == "host"
    return Instance(
        id=inspected["Id"],
        name=derived,
        service=service,
        version=labels[names.LABEL_VERSION],
        revision=labels.get(names.LABEL_REVISION, ""),
        ordinal=int(labels[names.LABEL_ORDINAL]),
        image=labels.get(names.LABEL_IMAGE, inspected["Config"].get("Image", "")),
        phase=phase,
        created_at=moment(inspected.get("Created")) or datetime.fromtimestamp(0, UTC),
        started_at=moment(state.get("StartedAt")),
        finished_at=moment(state.get("FinishedAt")),
        serving=findable and phase in (Phase.RUNNING, Phase.PAUSED),
        oom_killed=bool(state.get("OOMKilled")),
        differences=docker_projection.differences(inspected, derived, names.network(environment)),
    )


def _facts(inspected: Json, environment: str) -> Facts:
    host, settings = inspected["HostConfig"], inspected.get("NetworkSettings") or {}
    shape = docker_projection.asked(inspected["Config"]["Labels"]) or {}
    published = {
        port: tuple(
            (item.get("HostIp") or "", int(item["HostPort"])) for item in bindings or () if item.get("HostPort")
        )
        for port, bindings in (settings.get("Ports") or {}).items()
    }
    return Facts(
        image_id=inspected["Image"],
        exit_code=int(inspected["State"].get("ExitCode") or 0),
        error=" ".join(str(inspected["State"].get("Error") or "").split())[:300],
        address=str((endpoint_of(inspected, environment) or {}).get("IPAddress") or ""),
        host_network=host.get("NetworkMode") == "host",
        published={port: places for port, places in published.items() if places},
        mounts=frozenset([*(m["Destination"] for m in inspected.get("Mounts") or ()), *(host.get("Tmpfs") or ())]),
        writable=tuple(str(path) for path in shape.get("writable_paths") or ()),
        limited=bool(host.get("Memory")),
    )


def _told(base: Instance, facts: Facts, told: Told, code: int | None) -> Instance:
    differences = list(base.differences)
    wrong = any(d.reason is Reason.DRIFT_WRONG_IMAGE for d in differences)
    if told.expected_image is not None and told.expected_image != facts.image_id and not wrong:
        detail = f"image id: {told.expected_image} -> {facts.image_id}"
        differences.append(Difference(Reason.DRIFT_WRONG_IMAGE, detail))
    if told.changed:
        differences.append(Difference(Reason.DRIFT_FILESYSTEM, told.changed))
    running = base.phase is Phase.RUNNING
    there = base.phase in (Phase.RUNNING, Phase.PAUSED)
    return replace(
        base,
        health=told.health.status if running else HealthStatus.STARTING,
        exit_code=code,
        differences=tuple(differences),
        detail=told.health.detail if running else _end(base, facts, code),
        address=(told.host if facts.host_network else facts.address) if there else "",
        warmth=told.warmth if running else None,
        cpu=told.cores if running else None,
    )


def _end(base: Instance, facts: Facts, code: int | None) -> str:
    """How it ended, in words."""
    if base.phase is not Phase.EXITED:
        return facts.error
    if base.oom_killed:
        return "it was killed because it used more memory than its limit"
    if facts.error:
        return f"its program could not be started: {facts.error}"
    if code is None:
        return "it ended; its exit code is not known"
    # An engine that hears of the end before it hears of the memory never says that it was the memory.
    doubt = (
        " (killed: by hand, or because it used more memory than its limit)" if code == KILLED and facts.limited else ""
    )
    return f"it ended with exit code {code}{doubt}"


def foreigners(owned: Ownership, environment: str) -> tuple[Foreign, ...]:
    """What is not ours but has one of our names or sits in our private network."""
    network = names.network(environment)
    prefix = f"{names.PREFIX}.{environment}."
    found: dict[str, Foreign] = {}
    look: Callable[..., list[Any]] = owned.connection.client().containers
    with engine_errors(owned.connection.where):
        inside = look(all=True, filters={"network": [network]})
        named = look(all=True, filters={"name": ["^/?" + re.escape(prefix)]})
    for item in inside:
        if not owned.owns(_labels(item), environment):
            detail = f"it is in the private network {network} without our labels"
            found[item["Id"]] = Foreign(_name(item), Reason.DRIFT_UNLABELLED, detail)
    for item in named:
        if not owned.owns(_labels(item), environment) and _name(item).startswith(prefix):
            found[item["Id"]] = Foreign(_name(item), Reason.NAME_TAKEN, "it has one of our names without our labels")
    standing = owned.network(environment)
    if standing is not None and not owned.owns(standing.get("Labels"), environment):
        found[network] = Foreign(network, Reason.NAME_TAKEN, "a network that is not ours has the name of ours")
    return tuple(sorted(found.values(), key=lambda item: item.name))


def lone_volumes(owned: Ownership, environment: str, instances: Iterable[str], busy: Iterable[str]) -> tuple[str, ...]:
    """File volumes whose instance does not exist and is not just being made. Those of services belong to none."""
    there = {*instances, *busy}
    made = [v["Name"] for v in owned.volumes(environment) if _labels(v).get(names.LABEL_ROLE) != ROLE_VOLUME]
    return tuple(sorted(name for name in made if instance_of(name) not in there))

"""What can be done: effects on the engine and transitions in the journal. Values only.

Each effect is idempotent by its derived name. None of them blocks for long: a pull is asked for and observed,
a stop is a signal whose effect is observed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from reconciler.core.delivery import WarmUp
from reconciler.core.live import ServerMode
from reconciler.core.model import ServiceSpec
from reconciler.core.record import VersionRef, What


@dataclass(frozen=True, slots=True)
class EnsureNetwork:
    """Make the private network of the environment."""

    environment: str


@dataclass(frozen=True, slots=True)
class PullImage:
    """Ask the engine to fetch `repository@digest`; returns at once, the outcome is observed."""

    image: str


@dataclass(frozen=True, slots=True)
class CreateInstance:
    """Create, but do not start, the instance `name`."""

    name: str
    environment: str
    spec: ServiceSpec = field(repr=False)
    version: str
    revision: str
    ordinal: int


@dataclass(frozen=True, slots=True)
class StartInstance:
    """Start a created or kept instance."""

    name: str


@dataclass(frozen=True, slots=True)
class AttachTraffic:
    """Let the instance be found under its service's name."""

    name: str
    service: str


@dataclass(frozen=True, slots=True)
class DetachTraffic:
    """No new requests: the instance can no longer be found under its service's name."""

    name: str
    service: str


@dataclass(frozen=True, slots=True)
class TerminateInstance:
    """Send SIGTERM. `keep`: the stopped instance stays as the way back until the new one is healthy."""

    name: str
    keep: bool = False


@dataclass(frozen=True, slots=True)
class KillInstance:
    """Send SIGKILL: the grace ran out."""

    name: str


@dataclass(frozen=True, slots=True)
class RemoveInstance:
    """Remove the instance and what was made for it."""

    name: str


@dataclass(frozen=True, slots=True)
class SweepOrphan:
    """Remove a leftover of ours that belongs to no instance."""

    name: str


@dataclass(frozen=True, slots=True)
class WarmInstance:
    """Begin to warm up an instance at its `port`; returns at once, the outcome is observed.

    `beside`: an instance of the stable version that gets the same requests, for comparison; "" for none.
    """

    name: str
    port: int
    warm_up: WarmUp = field(repr=False)
    beside: str = ""


@dataclass(frozen=True, slots=True)
class EnsureProxy:
    """Have the environment's proxies run this configuration, whose digest is `config`: with a hitless reload."""

    environment: str
    config: str
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Share:
    """How the proxies shall treat the instance `name` at `address`:`port`: `weight` is 0..256."""

    name: str
    address: str
    port: int
    mode: ServerMode
    weight: int


@dataclass(frozen=True, slots=True)
class ShiftTraffic:
    """Make `shares` the whole table of the backend `name`: what is not in it gets no traffic and loses its place.

    READY ones are brought up first; nothing is taken from the others before all of these are up in every proxy.
    `stage`: the stage of a rollout that is reached by it.
    """

    name: str
    service: str
    shares: tuple[Share, ...]
    stage: int | None = None


@dataclass(frozen=True, slots=True)
class CutSessions:
    """Cut what still goes on at an instance that is out of traffic: its last deadline has passed.

    `sessions`: how many were seen, for the record.
    """

    name: str
    backend: str
    address: str
    port: int
    sessions: int


@dataclass(frozen=True, slots=True)
class FreePlace:
    """Take an address that belongs to no instance out of a backend: the engine may give it to another one."""

    name: str
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class EnsureGroup:
    """Declare the group `name` to an engine with controllers of its own: this version, so many instances.

    With it comes all that its instances need: files, secrets, budgets for disruption, an autoscaler. `replicas` None:
    an autoscaler owns the number; `first`: how many to begin with where the group is new. `operated`: the digest by
    which it is recognised. Fields that somebody else changed are taken back.
    """

    name: str
    environment: str
    spec: ServiceSpec = field(repr=False)
    version: str
    revision: str
    replicas: int | None
    first: int
    operated: str


@dataclass(frozen=True, slots=True)
class RemoveGroup:
    """Remove a group and what was made for it; the engine lets its instances go with their grace."""

    name: str
    environment: str


@dataclass(frozen=True, slots=True)
class PruneGroup:
    """Remove what only versions of a bundle before `version` had: the `objects` that its group has as leftovers."""

    name: str
    environment: str
    version: str
    objects: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GroupShare:
    """The share of the requests that the group `name`, whose version is `version`, shall get: `weight` is 0..100."""

    name: str
    version: str
    weight: int


@dataclass(frozen=True, slots=True)
class RouteGroups:
    """Lead the requests of a service to its groups by these shares, and by no others.

    With `mixed` every instance of the service is as good as any other: the engine gives each the same. `preview`: the
    group that the preview address shows, "" for none. `stage`: the stage of a rollout that is reached by it.
    """

    name: str
    environment: str
    spec: ServiceSpec = field(repr=False)
    shares: tuple[GroupShare, ...]
    mixed: bool
    operated: str
    preview: str = ""
    stage: int | None = None


@dataclass(frozen=True, slots=True)
class RemoveRoute:
    """No requests reach the service `name` any more: its address goes."""

    name: str
    environment: str


GroupEffect = EnsureGroup | PruneGroup | RemoveGroup | RouteGroups | RemoveRoute
RuntimeEffect = (
    GroupEffect
    | EnsureNetwork
    | PullImage
    | CreateInstance
    | StartInstance
    | AttachTraffic
    | DetachTraffic
    | TerminateInstance
    | KillInstance
    | RemoveInstance
    | SweepOrphan
    | WarmInstance
)
TrafficEffect = EnsureProxy | ShiftTraffic | CutSessions | FreePlace
Effect = RuntimeEffect | TrafficEffect


@dataclass(frozen=True, slots=True)
class Transition:
    """A decision that is only recorded.

    `evidence_of`: the instance whose last log lines are added to the record. `since`: when what ends here began.
    """

    what: What
    details: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    evidence_of: str | None = None
    from_version: VersionRef | None = None
    to_version: VersionRef | None = None
    since: datetime | None = None


Step = Effect | Transition

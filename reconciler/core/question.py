"""What a plan is a function of: the wishes, the live state, the memory, and how things stand around them. Values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from reconciler.core.errors import Reason
from reconciler.core.freeze import Held
from reconciler.core.gate import GateFinding
from reconciler.core.live import LiveState
from reconciler.core.memory import EnvironmentMemory
from reconciler.core.model import Revision, Target
from reconciler.core.scaling import Decision


@dataclass(frozen=True, slots=True)
class Wish:
    """What shall become of one service.

    `desired` is the target by Git (None: removed, or held because nothing usable is known), `fallback` the stable
    version to return to. `held`: leave the service as it is, for the reason and message given; with `waits` the
    stable version is kept up meanwhile.
    """

    name: str
    desired: Target | None = None
    fallback: Target | None = None
    suspended: str = ""
    held: Reason | None = None
    message: str = ""
    waits: bool = False


@dataclass(frozen=True, slots=True)
class ProxyWish:
    """The configuration that the environment's proxies shall run; `config` is its digest, "" for an operator's own
    proxies, which take what they need from `text` themselves."""

    config: str
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Native:
    """The engine has controllers of its own, which keep groups of instances up and replace them.

    `gateway`: it can split the requests of services with a route exactly; else only by whole groups or by the numbers
    of their instances.
    """

    gateway: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """All that a plan is a function of.

    `able_since`: by service, since when this daemon can do something about it; before that nothing could progress.
    `up_since` is the same for those not named there. `front` is how the proxies shall be set up, `changes_held` why no
    new version may begin. `findings` are what the gates say of candidates, `demands` how many instances are asked for.
    `native` is set where the engine replaces instances by itself.
    """

    environment: str
    revision: Revision | None
    wishes: Mapping[str, Wish]
    live: LiveState
    memory: EnvironmentMemory
    now: datetime
    removals_held: tuple[Reason, str] | None = None
    up_since: datetime | None = None
    able_since: Mapping[str, datetime] = field(default_factory=dict)
    front: ProxyWish | None = None
    changes_held: Held | None = None
    findings: Mapping[str, GateFinding] = field(default_factory=dict)
    demands: Mapping[str, Decision] = field(default_factory=dict)
    native: Native | None = None

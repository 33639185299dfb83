"""Steps, versions and spans of time in words, for a screen. Values in, text out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from reconciler.core.kubernetes_identity import identity_of
from reconciler.core.record import VersionRef
from reconciler.core.steps import (
    AttachTraffic,
    CreateInstance,
    CutSessions,
    DetachTraffic,
    Effect,
    EnsureGroup,
    EnsureNetwork,
    EnsureProxy,
    FreePlace,
    KillInstance,
    PruneGroup,
    PullImage,
    RemoveGroup,
    RemoveInstance,
    RemoveRoute,
    RouteGroups,
    ShiftTraffic,
    StartInstance,
    Step,
    SweepOrphan,
    TerminateInstance,
    Transition,
    WarmInstance,
)
from reconciler.core.traffic import described

NAMED = 5
"""So many of the objects that an effect removes are named."""

EFFECTS: Mapping[type[Effect], str] = {
    EnsureNetwork: "make the private network of {0.environment}",
    PullImage: "pull {0.image}",
    CreateInstance: "create {0.name} from {0.spec.image}",
    StartInstance: "start {0.name}",
    WarmInstance: "warm up {0.name}",
    AttachTraffic: "give traffic of {0.service} to {0.name}",
    DetachTraffic: "take traffic of {0.service} from {0.name}",
    TerminateInstance: "stop {0.name}",
    KillInstance: "kill {0.name}: its grace ran out",
    RemoveInstance: "remove {0.name}",
    SweepOrphan: "remove the leftover {0.name}",
    EnsureProxy: "have the proxies of {0.environment} run the configuration {0.config:.12}",
    ShiftTraffic: "shift the traffic of {0.name}",
    CutSessions: "cut the last {0.sessions} requests at {0.name}",
    EnsureGroup: "declare {0.name} from {0.spec.image}",
    PruneGroup: "remove what older versions of {0.name} left",
    RemoveGroup: "remove {0.name}",
    RouteGroups: "lead the requests of {0.name}",
    RemoveRoute: "take away the address of {0.name}",
    FreePlace: "free the place of {0.address}:{0.port} in {0.name}",
}


def describe(step: Step) -> str:
    """One step in words."""
    if isinstance(step, Transition):
        return f"record {step.what.value}" + (f": {step.reason}" if step.reason else "")
    words = EFFECTS[type(step)].format(step)
    match step:
        case EnsureGroup() if step.spec.bundle is not None:
            objects = count(len(step.spec.bundle.objects), "object")
            return f"apply {step.name} from {step.spec.bundle.source}: {objects}"
        case PruneGroup(objects=objects) if objects:
            shown = [about.shown for text in objects[:NAMED] if (about := identity_of(text)) is not None]
            more = f" and {len(objects) - NAMED} more" if len(objects) > NAMED else ""
            return f"{words}: {', '.join(shown)}{more}"
        case TerminateInstance(keep=True):
            return f"{words} and keep it as the way back"
        case RouteGroups():
            given = ", ".join(f"{share.name} {share.weight} %" for share in step.shares if share.weight)
            return f"{words}: {'all alike' if step.mixed else given}"
        case ShiftTraffic():
            table = ", ".join(f"{name} {said}" for name, said in described(step.shares).items())
            return f"{words}: {table or 'nobody'}"
        case _:
            return words


def image(version: VersionRef) -> str:
    """The image of a version, short: the last part of its repository and the first 12 digits of the digest."""
    repository, _, digest = version.image.partition("@sha256:")
    return f"{repository.rpartition('/')[2]}@{digest[:12]}"


def ago(span: timedelta) -> str:
    """How long, in the largest fitting unit."""
    seconds = max(int(span.total_seconds()), 0)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def clock(at: datetime, now: datetime) -> str:
    """A time near `now`, in UTC; with its day where that is another one."""
    at, now = at.astimezone(UTC), now.astimezone(UTC)
    return f"{at:%H:%M:%S} UTC" if at.date() == now.date() else f"{at:%Y-%m-%d %H:%M:%S} UTC"


def count(number: int, noun: str) -> str:
    """So many of them."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"

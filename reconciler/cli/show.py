"""How an environment looks on a screen: values in, Rich renderables out. Reads nothing and decides nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from reconciler.cli.common import safe
from reconciler.core.live import HealthStatus, Instance, Phase
from reconciler.core.memory import EnvironmentMemory
from reconciler.core.names import short
from reconciler.core.record import VersionRef
from reconciler.core.status import EnvironmentStatus, ServiceHealth, ServicePlan, Sync
from reconciler.core.steps import (
    AttachTraffic,
    CreateInstance,
    DetachTraffic,
    Effect,
    EnsureNetwork,
    KillInstance,
    PullImage,
    RemoveInstance,
    StartInstance,
    Step,
    SweepOrphan,
    TerminateInstance,
    Transition,
)

_HEALTH_STYLES = {
    ServiceHealth.HEALTHY: "green",
    ServiceHealth.PROGRESSING: "cyan",
    ServiceHealth.DEGRADED: "bold red",
    ServiceHealth.SUSPENDED: "yellow",
    ServiceHealth.UNKNOWN: "yellow",
}
_SYNC_STYLES = {Sync.SYNCED: "green", Sync.OUT_OF_SYNC: "yellow"}


def statuses(
    found: Mapping[str, EnvironmentStatus], memories: Mapping[str, EnvironmentMemory], now: datetime
) -> RenderableType:
    """A table of all services of the environments, and below it what is wrong with whole environments."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("service", "sync", "health", "version", "image", "instances", "since", "reason"):
        table.add_column(head, no_wrap=head in ("sync", "health", "instances", "since"), overflow="fold")
    for environment, status in sorted(found.items()):
        memory = memories.get(environment, EnvironmentMemory())
        for name, plan in sorted(status.plan.services.items() if status.plan else ()):
            known = memory.services.get(name)
            since = known.promoted_at if known is not None else None
            table.add_row(
                safe(f"{environment}/{name}"),
                Text(plan.sync.value, _SYNC_STYLES[plan.sync]),
                Text(plan.health.value, _HEALTH_STYLES[plan.health]),
                *_version_cells(plan),
                _instances(plan),
                ago(now - since) if since is not None else "-",
                safe(reason(plan)),
            )
    notes = [note for environment, status in sorted(found.items()) for note in environment_notes(status)]
    return Group(table, *notes) if table.row_count else Group(*(notes or [Text("no services")]))


def environment_notes(status: EnvironmentStatus) -> Iterator[Text]:
    """What concerns the environment as a whole: rejected revisions, trouble, files that are not usable."""
    if status.rejected:
        yield safe(
            f"{status.environment}: revision {status.rejected[:12]} is rejected; the last good one stays", "yellow"
        )
    if status.reason is not None:
        yield safe(f"{status.environment}: {status.reason}: {status.message}", "bold red")
    for service, problems in sorted(status.problems.items()):
        for problem in problems:
            place = f"{status.environment}/{service}" if service else status.environment
            yield safe(f"{place}: {problem}", "red")


def planned(status: EnvironmentStatus) -> RenderableType:
    """What would happen in one environment, service by service, and why."""
    plan = status.plan
    if plan is None:
        return Group(safe(f"{status.environment}: no plan can be made", "bold"), *environment_notes(status))
    lines: list[Text] = [_heading(status)]
    lines.extend(Text("  + ") + safe(describe(step)) for step in plan.steps)
    for _, service in sorted(plan.services.items()):
        lines.extend(_service_lines(service))
    if not plan.services:
        lines.append(Text("  no services"))
    lines.extend(environment_notes(status))
    return Group(*lines)


def _heading(status: EnvironmentStatus) -> Text:
    plan = status.plan
    assert plan is not None
    heading = safe(status.environment, "bold")
    if plan.revision is not None:
        heading.append_text(safe(f" at {plan.revision.sha[:12]} by {plan.revision.author}: {plan.revision.subject}"))
    verdict, style = ("in sync", "green") if plan.in_sync else ("changes", "yellow")
    return heading.append(" (").append(verdict, style).append(")")


def _service_lines(plan: ServicePlan) -> Iterator[Text]:
    line = Text("  ") + safe(plan.service, "bold") + Text("  ")
    line.append(plan.sync.value, _SYNC_STYLES[plan.sync]).append("  ")
    line.append(plan.health.value, _HEALTH_STYLES[plan.health])
    before = short(plan.stable.version) if plan.stable is not None else "nothing"
    if plan.desired is not None and before != short(plan.desired.version):
        line.append_text(safe(f"  {before} -> {short(plan.desired.version)} ({image(plan.desired)})"))
    yield line
    if plan.reason or plan.message:
        yield Text("    why: ") + safe(reason(plan))
    for step in plan.steps:
        yield Text("    + ") + safe(describe(step))
    if plan.waiting:
        yield Text("    waits for ") + safe(plan.waiting)


EFFECTS: Mapping[type[Effect], str] = {
    EnsureNetwork: "make the private network of {0.environment}",
    PullImage: "pull {0.image}",
    CreateInstance: "create {0.name} from {0.spec.image}",
    StartInstance: "start {0.name}",
    AttachTraffic: "give traffic of {0.service} to {0.name}",
    DetachTraffic: "take traffic of {0.service} from {0.name}",
    TerminateInstance: "stop {0.name}",
    KillInstance: "kill {0.name}: its grace ran out",
    RemoveInstance: "remove {0.name}",
    SweepOrphan: "remove the leftover {0.name}",
}


def describe(step: Step) -> str:
    """One step in words."""
    if isinstance(step, Transition):
        return f"record {step.what.value}" + (f": {step.reason}" if step.reason else "")
    words = EFFECTS[type(step)].format(step)
    return f"{words} and keep it as the way back" if isinstance(step, TerminateInstance) and step.keep else words


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


def _version_cells(plan: ServicePlan) -> tuple[Text, Text]:
    """The stable version and its image; during a rollout also the version that comes."""
    now, coming = plan.stable or plan.desired, plan.desired
    if now is None:
        return Text("-"), Text("-")
    version, shown = short(now.version), image(now)
    if coming is not None and coming.version != now.version:
        version, shown = f"{version} -> {short(coming.version)}", image(coming)
    return safe(version), safe(shown)


def _instances(plan: ServicePlan) -> str:
    return f"{sum(_is_healthy(instance) for instance in plan.instances)}/{plan.replicas}"


def _is_healthy(instance: Instance) -> bool:
    return instance.phase is Phase.RUNNING and instance.health is HealthStatus.HEALTHY


def reason(plan: ServicePlan) -> str:
    """Why a service is as it is, or what it waits for; empty when there is nothing to say."""
    told = ": ".join(part for part in (plan.reason or "", plan.message) if part)
    if told:
        return told
    return f"waits for {plan.waiting}" if plan.waiting else ""

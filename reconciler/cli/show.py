"""How an environment looks on a screen: values in, Rich renderables out. Reads nothing and decides nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import assert_never

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
        table.add_column(head, no_wrap=head != "reason")
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
                safe(_reason(plan)),
            )
    notes = [note for environment, status in sorted(found.items()) for note in environment_notes(status)]
    return Group(table, *notes) if table.row_count else Group(*(notes or [Text("no services")]))


def environment_notes(status: EnvironmentStatus) -> Iterator[Text]:
    """What concerns the environment as a whole: rejected revisions, trouble, files that are not usable."""
    if status.rejected:
        yield safe(f"{status.environment}: revision {status.rejected[:12]} is rejected; the last good one stays", "yellow")
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
    if plan.desired is not None and plan.desired != plan.stable:
        before = short(plan.stable.version) if plan.stable is not None else "nothing"
        line.append_text(safe(f"  {before} -> {short(plan.desired.version)} ({image(plan.desired)})"))
    yield line
    if _reason(plan):
        yield Text("    why: ") + safe(_reason(plan))
    for step in plan.steps:
        yield Text("    + ") + safe(describe(step))
    if plan.waiting:
        yield Text("    waits for ") + safe(plan.waiting)


def describe(step: Step) -> str:
    """One step in words."""
    match step:
        case EnsureNetwork():
            return f"make the private network of {step.environment}"
        case PullImage():
            return f"pull {step.image}"
        case CreateInstance():
            return f"create {step.name} from {step.spec.image}"
        case StartInstance():
            return f"start {step.name}"
        case AttachTraffic():
            return f"give traffic of {step.service} to {step.name}"
        case DetachTraffic():
            return f"take traffic of {step.service} from {step.name}"
        case TerminateInstance():
            return f"stop {step.name}" + (" and keep it as the way back" if step.keep else "")
        case KillInstance():
            return f"kill {step.name}: its grace ran out"
        case RemoveInstance():
            return f"remove {step.name}"
        case SweepOrphan():
            return f"remove the leftover {step.name}"
        case Transition():
            return f"record {step.what.value}" + (f": {step.reason}" if step.reason else "")
        case _:
            assert_never(step)


def image(version: VersionRef) -> str:
    """The image of a version, short: its repository and the first 12 digits of the digest."""
    repository, _, digest = version.image.partition("@sha256:")
    return f"{repository}@{digest[:12]}" if digest else repository


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


def _reason(plan: ServicePlan) -> str:
    told = ": ".join(part for part in (plan.reason or "", plan.message) if part)
    return told or plan.waiting and f"waits for {plan.waiting}"

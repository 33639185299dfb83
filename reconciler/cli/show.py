"""How an environment looks on a screen: values in, Rich renderables out. Reads nothing and decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text

from reconciler.cli import progress
from reconciler.cli.common import safe
from reconciler.cli.words import ago, describe, image
from reconciler.core.errors import Reason
from reconciler.core.live import HealthStatus, Instance, Phase
from reconciler.core.memory import EnvironmentMemory
from reconciler.core.names import short
from reconciler.core.status import EnvironmentStatus, ServiceHealth, ServicePlan, Sync

HEADS = ("service", "sync", "health", "version", "instances", "since", "image")
GAP = "  "
INDENT = 4
SHORTEST_NAME = 16
PLAN_WIDTH = 80

_HEALTH_STYLES = {
    ServiceHealth.HEALTHY: "green",
    ServiceHealth.PROGRESSING: "cyan",
    ServiceHealth.DEGRADED: "bold red",
    ServiceHealth.SUSPENDED: "yellow",
    ServiceHealth.UNKNOWN: "yellow",
}
_SYNC_STYLES = {Sync.SYNCED: "green", Sync.OUT_OF_SYNC: "yellow"}


@dataclass(frozen=True, slots=True)
class Row:
    """One service: its cells, in the order of HEADS, and what is said below for a given width."""

    cells: Sequence[Text]
    below: Callable[[int], Iterator[Text]]


@dataclass(frozen=True, slots=True)
class Services:
    """A table of services whose rows may have lines of the full width below them, which no table of Rich has.

    The image is shown where there is room for it; a name that is too long gets a line of its own.
    """

    rows: Sequence[Row]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The lines for the width that there is."""
        heads = Row([Text(head, "bold") for head in HEADS], lambda _: iter(()))
        widths = [max(len(row.cells[i]) for row in [heads, *self.rows]) for i in range(len(HEADS))]
        shown = len(HEADS)
        if sum(widths) + len(GAP) * (shown - 1) > options.max_width:
            shown -= 1
        others = sum(widths[1:shown]) + len(GAP) * (shown - 1)
        widths[0] = min(widths[0], max(options.max_width - others, SHORTEST_NAME))
        for row in [heads, *self.rows]:
            name, *rest = row.cells[:shown]
            if len(name) > widths[0]:
                yield name
                name = Text("")
            yield _line([name, *rest], widths)
            for line in row.below(options.max_width - INDENT):
                yield Indented(line)


@dataclass(frozen=True, slots=True)
class Indented:
    """A line with `by` spaces before it; where it has to be broken, before each part."""

    line: Text
    by: int = 4

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The parts for the width that there is."""
        for part in self.line.wrap(console, max(options.max_width - self.by, 1)):
            part.rstrip()
            yield Text(" " * self.by) + part


def _line(cells: Sequence[Text], widths: Sequence[int]) -> Text:
    line = Text()
    for cell, width in zip(cells, widths, strict=False):
        line.append_text(cell).append(" " * (width - len(cell)) + GAP)
    line.rstrip()
    return line


def statuses(
    found: Mapping[str, EnvironmentStatus],
    memories: Mapping[str, EnvironmentMemory],
    now: datetime,
    *,
    instances: bool = False,
) -> RenderableType:
    """A table of all services of the environments, and below it what is wrong with whole environments."""
    rows = []
    for environment, status in sorted(found.items()):
        memory = memories.get(environment, EnvironmentMemory())
        for name, plan in sorted(status.plan.services.items() if status.plan else ()):
            known = memory.services.get(name)
            since = known.promoted_at if known is not None else None
            rows.append(_row(f"{environment}/{name}", plan, since, now, instances=instances))
    notes = [note for environment, status in sorted(found.items()) for note in environment_notes(status)]
    return Group(Services(rows), *notes) if rows else Group(*(notes or [Text("no services")]))


def _row(place: str, plan: ServicePlan, since: datetime | None, now: datetime, *, instances: bool) -> Row:
    version = plan.stable or plan.desired

    def below(width: int) -> Iterator[Text]:
        yield from _under(plan, place, now, width)
        if instances:
            yield from map(progress.instance_line, plan.instances)

    cells = [
        safe(place),
        Text(plan.sync.value, _SYNC_STYLES[plan.sync]),
        Text(plan.health.value, _HEALTH_STYLES[plan.health]),
        safe(short(version.version)) if version is not None else Text("-"),
        Text(_instances(plan)),
        Text(ago(now - since) if since is not None else "-"),
        safe(image(version)) if version is not None else Text("-"),
    ]
    return Row(cells, below)


def _under(plan: ServicePlan, place: str, now: datetime, width: int) -> Iterator[Text]:
    """What is said of a service below its row: what comes, how far it is, and why it is as it is."""
    if plan.desired is not None and plan.stable is not None and plan.desired.version != plan.stable.version:
        yield safe(f"-> {short(plan.desired.version)} ({image(plan.desired)})")
    yield from progress.lines(plan, place, now, width)
    yield from _reasons(plan, now)


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
    lines: list[RenderableType] = [_heading(status)]
    lines.extend(Indented(Text("+ ") + safe(describe(step)), 2) for step in plan.steps)
    for name, service in sorted(plan.services.items()):
        lines.append(Indented(_service_line(service), 2))
        lines.extend(Indented(line) for line in _service_lines(service, f"{status.environment}/{name}", status.at))
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


def _service_line(plan: ServicePlan) -> Text:
    line = safe(plan.service, "bold") + Text("  ")
    line.append(plan.sync.value, _SYNC_STYLES[plan.sync]).append("  ")
    line.append(plan.health.value, _HEALTH_STYLES[plan.health])
    before = short(plan.stable.version) if plan.stable is not None else "nothing"
    if plan.desired is not None and before != short(plan.desired.version):
        line.append_text(safe(f"  {before} -> {short(plan.desired.version)} ({image(plan.desired)})"))
    return line


def _service_lines(plan: ServicePlan, place: str, now: datetime) -> Iterator[Text]:
    yield from progress.lines(plan, place, now, PLAN_WIDTH - INDENT)
    if plan.progress is not None and plan.sync is not Sync.SYNCED:
        yield from map(progress.instance_line, plan.instances)
    yield from _reasons(plan, now)
    yield from (Text("+ ") + safe(describe(step)) for step in plan.steps)


def _instances(plan: ServicePlan) -> str:
    """How many are healthy of how many; those that are only kept for a return do not count. "-": none are to be."""
    scale = plan.progress.scale if plan.progress is not None else None
    if not plan.replicas and not plan.instances and scale is None:
        return "-"
    limits = f" ({scale.minimum}-{scale.maximum})" if scale is not None else ""
    kept = {each.name for each in plan.progress.kept} if plan.progress is not None else set()
    healthy = sum(_is_healthy(instance) and instance.name not in kept for instance in plan.instances)
    return f"{healthy}/{plan.replicas}{limits}"


def _is_healthy(instance: Instance) -> bool:
    return instance.phase is Phase.RUNNING and instance.health is HealthStatus.HEALTHY


def reason(plan: ServicePlan) -> str:
    """Why a service is as it is, or what it waits for; empty when there is nothing to say."""
    return _why(plan) or (f"waits for {waits}" if (waits := _waits(plan)) else "")


def _reasons(plan: ServicePlan, now: datetime) -> Iterator[Text]:
    if why := _why(plan):
        yield Text("why: ") + safe(why)
    if waits := _waits(plan):
        again = f"; looks again in {ago(plan.recheck_at - now)}" if plan.recheck_at is not None else ""
        yield Text("waits for ") + safe(waits) + Text(again)


def _why(plan: ServicePlan) -> str:
    """The reason; not that of a pause, which the stage tells."""
    stage = plan.progress.stage if plan.progress is not None else None
    if plan.reason is Reason.PAUSED and stage is not None and stage.paused:
        return ""
    return ": ".join(part for part in (plan.reason or "", plan.message) if part)


def _waits(plan: ServicePlan) -> str:
    """What is waited for; not soak, gate and person, which the stage tells."""
    stage = plan.progress.stage if plan.progress is not None else None
    return "" if stage is not None and stage.since is not None else plan.waiting

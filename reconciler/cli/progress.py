"""How a release and its traffic look on a screen: values in, lines out. Reads nothing and decides nothing.

Bars are plain characters, so that they read the same in a log and on any terminal; colours only come on top.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import groupby

from rich.text import Text

from reconciler.cli.common import safe
from reconciler.cli.words import ago, clock, count
from reconciler.core.analysis import Verdict
from reconciler.core.delivery import Strategy
from reconciler.core.live import Instance, Server, ServerMode, Warmth, WarmthStatus
from reconciler.core.names import short
from reconciler.core.status import Progress, ServicePlan, StageProgress, VersionTraffic

SHORTEST_BAR, LONGEST_BAR = 12, 40
_STRATEGIES = {Strategy.BLUE_GREEN: "blue-green"}
_MARKS = (("=", "green"), ("#", "cyan"), (":", "yellow"))
"""A character and a colour for the stable version, the one that comes, and all others."""
_VERDICTS = {Verdict.PASS: "green", Verdict.HOLD: "yellow", Verdict.FAIL: "bold red"}


def lines(plan: ServicePlan, place: str, now: datetime, width: int) -> Iterator[Text]:
    """What there is to say of the service at `place` (ENVIRONMENT/SERVICE), no wider than `width` where that can be."""
    progress = plan.progress
    if progress is None:
        return
    if said := _under_way(progress, place, now):
        yield safe(said)
    if said or len(progress.split) > 1:
        yield from _bar(plan, progress.split, width)
    if progress.stage is not None and progress.stage.gated and progress.stage.since is not None:
        yield _gate(progress.stage)
    if progress.queued:
        yield Text(f"{count(progress.queued, 'request')} kept at the proxy until an instance is up", "yellow")
    for (version, until), kept in groupby(progress.kept, lambda each: (each.version, each.until)):
        names = count(len(list(kept)), "instance")
        yield safe(f"{names} of {short(version)} kept for an instant return until {clock(until, now)}")


def brief(plan: ServicePlan) -> str:
    """Stage and split in a few words, without times and figures that change all the time; "" with nothing to say."""
    progress = plan.progress
    if progress is None:
        return ""
    head = ""
    if progress.stage is not None:
        head = _stage(progress) + (", paused" if progress.stage.paused else "")
    shares = [f"{short(each.version)} {_percent(each.share)}" for each in progress.split]
    return "; ".join(part for part in (head, ", ".join(shares) if len(shares) > 1 else "") if part)


def instance_line(instance: Instance) -> Text:
    """One instance: what the engine says of it, its place in the proxies, its warm-up."""
    parts = [f"{instance.phase} {instance.health}" if instance.phase == "running" else str(instance.phase)]
    if instance.server is not None:
        parts.append(_place(instance.server))
    if instance.warmth is not None:
        parts.append(_warmth(instance.warmth))
    if instance.detail:
        parts.append(instance.detail)
    return safe(f"{instance.name}  {', '.join(parts)}")


def _under_way(progress: Progress, place: str, now: datetime) -> str:
    strategy = _STRATEGIES.get(progress.strategy, str(progress.strategy))
    stage = progress.stage
    if stage is None:
        if progress.returning is not None:
            return f"going back to the stable version for {ago(now - progress.returning)}"
        return f"{strategy}, under way for {ago(now - progress.started_at)}" if progress.started_at else ""
    head = _stage(progress)
    if stage.since is None:
        return f"{head}: its instances are on their way"
    head += f" for {ago(now - stage.since)}"
    if stage.paused:
        return f"{head}, paused: `reconciler promote {place}` goes on"
    if stage.until is not None and stage.until > now:
        return f"{head}, soaks {ago(stage.until - now)} more (until {clock(stage.until, now)})"
    return f"{head}, the soak is over"


def _stage(progress: Progress) -> str:
    stage = progress.stage
    assert stage is not None
    share = f"{stage.weight} %" if stage.weight else "preview only"
    strategy = _STRATEGIES.get(progress.strategy, str(progress.strategy))
    return f"{strategy}, stage {stage.number} of {stage.of} ({share})"


def _gate(stage: StageProgress) -> Text:
    finding = stage.finding
    if finding is None:
        return Text("gate: only the daemon has seen enough to judge; its HTTP API shows what it says")
    return Text("gate: ").append(finding.verdict.value, _VERDICTS[finding.verdict]) + safe(f": {finding.said}")


def _bar(plan: ServicePlan, split: tuple[VersionTraffic, ...], width: int) -> Iterator[Text]:
    """The split as a bar with its legend beside it, or below where that does not fit."""
    if not split:
        return
    marks = [_mark(plan, each) for each in split]
    legend = Text("  ").join(
        Text.assemble((mark, style), f" {short(each.version)} {_percent(each.share)}", _open(each.sessions))
        for each, (mark, style) in zip(split, marks, strict=True)
    )
    beside = width - len(legend) - 4
    length = min(beside if beside >= SHORTEST_BAR else width - 2, LONGEST_BAR)
    if not any(each.share for each in split):
        bar = Text("[" + "no instance takes requests".center(length)[:length] + "]", "bold red")
    else:
        bar = Text("[")
        for size, (mark, style) in zip(_sizes(split, length), marks, strict=True):
            bar.append(mark * size, style)
        bar.append("]")
    if beside >= SHORTEST_BAR:
        yield bar + Text("  ") + legend
    else:
        yield from (bar, legend)


def _sizes(split: tuple[VersionTraffic, ...], length: int) -> list[int]:
    """How long each part of the bar is: `length` together, and at least 1 for whoever gets anything at all."""
    sizes = [max(round(length * each.share), 1 if each.share else 0) for each in split]
    largest = max(range(len(split)), key=lambda place: split[place].share)
    sizes[largest] += length - sum(sizes)
    return sizes


def _mark(plan: ServicePlan, each: VersionTraffic) -> tuple[str, str]:
    stable = plan.stable is not None and plan.stable.version == each.version
    coming = plan.desired is not None and plan.desired.version == each.version
    return _MARKS[0 if stable else 1 if coming else 2]


def _percent(share: float) -> str:
    """Whole per cent, but never 0 for something and never 100 for less than all."""
    percent = round(100 * share)
    if 0 < share < 1 and percent in (0, 100):
        return "<1 %" if percent == 0 else ">99 %"
    return f"{percent} %"


def _open(sessions: int | None) -> str:
    return ", open ?" if sessions is None else f", {sessions:,} open"


def _place(server: Server) -> str:
    weight = f" {server.weight}" if server.mode is ServerMode.READY else ""
    parts = [f"{server.mode}{weight}", "" if server.up else "down", _open(server.sessions)[2:]]
    if not server.even:
        parts.append("the proxies differ")
    return ", ".join(part for part in parts if part)


def _warmth(warmth: Warmth) -> str:
    match warmth.status:
        case WarmthStatus.RUNNING:
            return f"warming up ({count(warmth.requests, 'request')})"
        case WarmthStatus.FAILED:
            return f"not warm: {warmth.said}"
        case WarmthStatus.WARM:
            return "warm" if warmth.p95 is None else f"warm (p95 {1000 * warmth.p95:.1f} ms)"

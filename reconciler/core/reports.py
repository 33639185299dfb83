"""The transitions of one service: what has to stand in the journal before, beside and after the motion.

Each is written once: what has been written is read from the memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from reconciler.core import names, stages, traffic
from reconciler.core.analysis import Verdict
from reconciler.core.delivery import Undecided
from reconciler.core.diff import View, aged, differences, missing
from reconciler.core.errors import Reason
from reconciler.core.live import Difference, HealthStatus, Instance, LiveState, Phase, WarmthStatus
from reconciler.core.memory import EnvironmentMemory
from reconciler.core.model import DriftPolicy, Target
from reconciler.core.motion import recent_losses
from reconciler.core.record import VersionRef, What
from reconciler.core.steps import Transition

FLAPPING_LOSSES = 5
NAMES_IN_A_RECORD = 100
"""A record has a limit in bytes, and a name has up to 150 of them."""


def ref(target: Target) -> VersionRef:
    """A target as the journal names it."""
    return VersionRef(target.version, target.spec.image.pinned, target.revision)


def bookkeeping(view: View, desired: Target) -> tuple[Transition, ...]:
    """What changed in Git's wish: a quarantine to lift, a rollout that was overtaken, one that begins."""
    memory, target = view.memory, view.target
    found = []
    if memory.quarantine and desired.version not in memory.quarantine:
        found.append(Transition(What.QUARANTINE_LIFTED, reason="Git declares another version"))
    overtaken = memory.rollout is not None and memory.rollout.to.version != target.version
    if memory.rollout is not None and overtaken:
        found.append(
            Transition(
                What.ROLLOUT_SUPERSEDED,
                reason=Reason.SUPERSEDED,
                from_version=memory.rollout.to,
                to_version=ref(target),
            )
        )
    if view.rolling and (memory.rollout is None or overtaken):
        found.append(Transition(What.ROLLOUT_STARTED, from_version=memory.stable, to_version=ref(target)))
    return tuple(found)


def failure(view: View, able_since: datetime | None, *, staged: bool = False) -> tuple[Transition, ...]:
    """A version that does not prove itself, or instances of the stable one that are lost."""
    if not view.rolling:
        return losses(view) or _flapping(view)
    broken = [(instance, why) for instance in view.fresh if (why := _breakage(view, instance)) is not None]
    if broken:
        instance, (reason, said) = broken[0]
        return (_failed(view, reason, said, instance.name),)
    finding = view.finding
    if finding is not None and finding.verdict is Verdict.FAIL:
        return (_failed(view, Reason.GATE_FAILED, finding.said, None, finding.details),)
    deadline = progress_deadline(view, able_since, staged=staged)
    if deadline is None or view.now < deadline:
        return ()
    gate = view.spec.rollout.gate
    if staged and gate is not None and _soaking(view) and stages.holding(view):
        if gate.undecided is Undecided.ADVANCE:
            return ()
        said = "the gate could not decide: " + (finding.said if finding else "nothing was seen")
        return (_failed(view, Reason.GATE_UNDECIDED, said, None, finding.details if finding else {}),)
    said = f"no progress for {view.spec.rollout.progress_deadline.total_seconds():g} s"
    if (group := view.group) is not None and group.version == view.target.version and group.detail:
        said += f": {group.detail}"
    evidence = view.fresh[0].name if view.fresh else None
    return (_failed(view, Reason.PROGRESS_DEADLINE, said, evidence),)


def _soaking(view: View) -> bool:
    until = stages.soaked(view)
    return until is not None and view.now >= until


def losses(view: View) -> tuple[Transition, ...]:
    """The records of instances of a proven version that died or fell sick."""
    broken = [(instance, why) for instance in view.fresh if (why := _breakage(view, instance)) is not None]
    sick = [
        (instance, why)
        for instance in view.stale
        if instance.version == view.target.version
        and instance.health is HealthStatus.UNHEALTHY
        and instance.name not in view.memory.lost
        and instance.name not in view.memory.terminated
        and (why := _breakage(view, instance)) is not None
    ]
    all_lost = [*broken, *sick]
    return tuple(
        Transition(
            What.INSTANCE_LOST,
            {
                "name": instance.name,
                "exitCode": instance.exit_code,
                "said": said,
                **({"with": all_lost[0][0].name} if place else _healed(view)),
            },
            reason=reason,
            evidence_of=instance.name,
            from_version=ref(view.target),
        )
        for place, (instance, (reason, said)) in enumerate(all_lost)
    )


def _healed(view: View) -> Mapping[str, Any]:
    """What the journal may forget of earlier losses: where the engine itself replaces, nobody else says so."""
    return {"gone": gone} if view.native is not None and (gone := forgettable(view)) else {}


def _failed(
    view: View, reason: Reason, said: str, evidence: str | None, seen: Mapping[str, Any] | None = None
) -> Transition:
    return Transition(
        What.ROLLOUT_FAILED,
        {"said": said, **({"seen": seen} if seen else {})},
        reason=reason,
        evidence_of=evidence,
        from_version=view.memory.stable,
        to_version=ref(view.target),
        since=view.memory.rollout.started_at if view.memory.rollout else None,
    )


def _flapping(view: View) -> tuple[Transition, ...]:
    """The stable version keeps dying: return to the one before it, if that has not failed too."""
    previous = view.memory.previous
    if recent_losses(view) <= FLAPPING_LOSSES or previous is None or previous.version in view.memory.quarantine:
        return ()
    said = f"{recent_losses(view)} instances lost within ten minutes"
    return (
        Transition(
            What.ROLLOUT_FAILED,
            {"said": said},
            reason=Reason.FLAPPING,
            from_version=previous,
            to_version=view.memory.stable,
        ),
    )


def _breakage(view: View, instance: Instance) -> tuple[Reason, str] | None:
    """Why an instance that should run does not, or None."""
    memory = view.memory
    if instance.phase is Phase.EXITED and instance.name not in memory.terminated and instance.name not in memory.lost:
        if instance.oom_killed:
            return Reason.OOM_KILLED, "killed for lack of memory: raise resources.memory or mend the leak"
        why = "" if "exit code" in instance.detail else _said(instance)
        return Reason.INSTANCE_EXITED, f"exited with code {instance.exit_code}{why}"
    sick = instance.health is HealthStatus.UNHEALTHY and instance.name not in memory.lost
    if instance.phase is Phase.RUNNING and sick:
        if instance.name in memory.exposed:
            return Reason.UNHEALTHY, "no longer healthy" + _said(instance)
        return Reason.STARTUP_DEADLINE, f"not healthy within {view.spec.health.startup.total_seconds():g} s" + _said(
            instance
        )
    if instance.warmth is not None and instance.warmth.status is WarmthStatus.FAILED and view.rolling:
        return (Reason.WARM_UP_FAILED, instance.warmth.said) if instance.name not in memory.exposed else None
    return None


def _said(instance: Instance) -> str:
    return f": {instance.detail}" if instance.detail else ""


def progress_deadline(view: View, able_since: datetime | None, *, staged: bool = False) -> datetime | None:
    """When a rollout that makes no progress fails; never while a person is waited for, or a proxy.

    What the version is not to blame for is not held against it: the time before `able_since`, in which nothing could
    be done, a declared soak, and where it stops first the time that the old instance takes to go.
    """
    rollout = view.memory.rollout
    if rollout is None or view.blind or (staged and stages.waiting_for_person(view)):
        return None
    since = [rollout.progressed_at, *([able_since] if able_since is not None else [])]
    if not staged:
        since.append(rollout.progressed_at + view.spec.rollout.soak)
    elif (soaked := stages.soaked(view)) is not None:
        since.append(soaked)
    if view.spec.stop_first:
        gone = view.spec.drain.deadline + (view.spec.drain.tail if view.routed else timedelta(0))
        for instance in view.instances:
            if instance.phase is Phase.EXITED:
                since.extend([instance.finished_at] if instance.finished_at is not None else [])
            elif instance.name in view.memory.terminated:
                since.append(view.memory.terminated[instance.name] + view.spec.drain.grace)
            elif instance.name in view.memory.detached:
                since.append(view.memory.detached[instance.name] + gone)
    return max(since) + view.spec.rollout.progress_deadline


def soak_ends(view: View, *, staged: bool) -> list[datetime]:
    """When a version without stages has gone well for long enough; each stage tells of its own soak."""
    rollout = view.memory.rollout
    return [rollout.progressed_at + view.spec.rollout.soak] if rollout is not None and not staged else []


def lifetime_ends(view: View) -> list[datetime]:
    """When instances reach their lifetime."""
    lifetime = view.spec.lifetime
    return [i.created_at + lifetime for i in view.fresh] if lifetime is not None else []


def completion(view: View, deadline: datetime | None = None, *, staged: bool = False) -> list[Transition]:
    """A version that became stable, a rollback that is done, a drift that is repaired."""
    memory = view.memory
    if not view.complete:
        return []
    found = []
    if view.rolling and memory.rollout is not None:
        if not stages.promotable(view, deadline, staged=staged):
            return []
        seen = stages.evidence(view) if staged else {}
        reason = Reason.GATE_UNDECIDED if staged and stages.holding(view) else ""
        found.append(
            Transition(
                What.PROMOTED,
                {"replicas": view.spec.replicas, **seen, **({"gone": gone} if (gone := forgettable(view)) else {})},
                reason=reason,
                from_version=memory.stable,
                to_version=ref(view.target),
                since=memory.rollout.started_at,
            )
        )
    elif memory.returning is not None and not view.stale:
        found.append(Transition(What.ROLLED_BACK, to_version=memory.stable, since=memory.returning))
    unrepaired = view.spec.drift is DriftPolicy.CORRECT and any(i.name in memory.drift for i in view.instances)
    drifted = memory.drifted or bool(missing(view.instances, memory))
    if drifted and not view.rolling and not unrepaired and not current_drift(view):
        details = {"gone": gone} if (gone := forgettable(view)) else {}
        found.append(Transition(What.DRIFT_REPAIRED, details, to_version=memory.stable))
    return found


def forgettable(view: View) -> list[str]:
    """Names that the memory holds and nothing has any more, as many as fit into a record."""
    memory = view.memory
    if view.native is not None:
        return sorted(memory.lost - {instance.name for instance in view.instances})[:NAMES_IN_A_RECORD]
    held = memory.made.union(memory.intended, memory.exposed, memory.served, memory.lost, memory.kept)
    held = held.union(memory.detached, memory.terminated, memory.drift)
    return sorted(held - {instance.name for instance in view.instances})[:NAMES_IN_A_RECORD]


def current_drift(view: View) -> list[tuple[str, Difference]]:
    """What differs by hand from what was created, by instance name; not what Git or time caused."""
    if view.native is not None:
        return _group_drift(view)
    found: list[tuple[str, Difference]] = []
    for instance in view.instances:
        if instance.version != view.target.version or instance.name in view.memory.terminated:
            continue
        found.extend(
            (instance.name, difference)
            for difference in differences(instance, view.spec, view.memory, view.now)
            if difference.reason is not Reason.LIFETIME_REACHED
        )
    if len(view.fresh_capacity) < view.spec.replicas:
        found.extend(_missing(view))
    if text := traffic.changed(view):
        backend = names.backend(view.environment, view.spec.name)
        found.append((backend, Difference(Reason.DRIFT_TRAFFIC, f"the proxy's table was changed: {text}")))
    return found


def _group_drift(view: View) -> list[tuple[str, Difference]]:
    """What somebody changed at the groups of the target and at its address, and a group that somebody removed."""
    group, memory = view.group, view.memory
    mine = group is not None and group.version == view.target.version
    found = [(group.name, each) for each in group.differences] if mine and group is not None else []
    if view.route is not None:
        found.extend((view.route.service, each) for each in view.route.differences)
    # A group of another version is what a release left that was overtaken: nobody removed anything.
    if group is None and not view.rolling and memory.returning is None:
        found.append((view.spec.name, Difference(Reason.DRIFT_MISSING, "removed by hand")))
    return found


def _missing(view: View) -> list[tuple[str, Difference]]:
    return [
        (name, Difference(Reason.DRIFT_MISSING, "removed by hand")) for name in missing(view.instances, view.memory)
    ]


def _expired(view: View) -> list[Transition]:
    """The records of instances that reached their lifetime: why they are replaced though nothing is wrong."""
    return [
        Transition(
            What.INSTANCE_EXPIRED,
            {"name": instance.name},
            reason=Reason.LIFETIME_REACHED,
            from_version=view.memory.stable,
        )
        for instance in view.stale
        if instance.version == view.target.version
        and aged(instance, view.spec, view.now)
        and instance.name not in view.memory.lost
    ]


def drift(view: View) -> list[Transition]:
    """The records of differences that are new, and of instances that became too old."""
    found = _expired(view)
    by_name: dict[str, list[Difference]] = {}
    short = len(view.fresh_capacity) < view.spec.replicas
    # What was removed by hand is told also where it was one too many.
    for name, difference in [*current_drift(view), *([] if short else _missing(view))]:
        by_name.setdefault(name, []).append(difference)
    for name, mine in sorted(by_name.items()):
        text = "; ".join(f"{difference.reason}: {difference.detail}" for difference in mine)
        if view.memory.drift.get(name) != text:
            found.append(
                Transition(
                    What.DRIFT_FOUND,
                    {"name": name, "differences": text, "policy": view.spec.drift.value},
                    reason=mine[0].reason,
                    from_version=view.memory.stable,
                )
            )
    return found


def foreign(live: LiveState, memory: EnvironmentMemory) -> tuple[Transition, ...]:
    """The records of things that are not ours but in our way: reported, never touched."""
    present = {other.name: f"{other.reason}: {other.detail}" for other in live.foreign}
    found = [
        Transition(What.DRIFT_FOUND, {"name": other.name, "differences": present[other.name]}, reason=other.reason)
        for other in live.foreign
        if memory.foreign.get(other.name) != present[other.name]
    ]
    gone = sorted(memory.foreign.keys() - present.keys())[:NAMES_IN_A_RECORD]
    if gone:
        found.append(Transition(What.DRIFT_REPAIRED, {"gone": gone}, reason="what was foreign is gone"))
    return tuple(found)

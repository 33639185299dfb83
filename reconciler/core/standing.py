"""How a service stands, in words and figures: the `ServicePlan` around the steps that were found."""

from __future__ import annotations

from reconciler.core import names, reports
from reconciler.core.diff import View, serves
from reconciler.core.errors import Reason
from reconciler.core.live import Instance
from reconciler.core.memory import ServiceMemory
from reconciler.core.motion import Motion
from reconciler.core.progress import progress_at_rest, progress_of
from reconciler.core.question import Wish
from reconciler.core.status import ServiceHealth, ServicePlan, Sync
from reconciler.core.steps import Step


def still(
    wish: Wish,
    memory: ServiceMemory,
    instances: tuple[Instance, ...],
    reason: Reason | None,
    message: str,
    steps: tuple[Step, ...] = (),
) -> ServicePlan:
    """A service at which nothing is done to the engine."""
    health = ServiceHealth.SUSPENDED if reason is Reason.SUSPENDED else ServiceHealth.UNKNOWN
    settled = reason is None and not steps
    as_declared = reason is Reason.SUSPENDED and _runs_as_declared(wish, memory, instances)
    return ServicePlan(
        wish.name,
        Sync.SYNCED if settled or as_declared else Sync.OUT_OF_SYNC,
        ServiceHealth.HEALTHY if settled else health,
        steps,
        reason=reason,
        message=message,
        desired=reports.ref(wish.desired) if wish.desired else None,
        stable=memory.stable,
        replicas=wish.desired.spec.replicas if wish.desired else 0,
        instances=instances,
        progress=progress_at_rest(wish, memory, instances),
    )


def _runs_as_declared(wish: Wish, memory: ServiceMemory, instances: tuple[Instance, ...]) -> bool:
    """Whether what runs is what Git declares, to tell of a service that is not looked at more closely."""
    version = wish.desired.version if wish.desired else ""
    wanted = wish.desired.spec.replicas if wish.desired else 0
    return len(instances) == wanted and all(i.version == version and serves(i, memory) for i in instances)


def describe(view: View, wish: Wish, motion: Motion, *, quarantined: bool, blind: bool) -> ServicePlan:
    """Say how the service stands."""
    assert wish.desired is not None
    memory = view.memory
    exactly = view.native is not None or len(view.fresh_capacity) == view.spec.replicas
    complete = view.complete and exactly and not view.rolling
    busy = bool(motion.steps or motion.waits)
    drifted = reports.current_drift(view)
    reason, message = motion.reason, motion.message
    if quarantined:
        failed = memory.quarantine[wish.desired.version]
        reason = Reason.QUARANTINED
        message = f"version {names.short(wish.desired.version)} failed ({failed.reason}); the stable version runs"
        if blind:
            message += ", but its files cannot be read: none of its instances can be replaced; commit a good version"
        elif view.target.obstacle:
            message += f", but {view.target.obstacle}"
    elif wish.held is not None:
        reason, message = wish.held, wish.message
    elif drifted and reason is None:
        reason, message = drifted[0][1].reason, f"{drifted[0][0]}: {drifted[0][1].detail}"
    clean = complete and not busy and not quarantined and not drifted and wish.held is None
    if view.complete:
        health = ServiceHealth.HEALTHY
    elif view.rolling or memory.returning is not None:
        health = ServiceHealth.PROGRESSING
    else:
        health = ServiceHealth.DEGRADED if memory.losses else ServiceHealth.PROGRESSING
    return ServicePlan(
        wish.name,
        Sync.SYNCED if clean else Sync.OUT_OF_SYNC,
        health,
        tuple(motion.steps),
        "; ".join(motion.waits),
        min((at for at in motion.rechecks if at > view.now), default=None),
        reason,
        message,
        reports.ref(wish.desired),
        memory.stable,
        view.spec.replicas,
        view.instances,
        progress_of(view, wish),
    )

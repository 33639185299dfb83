"""How a service stands, in words and figures: the `ServicePlan` around the steps that were found."""

from __future__ import annotations

from reconciler.core import names, reports
from reconciler.core.diff import View, serves
from reconciler.core.errors import Reason
from reconciler.core.live import Instance
from reconciler.core.memory import ServiceMemory
from reconciler.core.model import DriftPolicy, ServiceSpec
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
        replicas=count(wish.desired.spec) if wish.desired else 0,
        instances=instances,
        progress=progress_at_rest(wish, memory, instances),
    )


def _runs_as_declared(wish: Wish, memory: ServiceMemory, instances: tuple[Instance, ...]) -> bool:
    """Whether what runs is what Git declares, to tell of a service that is not looked at more closely."""
    version = wish.desired.version if wish.desired else ""
    if wish.desired is not None and wish.desired.spec.bundle is not None:
        return memory.rollout is None and memory.stable is not None and memory.stable.version == version
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
            lost = "none of its instances can be replaced" if view.spec.bundle is None else "it cannot be applied again"
            message += f", but its files cannot be read: {lost}; commit a good version"
        elif view.target.obstacle:
            message += f", but {view.target.obstacle}"
    elif wish.held is not None:
        reason, message = wish.held, wish.message
    elif drifted and reason is None:
        reason, message = drifted[0][1].reason, f"{drifted[0][0]}: {drifted[0][1].detail}"
    clean = complete and not busy and not quarantined and not drifted and wish.held is None
    return ServicePlan(
        wish.name,
        Sync.SYNCED if clean else Sync.OUT_OF_SYNC,
        _health(view, blind=blind),
        tuple(motion.steps),
        "; ".join(motion.waits),
        min((at for at in motion.rechecks if at > view.now), default=None),
        reason,
        message,
        reports.ref(wish.desired),
        memory.stable,
        count(view.spec),
        view.instances,
        progress_of(view, wish),
    )


def count(spec: ServiceSpec) -> int:
    """How many instances a service shall have; a bundle of plain manifests has none."""
    return 0 if spec.bundle is not None else spec.replicas


def _health(view: View, *, blind: bool) -> ServiceHealth:
    """In a word; a bundle is ill where a controller says of one of its objects that something is wrong with it."""
    if view.complete:
        return ServiceHealth.HEALTHY
    bundled, group = view.spec.bundle is not None, view.group
    stuck = view.target.obstacle and (group is None or group.version != view.target.version)
    if bundled and (blind or stuck):
        return ServiceHealth.DEGRADED
    if view.rolling or view.memory.returning is not None:
        return ServiceHealth.PROGRESSING
    left = bundled and view.spec.drift is DriftPolicy.REPORT and bool(reports.current_drift(view))
    ill = bundled and group is not None and group.reason is not None
    return ServiceHealth.DEGRADED if view.memory.losses or left or ill else ServiceHealth.PROGRESSING

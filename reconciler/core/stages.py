"""Releases in stages, behind a proxy: canary and blue-green. A stage is a share of the traffic, kept for a while.

| at a stage | next | when |
|---|---|---|
| growing | shifted | its instances, and those of the baseline, are healthy and warm |
| shifted | soaking | the proxies have the table |
| soaking | paused, passed | the soak is over and the gate has nothing against it |
| paused | passed | a person said `reconciler promote`, or a commit took the pause away |
| passed | growing (of the next one), promoted | there is a next one, or there is none |
| any of them | failed | an instance breaks, the gate finds fault, or the deadline passes |
| any of them | superseded | Git declares something else |

Failed and superseded candidates first lose their traffic, then go: that is the motion of `core/rollout.py` towards the
stable version. Nothing is done here that is not done anew at each look.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from reconciler.core import names, native, traffic
from reconciler.core.analysis import Verdict
from reconciler.core.delivery import Against, Stage, Undecided
from reconciler.core.diff import View, serves, sort
from reconciler.core.errors import Reason
from reconciler.core.growth import grow
from reconciler.core.live import Instance, ServerMode
from reconciler.core.memory import RolloutMemory, ServiceMemory
from reconciler.core.model import Target
from reconciler.core.motion import Motion, alive, keepers
from reconciler.core.record import What
from reconciler.core.rollout import absorb, blinded, carrying, let_go, prove, put
from reconciler.core.steps import Share, Transition


def in_stages(view: View, fallback: Target | None) -> bool:
    """Whether the target goes through stages: there must be a stable version beside which it can.

    The version before, whose instances are still held, comes back at once: it has proven itself already.
    """
    if view.native is not None:
        return native.in_stages(view, fallback)
    if returns(view) and len(alive(view)) >= view.spec.replicas:
        return False
    return (
        view.routed
        and view.rolling
        and bool(view.spec.rollout.plan)
        and view.spec.replicas > 0
        and view.memory.stable is not None
        and fallback is not None
        and fallback.version == view.memory.stable.version
        and not view.spec.stop_first
        and not fallback.spec.stop_first
    )


def returns(view: View) -> bool:
    """Whether the target is the version before, of which instances are still there that had traffic before this."""
    if view.native is not None:
        return native.returns(view)
    previous, rollout = view.memory.previous, view.memory.rollout
    if previous is None or previous.version != view.target.version or rollout is None or rollout.shifted >= 0:
        return False
    return any(i.name in view.memory.exposed and i.created_at <= rollout.started_at for i in alive(view))


def position(view: View) -> tuple[RolloutMemory, int, Stage, bool]:
    """The rollout, the stage it is at, and whether that is the last one."""
    rollout, plan = view.memory.rollout, view.spec.rollout.plan
    assert rollout is not None
    index, _ = whereabouts(rollout, plan)
    return rollout, index, plan[index], index == len(plan) - 1


def whereabouts(rollout: RolloutMemory, plan: Sequence[Stage]) -> tuple[int, datetime | None]:
    """The stage of `plan` that a rollout is at, and since when its share is given; None: not yet.

    A plan that a commit made shorter leaves it at the last one, whose share was not given by another stage's.
    """
    index = min(rollout.stage, len(plan) - 1)
    return index, rollout.shifted_at if rollout.shifted == index else None


def compared(memory: ServiceMemory, against: Against, instances: Sequence[Instance]) -> tuple[list[Instance], ...]:
    """The instances of the candidate and those it is compared with; both empty when nothing is on trial."""
    if memory.rollout is None or memory.stable is None:
        return [], []
    candidates = [i for i in instances if i.version == memory.rollout.to.version]
    stable = [i for i in instances if i.version == memory.stable.version]
    wanted = against is Against.BASELINE
    return candidates, [i for i in stable if (i.ordinal >= names.BASELINE) is wanted]


def move_in_stages(view: View, fallback: Target, deadline: datetime | None) -> Motion:
    """The next safe steps of a candidate, of the stable version beside it, and of leftovers of others.

    `deadline` is when the rollout fails for lack of progress.
    """
    rollout, index, _, last = position(view)
    candidate, stable, baseline = _groups(view, fallback)
    motion, growth = Motion(), Motion()
    staying, extras = keepers(candidate)
    able = prove(candidate, staying, motion, others=view.stale)
    settled, more = keepers(stable)
    proven = prove(stable, settled, motion)
    twins, others = keepers(baseline)
    equals = prove(baseline, twins, motion)
    grow(candidate, growth, room=candidate.spec.replicas)
    if not (last and rollout.shifted == index):
        grow(stable, growth, room=stable.spec.replicas)
        grow(baseline, growth, room=baseline.spec.replicas)
    if view.blind:
        blinded(view, motion)
        absorb(motion, growth)
        return motion
    complete = len(able) >= candidate.spec.replicas and len(equals) >= baseline.spec.replicas
    at = index if complete or rollout.shifted == index else index - 1
    shares = _shares(view, stable, at, able, proven, equals, settled)
    going = Motion()
    # Where a candidate is only shown at its preview address, nobody may go for its sake.
    named = {share.name for share in shares if share.mode is ServerMode.READY and share.weight}
    taking = [instance for instance in [*able, *proven] if instance.name in named]
    leaving = [*stable.stale, *baseline.stale, *reversed(extras), *reversed(more), *reversed(others)]
    shares += let_go(stable, leaving, carrying(view, taking), going)
    reached = index if complete and rollout.shifted != index else None
    put(motion, traffic.shift(view, shares, reached), traffic.preview(view, able or proven))
    absorb(motion, growth)
    absorb(motion, going)
    if rollout.shifted == index:
        soak(view, motion, deadline)
    return motion


def _groups(view: View, fallback: Target) -> tuple[View, View, View]:
    """The candidate, the stable version and the baseline beside it, each as a view of its own."""
    _, _, stage, last = position(view)
    gate, share = view.spec.rollout.gate, stage.weight or 100
    size = max(-(-view.spec.replicas * share // 100), 1)
    twins = 0
    if gate is not None and gate.against is Against.BASELINE and stage.weight and not last:
        # With less of the traffic there are fewer of them: each shall be as busy as one of the candidate.
        twins = max(round(size * _twin_share(stage.weight) / stage.weight), 1)
    candidate = replace(view, target=_sized(view.target, size), stale=())

    def group(instances: Sequence[Instance], count: int, first: int) -> View:
        return sort(
            view.environment,
            _sized(fallback, count),
            view.memory,
            tuple(instances),
            view.images,
            view.names_taken,
            view.now,
            proxy=view.proxy,
            first_ordinal=first,
        )

    twin = [i for i in view.stale if i.version == fallback.version and i.ordinal >= names.BASELINE]
    chosen = {i.name for i in twin}
    rest = [i for i in view.stale if i.name not in chosen]
    return candidate, group(rest, fallback.spec.replicas, 0), group(twin, twins, names.BASELINE)


def _twin_share(weight: float) -> float:
    """What a baseline gets beside a candidate with `weight` per cent: as much, or half of the rest where it is less."""
    return min(weight, (100 - weight) / 2)


def beside(view: View, fallback: Target) -> View:
    """The stable version beside a candidate, as a view of its own."""
    return _groups(view, fallback)[1]


def _sized(target: Target, count: int) -> Target:
    return replace(target, spec=replace(target.spec, replicas=count))


def _shares(
    view: View,
    stable: View,
    at: int,
    able: list[Instance],
    proven: list[Instance],
    equals: list[Instance],
    settled: Sequence[Instance],
) -> list[Share]:
    """The table of the stage `at`, which is -1 before the first one.

    Where the stable version has nobody in traffic, a proven candidate takes over. `settled` are all stable instances
    that stay: when they drain, it does not matter whether their health is known.
    """
    weight = view.spec.rollout.plan[at].weight if at >= 0 else 0
    if able and not proven and not equals and not any(serves(i, view.memory) for i in view.stale):
        weight = 100
    if weight >= 100 and able:
        return [
            *traffic.ready(view, able),
            *(
                traffic.draining(i, i.server)
                for i in [*settled, *equals]
                if i.server is not None and i.server.mode is not ServerMode.MAINT
            ),
        ]
    if not weight or not proven:
        # Nothing is compared: what a baseline has is traffic of the stable version, and all of it where nobody else is.
        proven, equals = [*proven, *(i for i in equals if not proven or serves(i, view.memory))], []
    mine = _twin_share(weight) if equals else 0
    each, twin, rest = traffic.split([(len(able), weight), (len(equals), mine), (len(proven), 100 - weight - mine)])
    return [
        *(traffic.ready(view, able, each) if weight else ()),
        *traffic.ready(stable, equals, twin),
        *traffic.ready(stable, proven, rest),
    ]


def soak(view: View, motion: Motion, deadline: datetime | None) -> None:
    """Wait for the soak, the gate and the person, in this order; then the stage is passed.

    The end of the last stage is the promotion, which is recorded as for every other rollout.
    """
    rollout, index, stage, last = position(view)
    if waiting_for_person(view) and not stage.pause:
        why = "Git asks for no pause any more"
        motion.steps.append(Transition(What.CONTINUED, {"stage": index}, reason=why, to_version=rollout.to))
    until = soaked(view)
    if until is not None and view.now < until:
        motion.wait(f"the soak of stage {index + 1} ({stage.weight} %)", until)
        return
    reason = ""
    if holding(view):
        if not undecided(view, deadline):
            motion.wait(f"the gate: {view.finding.said if view.finding else 'nothing was seen yet'}", deadline)
            return
        reason = Reason.GATE_UNDECIDED
    if stage.pause and rollout.continued < index:
        motion.reason = Reason.PAUSED
        motion.message = f"paused at stage {index + 1} ({stage.weight} %)"
        if rollout.paused < index:
            details = {"stage": index, "weight": stage.weight}
            motion.steps.append(Transition(What.PAUSED, details, reason=Reason.PAUSED, to_version=rollout.to))
        motion.wait("a person: `reconciler promote` goes on, another commit replaces this one")
        return
    if not last:
        details = {"stage": index, "weight": stage.weight, **evidence(view)}
        motion.steps.append(
            Transition(What.STAGE_PASSED, details, reason=reason, to_version=rollout.to, since=rollout.shifted_at)
        )


def evidence(view: View) -> dict[str, Any]:
    """What the gate has seen, for the record."""
    finding = view.finding
    return {} if finding is None else {"gate": finding.verdict.value, "said": finding.said, "seen": finding.details}


def soaked(view: View) -> datetime | None:
    """When the soak of the present stage is over; None before it began."""
    rollout, _, stage, _ = position(view)
    _, since = whereabouts(rollout, view.spec.rollout.plan)
    return since + stage.soak if since is not None else None


def holding(view: View) -> bool:
    """Whether a gate is asked at this stage and cannot say yet that it may be left."""
    _, _, stage, _ = position(view)
    if view.spec.rollout.gate is None or not stage.weight:
        return False
    return view.finding is None or view.finding.verdict is Verdict.HOLD


def undecided(view: View, deadline: datetime | None) -> bool:
    """Whether the time of a gate that may be left undecided is over."""
    gate = view.spec.rollout.gate
    overdue = deadline is not None and view.now >= deadline
    return overdue and gate is not None and gate.undecided is Undecided.ADVANCE


def waiting_for_person(view: View) -> bool:
    """Whether the rollout stands at a pause."""
    rollout, index, _, _ = position(view)
    return rollout.paused >= index and rollout.continued < index


def promotable(view: View, deadline: datetime | None, *, staged: bool) -> bool:
    """Whether the target may become stable as far as its stages, its gate and its soak are concerned.

    `deadline` is when the rollout ends for lack of progress.
    """
    rollout = view.memory.rollout
    assert rollout is not None
    if not staged:
        return returns(view) or view.now >= rollout.progressed_at + view.spec.rollout.soak
    *_, last = position(view)
    until = soaked(view)
    soaking = until is None or view.now < until
    return last and not soaking and (not holding(view) or undecided(view, deadline))

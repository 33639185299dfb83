"""What runs is taken over where the journal was lost. Pure; nothing is changed at it."""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.core.live import Instance
from reconciler.core.memory import ServiceMemory
from reconciler.core.model import Target
from reconciler.core.question import Question
from reconciler.core.record import VersionRef, What
from reconciler.core.reports import NAMES_IN_A_RECORD
from reconciler.core.steps import Transition


def adopt(
    question: Question, desired: Target, memory: ServiceMemory, instances: tuple[Instance, ...]
) -> tuple[Transition, ...] | None:
    """With an empty memory, what runs is taken over as it is: nothing restarts for a lost journal.

    Many names take several records, since each has a limit.
    """
    if memory.stable is not None or memory.rollout is not None or memory.made or memory.intended or memory.quarantine:
        return None
    serving = [instance for instance in instances if instance.serving]
    if not serving:
        return _adopted_bundle(question, desired)
    versions = {instance.version for instance in serving}
    best = min(versions, key=lambda v: (-sum(i.version == v for i in serving), v != desired.version, v))
    chosen = next(instance for instance in serving if instance.version == best)
    # Where the engine itself makes and ends instances, their names are not ours to remember.
    ordered = sorted(instances, key=lambda instance: instance.name) if question.native is None else instances[:0]
    return tuple(
        Transition(
            What.ADOPTED,
            {"names": [i.name for i in some], "served": [i.name for i in some if i.serving]},
            reason="these instances carry our labels and the journal does not know them",
            to_version=VersionRef(best, chosen.image, chosen.revision),
        )
        for some in _pages(ordered) or [()]
    )


def _adopted_bundle(question: Question, desired: Target) -> tuple[Transition, ...] | None:
    """A bundle of which all was applied and is well: it has no instances."""
    mine = [group for group in question.live.groups if group.service == desired.spec.name]
    found = next((group for group in mine if group.inventory and group.settled), None)
    if found is None:
        return None
    return (
        Transition(
            What.ADOPTED,
            {"names": [], "served": []},
            reason="these manifests carry our labels and the journal does not know them",
            to_version=VersionRef(found.version, found.image, found.revision),
        ),
    )


def _pages(instances: Sequence[Instance]) -> list[Sequence[Instance]]:
    return [instances[start : start + NAMES_IN_A_RECORD] for start in range(0, len(instances), NAMES_IN_A_RECORD)]

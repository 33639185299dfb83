"""How much one revision may remove or change at once, and the commit trailer that passes both caps."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from reconciler.core import names
from reconciler.core.errors import Reason
from reconciler.core.kubernetes_identity import Identity
from reconciler.core.memory import ServiceMemory
from reconciler.core.model import ChangeCap, Prune

CONFIRM = "reconciler-confirm"
"""The trailer that passes caps, by its name in lower case: REMOVALS, CHANGES, or both with a comma between."""
REMOVALS = "removals"
CHANGES = "changes"


def confirmed(trailers: Mapping[str, str]) -> frozenset[str]:
    """Which of REMOVALS and CHANGES a revision with these `trailers` confirms; other words mean nothing."""
    words = {word.strip().lower() for word in trailers.get(CONFIRM, "").split(",")}
    return frozenset(words & {REMOVALS, CHANGES})


def removals_held(
    there: Collection[str], declared: Collection[str], prune: Prune, trailers: Mapping[str, str]
) -> tuple[Reason, str] | None:
    """Why a revision that declares `declared` may remove nothing of what is `there` (names of services), if so.

    An environment without a service is not believed, whatever its commit confirms.
    """
    if not declared:
        return (
            Reason.ENVIRONMENT_EMPTY,
            "this revision declares no service at all; removing everything at once is refused: "
            "suspend the environment, or remove its services by hand and its entry from the settings",
        )
    removed = set(there) - set(declared)
    allowed = _allowed(len(set(there)), prune.max_percent, prune.max_count)
    if len(removed) <= allowed or REMOVALS in confirmed(trailers):
        return None
    return (
        Reason.PRUNE_CAP_EXCEEDED,
        f"this revision removes {len(removed)} of {len(set(there))} services, more than {allowed}; if that is meant, "
        "commit with the trailer Reconciler-Confirm: removals, or raise spec.prune in environment.yaml",
    )


NAMED = 5
"""How many objects are named."""


def objects_held(
    there: Collection[Identity], declared: Collection[Identity], prune: Prune, trailers: Mapping[str, str]
) -> tuple[Reason, str] | None:
    """Why a bundle whose stable version has the objects `there` may not become one with those `declared`, if so."""
    removed = sorted(set(there) - set(declared))
    allowed = _allowed(len(set(there)), prune.max_percent, prune.max_count)
    if len(removed) <= allowed or REMOVALS in confirmed(trailers):
        return None
    more = f" and {len(removed) - NAMED} more" if len(removed) > NAMED else ""
    named = ", ".join(each.shown for each in removed[:NAMED])
    return (
        Reason.PRUNE_CAP_EXCEEDED,
        f"this revision removes {len(removed)} of {len(set(there))} objects, more than {allowed} ({named}{more}); if "
        "that is meant, commit with the trailer Reconciler-Confirm: removals, or raise spec.prune in environment.yaml",
    )


def changed(desired: Mapping[str, str], services: Mapping[str, ServiceMemory]) -> frozenset[str]:
    """The services that run and of which another version would begin: `desired` maps each name to its version.

    Not those that are new, nor those on the way there already, nor those of which that version has failed before, nor
    those that return to a version that is still held.
    """
    found = set()
    for name, version in desired.items():
        known = services.get(name)
        if known is None or known.stable is None or known.stable.version == version or version in known.quarantine:
            continue
        if held_for_return(known, version):
            continue
        if known.rollout is None or known.rollout.to.version != version:
            found.add(name)
    return frozenset(found)


def held_for_return(known: ServiceMemory, version: str) -> bool:
    """Whether this is the version before, and instances of it gave up their traffic and are not stopped: a return."""
    if known.previous is None or known.previous.version != version:
        return False
    mine = f".{names.short(version)}."
    resting = known.exposed & known.detached.keys() - known.terminated.keys()
    return any(mine in name for name in resting)


def changes_held(
    there: Collection[str], changes: Collection[str], cap: ChangeCap, trailers: Mapping[str, str]
) -> tuple[Reason, str] | None:
    """Why the `changes` (as `changed` finds them) of services that are `there` may not begin, if so.

    Without a bound everything may. One service may always change by the bound in per cent, not by the count.
    """
    percent = 100 if cap.max_percent is None else cap.max_percent
    allowed = _allowed(len(there), percent, cap.max_count)
    if len(changes) <= allowed or CHANGES in confirmed(trailers):
        return None
    return (
        Reason.CHANGE_CAP_EXCEEDED,
        f"this revision changes {len(changes)} of {len(there)} services, more than {allowed}; if that is meant, "
        "commit with the trailer Reconciler-Confirm: changes, or raise spec.changes in environment.yaml",
    )


def _allowed(there: int, max_percent: int, max_count: int | None) -> int:
    """How many of `there` services both bounds allow."""
    by_share = max(1, there * max_percent // 100)
    return by_share if max_count is None else min(by_share, max_count)

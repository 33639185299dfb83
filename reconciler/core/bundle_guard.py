"""Whether the next version of a bundle may begin: not when it removes too much at once, nor when it was a service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from reconciler.core import bundle, caps
from reconciler.core.errors import Reason
from reconciler.core.memory import ServiceMemory
from reconciler.core.model import Prune
from reconciler.core.question import Wish


def guarded(wish: Wish, known: ServiceMemory, prune: Prune, trailers: Mapping[str, str]) -> Wish:
    """The wish, held where its version may not begin; the stable version is kept up meanwhile.

    What is on its way already goes on: its commit was judged when it began.
    """
    desired, stable, rollout = wish.desired, known.stable, known.rollout
    if desired is None or stable is None or wish.suspended or wish.held is not None:
        return wish
    begun = rollout is not None and rollout.to.version == desired.version
    if begun or desired.version == stable.version or desired.version in known.quarantine:
        return wish
    new = desired.spec.bundle
    if wish.fallback is None:
        unknown = new is not None and new.prune and caps.REMOVALS not in caps.confirmed(trailers)
        message = (
            "which objects the stable version has cannot be read from Git any more, so nobody can say what this "
            "revision removes; commit with the trailer Reconciler-Confirm: removals"
        )
        return replace(wish, desired=None, held=Reason.PRUNE_CAP_EXCEEDED, message=message) if unknown else wish
    old = wish.fallback.spec.bundle
    if new is None or old is None:
        if new is old:
            return wish
        before, after = ("manifests", "a service") if new is None else ("a service", "manifests")
        message = f"{wish.name} was {before} until now and cannot become {after}; give what is new another name"
        return replace(wish, held=Reason.NAME_TAKEN, message=message, waits=True)
    if not new.prune:
        return wish
    held = caps.objects_held(bundle.identities(old), bundle.identities(new), prune, trailers)
    return replace(wish, held=held[0], message=held[1], waits=True) if held else wish

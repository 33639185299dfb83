"""What a look at Git means: which revision is in use, what has to be recorded of it, and how that is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from reconciler.core.caps import confirmed
from reconciler.core.errors import Reason, ReconcilerError, Retryable
from reconciler.core.freeze import EMERGENCY
from reconciler.core.memory import EnvironmentMemory
from reconciler.core.model import DesiredState, Revision
from reconciler.core.record import Entry, What
from reconciler.core.status import EnvironmentStatus, Plan


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a look at Git came to.

    `head` is the newest revision seen (None: Git could not be read), `revision` and `state` what is in use: the head,
    or the one admitted before where the head is not acceptable. `error` says why not.
    """

    environment: str
    head: Revision | None = None
    revision: Revision | None = None
    state: DesiredState | None = None
    error: ReconcilerError | None = None
    rewritten: bool = False
    unrelated: bool = False


def admission(wanted: Wanted, memory: EnvironmentMemory, trigger: str, now: datetime) -> list[Entry]:
    """The records of what a look at Git means anew: a revision admitted or rejected, or rewritten history.

    A revision that was rejected and now is acceptable (settings changed, say) or is the admitted one again is admitted
    with a record of its own. It names the emergency and the confirmations that the commit declares. An error that says
    nothing about the revision rejects nothing.
    """
    head = wanted.head
    if head is None or isinstance(wanted.error, Retryable):
        return []
    if head.sha == memory.rejected if wanted.error else head.sha == memory.admitted and not memory.rejected:
        return []
    base = Entry(
        at=now,
        what=What.REVISION_ADMITTED,
        environment=wanted.environment,
        revision=head.sha,
        author=head.author,
        committer=head.committer,
        trigger=trigger,
        details={"subject": head.subject[:200], "parents": list(head.parents[:8])},
    )
    found = []
    if wanted.rewritten:
        details = {"before": memory.admitted, "ancestor": False, "unrelated": wanted.unrelated}
        found.append(replace(base, what=What.HISTORY_REWRITTEN, reason=Reason.HISTORY_REWRITTEN, details=details))
    if wanted.error is not None:
        said = {"said": str(wanted.error)[:4000]}
        found.append(replace(base, what=What.REVISION_REJECTED, reason=wanted.error.reason, details=said))
    else:
        invalid = {"invalid": sorted(wanted.state.problems) if wanted.state else []}
        found.append(replace(base, details={**base.details, **invalid, **_claims(head)}))
    return found


def _claims(head: Revision) -> dict[str, Any]:
    """What the commit says of itself that lets it pass a freeze or a cap, for the record."""
    found: dict[str, Any] = {}
    if head.trailers.get(EMERGENCY):
        found["emergency"] = head.trailers[EMERGENCY]
    if passed := confirmed(head.trailers):
        found["confirmed"] = sorted(passed)
    return found


def describe(
    wanted: Wanted,
    memory: EnvironmentMemory,
    found: Plan,
    errors: Mapping[str, ReconcilerError],
    now: datetime,
) -> EnvironmentStatus:
    """How the environment stands: its plan, with what went wrong in this cycle ("" is the environment itself)."""
    services = dict(found.services)
    for name, error in errors.items():
        if name in services:
            services[name] = replace(services[name], reason=error.reason, message=str(error))
    whole = wanted.error or errors.get("")
    problems = wanted.state.problems if wanted.state else {}
    return EnvironmentStatus(
        environment=wanted.environment,
        at=now,
        revision=wanted.revision.sha if wanted.revision else memory.admitted,
        rejected=memory.rejected,
        reason=whole.reason if whole else None,
        message=str(whole) if whole else "",
        plan=replace(found, services=services),
        last_success_at=now if whole is None else None,
        problems={name: tuple(str(problem) for problem in mine) for name, mine in problems.items()},
    )

"""Reasons, and errors typed by what the loop does about them.

A reason is a stable CamelCase code. `docs/operating.md` has a row for each: what it means and what to do.
Core returns values for what can be expected; adapters translate every library exception into one of the
errors here at the edge.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum


class Reason(StrEnum):
    """Why something is as it is: shown to people, recorded in the journal, used as a metric label."""

    # Git and manifests
    MANIFEST_INVALID = "ManifestInvalid"
    ENVIRONMENT_EMPTY = "EnvironmentEmpty"
    ENVIRONMENT_MISSING = "EnvironmentMissing"
    PRUNE_CAP_EXCEEDED = "PruneCapExceeded"
    POLICY_DENIED = "PolicyDenied"
    SECRET_MISSING = "SecretMissing"
    HISTORY_REWRITTEN = "HistoryRewritten"
    HISTORY_UNRELATED = "HistoryUnrelated"
    BRANCH_MISSING = "BranchMissing"
    REPOSITORY_EMPTY = "RepositoryEmpty"
    REPOSITORY_UNREACHABLE = "RepositoryUnreachable"
    REPOSITORY_UNAUTHORIZED = "RepositoryUnauthorized"
    REPOSITORY_HOSTILE = "RepositoryHostile"
    REVISION_MISSING = "RevisionMissing"
    # Engine
    ENGINE_UNREACHABLE = "EngineUnreachable"
    ENGINE_REFUSED = "EngineRefused"
    IMAGE_NOT_FOUND = "ImageNotFound"
    IMAGE_UNAUTHORIZED = "ImageUnauthorized"
    IMAGE_UNAVAILABLE = "ImageUnavailable"
    IMAGE_MISMATCH = "ImageMismatch"
    NAME_TAKEN = "NameTaken"
    NOT_OWNED = "NotOwned"
    PORT_TAKEN = "PortTaken"
    OUT_OF_DISK = "OutOfDisk"
    PROBE_UNREACHABLE = "ProbeUnreachable"
    QUOTA_EXCEEDED = "QuotaExceeded"
    UNSCHEDULABLE = "Unschedulable"
    NAMESPACE_MISSING = "NamespaceMissing"
    FORBIDDEN = "Forbidden"
    NOT_LEADER = "NotLeader"
    # Instances and rollouts
    INSTANCE_EXITED = "InstanceExited"
    OOM_KILLED = "OOMKilled"
    STARTUP_DEADLINE = "StartupDeadline"
    UNHEALTHY = "Unhealthy"
    PROGRESS_DEADLINE = "ProgressDeadline"
    FLAPPING = "Flapping"
    SUPERSEDED = "Superseded"
    QUARANTINED = "Quarantined"
    SUSPENDED = "Suspended"
    DEPENDENCY_NOT_READY = "DependencyNotReady"
    WARM_UP_FAILED = "WarmUpFailed"
    GATE_FAILED = "GateFailed"
    GATE_UNDECIDED = "GateUndecided"
    PAUSED = "Paused"
    FROZEN = "Frozen"
    CHANGE_CAP_EXCEEDED = "ChangeCapExceeded"
    # Proxy
    PROXY_UNREACHABLE = "ProxyUnreachable"
    PROXY_REFUSED = "ProxyRefused"
    PROXY_FULL = "ProxyFull"
    # Drift
    DRIFT_TRAFFIC = "DriftTraffic"
    DRIFT_MISSING = "DriftMissing"
    DRIFT_EXTRA = "DriftExtra"
    DRIFT_CHANGED = "DriftChanged"
    DRIFT_RESTARTED = "DriftRestarted"
    DRIFT_UNLABELLED = "DriftUnlabelled"
    DRIFT_WRONG_IMAGE = "DriftWrongImage"
    DRIFT_FILESYSTEM = "DriftFilesystem"
    LIFETIME_REACHED = "LifetimeReached"
    # Journal and daemon
    JOURNAL_UNAVAILABLE = "JournalUnavailable"
    JOURNAL_DAMAGED = "JournalDamaged"
    JOURNAL_LOCKED = "JournalLocked"
    FENCED = "Fenced"
    SETTINGS_INVALID = "SettingsInvalid"
    INTERNAL_ERROR = "InternalError"


class ReconcilerError(Exception):
    """Something a person may read: what is wrong, where, and what to do about it.

    `str()` of it is one line, "where: what. remedy", already free of secrets.
    """

    def __init__(self, reason: Reason, what: str, *, where: str = "", remedy: str = "") -> None:
        self.reason = reason
        self.what = what
        self.where = where
        self.remedy = remedy
        super().__init__(self._line())

    def _line(self) -> str:
        place = f"{self.where}: " if self.where else ""
        advice = f". {self.remedy}" if self.remedy else ""
        return f"{place}{self.what}{advice}"


class Rejected(ReconcilerError):
    """This revision is unacceptable: the last good one stays; no retry until a new revision."""


class Retryable(ReconcilerError):
    """The surroundings are in trouble: try again after a jittered backoff, at once on a new commit."""

    def __init__(
        self, reason: Reason, what: str, *, where: str = "", remedy: str = "", after: timedelta | None = None
    ) -> None:
        super().__init__(reason, what, where=where, remedy=remedy)
        self.after = after


class Stalled(ReconcilerError):
    """A person is needed: this service stops here and says so once."""


class Fenced(ReconcilerError):
    """Another writer opened a newer epoch: this one must not act any more and ends."""


def innermost(error: BaseException) -> str:
    """The words of the innermost of a chain of wrapped exceptions, short and on one line."""
    cause = error
    for _ in range(8):
        inner = cause.__cause__ or cause.__context__ or next((a for a in cause.args if isinstance(a, Exception)), None)
        if inner is None:
            break
        cause = inner
    return " ".join(str(cause).split())[:200] or type(cause).__name__

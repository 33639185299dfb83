"""The words of the journal: what a record says. The chain and its bytes are in `core/audit.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any


class What(StrEnum):
    """The kinds of record. INTENT, DONE and FAILED surround each effect; the others are decisions and transitions.

    UNKNOWN stands for a kind that a newer release wrote; the word itself is in the record's `body`.
    """

    JOURNAL_BEGAN = "JournalBegan"
    EPOCH_OPENED = "EpochOpened"
    REVISION_ADMITTED = "RevisionAdmitted"
    REVISION_REJECTED = "RevisionRejected"
    HISTORY_REWRITTEN = "HistoryRewritten"
    INTENT = "Intent"
    DONE = "Done"
    FAILED = "Failed"
    ROLLOUT_STARTED = "RolloutStarted"
    ROLLOUT_SUPERSEDED = "RolloutSuperseded"
    ROLLOUT_FAILED = "RolloutFailed"
    INSTANCE_HEALTHY = "InstanceHealthy"
    INSTANCE_WARM = "InstanceWarm"
    STAGE_PASSED = "StagePassed"
    PAUSED = "Paused"
    CONTINUED = "Continued"
    SCALED = "Scaled"
    INSTANCE_LOST = "InstanceLost"
    INSTANCE_EXPIRED = "InstanceExpired"
    PULL_FAILED = "PullFailed"
    PROMOTED = "Promoted"
    ROLLED_BACK = "RolledBack"
    QUARANTINE_LIFTED = "QuarantineLifted"
    ADOPTED = "Adopted"
    DRIFT_FOUND = "DriftFound"
    DRIFT_REPAIRED = "DriftRepaired"
    SERVICE_REMOVED = "ServiceRemoved"
    STALLED = "Stalled"
    SUSPENDED = "Suspended"
    RESUMED = "Resumed"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class VersionRef:
    """A version as the journal names it: its hash, the pinned image, and the revision whose files describe it."""

    version: str
    image: str
    revision: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A record before it is in the journal. Times are aware and in UTC; `duration` is that of the act recorded."""

    at: datetime
    what: What
    environment: str = ""
    service: str = ""
    from_version: VersionRef | None = None
    to_version: VersionRef | None = None
    revision: str = ""
    author: str = ""
    committer: str = ""
    trigger: str = ""
    reason: str = ""
    duration: timedelta | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Record:
    """An entry in its place: `index` from 1 without gaps, `epoch` of the writer, the chain's two hashes (hex).

    `body` is what is stored and hashed: canonical bytes that may hold more than this release understands.
    """

    index: int
    epoch: int
    previous: str
    hash: str
    entry: Entry
    body: bytes = field(default=b"", repr=False, compare=False)

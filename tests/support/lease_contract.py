"""What every API that keeps a lease must do, as functions for a fake and for a real cluster."""

from __future__ import annotations

from reconciler.adapters.lease import KubernetesLease
from reconciler.core.lease import Found, LeaseRecord

SECONDS = 60.0
RECORD = LeaseRecord("me", 15.0, "2026-01-02T03:04:05.000006+00:00", "2026-01-02T03:04:06.000007+00:00", 4)


def made(lease: KubernetesLease, record: LeaseRecord = RECORD) -> Found:
    """The lease after its first write."""
    found = lease.write(Found(record), SECONDS)
    assert found is not None
    return found


def there_is_none_at_first(lease: KubernetesLease) -> None:
    assert lease.read(SECONDS) == Found(None)


def what_was_written_is_read(lease: KubernetesLease) -> None:
    written = made(lease)
    assert written.record is not None
    assert (written.record.holder, written.record.duration, written.record.transitions) == ("me", 15.0, 4)
    assert written.record.renewed.startswith("2026-01-02T03:04:06.000007")
    assert written.version
    assert lease.read(SECONDS) == written


def only_one_makes_it(one: KubernetesLease, other: KubernetesLease) -> None:
    one.read(SECONDS)
    other.read(SECONDS)
    made(one)
    assert other.write(Found(LeaseRecord("other", 15.0)), SECONDS) is None
    assert other.read(SECONDS) == one.read(SECONDS)


def only_one_changes_a_version(one: KubernetesLease, other: KubernetesLease) -> None:
    made(one)
    seen_by_one, seen_by_other = one.read(SECONDS), other.read(SECONDS)
    changed = one.write(Found(LeaseRecord("one", 15.0), version=seen_by_one.version), SECONDS)
    assert changed is not None
    assert other.write(Found(LeaseRecord("other", 15.0), version=seen_by_other.version), SECONDS) is None
    assert other.read(SECONDS) == changed


def a_released_one_names_nobody(lease: KubernetesLease) -> None:
    written = made(lease)
    released = lease.write(
        Found(LeaseRecord("", 1.0, RECORD.acquired, RECORD.renewed, 4), version=written.version), 5.0
    )
    assert released is not None
    assert released.record is not None
    assert (released.record.holder, released.record.duration, released.record.transitions) == ("", 1.0, 4)


def looks_come_and_go(lease: KubernetesLease) -> None:
    written = made(lease)
    asked = lease.write(Found(written.record, frozenset({"prod", "dev"}), written.version), SECONDS)
    assert asked is not None
    assert lease.read(SECONDS).looks == {"prod", "dev"}
    assert lease.read(SECONDS).record == written.record
    done = lease.write(Found(written.record, frozenset(), asked.version), SECONDS)
    assert done is not None
    assert lease.read(SECONDS).looks == frozenset()


LAWS = (there_is_none_at_first, what_was_written_is_read, a_released_one_names_nobody, looks_come_and_go)
LAWS_OF_TWO = (only_one_makes_it, only_one_changes_a_version)

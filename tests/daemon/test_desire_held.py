"""Why nothing new begins, as `Desire` says it out of Git, the settings and the journal's memory: freezes and caps."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from reconciler.core.admission import Wanted
from reconciler.core.caps import CONFIRM
from reconciler.core.errors import Reason, Retryable
from reconciler.core.freeze import EMERGENCY, Held
from reconciler.core.memory import EnvironmentMemory, ServiceMemory, Suspension
from reconciler.core.policy import Allow
from reconciler.core.record import VersionRef
from reconciler.desire import Desire
from reconciler.schemas import load_schemas
from tests.support import world
from tests.support.fake_runtime import HandClock
from tests.support.fake_source import FakeSource
from tests.support.runtime_house import Nothing

FROZEN = """spec:
  freeze: [{why: sale, from: 2026-06-01T00:00, until: 2026-06-03T00:00}]
  changes: {maxCount: 1}
"""
DURING, AFTER = datetime(2026, 6, 2, tzinfo=UTC), datetime(2026, 6, 3, tzinfo=UTC)
EMERGENCY_LINE, CONFIRM_LINE = "Reconciler-Emergency: fire", "Reconciler-Confirm: changes"
CHANGED = ("a", "b")


class House:
    """A `Desire` over a repository with three services, of which the memory knows an older version."""

    def __init__(self, trailer: str = "", *, emergency: bool = False, changed: tuple[str, ...] = CHANGED) -> None:
        settings = world.settings()
        self.environment = replace(settings.environments[world.ENVIRONMENT], allow=Allow(emergency=emergency))
        self.settings = replace(settings, environments={world.ENVIRONMENT: self.environment})
        self.clock = HandClock()
        source = FakeSource(self.clock, "fleet")
        self.repository = source.repositories["fleet"]
        self.desire = Desire(self.settings, source, Nothing(), load_schemas())
        own = world.ENVIRONMENT_FILE.replace(b"spec: {}", FROZEN.encode())
        files = {f"{world.DIRECTORY}/{name}.yaml": world.manifest(name, "a") for name in "abc"}
        self.repository.commit(
            {f"{world.DIRECTORY}/environment.yaml": own, **files}, subject=f"change\n\n{trailer}".strip()
        )
        self.wanted = self.desire.wanted(self.environment, EnvironmentMemory(), None)
        assert self.wanted.error is None, self.wanted.error
        services = {}
        for name, wish in self.wishes(EnvironmentMemory()).items():
            assert wish.desired is not None
            stable = VersionRef("old" if name in changed else wish.desired.version, "image", "revision")
            services[name] = ServiceMemory(stable=stable)
        self.memory = EnvironmentMemory(services=services)

    def commit(self, **letters: str) -> None:
        """Another image for each service named, and a look at Git."""
        self.repository.commit(
            {f"{world.DIRECTORY}/{name}.yaml": world.manifest(name, x) for name, x in letters.items()}
        )
        self.clock.advance(timedelta(seconds=1))
        self.wanted = self.desire.wanted(self.environment, self.memory, self.clock.now())

    def wishes(self, memory: EnvironmentMemory):
        return self.desire.wishes(self.environment, self.wanted, memory)

    def held(self, now: datetime) -> Held | None:
        return self.desire.held(self.wanted, self.memory, self.wishes(self.memory), now)


@pytest.mark.parametrize(
    ("trailer", "emergency", "during", "after"),
    [
        ("", False, Reason.FROZEN, Reason.CHANGE_CAP_EXCEEDED),
        ("", True, Reason.FROZEN, Reason.CHANGE_CAP_EXCEEDED),
        (EMERGENCY_LINE, False, Reason.FROZEN, Reason.CHANGE_CAP_EXCEEDED),
        (EMERGENCY_LINE, True, Reason.CHANGE_CAP_EXCEEDED, Reason.CHANGE_CAP_EXCEEDED),
        (CONFIRM_LINE, True, Reason.FROZEN, None),
        (f"{EMERGENCY_LINE}\n{CONFIRM_LINE}", True, None, None),
        (f"{EMERGENCY_LINE}\n{CONFIRM_LINE}", False, Reason.FROZEN, None),
    ],
)
def test_what_a_commit_says_passes_a_freeze_or_a_cap(
    trailer: str, emergency: bool, during: Reason | None, after: Reason | None
) -> None:
    house = House(trailer, emergency=emergency)
    found = house.held(DURING)
    assert (found.reason if found else None) is during
    assert (found.until if found else None) == (AFTER if during is Reason.FROZEN else None)
    later = house.held(AFTER)
    assert (later.reason if later else None) is after


def test_trailers_come_from_the_revision_in_use() -> None:
    house = House(f"{EMERGENCY_LINE}\n{CONFIRM_LINE}", emergency=True)
    assert house.wanted.state is not None
    assert house.wanted.state.revision.trailers == {EMERGENCY: "fire", CONFIRM: "changes"}


@pytest.mark.parametrize(("changed", "held"), [((), False), (("a",), False), (("a", "b"), True)])
def test_a_cap_counts_what_this_revision_changes(changed: tuple[str, ...], held: bool) -> None:
    assert (House(changed=changed).held(AFTER) is not None) is held


def test_a_suspended_service_is_not_changed_now() -> None:
    house = House()
    suspension = Suspension("ann", AFTER, "maintenance")
    services = {**house.memory.services, "a": replace(house.memory.services["a"], suspension=suspension)}
    house.memory = replace(house.memory, services=services)
    assert house.held(AFTER) is None


def test_a_revert_frees_what_a_cap_holds() -> None:
    house = House(changed=())
    house.commit(b="b", c="b")
    held = house.held(AFTER)
    assert held is not None
    assert "changes 2 of 3 services, more than 1" in held.message
    house.commit(b="a", c="a")
    assert house.held(AFTER) is None


def test_without_a_usable_revision_nothing_is_said() -> None:
    house = House()
    lost = Wanted(world.ENVIRONMENT, error=Retryable(Reason.REPOSITORY_UNREACHABLE, "no answer"))
    assert house.desire.held(lost, house.memory, {}, DURING) is None


def test_in_a_freeze_nothing_is_removed_either() -> None:
    house = House()
    owned = {"a", "b", "c", "gone"}
    frozen = house.held(DURING)
    assert frozen is not None
    assert house.desire.removals_held(house.wanted, house.memory, owned, frozen) == (Reason.FROZEN, frozen.message)
    assert house.desire.removals_held(house.wanted, house.memory, owned, house.held(AFTER)) is None
    assert house.held(AFTER - timedelta(microseconds=1)) is not None

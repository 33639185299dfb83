"""What `Desire` makes of plain manifests: guards between revisions, trouble of the renderer, and the way back."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from reconciler.core.bundle_rendering import Rendering
from reconciler.core.errors import Reason, ReconcilerError, Rejected, Retryable, Stalled
from reconciler.core.memory import EnvironmentMemory, ServiceMemory
from reconciler.core.policy import Allow
from reconciler.core.question import Wish
from reconciler.core.record import VersionRef
from reconciler.desire import Desire
from reconciler.schemas import load_schemas
from tests.support import world
from tests.support.bundles import config, manifests
from tests.support.fake_runtime import HandClock
from tests.support.fake_source import FakeSource, Link
from tests.support.runtime_house import Nothing

KUSTOMIZED = b"namePrefix: x-"


class Programs:
    """A renderer whose answer the test chooses; without one, what it makes is named after what it was given."""

    def __init__(self) -> None:
        self.answer: bytes | ReconcilerError | None = None
        self.asked = 0

    def render(self, rendering: Rendering) -> bytes:
        self.asked += 1
        if isinstance(self.answer, ReconcilerError):
            raise self.answer
        return self.answer or config(f"x-{rendering.digest[:8]}").encode()


class House:
    """A `Desire` over a repository with one bundle and one service beside it."""

    def __init__(self, renderer: Programs | None = None) -> None:
        settings = world.settings()
        allow = Allow(native=True, namespace="prod")
        self.environment = replace(settings.environments[world.ENVIRONMENT], allow=allow)
        self.clock = HandClock()
        self.source = FakeSource(self.clock, "fleet")
        self.repository = self.source.repositories["fleet"]
        self.programs = renderer
        self.desire = Desire(
            replace(settings, environments={world.ENVIRONMENT: self.environment}),
            self.source,
            Nothing(),
            load_schemas(),
            renderer,
        )
        self.memory = EnvironmentMemory()
        self.repository.commit(
            {
                f"{world.DIRECTORY}/environment.yaml": world.ENVIRONMENT_FILE,
                f"{world.DIRECTORY}/shop.yaml": manifests().encode(),
                f"{world.DIRECTORY}/web.yaml": world.manifest("web", "a"),
            }
        )

    def push(self, subject: str = "change", **files: bytes | Link | None) -> str:
        """Commit files below apps/shop; gives the revision."""
        return self.repository.commit({f"apps/shop/{name}.yaml": text for name, text in files.items()}, subject=subject)

    def wish(self) -> Wish:
        self.clock.advance(timedelta(seconds=1))
        wanted = self.desire.wanted(self.environment, self.memory, self.clock.now())
        assert wanted.error is None, wanted.error
        wishes = self.desire.wishes(self.environment, wanted, self.memory)
        assert wishes["web"].desired is not None, "the others are never held by it"
        return wishes["shop"]

    def promote(self) -> VersionRef:
        """What is wished becomes the stable version."""
        desired = self.wish().desired
        assert desired is not None
        stable = VersionRef(desired.version, desired.spec.image.pinned, desired.revision)
        self.memory = EnvironmentMemory(
            services={"shop": ServiceMemory(stable=stable)}, good={"shop": desired.revision}, admitted=desired.revision
        )
        return stable


FOUR = config("a", "b", "c", "d").encode()


def test_a_revision_that_removes_too_much_is_held_until_it_is_confirmed() -> None:
    house = House()
    house.push(all=FOUR)
    stable = house.promote()
    house.push(all=config("a").encode())
    held = house.wish()
    assert (held.held, held.waits) == (Reason.PRUNE_CAP_EXCEEDED, True)
    assert "removes 3 of 4 objects, more than 2 (ConfigMap b, ConfigMap c, ConfigMap d)" in held.message
    assert held.fallback is not None
    assert held.fallback.version == stable.version
    house.push(subject="all of it\n\nReconciler-Confirm: removals", other=config("a2").encode())
    assert house.wish().held is None


def test_an_emptied_path_and_a_missing_one_keep_the_last_good_version() -> None:
    house = House()
    house.push(all=FOUR)
    stable = house.promote()
    house.push(all=b"# nothing left")
    for said in ("there is no object in apps/shop", "there is no file apps/shop in this revision"):
        held = house.wish()
        assert held.held is Reason.MANIFEST_INVALID
        assert said in held.message
        assert held.desired is not None
        assert held.desired.version == stable.version
        house.push(all=None)


def test_a_link_in_its_directory_holds_this_one_only() -> None:
    house = House()
    house.push(all=FOUR)
    house.promote()
    house.push(link=Link("/etc/passwd"))
    held = house.wish()
    assert held.held is Reason.REPOSITORY_HOSTILE
    assert held.desired is not None


@pytest.mark.parametrize(
    "trouble", [Stalled(Reason.SETTINGS_INVALID, "no such program"), Retryable(Reason.MANIFEST_INVALID, "too slow")]
)
def test_trouble_of_the_renderer_passes_without_another_commit(trouble: ReconcilerError) -> None:
    programs = Programs()
    house = House(programs)
    house.push(kustomization=KUSTOMIZED)
    programs.answer = trouble
    held = house.wish()
    assert (held.held, held.desired) == (trouble.reason, None)
    assert trouble.what in held.message
    programs.answer = None
    assert house.wish().held is None
    asked = programs.asked
    house.wish()
    assert programs.asked == asked


def test_what_the_renderer_refuses_is_not_asked_again() -> None:
    programs = Programs()
    house = House(programs)
    house.push(kustomization=KUSTOMIZED)
    programs.answer = Rejected(Reason.MANIFEST_INVALID, "cannot render this")
    assert house.wish().held is Reason.MANIFEST_INVALID
    house.wish()
    assert programs.asked == 1


def test_the_stable_version_is_read_again_once_the_renderer_is_back() -> None:
    programs = Programs()
    house = House(programs)
    house.push(kustomization=KUSTOMIZED, a=b"a: 1")
    stable = house.promote()
    house.push(a=b"a: 2")
    again = House(programs)
    again.source.repositories["fleet"] = house.repository
    again.memory = house.memory
    programs.answer = Stalled(Reason.SETTINGS_INVALID, "no such program")
    assert again.wish().fallback is None
    programs.answer = None
    found = again.wish()
    assert found.fallback is not None
    assert (found.fallback.version, found.fallback.obstacle) == (stable.version, "")


def test_what_another_release_renders_otherwise_cannot_be_declared_again() -> None:
    programs = Programs()
    house = House(programs)
    house.push(kustomization=KUSTOMIZED)
    house.promote()
    house.push(kustomization=b"namePrefix: y-")
    again = House(programs)
    again.source.repositories["fleet"] = house.repository
    again.memory = house.memory
    programs.answer = config("x", "new-in-this-release").encode()
    found = again.wish()
    assert found.fallback is not None
    assert "what renders version" in found.fallback.obstacle


def test_without_a_renderer_it_is_said() -> None:
    house = House()
    house.push(kustomization=KUSTOMIZED)
    held = house.wish()
    assert held.held is Reason.SETTINGS_INVALID
    assert "kustomize is needed to render this, and it is not set up" in held.message

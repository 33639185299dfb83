"""The real program dies by SIGKILL at every failpoint against a real engine; the next run finishes what was begun."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import docker
import pytest

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.journal import SqlJournal
from reconciler.core import names
from reconciler.failpoints import FAILPOINTS
from tests.support.fleet_house import FleetHouse
from tests.support.runtime_house import demolish
from tools import images as sample


def manifest(image: str, *, stubborn: bool) -> str:
    env = '{IGNORE_TERM: "1"}' if stubborn else "{}"
    return f"""apiVersion: reconciler.dev/v1
kind: Service
metadata: {{name: web}}
spec:
  image: {image}
  env: {env}
  files:
    - {{path: /etc/hello/banner.txt, content: "hello\\n"}}
  health: {{http: {{port: 8080, path: /healthz}}, interval: 200ms, healthyAfter: 1, startup: 60s}}
  drain: {{deadline: 0s, grace: 500ms}}
"""


@pytest.fixture
def house(engine: str, raw: docker.APIClient, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[FleetHouse]:
    environment = "fp-" + "".join(letter if letter.isalnum() else "-" for letter in str(request.param)).lower()
    found = FleetHouse(tmp_path, environment, engine)
    found.prepare()
    yield found
    demolish(raw, environment)


def release(house: FleetHouse, image: str, failpoint: str) -> bool:
    """One commit, a run that may die, and a run that must not; whether it died."""
    house.write("web", manifest(image, stubborn="kill" in failpoint))
    house.push()
    first = house.run("run", "--once", failpoint=failpoint)
    if first.returncode == 0:
        return False
    assert first.returncode == -9, first.stderr
    second = house.run("run", "--once")
    assert second.returncode == 0, second.stdout + second.stderr
    return True


@pytest.fixture
def images(
    house: FleetHouse, failpoint: str, hello: dict[str, str], registry: str, raw: docker.APIClient
) -> Iterator[list[str]]:
    """Two versions, pinned. For a pull they are of this test alone, and only the registry has them.

    The shared ones are no good for that: other tests pull them and run them at the same time.
    """
    if "pull" not in failpoint:
        yield [hello["1.0"], hello["2.0"]]
        return
    name = f"hello-{house.environment}"
    label = f'LABEL of="{house.environment}"\n'
    found = [sample.publish(house.host, registry, version, name, label) for version in ("1.0", "2.0")]
    _forget(raw, found)
    yield found
    demolish(raw, house.environment)
    _forget(raw, found)


@pytest.mark.parametrize(("house", "failpoint"), [(name, name) for name in FAILPOINTS], indirect=["house"])
def test_death_there_loses_nothing(house: FleetHouse, failpoint: str, images: list[str], raw: docker.APIClient) -> None:
    died = [release(house, image, failpoint) for image in images]
    assert any(died), "this failpoint is never hit: it guards nothing"
    running = [box for box in house.containers(raw) if box["State"] == "running"]
    assert len(house.containers(raw)) == len(running) == 1
    assert str(running[0]["Labels"][names.LABEL_IMAGE]) == _pinned(images[-1])  # type: ignore[index]
    volumes = raw.volumes(filters={"label": f"{names.LABEL_ENVIRONMENT}={house.environment}"})["Volumes"] or []
    assert len(volumes) == 1, "leftovers of an instance"
    with closing(SqlJournal.open(house.journal, SystemClock(), "test", act=False)) as journal:
        assert journal.verify().problem == ""
        assert journal.memory(house.environment).services["web"].rollout is None, "not promoted"


def _pinned(reference: str) -> str:
    named, digest = reference.split("@")
    return f"{named.rpartition(':')[0]}@{digest}"


def _forget(client: docker.APIClient, references: list[str]) -> None:
    """Remove images from the engine, by their tags and by their digests."""
    for reference in references:
        for name in (reference.partition("@")[0], _pinned(reference)):
            with suppress(docker.errors.ImageNotFound):
                client.remove_image(name, force=True)

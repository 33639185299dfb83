"""What several benchmarks need: the engine of the tests, a fleet of one service, and the daemon as a process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker

from reconciler.core import names
from tests.support.fleet_house import ROOT, FleetHouse
from tests.support.runtime_house import demolish
from tools import engine, images

VERSIONS = ("1.0", "2.0", "1.1", "2.1")


def manifest(image: str) -> str:
    """One small web service that is replaced without any pause."""
    return f"""apiVersion: reconciler.dev/v1
kind: Service
metadata: {{name: web}}
spec:
  image: {image}
  health: {{http: {{port: 8080, path: /healthz}}, interval: 1s, healthyAfter: 1}}
  drain: {{deadline: 0s, grace: 5s}}
"""


@contextmanager
def ground() -> Iterator[tuple[str, dict[str, str], Path]]:
    """A private engine with the sample images: its URL, references by version, and a directory for the rest."""
    with tempfile.TemporaryDirectory(prefix="rb-") as directory:
        place = Path(directory) / "engine"
        running = engine.up(place, private=True)
        try:
            found = {version: images.publish(running.host, running.registry, version) for version in VERSIONS}
            yield running.host, found, Path(directory)
        finally:
            engine.down(place)


@contextmanager
def daemon(house: FleetHouse, client: docker.APIClient) -> Iterator[subprocess.Popen[bytes]]:
    """`reconciler run` until the end of the block; then all that it made is removed."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(house.directory), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "reconciler", "run", "--settings", str(house.settings)]
    with (house.directory / "daemon.log").open("wb") as log:
        running = subprocess.Popen(command, env=environment, cwd=house.directory, stdout=log, stderr=log)
    try:
        yield running
    finally:
        running.terminate()
        running.wait(30)
        demolish(client, house.environment)


def pinned(reference: str) -> str:
    """`repository@digest` of a reference with a tag."""
    named, digest = reference.split("@")
    return f"{named.rpartition(':')[0]}@{digest}"


def replaced(house: FleetHouse, client: docker.APIClient, reference: str) -> bool:
    """Whether instances of `reference` alone are there, running: the old ones go only when the new are healthy."""
    found = client.containers(all=True, filters={"label": f"{names.LABEL_ENVIRONMENT}={house.environment}"})
    return bool(found) and all(
        box["Labels"].get(names.LABEL_IMAGE) == pinned(reference) and box["State"] == "running" for box in found
    )

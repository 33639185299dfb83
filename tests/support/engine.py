"""The real engine for tests: a private dockerd and registry of the test run, and the `hello` images in it.

`RECONCILER_TEST_ENGINE_DIR` names the directory of an engine that stays between runs. Otherwise the last worker of
the run stops it. Workers share it under a file lock.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import docker
import pytest

from reconciler.core.model import ImageRef
from tests.support.of_the_run import of_the_run
from tools import engine as tool
from tools import images, proxy_image
from tools.kept import locked

VERSIONS = ("1.0", "2.0", "3.0")


@pytest.fixture(scope="session")
def _running(request: pytest.FixtureRequest) -> Iterator[tool.Engine]:
    up = partial(tool.up, private=True)
    with of_the_run(request.config, "RECONCILER_TEST_ENGINE_DIR", "rec-", up, tool.down) as running:
        yield running


@pytest.fixture(scope="session")
def engine(_running: tool.Engine) -> str:
    """The URL of the engine."""
    return _running.host


@pytest.fixture(scope="session")
def registry(_running: tool.Engine) -> str:
    """host:port of the registry."""
    return _running.registry


@pytest.fixture(scope="session")
def hello(_running: tool.Engine) -> dict[str, str]:
    """Versions of the sample service to their pinned references, `127.0.0.1:PORT/hello:1.0@sha256:…`."""
    assert _running.dockerd is not None
    directory = Path(_running.host.removeprefix("unix://")).parent
    with locked(directory / "hello.lock"):
        known = directory / "hello.json"
        if not known.exists():
            known.write_text(json.dumps({v: images.publish(_running.host, _running.registry, v) for v in VERSIONS}))
        found: dict[str, str] = json.loads(known.read_text())
    return found


@pytest.fixture(scope="session")
def haproxy(_running: tool.Engine) -> str:
    """The image of the managed proxy. Two workers that built it side by side would take its name from each other."""
    with locked(Path(_running.host.removeprefix("unix://")).parent / "hello.lock"):
        return proxy_image.build(_running.host)


def image_ref(reference: str) -> ImageRef:
    """The value of a pinned reference."""
    named, digest = reference.split("@")
    repository, _, tag = named.rpartition(":")
    return ImageRef(repository, digest, tag)


@pytest.fixture
def raw(engine: str) -> Iterator[docker.APIClient]:
    """The engine as another person with the docker command would use it."""
    client = docker.APIClient(engine, version="auto", timeout=120)
    yield client
    client.close()

"""The real engine for tests: a private dockerd and registry of the test run, and the `hello` images in it.

`RECONCILER_TEST_ENGINE_DIR` names the directory of an engine that stays between runs. Otherwise the last worker of
the run stops it. Workers share it under a file lock.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import pytest

from reconciler.core.model import ImageRef
from tools import engine as tool
from tools import images, proxy_image

VERSIONS = ("1.0", "2.0", "3.0")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _directory(run: str) -> tuple[Path, bool]:
    """Where the engine of this run lives, and whether it stays; short, because a socket's name is."""
    kept = os.environ.get("RECONCILER_TEST_ENGINE_DIR")
    return (Path(kept), True) if kept else (Path(tempfile.gettempdir()) / f"rec-{run[:12]}", False)


@pytest.fixture(scope="session")
def _running(request: pytest.FixtureRequest) -> Iterator[tool.Engine]:
    worker = getattr(request.config, "workerinput", None)
    run = str(worker["testrunuid"]) if worker else f"{os.getpid():x}"
    directory, stays = _directory(run)
    users = directory.parent / f"{directory.name}.users"
    lock = directory.parent / f"{directory.name}.lock"
    with _locked(lock):
        running = tool.up(directory, private=True)
        count = int(users.read_text()) if users.exists() and not stays else 0
        users.write_text(str(count + 1))
    yield running
    with _locked(lock):
        left = int(users.read_text()) - 1
        users.write_text(str(left))
        if left <= 0:
            users.unlink()
            if not stays:
                tool.down(directory)
                directory.rmdir()
                lock.unlink()


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
    with _locked(directory / "hello.lock"):
        known = directory / "hello.json"
        if not known.exists():
            known.write_text(json.dumps({v: images.publish(_running.host, _running.registry, v) for v in VERSIONS}))
        found: dict[str, str] = json.loads(known.read_text())
    return found


@pytest.fixture(scope="session")
def haproxy(_running: tool.Engine) -> str:
    """The image of the managed proxy. Two workers that built it side by side would take its name from each other."""
    with _locked(Path(_running.host.removeprefix("unix://")).parent / "hello.lock"):
        return proxy_image.build(_running.host)


def image_ref(reference: str) -> ImageRef:
    """The value of a pinned reference."""
    named, digest = reference.split("@")
    repository, _, tag = named.rpartition(":")
    return ImageRef(repository, digest, tag)


@pytest.fixture
def raw(engine: str) -> Iterator[docker.APIClient]:
    """The engine as another person with the docker command would use it."""
    client = docker.APIClient(engine, version="auto", timeout=30)
    yield client
    client.close()

"""The daemon's image for tests: built once for all runs with the same sources, and on the engine of each run."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import docker
import pytest

from tools import daemon_image as tool


@pytest.fixture(scope="session")
def daemon_image_files() -> tool.Image:
    """The archive, its bill of materials and its digests."""
    return tool.build()


@pytest.fixture(scope="session")
def daemon_image(engine: str, daemon_image_files: tool.Image) -> str:
    """Its tag on the engine of the run."""
    return tool.load(engine)


def publish(engine: str, tag: str, registry: str) -> str:
    """Push the image, which is on the engine, to `registry` (host:port): its reference there, pinned by digest."""
    client = docker.APIClient(engine, version="auto", timeout=300)
    with contextlib.closing(client):
        name = f"{registry}/{tool.REPOSITORY}"
        client.tag(tag, name, "tested", force=True)
        for line in client.push(name, tag="tested", stream=True, decode=True, auth_config={}):
            assert "error" not in line, line
            if digest := line.get("aux", {}).get("Digest"):
                return f"{name}@{digest}"
    raise AssertionError("the engine did not tell the digest of what it pushed")


def give(path: Path) -> None:
    """Let the daemon in its container own a directory of a test, with all that is in it."""
    for folder, _, files in os.walk(path):
        for name in (".", *files):
            os.chown(Path(folder) / name, tool.USER, tool.USER)


__all__ = ["daemon_image", "daemon_image_files", "give", "publish"]

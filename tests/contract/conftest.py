"""A house on the real engine for the tests that a fake could not pass. Suites for both have a `house` of their own."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping

import docker
import pytest

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.docker_runtime import DockerRuntime
from tests.support.runtime_house import House, Vault, demolish, docker_settings, real_house

_serial = itertools.count()


@pytest.fixture
def house(engine: str, hello: Mapping[str, str], raw: docker.APIClient) -> Iterator[House]:
    environment = f"d{os.getpid():x}-{next(_serial)}"
    built = real_house(environment, engine, hello, raw)
    built.runtime.close()
    built.runtime = DockerRuntime(docker_settings(engine), "house", Vault(), SystemClock())
    built.runtime.watch(built.hint)
    yield built.ready()
    built.runtime.close()
    built.other.close()
    demolish(raw, environment)

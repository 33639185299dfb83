"""A house for `ports.Runtime`, fake or real: the same questions and the same hand-made changes for both."""

from __future__ import annotations

import io
import itertools
import os
import posixpath
import re
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Protocol

import docker
import pytest

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.docker_runtime import DockerRuntime
from reconciler.core import names
from reconciler.core.errors import Reason
from reconciler.core.live import Difference, Foreign, HealthStatus, Instance, LiveState, Phase
from reconciler.core.model import Health, HttpCheck, ImageRef, ServiceSpec, version_of
from reconciler.core.steps import CreateInstance, EnsureNetwork, PullImage, StartInstance
from reconciler.ports import Runtime
from reconciler.settings import DockerSettings
from tests.support.engine import image_ref
from tests.support.fake_engine import FakeEngine, FakeVolume, HandClock
from tests.support.fake_runtime import FakeRuntime

QUICK = Health(check=HttpCheck(8080, "/healthz"), interval=timedelta(milliseconds=200), startup=timedelta(seconds=2))
PATIENCE = 60.0
OWNER = "house"
_serial = itertools.count()


class Nothing:
    """No secrets."""

    def versions(self, environment: str, names: Any) -> Mapping[str, str]:
        return {}

    def reveal(self, environment: str, name: str) -> bytes:
        raise AssertionError("no secret was expected")


class Vault:
    """Two secrets."""

    def versions(self, environment: str, names: Any) -> Mapping[str, str]:
        return {"password": "1", "key": "1"}

    def reveal(self, environment: str, name: str) -> bytes:
        return {"password": b"hunter2\n", "key": b"-----BEGIN-----\n"}[name]


class Hands(Protocol):
    """What a person does on the engine, past Reconciler."""

    def stop(self, name: str) -> None: ...
    def restart(self, name: str) -> None: ...
    def pause(self, name: str) -> None: ...
    def stall(self, name: str) -> None: ...
    def rename(self, name: str, new: str) -> None: ...
    def remove(self, name: str) -> None: ...
    def squat(self, environment: str, name: str) -> None: ...
    def forget_image(self, image: str) -> None: ...
    def write(self, name: str, path: str, text: bytes) -> None: ...
    def read(self, name: str, path: str) -> bytes: ...
    def claim_volume(self, name: str) -> None: ...


@dataclass
class House:
    """One environment on one engine. `settle` waits, or lets the clock go on, until the live state is as asked."""

    environment: str
    runtime: Runtime
    other: Runtime
    hands: Hands
    image: ImageRef
    second: ImageRef
    pass_time: Callable[[], None]
    checks: dict[str, Health] = field(default_factory=dict)
    hints: list[tuple[str, str]] = field(default_factory=list)
    hinted: threading.Event = field(default_factory=threading.Event)
    metered: tuple[str, ...] = ()

    def hint(self, environment: str, detail: str) -> None:
        self.hints.append((environment, detail))
        self.hinted.set()

    def spec(self, name: str = "web", **changes: Any) -> ServiceSpec:
        return replace(ServiceSpec(name=name, image=self.image, health=QUICK), **changes)

    def creation(self, spec: ServiceSpec, ordinal: int = 0, environment: str = "") -> CreateInstance:
        version = version_of(spec, {use.secret: "1" for use in spec.secrets})
        self.checks[version] = spec.health
        where = environment or self.environment
        return CreateInstance(
            names.instance(where, spec.name, version, ordinal), where, spec, version, "f" * 40, ordinal
        )

    def observe(self, *images: str) -> LiveState:
        return self.runtime.observe(self.environment, self.checks, images, self.metered)

    def settle(self, done: Callable[[LiveState], bool], *images: str) -> LiveState:
        """The first live state for which `done` holds; the last one is shown when none comes."""
        end = time.monotonic() + PATIENCE
        while True:
            state = self.observe(*images)
            if done(state):
                return state
            assert time.monotonic() < end, f"never came about; last seen: {state}"
            self.pass_time()

    def one(self, done: Callable[[Instance], bool] = lambda _: True) -> Instance:
        """The only instance, as soon as `done` holds for it."""
        state = self.settle(lambda s: len(s.instances) == 1 and done(s.instances[0]))
        return state.instances[0]

    def ready(self) -> House:
        """With network and images."""
        self.runtime.apply(EnsureNetwork(self.environment))
        wanted = (self.image.pinned, self.second.pinned)
        for image in wanted:
            self.runtime.apply(PullImage(image))
        self.settle(lambda s: all(s.images[i].status == "present" for i in wanted), *wanted)
        return self

    def create(self, spec: ServiceSpec | None = None, ordinal: int = 0) -> str:
        effect = self.creation(spec or self.spec(), ordinal)
        self.runtime.apply(effect)
        return effect.name

    def start(self, spec: ServiceSpec | None = None, ordinal: int = 0) -> str:
        name = self.create(spec, ordinal)
        self.runtime.apply(StartInstance(name))
        return name


@dataclass
class FakeHands:
    """Hands in the fake world."""

    engine: FakeEngine

    def _told(self, name: str) -> None:
        self.engine.tell(name.split(".")[1], f"container {name}")

    def stop(self, name: str) -> None:
        self.engine.end(self.engine.containers[name], 137, self.engine.clock.now())

    def restart(self, name: str) -> None:
        self.stop(name)
        container = self.engine.containers[name]
        container.phase, container.started_at = Phase.RUNNING, self.engine.clock.now()
        self._told(name)

    def pause(self, name: str) -> None:
        self.engine.containers[name].phase = Phase.PAUSED
        self._told(name)

    def stall(self, name: str) -> None:
        container = self.engine.containers[name]
        container.env = {**container.env, "UNHEALTHY_AFTER_MS": "0"}

    def rename(self, name: str, new: str) -> None:
        container = self.engine.containers.pop(name)
        container.called = new
        self.engine.containers[new] = container
        self._told(name)

    def remove(self, name: str) -> None:
        del self.engine.containers[name]
        self._told(name)

    def squat(self, environment: str, name: str) -> None:
        foreign = Foreign(name, Reason.NAME_TAKEN, "it has one of our names without our labels")
        self.engine.foreign.setdefault(environment, []).append(foreign)
        self.engine.tell(environment, f"container {name} create")

    def forget_image(self, image: str) -> None:
        self.engine.present.discard(image)

    def change(self, name: str, difference: Difference) -> None:
        self.engine.containers[name].differences.append(difference)

    def _volume(self, name: str, path: str) -> tuple[FakeVolume, str]:
        effect = self.engine.containers[name].effect
        directory, file = posixpath.split(path)
        (volume,) = [v for v in effect.spec.volumes if v.path == directory]
        return self.engine.volumes[names.volume(effect.environment, effect.spec.name, volume.name)], file

    def write(self, name: str, path: str, text: bytes) -> None:
        volume, file = self._volume(name, path)
        volume.files[file] = text

    def read(self, name: str, path: str) -> bytes:
        volume, file = self._volume(name, path)
        return volume.files[file]

    def claim_volume(self, name: str) -> None:
        self.engine.volumes[name] = FakeVolume("someone")


@dataclass
class RealHands:
    """Hands on a real engine."""

    client: docker.APIClient
    image: str

    def stop(self, name: str) -> None:
        self.client.kill(name)

    def restart(self, name: str) -> None:
        self.client.restart(name, timeout=0)

    def pause(self, name: str) -> None:
        self.client.pause(name)

    def stall(self, name: str) -> None:
        self.client.kill(name, "SIGSTOP")  # the engine does not notice: it runs, and answers nothing

    def rename(self, name: str, new: str) -> None:
        self.client.rename(name, new)

    def remove(self, name: str) -> None:
        self.client.remove_container(name, force=True)

    def squat(self, environment: str, name: str) -> None:
        self.client.create_container(self.image, name=name, labels={"someone": "else"})

    def forget_image(self, image: str) -> None:
        self.client.remove_image(image, force=True)

    def write(self, name: str, path: str, text: bytes) -> None:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            entry = tarfile.TarInfo(posixpath.basename(path))
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text))
        self.client.put_archive(name, posixpath.dirname(path), buffer.getvalue())

    def read(self, name: str, path: str) -> bytes:
        stream, _ = self.client.get_archive(name, path)
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
            file = tar.extractfile(tar.getmembers()[0])
            assert file is not None
            return file.read()

    def claim_volume(self, name: str) -> None:
        self.client.create_volume(name, labels={"someone": "else"})


def fake_house(environment: str) -> House:
    """A house in memory."""
    clock = HandClock()
    engine = FakeEngine(clock)
    image = ImageRef("127.0.0.1:5000/hello", "sha256:" + "1" * 64, "1.0")
    second = ImageRef("127.0.0.1:5000/hello", "sha256:" + "2" * 64, "2.0")
    engine.registry = {image.pinned: None, second.pinned: None}
    runtime = FakeRuntime(engine, OWNER)
    return House(
        environment=environment,
        runtime=runtime,
        other=FakeRuntime(engine, "other"),
        hands=FakeHands(engine),
        image=image,
        second=second,
        pass_time=lambda: clock.advance(timedelta(milliseconds=100)),
    )


def docker_settings(host: str, **changes: Any) -> DockerSettings:
    return replace(DockerSettings(name="test", host=host, timeout=timedelta(seconds=20)), **changes)


def real_house(environment: str, host: str, hello: Mapping[str, str], client: docker.APIClient) -> House:
    """A house on a real engine. Waiting means waiting for a hint, as the daemon does."""
    runtime = DockerRuntime(docker_settings(host), OWNER, Nothing(), SystemClock())
    house = House(
        environment=environment,
        runtime=runtime,
        other=DockerRuntime(docker_settings(host), "other", Nothing(), SystemClock()),
        hands=RealHands(client, hello["1.0"]),
        image=image_ref(hello["1.0"]),
        second=image_ref(hello["2.0"]),
        pass_time=lambda: None,
    )

    def wait_for_a_hint() -> None:
        # The bound matters only for what no event tells, like the end of a startup time.
        house.hinted.wait(0.5)
        house.hinted.clear()

    house.pass_time = wait_for_a_hint
    return house


def either_house(request: pytest.FixtureRequest) -> Iterator[House]:
    """The body of a fixture that is given `fake` or `docker`: such a house, taken down in the end."""
    environment = f"c{os.getpid():x}-{next(_serial)}"
    if request.param == "fake":
        yield fake_house(environment)
        return
    client = request.getfixturevalue("raw")
    built = real_house(environment, request.getfixturevalue("engine"), request.getfixturevalue("hello"), client)
    built.runtime.watch(built.hint)
    yield built
    built.runtime.close()
    built.other.close()
    demolish(client, environment)


def demolish(client: docker.APIClient, environment: str) -> None:
    """Remove everything of an environment."""
    wanted = {"label": f"{names.LABEL_ENVIRONMENT}={environment}"}
    network = names.network(environment)
    for container in [
        *client.containers(all=True, filters=wanted),
        *client.containers(all=True, filters={"network": network}),
        *client.containers(all=True, filters={"name": "^" + re.escape(f"{names.PREFIX}.{environment}.")}),
    ]:
        try:
            client.remove_container(container["Id"], force=True, v=True)
        except docker.errors.NotFound:
            continue
    for volume in client.volumes(filters=wanted)["Volumes"] or ():
        client.remove_volume(volume["Name"])
    for found in client.networks(names=[f"^{re.escape(network)}$"]):  # else those whose names begin like it, too
        client.remove_network(found["Id"])


def healthy(house: House, **changes: Any) -> str:
    """The name of a new instance that became healthy."""
    name = house.start(house.spec(**changes))
    house.one(lambda i: i.health is HealthStatus.HEALTHY)
    return name

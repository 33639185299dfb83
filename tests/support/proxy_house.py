"""A house for the managed proxy: a real engine, a real HAProxy in it, and `hello` instances in its private network.

It steers the proxy by its runtime socket as a person would; the code that does it in the program is not used here.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import docker

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.docker_connection import Connection
from reconciler.adapters.docker_proxy import ManagedFront
from reconciler.adapters.haproxy_socket import ask
from reconciler.core import names
from reconciler.core.delivery import Route
from reconciler.core.proxy_config import Config, RouteWish, render
from reconciler.settings import DockerSettings, ProxySettings
from reconciler.survey import front_of
from tests.support.runtime_house import demolish
from tools.ports import free_port

OWNER = "proxies"
PATIENCE = 60.0
_serial = itertools.count()


def web(**values: Any) -> RouteWish:
    return RouteWish("web", Route(8080, **values), most=2)


@dataclass
class ProxyHouse:
    raw: docker.APIClient
    engine: str
    data: Path
    images: Mapping[str, str]
    proxy_image: str
    environment: str = field(default_factory=lambda: f"p{os.getpid():x}-{next(_serial)}")

    def __post_init__(self) -> None:
        at = ("127.0.0.1", free_port())
        self.settings = ProxySettings(image=self.proxy_image, http=at, timeout=timedelta(seconds=20))
        self.raw.create_network(names.network(self.environment), driver="bridge", check_duplicate=True)
        self._fronts: list[ManagedFront] = []
        self.front = self.made()

    def made(self, **changes: Any) -> ManagedFront:
        """Another front on the same proxy, as a daemon with these settings makes it; the house uses it from now on."""
        self.settings = replace(self.settings, **changes)
        connection = Connection(DockerSettings("test", self.engine))
        self.front = ManagedFront(self.environment, self.settings, connection, OWNER, self.data, SystemClock())
        self._fronts.append(self.front)
        return self.front

    @property
    def name(self) -> str:
        return names.proxy(self.environment)

    @property
    def directory(self) -> Path:
        return self.data / "proxy" / self.environment

    def config(self, *wishes: RouteWish) -> Config:
        return render(self.environment, front_of(self.settings), {wish.service: wish for wish in wishes})

    def ensure(self, *wishes: RouteWish) -> Config:
        config = self.config(*wishes)
        self.front.ensure(config.digest, config.text)
        return config

    def inspect(self) -> dict[str, Any]:
        return dict(self.raw.inspect_container(self.name))

    def instance(self, version: str = "1.0", **env: str) -> str:
        """The address of a new `hello`, which listens when this returns."""
        network = names.network(self.environment)
        made = self.raw.create_container(
            self.images[version].partition("@")[0],
            environment=env,
            host_config=self.raw.create_host_config(network_mode=network),
        )
        self.raw.start(made["Id"])
        joined = self.raw.inspect_container(made["Id"])["NetworkSettings"]["Networks"]
        address = str(joined[network]["IPAddress"])
        until(lambda: reaches(address, 8080), "the instance listens")
        return address

    def say(self, *commands: str) -> str:
        """Runtime commands, each of which has to be taken: most answer nothing."""
        return ask(self.front.sockets()[0], commands, PATIENCE)

    def put(self, backend: str, slot: int, address: str, weight: int = 1, state: str = "ready") -> None:
        server = f"{backend}/s{slot}"
        self.say(f"set server {server} addr {address} port 8080", f"set server {server} weight {weight}")
        self.say(f"set server {server} state {state}")

    def backend(self, service: str, *, preview: bool = False) -> str:
        return names.backend(self.environment, service, preview=preview)

    def servers(self, backend: str) -> dict[str, tuple[str, str, str]]:
        """Address, administrative state (1 maint, 8 drain) and weight of the slots that have an address."""
        rows = [line.split() for line in self.say(f"show servers state {backend}").splitlines()[2:]]
        found = {row[3]: (row[4], str(int(row[6]) & 9), row[7]) for row in rows if len(row) > 8}
        return {slot: seen for slot, seen in found.items() if seen[0] != "0.0.0.0"}

    def connection_to(self) -> http.client.HTTPConnection:
        assert self.settings.http is not None
        return http.client.HTTPConnection(*self.settings.http, timeout=PATIENCE)

    def get(self, path: str = "/", **headers: str) -> tuple[int, str, Mapping[str, str]]:
        """One request on a connection of its own: status, body, headers in lower case."""
        with contextlib.closing(self.connection_to()) as connection:
            connection.request("GET", path, headers={key.replace("_", "-"): value for key, value in headers.items()})
            answer = connection.getresponse()
            text = answer.read().decode()
            return answer.status, text, {key.lower(): value for key, value in answer.getheaders()}

    def log(self) -> str:
        return str(self.raw.logs(self.name, stdout=True, stderr=True).decode())

    def demolish(self) -> None:
        for front in self._fronts:
            front.close()
        demolish(self.raw, self.environment)


def reaches(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=1.0).close()
    except OSError:
        return False
    return True


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"in vain: {what}"
        time.sleep(0.02)


class Load:
    """Keep-alive clients that ask without a break and without retries, until told to stop."""

    def __init__(self, house: ProxyHouse, clients: int = 4) -> None:
        self.answered = 0
        self.failed: list[str] = []
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(house.connection_to(),)) for _ in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def await_more(self, count: int) -> None:
        """Until that many further requests were answered or one has failed."""
        wanted = self.answered + count
        until(lambda: self.answered >= wanted or self.failed, f"{count} more answers")

    def _run(self, connection: http.client.HTTPConnection) -> None:
        with contextlib.closing(connection):
            while not self._over.is_set():
                try:
                    connection.request("GET", "/")
                    answer = connection.getresponse()
                    answer.read()
                    problem = "" if answer.status == 200 else str(answer.status)
                except (OSError, http.client.HTTPException) as error:
                    connection.close()
                    problem = repr(error)
                with self._lock:
                    self.answered += 1
                    if problem:
                        self.failed.append(problem)

"""Real HAProxy processes on loopback with a small configuration, and real little HTTP servers as instances."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import reconciler.adapters
from reconciler.adapters.clock import SystemClock
from reconciler.adapters.haproxy import HaproxyTraffic
from reconciler.adapters.haproxy_front import OwnFront
from reconciler.adapters.haproxy_socket import ask
from reconciler.core import names
from reconciler.core.live import Backend, ServerMode
from reconciler.core.steps import Share, ShiftTraffic
from reconciler.settings import ProxySettings
from tools.ports import free_port

PATIENCE = 60.0
READY, DRAIN, MAINT = ServerMode.READY, ServerMode.DRAIN, ServerMode.MAINT

CONFIG = """
global
  stats socket {socket} mode 600 level admin
  stats socket ipv4@127.0.0.1:{admin} level admin
  server-state-file {state}
  lua-load-per-thread {lua}
  stats timeout 10s
  nbthread 2
defaults
  mode http
  timeout connect 1s
  timeout client 60s
  timeout server 60s
  timeout tunnel 60s
  timeout check 10s
  retries 0
  load-server-state-from-file global
frontend web
  bind 127.0.0.1:{port}
  default_backend {backend}
{backends}
backend elsewhere
  server x 127.0.0.1:9 disabled
"""
BACKENDS = """
backend {backend}
  balance roundrobin
  option httpchk GET /check
  cookie TO insert indirect nocache dynamic
  dynamic-cookie-key key
  stick-table type string len 32 size 1k expire 1h store gpc0
  server-template s 1-{slots} slot.invalid:1 init-addr last,0.0.0.0 check inter 50ms rise 1 fall 2 disabled
"""
LUA = Path(reconciler.adapters.__file__).with_name("haproxy_wake.lua")


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"it did not happen: {what}")
        time.sleep(0.01)


class Instance:
    """An instance: says its name, fails, stays silent until told, or talks for ever."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.go = threading.Event()
        self.healthy = True

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # a connection that was cut

        self._server = Server(("127.0.0.1", 0), _handler(self))
        self.at = ("127.0.0.1", self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def share(self, mode: ServerMode = READY, weight: int = 100) -> Share:
        return Share(self.name, *self.at, mode, weight)

    def stop(self) -> None:
        self.go.set()
        self._server.shutdown()
        self._server.server_close()


def _handler(instance: Instance) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path == "/check" and not instance.healthy:
                self._say(503)
            elif self.path == "/fail":
                self._say(500)
            elif self.path == "/slow":
                instance.go.wait(PATIENCE)
                self._say(200)
            elif self.path == "/endless":
                self._upgrade()
            else:
                self._say(200)

        def _say(self, status: int) -> None:
            body = instance.name.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _upgrade(self) -> None:
            self.send_response(101)
            self.send_header("Connection", "Upgrade")
            self.send_header("Upgrade", "echo")
            self.end_headers()
            self.close_connection = True
            while data := self.connection.recv(100):
                self.connection.sendall(data)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    return Handler


class Proxy:
    """One HAProxy process."""

    def __init__(self, directory: Path, index: int, backend: str, backends: str) -> None:
        self.socket = directory / f"{index}.sock"
        self.state = directory / f"{index}.state"
        self.port, self.admin = free_port(), free_port()
        self._config = directory / f"{index}.cfg"
        self._log = directory / f"{index}.log"
        text = CONFIG.format(
            socket=self.socket,
            admin=self.admin,
            state=self.state,
            port=self.port,
            backend=backend,
            backends=backends,
            lua=LUA,
        )
        self._config.write_text(text)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def address(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> None:
        program = shutil.which("haproxy") or "/usr/sbin/haproxy"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([program, "-db", "-f", self._config], stdout=log, stderr=log)
        until(self._answers, f"haproxy starts:\n{self._log.read_text()}")

    def _answers(self) -> bool:
        assert self._process is not None and self._process.poll() is None, self._log.read_text()
        return f"Pid: {self._process.pid}\n" in self.say("show info", quietly=True)

    def say(self, command: str, *, quietly: bool = False) -> str:
        with contextlib.suppress(Exception) if quietly else contextlib.nullcontext():
            return ask(self.address, command, 5 if quietly else PATIENCE)
        return ""

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def open(self, path: str, cookie: str = "", **headers: str) -> http.client.HTTPConnection:
        """A request is sent; nobody waits for its answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        connection.request("GET", path, headers={**headers, **({"Cookie": cookie} if cookie else {})})
        return connection

    def get(self, path: str = "/", cookie: str = "") -> tuple[int, str, str]:
        """Status, body, and the cookie that was set."""
        connection = self.open(path, cookie)
        with contextlib.closing(connection):
            answer = connection.getresponse()
            body = answer.read().decode()
            return answer.status, body, (answer.headers.get("Set-Cookie") or "").split(";")[0]


@dataclass
class RealHouse:
    """An environment with real proxies. `backends`: their configuration, when it is not the small one."""

    directory: Path
    number: int = 1
    slots: int = 4
    timeout: float = PATIENCE
    environment: str = "prod"
    instances: list[Instance] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    backends: str = ""

    def __post_init__(self) -> None:
        self.backend = names.backend(self.environment, "web")
        backends = self.backends or BACKENDS.format(backend=self.backend, slots=self.slots)
        self.proxies = [Proxy(self.directory, index, self.backend, backends) for index in range(self.number)]
        self.traffic = self.build([proxy.address for proxy in self.proxies])

    def build(self, sockets: Sequence[str]) -> HaproxyTraffic:
        settings = ProxySettings(sockets=tuple(sockets), state=self.directory, timeout=timedelta(seconds=self.timeout))
        front = OwnFront(self.environment, settings)
        return HaproxyTraffic({self.environment: front}, {self.environment: settings}, SystemClock())

    def within(self, seconds: float) -> None:
        """From now on the proxies have so long for an answer, and to find an instance up."""
        self.timeout = seconds
        self.traffic.close()
        self.traffic = self.build([proxy.address for proxy in self.proxies])

    def hint(self, environment: str, detail: str) -> None:
        assert environment == self.environment
        self.hints.append(detail)

    def instance(self, name: str) -> Instance:
        made = Instance(name)
        self.instances.append(made)
        return made

    def dead(self) -> tuple[str, int]:
        return "127.0.0.1", free_port()

    def shift(self, *shares: Share) -> None:
        self.traffic.apply(self.environment, ShiftTraffic(self.backend, "web", shares))

    def look(self) -> Backend:
        return self.traffic.observe(self.environment).backends[self.backend]

    def table(self) -> dict[tuple[str, int], tuple[ServerMode, int]]:
        return {(each.address, each.port): (each.mode, each.weight) for each in self.look().servers}

    def sessions(self, at: tuple[str, int]) -> int | None:
        return next((each.sessions for each in self.look().servers if (each.address, each.port) == at), 0)

    @contextlib.contextmanager
    def busy(self, instance: Instance) -> Iterator[None]:
        """A request goes on at `instance`, which has to be the only one that gets any."""
        connection = self.proxies[0].open("/slow")
        until(lambda: self.sessions(instance.at), "a request goes on")
        yield
        instance.go.set()
        assert connection.getresponse().read().decode() == instance.name
        connection.close()
        until(lambda: not self.sessions(instance.at), "the request has ended")

    def amnesia(self) -> None:
        """The proxies are killed, and what they had saved is gone."""
        for proxy in self.proxies:
            proxy.kill()
            proxy.state.unlink(missing_ok=True)
            proxy.start()

    def lose(self, index: int) -> None:
        self.proxies[index].kill()

    def mend(self, index: int) -> None:
        self.proxies[index].start()

    def by_hand(self, at: tuple[str, int], weight: int) -> None:
        for line in self.proxies[0].say(f"show servers state {self.backend}").splitlines():
            cells = line.split()
            if len(cells) > 18 and (cells[4], cells[18]) == (at[0], str(at[1])):
                self.proxies[0].say(f"set server {self.backend}/{cells[3]} weight {weight}")

    def close(self) -> None:
        self.traffic.close()
        for proxy in self.proxies:
            proxy.kill()
        for instance in self.instances:
            instance.stop()

"""Real `hello` programs as servers of a load, and a private HAProxy before two of them."""

from __future__ import annotations

import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench import load
from tests.support.cluster import eventually
from tools import images
from tools.certificate import self_signed

HOST = "hello.example"
LOCAL = "127.0.0.1"


@dataclass(frozen=True)
class Server:
    """One `hello` as a program of its own."""

    program: subprocess.Popen[str]
    port: int

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.program.send_signal(number)
        return self.program.wait(60)


@contextmanager
def serving(directory: Path, version: str, *args: str, **env: str) -> Iterator[Server]:
    path = directory / f"hello-{version}"
    if not path.exists():
        path.write_bytes(images.compiled(version))
        path.chmod(0o755)
    with subprocess.Popen([path, *args], env={"PORT": "0", **env}, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        try:
            yield Server(program, int(program.stdout.readline().split()[-1]))
        finally:
            program.kill()


@dataclass(frozen=True)
class Proxy:
    """A private HAProxy before two servers, a and b. Its doors are inherited, so that another one can take over."""

    directory: Path
    doors: tuple[socket.socket, socket.socket]
    tls: load.Tls

    @property
    def address(self) -> tuple[str, int]:
        return LOCAL, int(self.doors[0].getsockname()[1])

    def load(self, *kinds: load.Kind) -> load.LoadThread:
        return load.LoadThread(load.Load(self.address, HOST, *kinds, tls=self.tls))

    def command(self, text: str) -> str:
        with socket.socket(socket.AF_UNIX) as admin:
            admin.settimeout(10)
            admin.connect(str(self.directory / "admin"))
            admin.sendall(text.encode() + b"\n")
            return b"".join(iter(lambda: admin.recv(65536), b"")).decode()

    def open_on(self, server: str) -> int:
        """Requests and tunnels that are open on a server now."""
        rows = self.command("show stat web 4 -1").splitlines()
        return next(int(row.split(",")[4]) for row in rows if row.startswith(f"web,{server},"))

    def await_clients(self, count: int) -> None:
        """Wait until that many are connected: some may be while others already ask."""
        eventually(lambda: int(self.command("show stat front 1 -1").splitlines()[1].split(",")[4]) == count)

    def await_idle(self, server: str) -> None:
        """As a drain does it: nothing open, seen twice."""
        seen = 0
        while seen < 2:
            seen = seen + 1 if self.open_on(server) == 0 else 0

    def await_other(self, pid: int) -> None:
        """Wait until an HAProxy other than this one answers at the socket: it serves the doors by then."""
        answer = f"Pid: {pid}\n"
        while f"Pid: {pid}\n" in answer:
            with suppress(ConnectionRefusedError):  # the new one has put its socket there, and does not listen yet
                answer = self.command("show info")

    @contextmanager
    def run(self) -> Iterator[subprocess.Popen[bytes]]:
        """One HAProxy at these doors."""
        descriptors = tuple(door.fileno() for door in self.doors)
        command = ["haproxy", "-db", "-f", str(self.directory / "haproxy.cfg")]
        with subprocess.Popen(command, pass_fds=descriptors) as program:
            try:
                yield program
            finally:
                program.kill()


CONFIG = """
global
  stats socket {directory}/admin mode 600 level admin
  nbthread 1
defaults
  mode http
  retries 0
  timeout connect 2s
  timeout client 30s
  timeout server 30s
  timeout tunnel 60s
  timeout http-keep-alive {idle}
  option idle-close-on-response
frontend front
  bind fd@{clear}
  bind fd@{secure} ssl crt {directory}/both.pem alpn h2,http/1.1
  default_backend web
backend web
  server a 127.0.0.1:{a}
  server b 127.0.0.1:{b}
"""


@contextmanager
def proxy(directory: Path, a: Server, b: Server, idle: str = "30s") -> Iterator[Proxy]:
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    self_signed(f"DNS:{HOST}", key, certificate)
    (directory / "both.pem").write_bytes(certificate.read_bytes() + key.read_bytes())
    context = ssl.create_default_context(cafile=certificate)
    context.set_alpn_protocols(["h2"])
    with ExitStack() as open_doors:
        clear, secure = (open_doors.enter_context(socket.create_server((LOCAL, 0), backlog=512)) for _ in range(2))
        config = CONFIG.format(
            directory=directory, idle=idle, clear=clear.fileno(), secure=secure.fileno(), a=a.port, b=b.port
        )
        (directory / "haproxy.cfg").write_text(config)
        tls = load.Tls(secure.getsockname()[1], context, HOST)
        yield Proxy(directory, (clear, secure), tls)

"""The real PostgreSQL for tests: one server of the test run, in it a schema for each test, and a wire to break.

`RECONCILER_TEST_DATABASE_DIR` names the directory of a server that stays between runs. Otherwise the last worker of
the run stops it. Workers share it under a file lock.
"""

from __future__ import annotations

import itertools
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pg8000.native  # type: ignore[import-untyped]
import pytest

from reconciler.adapters.journal_postgres_lock import key_of
from reconciler.settings import JournalSettings
from tests.support.of_the_run import of_the_run
from tools import database as tool

_serial = itertools.count()


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Iterator[tool.Server]:
    """The server of the run."""
    with of_the_run(request.config, "RECONCILER_TEST_DATABASE_DIR", "rec-db-", tool.up, tool.down) as running:
        yield running


@dataclass(frozen=True)
class Place:
    """A schema of a server, in which there is nothing yet."""

    server: tool.Server
    schema: str

    @property
    def url(self) -> str:
        """For a journal, at the server's socket."""
        return f"{self.server.url}&schema={self.schema}"

    def remote(self, port: int | None = None, mode: str = "disable") -> str:
        """For a journal, at the server's port or another one that leads there."""
        there = self.server.remote.replace(f":{self.server.port}/", f":{port or self.server.port}/")
        return f"{there}?schema={self.schema}&sslmode={mode}"

    @property
    def login(self) -> JournalSettings:
        """What goes with `remote`."""
        return JournalSettings(password_file=Path(self.server.password), tls_ca=Path(self.server.certificate))

    @contextmanager
    def owner(self, user: str = tool.OWNER) -> Iterator[pg8000.native.Connection]:
        """A connection that may do everything, as the administrator's."""
        path = f"{self.server.home}/.s.PGSQL.{self.server.port}"
        link = pg8000.native.Connection(user, database=tool.DATABASE, unix_sock=path, timeout=120)
        with closing(link):
            link.run(f"SET search_path = {self.schema}")
            yield link

    def sql(self, *statements: str) -> list[Any]:
        """What the owner of the tables can do, and nobody else. The last one's rows."""
        rows: Any = None
        with self.owner() as link:
            link.run("BEGIN")
            for name in ("no_change", "no_truncate", "in_order"):
                link.run(f"DROP TRIGGER IF EXISTS records_{name} ON records")
            for statement in statements:
                rows = link.run(statement)
            link.run("COMMIT")
        return rows or []

    def holders(self, what: str = "pid") -> list[int]:
        """The session that holds the daemon's lock here, by its number, or `what` else is asked of that."""
        with self.owner() as link:
            rows = link.run(
                f"SELECT {what} FROM pg_locks WHERE locktype = 'advisory' AND granted AND "
                "(classid::bigint << 32 | objid::bigint) = :key",
                key=key_of(self.schema),
            )
        return [found for (found,) in rows]

    def end_sessions(self) -> int:
        """End the session that holds the daemon's lock here, as an administrator can; how many have ended."""
        return sum(self.holders("pg_terminate_backend(pid, 60000)"))

    def drop(self) -> None:
        """Remove it with everything in it."""
        with self.owner() as link:
            link.run("SET lock_timeout = '20s'")
            link.run(f"DROP SCHEMA IF EXISTS {self.schema} CASCADE")


@pytest.fixture
def database(postgres: tool.Server) -> Iterator[Place]:
    """A place for the journal of one test."""
    place = Place(postgres, f"t{os.getpid()}_{next(_serial)}")
    yield place
    place.drop()


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[tool.Server]:
    """A server of one module alone, which it may stop and start."""
    with tempfile.TemporaryDirectory(prefix="rec-db-") as name:
        Path(name).chmod(0o755)
        yield tool.up(Path(name))
        tool.down(Path(name))


class Wire:
    """A TCP connection to a server that breaks or stops where it is told to. `port` is its near end."""

    def __init__(self, port: int) -> None:
        self._far = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._mark: tuple[str, bytes, str] | None = None
        self._open: list[socket.socket] = []
        self.reached = threading.Event()
        self._go = threading.Event()
        self._go.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def at(self, side: str, mark: bytes, what: str) -> None:
        """When `side` ("client" or "server") next says `mark`, do not pass it on but `cut` or `hold` both ways."""
        self.reached.clear()
        self._mark = (side, mark, what)

    def release(self) -> None:
        """Let what was held go on."""
        self._go.set()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                far = socket.create_connection(("127.0.0.1", self._far))
                self._open += [near, far]
                for side, source, sink in (("client", near, far), ("server", far, near)):
                    threading.Thread(target=self._pass, args=(side, source, sink), daemon=True).start()

    def _pass(self, side: str, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            piece = b"all that comes"
            while piece:
                piece = source.recv(65536)
                mark = self._mark
                if mark is not None and mark[0] == side and mark[1] in piece:
                    self._mark = None
                    if mark[2] == "hold":
                        self._go.clear()
                    self.reached.set()
                    if mark[2] == "cut":
                        break
                self._go.wait()  # the end of the connection, too: who stands still does not notice it
                sink.sendall(piece)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Break everything; what was held is lost."""
        for end in (self._listener, *self._open):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._go.set()


@pytest.fixture
def wire(postgres: tool.Server) -> Iterator[Wire]:
    """A wire to the server of the run."""
    found = Wire(postgres.port)
    yield found
    found.close()

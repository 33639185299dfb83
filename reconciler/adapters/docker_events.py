"""The engine's events as hints: who may have changed. An event is never trusted with more than that, save exit codes.

The stream is read with a deadline: a hung engine sends nothing, and a dead one ends the stream without an error.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from docker.errors import DockerException
from docker.types import CancellableStream

from reconciler.adapters.docker_connection import Connection, engine_errors, moment
from reconciler.core import names
from reconciler.core.errors import ReconcilerError

SILENCE = 10.0
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
FILTERS = {"type": ["container", "network", "image"]}
CHANGES = frozenset(
    {"create", "start", "die", "destroy", "oom", "pause", "unpause", "rename", "restart", "stop", "update"}
)
TOUCHES = frozenset({"extract-to-dir", "copy", "exec_start", "exec_die"})


@dataclass(frozen=True, slots=True)
class Event:
    """One event: `kind` is container, network or image; `subject` the id; `attributes` hold its labels and more."""

    kind: str
    action: str
    subject: str
    attributes: Mapping[str, str]

    @property
    def container(self) -> str:
        """The container that it is about, also for the events of a network."""
        return self.attributes.get("container", "") if self.kind == "network" else self.subject

    @property
    def environment(self) -> str:
        """The environment by label, or by the name of the private network; empty when there is none."""
        name = self.attributes.get("name", "")
        if self.kind == "network" and name.startswith(names.PREFIX + "."):
            return name.removeprefix(names.PREFIX + ".")
        return self.attributes.get(names.LABEL_ENVIRONMENT, "")


class Events:
    """A thread that follows the events of one engine.

    `on_event` gets each event; `on_connect(engine time)` is called when the stream is open (anew): whatever was known
    may be old; `on_loss` when it ended.
    """

    def __init__(
        self,
        connection: Connection,
        on_event: Callable[[Event], None],
        on_connect: Callable[[datetime | None], None],
        on_loss: Callable[[str], None],
    ) -> None:
        self._connection = connection
        self._on_event = on_event
        self._on_connect = on_connect
        self._on_loss = on_loss
        self._since: str | None = None
        self._stop = threading.Event()
        self._stream: CancellableStream[Any] | None = None
        self._thread: threading.Thread | None = None
        self._last = 0.0
        self.connected = False

    def start(self) -> None:
        """Follow from now on."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="docker-events", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop following."""
        self._stop.set()
        stream = self._stream
        if stream is not None:
            with contextlib.suppress(DockerException, OSError, AttributeError, UnboundLocalError):
                stream.close()

    def _run(self) -> None:
        pause = FIRST_PAUSE
        while not self._stop.is_set():
            try:
                self._follow()
                pause = FIRST_PAUSE
            except ReconcilerError as error:
                if self._stop.is_set():
                    return
                if self.connected or pause == FIRST_PAUSE:
                    self.connected = False
                    pause = FIRST_PAUSE
                    self._on_loss(error.what)
                self._stop.wait(pause)
                pause = min(pause * 2, LONGEST_PAUSE)

    def _follow(self) -> None:
        """Read one stream until it is silent for long; returns if the engine is still there, raises if it is not."""
        where = self._connection.where
        client = self._connection.client()
        with engine_errors(where):
            began = moment(client.info().get("SystemTime"))
            since = self._since or (f"{began.timestamp():.6f}" if began else None)
            response = client.event_stream(since, FILTERS, SILENCE)
        lines = response.iter_lines(chunk_size=None)
        self._stream = CancellableStream(lines, response)
        if not self.connected:
            self.connected = True
            self._on_connect(began)
        try:
            self._read(lines)
        except (OSError, ValueError, AttributeError):
            # requests' exceptions are OSErrors, a silence too: the ping tells which it is. The others come from a
            # stream that `close` cut off.
            pass
        finally:
            self._stream = None
            response.close()
        if self._stop.is_set():
            return
        with engine_errors(where):
            client.ping()
        # A stream that ends while the engine answers was ended by a restart: what it told before is incomplete.
        if time.monotonic() - self._last < SILENCE * 0.9:
            self.connected = False
            self._on_loss("the stream of events ended")

    def _read(self, lines: Iterator[bytes]) -> None:
        self._last = time.monotonic()
        for line in lines:
            self._last = time.monotonic()
            if self._stop.is_set():
                return
            event = self._parsed(line)
            if event is not None:
                self._on_event(event)

    def _parsed(self, line: bytes) -> Event | None:
        try:
            told = json.loads(line)
            actor = told["Actor"]
            if told.get("timeNano"):
                # The engine would tell an event again that happened exactly at this time.
                seconds, nanos = divmod(int(told["timeNano"]) + 1, 1_000_000_000)
                self._since = f"{seconds}.{nanos:09d}"
            action = str(told["Action"]).partition(":")[0]
            attributes = {str(key): str(value) for key, value in (actor.get("Attributes") or {}).items()}
            return Event(str(told["Type"]), action, str(actor["ID"]), attributes)
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

"""A tunnel to the socket of an engine on another host, by this system's `ssh`. It knows nothing of Docker.

The user's ssh configuration, keys, agent and known hosts count, as they do for the docker command; yet nothing is ever
asked, an unknown host is refused, and neither the agent nor anything else of this machine is offered to the other side.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from reconciler.core.errors import Reason, Retryable, Stalled

USUAL_SOCKET = "/var/run/docker.sock"
LOOK_AGAIN = 0.02
PATIENCE = 5.0
"""Seconds between two looks whether the tunnel is open, and until an ssh that does not end is killed."""

_ADDRESS = re.compile(
    r"ssh://(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]*)@)?"
    r"(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<path>/[A-Za-z0-9._/@+-]+)?/?"
)
_PASSED_ON = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "SSH_AUTH_SOCK")
_OPTIONS = {
    "BatchMode": "yes",
    "ConnectionAttempts": "1",
    "ControlMaster": "no",  # a master would go on for others, and a shared one would end with them
    "ControlPath": "none",
    "ExitOnForwardFailure": "yes",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "LogLevel": "INFO",
    "PermitLocalCommand": "no",
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
    "StreamLocalBindMask": "0177",
    "StreamLocalBindUnlink": "yes",
    "StrictHostKeyChecking": "yes",
    "UpdateHostKeys": "no",
}


@dataclass(frozen=True, slots=True)
class Address:
    """Where an engine's socket is: `user` and `port` are empty where the ssh configuration decides."""

    user: str
    host: str
    port: str
    path: str


def address(url: str) -> Address:
    """The parts of `ssh://[user@]host[:port][/path/of/socket]`. Raises Stalled(SETTINGS_INVALID) for anything else.

    ssh takes a host that begins with `-` for an option (CVE-2017-1000117), so only the characters above pass.
    """
    found = _ADDRESS.fullmatch(url)
    if found is None or not 0 < int(found["port"] or 22) < 65536:
        raise Stalled(
            Reason.SETTINGS_INVALID,
            "this is not the address of an engine behind ssh",
            where=url[:200],
            remedy="Write ssh://user@host, with :port and the path of the engine's socket where they are not the usual",
        )
    return Address(found["user"] or "", found["host"].strip("[]"), found["port"] or "", found["path"] or USUAL_SOCKET)


class _Link:
    """One ssh, and what it says. Its thread starts it and stays with it: the kernel ends ssh when this thread ends."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._said: deque[str] = deque(maxlen=10)
        self._started: Future[subprocess.Popen[bytes]] = Future()
        self._thread = threading.Thread(target=self._stay, name="docker-tunnel", daemon=True)
        self._thread.start()
        self._child = self._started.result()

    @property
    def alive(self) -> bool:
        """Whether ssh runs."""
        return self._child.poll() is None

    @property
    def said(self) -> str:
        """The last that ssh said, on one line."""
        return "; ".join(self._said)[-500:]

    def end(self) -> None:
        """End ssh, and wait until it has ended and all that it said is read."""
        for stop in (self._child.terminate, self._child.kill):
            stop()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(PATIENCE)
                break
        self._thread.join(1.0)  # a proxy that ssh had started may still hold the stream

    def _stay(self) -> None:
        try:
            child = subprocess.Popen(
                self._command,
                env={name: os.environ[name] for name in _PASSED_ON if name in os.environ} | {"LC_ALL": "C"},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,  # no terminal to ask at, and no Ctrl-C from there
            )
        except OSError as error:
            self._started.set_exception(error)
            return
        assert child.stderr is not None
        with child.stderr as stream:
            self._started.set_result(child)
            while line := stream.readline(1000):
                text = "".join(c if c.isprintable() else " " for c in line.decode("utf-8", "replace")).strip()
                if text:
                    self._said.append(text[:300])
        child.wait()


class Tunnel:
    """A local socket that leads to the one at `url`, opened when first needed and again after it broke.

    `timeout` in seconds bounds each opening. Not safe for threads: its owner holds a lock.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self._address = address(url)
        self._where = url
        self._timeout = timeout
        self._directory: Path | None = None
        self._link: _Link | None = None
        self._closed = False

    def open(self) -> Path:
        """The local socket, always the same. Raises Retryable(ENGINE_UNREACHABLE), Stalled(SETTINGS_INVALID)."""
        if self._closed:
            raise self._unreachable("the tunnel was closed")
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="reconciler-ssh-"))  # for this user only
        path = self._directory / "engine.sock"
        if self._link is None or not self._link.alive:
            self._end()
            self._start(path)
        return path

    @property
    def said(self) -> str:
        """The last that ssh said, on one line: why an open tunnel leads nowhere."""
        return self._link.said if self._link is not None else ""

    def close(self) -> None:
        """End ssh and remove the socket; nothing opens it again."""
        self._closed = True
        self._end()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _start(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        deadline = time.monotonic() + self._timeout
        if shutil.which("ssh") is None:
            raise Stalled(
                Reason.SETTINGS_INVALID,
                "the program ssh was not found",
                where=self._where,
                remedy="Install an ssh client and put it on the PATH",
            )
        try:
            link = self._link = _Link(self._command(path))
        except OSError as error:
            raise self._unreachable("ssh cannot be started", str(error)) from error
        while not _listens(path):
            if not link.alive or time.monotonic() > deadline:
                why = "ssh ended" if not link.alive else f"ssh was not through after {self._timeout:g} s"
                self._end()
                raise self._unreachable(why, link.said)
            time.sleep(LOOK_AGAIN)

    def _command(self, path: Path) -> list[str]:
        to = self._address
        # ssh -N reads nothing, so it would not see this program die.
        died_with_us = ["setpriv", "--pdeathsig", "TERM", "--"] if shutil.which("setpriv") else []
        options = _OPTIONS | {"ConnectTimeout": str(math.ceil(self._timeout))}
        return [
            *(*died_with_us, "ssh", "-N", "-T", "-a", "-x", "-k"),
            *(f"-o{name}={value}" for name, value in options.items()),
            *("-L", f"{path}:{to.path}"),
            *(("-p", to.port) if to.port else ()),
            *(("-l", to.user) if to.user else ()),
            *("--", to.host),
        ]

    def _end(self) -> None:
        if self._link is not None:
            self._link.end()

    def _unreachable(self, why: str, said: str = "") -> Retryable:
        return Retryable(
            Reason.ENGINE_UNREACHABLE,
            f"{why}: {said}" if said else why,
            where=self._where,
            remedy="Try `ssh` to this host as the user that Reconciler runs as: it must ask nothing and know the host",
        )


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True

"""The runtime command line of a HAProxy, over `unix:///path` or `tcp://host:port`: text in, text out.

`unix:///path#PID` is one worker, behind its master's socket at that path.

It knows no command but its own last one. Source: "Unix Socket commands" in HAProxy's management guide: commands are
separated by `;`, and a connection ends after one line of them.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from urllib.parse import urlsplit

from reconciler.core.errors import Reason, Retryable, Stalled

MAX_ANSWER = 8 * 1024 * 1024
MAX_LINE = 8 * 1024  # HAProxy reads a line into one buffer, which is 16 KiB unless an operator made it smaller
_LAST = "show cli level"
_PIECE = 65536
_REMEDY = "See that the proxy runs and that the daemon may reach its runtime socket"


def ask(address: str, commands: str | Sequence[str], seconds: float) -> str:
    """The answers to `commands`, one after the other, each ended by an empty line. `seconds` bounds all of it.

    Several commands go on one connection, so that the proxy does them at once, as far as one line can hold them.
    Raises Retryable(PROXY_UNREACHABLE) when the proxy does not answer in full: the commands may have been done
    nevertheless. Raises Stalled(PROXY_REFUSED) when the socket's level is not `admin`.
    """
    end = time.monotonic() + seconds
    given = (commands,) if isinstance(commands, str) else commands
    if worker := urlsplit(address).fragment:
        given = [f"@!{worker} {command}" for command in given]
    try:
        return "".join(_exchange(address, line, end) for line in _lines(given))
    except TimeoutError as error:
        raise _unreachable(address, f"the proxy did not answer within {seconds:g} s") from error
    except (OSError, ValueError) as error:
        words = (error.strerror if isinstance(error, OSError) else "") or str(error)
        raise _unreachable(address, f"the proxy's runtime socket does not work: {words}") from error


def _lines(commands: Sequence[str]) -> Iterator[str]:
    """The commands joined to lines that fit into the proxy's buffer."""
    line = ""
    for command in commands:
        if line and len(line) + len(command) >= MAX_LINE:
            yield line
            line = ""
        line = f"{line};{command}" if line else command
    if line:
        yield line


def _exchange(address: str, line: str, end: float) -> str:
    """One line on one connection. The answer to our own last command shows that nothing of the others is missing."""
    worker = urlsplit(address).fragment
    last = f"@!{worker} {_LAST};quit" if worker else _LAST  # a master goes on until it is told to quit
    with _connect(address, end) as connection:
        connection.settimeout(_left(end))
        connection.sendall(f"{line};{last}\n".encode())
        pieces: list[bytes] = []
        size = 0
        while True:
            connection.settimeout(_left(end))
            piece = connection.recv(_PIECE)
            if not piece:
                break
            pieces.append(piece)
            size += len(piece)
            if size > MAX_ANSWER:
                raise _unreachable(address, f"the proxy's answer is longer than {MAX_ANSWER // 1024 // 1024} MiB")
    text = b"".join(pieces).decode(errors="replace").rstrip("\n")
    answer, _, level = text.rpartition("\n")
    if level == "admin":
        return f"{answer}\n"
    if level in {"operator", "user"}:
        raise Stalled(
            Reason.PROXY_REFUSED,
            f"the runtime socket has the level {level}",
            where=address,
            remedy="Give it `level admin` in the proxy's configuration",
        )
    raise _unreachable(address, "the proxy's answer ends too early" if text else "the proxy answers nothing")


def _connect(address: str, end: float) -> socket.socket:
    parts = urlsplit(address)
    if parts.scheme == "tcp":
        if not parts.hostname or not parts.port:
            raise ValueError("it is not tcp://host:port")
        return socket.create_connection((parts.hostname, parts.port), timeout=_left(end))
    if parts.scheme != "unix":
        raise ValueError("it is neither unix:///path nor tcp://host:port")
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(_left(end))
        connection.connect(parts.path)
    except BaseException:
        connection.close()
        raise
    return connection


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _unreachable(address: str, what: str) -> Retryable:
    return Retryable(Reason.PROXY_UNREACHABLE, what, where=address, remedy=_REMEDY, after=timedelta(seconds=1))

"""The master of a HAProxy that runs with `-W -S`: it starts a new worker, which takes the listeners over.

Source: "Master CLI" in HAProxy's management guide. Until 2.6 the answer ends before the new worker is there; from 2.7
on it says whether that could be started.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

from reconciler.core.errors import Reason, ReconcilerError, Retryable, Stalled

_MOST = 65536


def reload(path: str, seconds: float) -> None:
    """Ask the master at the socket `path` for a hitless reload. `seconds` bounds the wait for its answer.

    Raises Retryable(PROXY_UNREACHABLE), Stalled(PROXY_REFUSED) when it says that it could not be done.
    """
    end, said = time.monotonic() + seconds, b""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(seconds)
            connection.connect(path)
            connection.sendall(b"reload\n")
            for piece in _answer(connection, end):
                said = (said + piece)[:_MOST]
    except OSError as error:
        raise unanswered(path, error) from error
    if said.startswith(b"Success=0"):
        raise refused(said.partition(b"--\n")[2].decode("utf-8", "replace"), path)


def leaving(path: str, seconds: float) -> tuple[str, ...]:
    """The addresses, for `haproxy_socket.ask`, of the workers that a reload left behind and that still serve somebody.

    Raises Retryable(PROXY_UNREACHABLE) when the master does not answer in full.
    """
    said, end = b"", time.monotonic() + seconds
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(max(seconds, 0.001))
            connection.connect(path)
            connection.sendall(b"show proc;show cli level;quit\n")
            for piece in _answer(connection, end):
                said += piece
                if len(said) > _MOST:
                    break
        if not said.endswith(b"\nadmin\n\n"):
            raise ConnectionResetError("its answer ends too early")
    except OSError as error:
        raise unanswered(path, error) from error
    _, _, old = said.decode("utf-8", "replace").partition("# old workers\n")
    rows = [line.split() for line in old.partition("#")[0].splitlines()]
    return tuple(f"unix://{path}#{row[0]}" for row in rows if len(row) > 1 and row[0].isdigit() and row[1] == "worker")


def unanswered(path: str, error: OSError) -> ReconcilerError:
    """The error for a master at `path` that does not answer."""
    return Retryable(
        Reason.PROXY_UNREACHABLE,
        f"the proxy's master does not answer: {error.strerror or error}",
        where=path,
        remedy="It is tried again; see the log of the proxy's container if this stays",
    )


def refused(said: str, where: str) -> ReconcilerError:
    """The error for a configuration that HAProxy does not take, with its own words."""
    lines = [line for line in said.splitlines() if "[ALERT]" in line] or said.splitlines()[-5:]
    words = " ".join(" ".join(lines).split())[:500]
    return Stalled(
        Reason.PROXY_REFUSED,
        f"the proxy refuses its configuration: {words or 'it says nothing'}",
        where=where,
        remedy="Correct what it names: a route in Git, or the proxy's certificates or image in the settings",
    )


def _answer(connection: socket.socket, end: float) -> Iterator[bytes]:
    # The old master closes when it re-executes itself, which may look like a broken connection.
    with contextlib.suppress(ConnectionError):
        while True:
            connection.settimeout(max(end - time.monotonic(), 0.001))
            piece = connection.recv(4096)
            if not piece:
                return
            yield piece

"""Run one git command: exact environment, one deadline, bounded output, and an end for all it started.

GitPython runs commands in the environment of its caller and finds children by listing processes; here nothing of the
caller's environment leaks in, and the whole process group dies at the deadline. It knows nothing of repositories.
"""

from __future__ import annotations

import contextlib
import os
import resource
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from reconciler.core.errors import Reason, Stalled

OUTPUT_LIMIT = 64 * 1024
FILE_LIMIT = 4 * 1024**3
"""Bytes kept of each output stream, and the largest file (a pack) that a command may write."""

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_PASSED_ON = ("PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", *_PROXIES, *map(str.lower, _PROXIES))

_CONFIG = {
    "core.hooksPath": "/dev/null",
    "core.bigFileThreshold": "1m",  # large blobs are streamed to disk instead of held in memory
    "core.fsync": "none",  # a mirror is a copy: a torn one is cloned anew
    "core.logAllRefUpdates": "false",
    "credential.helper": "",
    "fetch.recurseSubmodules": "false",
    "fetch.unpackLimit": "1",  # always packs: `tidy` in git_mirror.py counts and merges them
    "fetch.writeCommitGraph": "false",
    "gc.auto": "0",
    "http.followRedirects": "false",
    "http.lowSpeedLimit": "1",
    "http.lowSpeedTime": "30",
    "maintenance.auto": "false",
    "protocol.version": "2",
    "transfer.credentialsInUrl": "die",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended. `killed` by the deadline; `out` and `err` are cut at OUTPUT_LIMIT."""

    code: int
    out: str
    err: str
    killed: bool


def environment(config: Mapping[str, str] | None = None, **extra: str) -> dict[str, str]:
    """The whole environment of a git command: `config` and `extra` over defaults that reach no file of any user.

    Configuration travels by environment, so it shows in no argument list. Of the caller only the search path,
    the certificate store and the proxies are passed on.
    """
    found = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    found |= {
        "HOME": "/nonexistent",
        "LC_ALL": "C",
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_ASKPASS": "",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_DEFAULT_HASH": "sha1",
        "GIT_DEFAULT_REF_FORMAT": "files",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_TERMINAL_PROMPT": "0",
    }
    merged = _CONFIG | dict(config or {})
    found["GIT_CONFIG_COUNT"] = str(len(merged))
    for number, (key, value) in enumerate(merged.items()):
        found[f"GIT_CONFIG_KEY_{number}"] = key
        found[f"GIT_CONFIG_VALUE_{number}"] = value
    return found | extra


def run(arguments: Sequence[str], environ: Mapping[str, str], timeout: float) -> Outcome:
    """Run `git arguments…` for at most `timeout` seconds. Raises Stalled when there is no git."""
    try:
        child = subprocess.Popen(
            ["git", *arguments],
            env=dict(environ),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        what = "the program git was not found"
        raise Stalled(Reason.SETTINGS_INVALID, what, remedy="install git and put it on the PATH") from error
    assert child.stdout is not None
    assert child.stderr is not None
    deadline = time.monotonic() + timeout
    with child.stdout, child.stderr:
        try:
            with contextlib.suppress(OSError):  # it has ended already
                # Set from here because code between fork and exec is unsafe with threads; what receives a pack is
                # started by git much later and inherits it.
                resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (FILE_LIMIT, FILE_LIMIT))
            out, err, complete = _collect(child.stdout, child.stderr, deadline)
            if complete:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(max(0.1, deadline - time.monotonic()))
            killed = child.returncode is None
        finally:
            _end(child)
    return Outcome(child.returncode, out, err, killed)


def _collect(stdout: IO[bytes], stderr: IO[bytes], deadline: float) -> tuple[str, str, bool]:
    """Both streams, cut, and whether they ended before `deadline`. What is too much is read and dropped."""
    kept = {stdout.fileno(): bytearray(), stderr.fileno(): bytearray()}
    with selectors.PollSelector() as ready:
        for stream in kept:
            ready.register(stream, selectors.EVENT_READ)
        while ready.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                break
            for key, _ in ready.select(left):
                chunk = os.read(key.fd, OUTPUT_LIMIT)
                if not chunk:
                    ready.unregister(key.fd)
                kept[key.fd] += chunk[: OUTPUT_LIMIT - len(kept[key.fd])]
        complete = not ready.get_map()
    out, err = (bytes(data).decode("utf-8", "replace") for data in kept.values())
    return out, err, complete


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill the whole group unless the command has ended. Until it is reaped no other group can have its id."""
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()

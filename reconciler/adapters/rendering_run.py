"""Run one program on files that may be hostile: exact environment, one deadline, bounds, and an end for all of it.

It knows nothing of what the program is for.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reconciler.core.errors import Reason, Stalled

COMPLAINTS = 64 * 1024
"""Bytes kept of what a program complains of."""
MEMORY = 1024**3
"""Bytes that a program may hold: charts and kustomizations of thousands of objects need a few hundred MiB."""
NOWHERE = "http://127.0.0.1:9"
"""A proxy that is none: a request that is made in spite of everything ends here."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a program ended: `code` is None when that was at the deadline. `out` is cut one byte beyond its bound."""

    code: int | None
    out: bytes
    err: bytes


def environment(home: Path) -> dict[str, str]:
    """All that a program is told by its environment: directories of its own, and that there is nothing else."""
    found = {
        "HOME": str(home / "home"),
        "PATH": str(home / "empty"),
        "TMPDIR": str(home / "tmp"),
        "XDG_CACHE_HOME": str(home / "home" / "cache"),
        "XDG_CONFIG_HOME": str(home / "home" / "config"),
        "XDG_DATA_HOME": str(home / "home" / "data"),
        "KUBECONFIG": str(home / "home" / "none"),
        "HELM_PLUGINS": str(home / "empty"),
        "LC_ALL": "C",
        "GOMAXPROCS": "2",
        "GOMEMLIMIT": str(MEMORY // 2),
    }
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        found[name] = found[name.upper()] = NOWHERE
    return found


def run(command: Sequence[str], home: Path, most: int, timeout: float) -> Ending:
    """Run `command` in `home`/files for at most `timeout` seconds, with at most `most` bytes of output.

    Raises Stalled(SETTINGS_INVALID) when it cannot be started.
    """
    for name in ("home", "empty", "tmp"):
        (home / name).mkdir(mode=0o700, exist_ok=True)
    with (home / "out").open("w+b") as out, (home / "err").open("w+b") as err:
        try:
            child = subprocess.Popen(
                list(command),
                env=environment(home),
                cwd=home / "files",
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        except OSError as error:
            what = f"{command[0]} cannot be run: {error.strerror or error}"
            raise Stalled(Reason.SETTINGS_INVALID, what, remedy="install it anew, for this machine") from error
        try:
            _limit(child.pid, most, timeout)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout)
            code = child.returncode
        finally:
            if child.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        out.seek(0)
        err.seek(0)
        return Ending(code, out.read(most + 1), err.read(COMPLAINTS))


def _limit(pid: int, most: int, timeout: float) -> None:
    """Set from here, because code between fork and exec is unsafe with threads."""
    bounds = {
        resource.RLIMIT_FSIZE: most + 1,
        resource.RLIMIT_DATA: MEMORY,
        resource.RLIMIT_CPU: int(timeout) + 1,
        resource.RLIMIT_CORE: 0,
    }
    with contextlib.suppress(OSError):  # it has ended already
        for kind, bound in bounds.items():
            resource.prlimit(pid, kind, (bound, bound))
        # Where memory runs short, this one is ended, not the daemon.
        Path(f"/proc/{pid}/oom_score_adj").write_text("1000")

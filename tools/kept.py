"""What is built once and kept between runs, for all clones of this repository: where, under whose lock, by which Go.

It must not know what is built.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNUSED_DAYS = 30


def cache() -> Path:
    """Where it is kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reconciler"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Nobody else who asks for this file's lock goes on meanwhile.

    A file that was removed while its lock was waited for keeps nobody out any more: then the new one counts.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if _stands(path, handle.fileno()):
                yield
                return


def _stands(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def digest(sources: Path) -> str:
    """A short hash of all files in a directory and below it."""
    total = hashlib.sha256()
    for path in sorted(path for path in sources.rglob("*") if path.is_file()):
        content = path.read_bytes()
        total.update(f"{path.relative_to(sources)}\0{len(content)}\0".encode() + content)
    return total.hexdigest()[:16]


def remove_unused(kept: str, building: str) -> None:
    """Directories of other sources (`kept`, a pattern) that nobody used for a while, and what a killed build left: the
    caller has the lock."""
    old = time.time() - UNUSED_DAYS * 86400
    unused = [path for path in cache().glob(kept) if path.is_dir() and path.stat().st_mtime < old]
    for path in (*unused, *cache().glob(building)):
        shutil.rmtree(path, ignore_errors=True)


def go() -> str | None:
    """The Go toolchain, None where there is none."""
    return shutil.which("go", path=os.environ.get("PATH", "") + ":/usr/local/go/bin:/usr/lib/go/bin")


def go_variables(**more: str) -> dict[str, str]:
    """The toolchain that is here, and no C: the same program runs on any Linux."""
    plain = {key: value for key, value in os.environ.items() if key != "GOFLAGS"}
    return {**plain, "GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOWORK": "off", **more}


def run_go(what: str, folder: Path, *arguments: str, **more: str) -> str:
    """What Go says, asked in a folder. Raises SystemExit with its last words when `what` cannot be built."""
    command = [str(go()), *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder, env=go_variables(**more))
    if done.returncode:
        last = "\n".join(done.stderr.splitlines()[-15:])
        raise SystemExit(f"{what} could not be built (go {arguments[0]}):\n{last}")
    return done.stdout

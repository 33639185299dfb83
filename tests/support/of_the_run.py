"""What all workers of a test run share: the first one starts it, the last one stops it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from tools.kept import locked

T = TypeVar("T")


@contextmanager
def of_the_run(
    config: pytest.Config, variable: str, prefix: str, up: Callable[[Path], T], down: Callable[[Path], object]
) -> Iterator[T]:
    """What `up` starts in a directory, whose name is short, because a socket's is. The environment's `variable` names
    the directory of one that stays between runs."""
    worker = getattr(config, "workerinput", None)
    run = str(worker["testrunuid"]) if worker else f"{os.getpid():x}"
    named = os.environ.get(variable)
    directory = Path(named or tempfile.gettempdir(), "" if named else f"{prefix}{run[:12]}")
    users, lock = (directory.parent / f"{directory.name}.{kind}" for kind in ("users", "lock"))
    with locked(lock):
        running = up(directory)
        if not named:
            users.write_text(str(1 + int(users.read_text() if users.exists() else "0")))
    yield running
    if named:
        return
    with locked(lock):
        left = int(users.read_text()) - 1
        users.write_text(str(left))
        if left <= 0:
            users.unlink()
            down(directory)
            directory.rmdir()
            lock.unlink()

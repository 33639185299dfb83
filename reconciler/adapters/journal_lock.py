"""The lock file beside a journal: one daemon acts on it. The fence by epoch holds even where this lock does not."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from sqlalchemy import Engine

from reconciler.core.errors import Reason, Stalled


class Lock:
    """An exclusive flock(2), held until `release` or the end of the program, however it ends."""

    def __init__(self, path: Path) -> None:
        """Take it. Raises Stalled(JOURNAL_LOCKED) naming the holder; OSError where the file cannot be made."""
        self._path = path
        self._descriptor = self._take()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def _take(self) -> int:
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o640)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
                os.close(descriptor)
                raise self._locked(holder) from None
            if self._is_the_file(descriptor):
                return descriptor
            os.close(descriptor)

    def _is_the_file(self, descriptor: int) -> bool:
        """Whether the locked file is still the one at the path: it can be removed between open and flock."""
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.stat())
        except FileNotFoundError:
            return False

    def _locked(self, holder: str) -> Stalled:
        return Stalled(
            Reason.JOURNAL_LOCKED,
            f"another daemon (pid {holder or 'unknown'}) acts on this journal",
            where=str(self._path),
            remedy=f"Stop it first (`kill {holder or 'PID'}`), or give this daemon a journal of its own",
        )

    def release(self, writing: Engine) -> None:
        """Let go, after the last use of the journal's file.

        The lock file stays: removing it would let two others lock two different files.
        """
        writing.dispose()
        os.close(self._descriptor)

"""`rendering_port.Renderer` by programs on the search path: kustomize (or kubectl), and helm.

Each run has a private directory with the files it was given, an environment of its own, no way to start other programs,
one deadline, and bounds on what it may write and hold. What came out is kept by its inputs and by the program.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from reconciler.adapters import helm, kustomize
from reconciler.adapters.rendering_run import Ending, run
from reconciler.core.bundle_rendering import Rendering, Tool
from reconciler.core.bundle_sources import MAX_BYTES
from reconciler.core.errors import Reason, ReconcilerError, Rejected, Retryable, Stalled
from reconciler.core.kubernetes_json import one_line
from reconciler.ports import Clock

TIMEOUT = 30.0
AT_ONCE = 2
KEPT_BYTES = 64 * 2**20
LONGEST_MESSAGE = 500
PAUSE = 60.0
"""Seconds before something that took too long, or was ended, is tried again."""
_PREFIX = "rendering-"
_FORGOTTEN = 3600.0


@dataclass(frozen=True, slots=True)
class Program:
    """How a program is called: the words before the arguments, and what tells it from another release."""

    words: tuple[str, ...]
    release: str


class ProgramRenderer:
    """Renders with the programs that are found when they are needed.

    `directory`: where the private directories are made, by default that for temporary files. `search`: the search path,
    by default that of this program.
    """

    def __init__(
        self, clock: Clock, directory: Path | None = None, *, search: str | None = None, timeout: float = TIMEOUT
    ) -> None:
        self._clock = clock
        self._directory = directory
        self._search = search
        self._timeout = timeout
        self._lock = threading.Lock()
        self._turns = [threading.Lock() for _ in range(AT_ONCE)]
        self._kept: OrderedDict[tuple[str, str], bytes | Rejected] = OrderedDict()
        self._size = 0
        self._paused: dict[tuple[str, str], tuple[float, Retryable]] = {}

    def render(self, rendering: Rendering) -> bytes:
        """See `rendering_port.Renderer`."""
        program = self._program(rendering.tool)
        key = (program.release, rendering.digest)
        found = self._known(key)
        if found is None:
            # The same rendering always waits for the same turn, so that nobody makes it twice.
            with self._turns[int(rendering.digest[:8], 16) % AT_ONCE]:
                found = self._known(key) or self._remember(key, self._made(rendering, program))
        if isinstance(found, ReconcilerError):
            raise found
        return found

    def _known(self, key: tuple[str, str]) -> bytes | ReconcilerError | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            until, trouble = self._paused.get(key, (0.0, None))
            return trouble if self._clock.monotonic() < until else None

    def _remember(self, key: tuple[str, str], found: bytes | Rejected | Retryable) -> bytes | ReconcilerError:
        with self._lock:
            if isinstance(found, Retryable):
                now = self._clock.monotonic()
                self._paused = {other: each for other, each in self._paused.items() if each[0] > now}
                self._paused[key] = (now + PAUSE, found)
                return found
            self._kept[key] = found
            self._size += _weight(found)
            while self._size > KEPT_BYTES and len(self._kept) > 1:
                _, gone = self._kept.popitem(last=False)
                self._size -= _weight(gone)
            return found

    def _program(self, tool: Tool) -> Program:
        """The program for a tool. Raises Stalled when there is none."""
        candidates = kustomize.PROGRAMS if tool is Tool.KUSTOMIZE else helm.PROGRAMS
        for name, *words in candidates:
            found = shutil.which(name, path=self._search)
            if found is not None:
                status = Path(found).stat()
                release = f"{found} {status.st_ino} {status.st_size} {status.st_mtime_ns}"
                return Program((str(Path(found).absolute()), *words), release)
        names = " or ".join(name for name, *_ in candidates)
        raise Stalled(
            Reason.SETTINGS_INVALID,
            f"the program {names} was not found, which renders this",
            remedy="Install it where Reconciler runs and put it on the PATH, or commit what it renders as plain files",
        )

    def _made(self, rendering: Rendering, program: Program) -> bytes | Rejected | Retryable:
        arguments = kustomize.arguments if rendering.tool is Tool.KUSTOMIZE else helm.arguments
        try:
            return self._rendered(rendering, program, arguments)
        except (Rejected, Retryable) as error:
            return error
        except OSError as error:
            what = f"the files for {rendering.tool} cannot be written: {error.strerror or error}"
            return Retryable(Reason.OUT_OF_DISK, what, remedy="Look at the room in the directory for temporary files")

    def _rendered(
        self, rendering: Rendering, program: Program, arguments: Callable[[Rendering], Sequence[str]]
    ) -> bytes:
        if self._directory is not None:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _sweep(self._directory)
        with tempfile.TemporaryDirectory(dir=self._directory, prefix=_PREFIX) as place:
            home = Path(place).resolve()
            files = home / "files"
            _write(files, rendering.files)
            command = (*program.words, *arguments(rendering))
            first = self._once(rendering.tool, command, home)
            # What a chart draws by lot or reads off a clock would be another version at each look.
            if rendering.tool is Tool.HELM and self._once(rendering.tool, command, home) != first:
                raise Rejected(
                    Reason.MANIFEST_INVALID,
                    "helm makes something else of this chart each time it is asked",
                    remedy="Give the values that the chart makes up by itself (passwords, certificates, times)",
                )
            return first

    def _once(self, tool: Tool, command: Sequence[str], home: Path) -> bytes:
        """What one run wrote. Raises Rejected and Retryable."""
        ending = run(command, home, MAX_BYTES, self._timeout)
        if len(ending.out) > MAX_BYTES or ending.code == -signal.SIGXFSZ:
            what = f"{tool} writes more than {MAX_BYTES} bytes for this"
            raise Rejected(Reason.MANIFEST_INVALID, what, remedy="Split it")
        if ending.code is None:
            what = f"{tool} took longer than {self._timeout:g} s and was ended"
            raise Retryable(Reason.MANIFEST_INVALID, what, remedy="Make it smaller, or commit what it renders")
        if ending.code < 0:
            what = f"{tool} was ended by signal {-ending.code}{_said(ending, home)}"
            raise Retryable(Reason.MANIFEST_INVALID, what, remedy="Make it smaller, or give Reconciler more memory")
        if ending.code:
            raise Rejected(Reason.MANIFEST_INVALID, f"{tool} cannot render this{_said(ending, home)}")
        return ending.out


def _weight(found: bytes | Rejected) -> int:
    return len(found) if isinstance(found, bytes) else LONGEST_MESSAGE


def _said(ending: Ending, home: Path) -> str:
    """What a program complained of, on one line, without our directories in it."""
    text = ending.err.decode("utf-8", "replace").replace(f"{home / 'files'}/", "").replace(str(home), "")
    at = text.rfind("Error:")
    line = one_line(text[at + len("Error:") :] if at >= 0 else text, LONGEST_MESSAGE)
    line = "".join(letter if letter.isprintable() else "?" for letter in line)
    return f": {line}" if line else ""


def _write(root: Path, files: Sequence[tuple[str, bytes]]) -> None:
    """Put the files into the new directory `root`: regular ones, of this user only, and nothing outside."""
    root.mkdir(mode=0o700)
    for path, content in files:
        parts = path.split("/")
        if any(part in ("", ".", "..") or "\0" in part for part in parts):
            raise Rejected(Reason.REPOSITORY_HOSTILE, f"{path!r} is no path of a file")
        place = root / PurePosixPath(path)
        try:
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
                file.write(content)
        except (FileExistsError, NotADirectoryError) as error:
            raise Rejected(Reason.REPOSITORY_HOSTILE, f"{path!r} is both a file and a directory") from error


def _sweep(directory: Path) -> None:
    """Remove what a program left behind that was ended in the middle."""
    for place in directory.glob(f"{_PREFIX}*"):
        try:
            forgotten = time.time() - place.stat().st_mtime > _FORGOTTEN
        except FileNotFoundError:
            continue
        if forgotten:
            shutil.rmtree(place, ignore_errors=True)

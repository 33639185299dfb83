"""How the demo looks: chapters, the commands a person types, lines with elapsed times, what a command prints.

On a terminal a line at the bottom shows what is going on; anywhere else the same story is plain text. It decides
nothing and starts nothing but the commands it is asked to show.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.status import Status
from rich.table import Table
from rich.text import Text

WIDTH = 80
INDENT = 4
ROWS = 60


class Screen:
    """One console, at most 80 columns wide. On a terminal its last line says what is awaited."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, markup=False, emoji=False)
        self.console.width = min(self.console.width, WIDTH) if self.console.is_terminal else WIDTH
        self._status: Status | None = None

    def chapter(self, number: int, title: str, *sentences: str) -> None:
        """The heading of a chapter, and what it is about."""
        self.console.print()
        self.console.print(Text.assemble((f" {number} ", "bold white on blue"), (f" {title}", "bold")))
        for sentence in sentences:
            self.say(sentence, "italic")

    def command(self, line: str, who: str = "") -> None:
        """A command as a person types it; `who` is said behind it."""
        text = Text.assemble(("  $ ", "bold green"), (line, "bold"))
        if who:
            room = self.console.width - text.cell_len - len(who) - 4
            text.append(" " * max(room, 2) + f"# {who}", "dim")
        self.console.print(text, overflow="ellipsis", no_wrap=True)

    def say(self, text: str | Text, style: str = "") -> None:
        """A sentence."""
        told = Text(text, style) if isinstance(text, str) else text
        self._indented(told, INDENT)

    def event(self, seconds: float, what: Text, aside: str = "") -> None:
        """Something that happened `seconds` after the person's act; `aside` stands at the right, if there is room."""
        line = Text.assemble((f"{seconds:+8.2f} s  ", "cyan"), what)
        room = self.console.width - line.cell_len - len(aside)
        if aside and room > 1:
            line.append(" " * room + aside, "dim")
        self.console.print(line, overflow="ellipsis", no_wrap=True)

    def output(self, text: Text, *, cut: bool = False) -> None:
        """What a command printed, indented; lines that are too long are folded, or `cut`."""
        for line in text.split():
            line.rstrip()
            if cut:
                line.truncate(self.console.width - INDENT)
            self.say(line)

    def table(self, table: Table) -> None:
        """A table."""
        self._indented(table, INDENT - 2)

    def _indented(self, what: RenderableType, by: int) -> None:
        if not isinstance(what, Text):
            self.console.print(Padding(what, (0, 0, 0, by), expand=False))
            return
        for line in what.wrap(self.console, self.console.width - by):
            line.rstrip()
            self.console.print(Text.assemble(" " * by, line), soft_wrap=True)

    @contextlib.contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """While something is awaited; shown where a person looks at a terminal."""
        if not self.console.is_interactive:
            yield
            return
        with self.console.status(Text(text)) as status:
            self._status = status
            try:
                yield
            finally:
                self._status = None

    def footer(self, text: str) -> None:
        """Another text for the line at the bottom."""
        if self._status is not None:
            self._status.update(Text(text))


def run_on_terminal(
    command: Sequence[str], environment: Mapping[str, str], directory: Path, columns: int = WIDTH - INDENT
) -> tuple[int, Text]:
    """Run a command as on a terminal of its own, so that its colours and widths are those a person sees.

    Returns the exit code and what it printed, standard error included.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
    surroundings = {**environment, "TERM": "xterm-256color", "COLUMNS": str(columns)}
    surroundings.pop("NO_COLOR", None)
    child = subprocess.Popen(
        list(command), stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=surroundings, cwd=directory
    )
    os.close(theirs)
    printed = bytearray()
    with contextlib.suppress(OSError):  # the kernel's way to say that the other side closed it
        while part := os.read(ours, 65_536):
            printed += part
    os.close(ours)
    return child.wait(), Text.from_ansi(printed.decode(errors="replace").replace("\r\n", "\n").rstrip("\n"))

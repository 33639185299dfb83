"""The picture of the README: docs/demo.svg, out of one real run of the demo.

    python -m tools.picture        run the demo, write the picture, remove the demo again

The chapters that tell the story are kept as they were printed; the set-up is left out. It invents nothing.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.segment import Segment, Segments
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from tools import demo
from tools.demo_screen import WIDTH, Screen
from tools.demo_stage import ROOT, Stage, chosen_directory

PICTURE = ROOT / "docs" / "demo.svg"
NOTHING = re.compile(r"(?!)")
LEFT_OUT = {"7": NOTHING, "8": NOTHING, "12": NOTHING}
"""The chapters in the picture, and the commands that are left out of each."""
HEADING = re.compile(r" (\d+) {2}\S")
BLANKS = re.compile(r"(^ +| {2,}| +$)")
FONT_FACE = re.compile(r"@font-face \{\{.*?\}\}", re.DOTALL)
FONT = re.compile(r"font-family: Fira Code, monospace")
FAMILY = "font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
THEME = TerminalTheme(
    (22, 27, 34),
    (201, 209, 217),
    [
        (72, 79, 88),
        (255, 123, 114),
        (86, 211, 100),
        (227, 179, 65),
        (88, 139, 227),
        (188, 140, 255),
        (86, 212, 221),
        (201, 209, 217),
    ],
    [
        (110, 118, 129),
        (255, 161, 152),
        (126, 231, 135),
        (242, 204, 96),
        (121, 192, 255),
        (210, 168, 255),
        (121, 231, 237),
        (255, 255, 255),
    ],
)


def main() -> int:
    """Run the demo, and write the picture when everything in it was seen."""
    printed = _Shown()
    console = Console(
        file=printed,
        width=WIDTH,
        force_terminal=True,
        force_interactive=False,
        color_system="standard",
        highlight=False,
        markup=False,
        emoji=False,
    )
    stage = Stage(chosen_directory())
    try:
        code = demo.perform(stage, Screen(console), private=True)
    finally:
        stage.clear()
    if code == 0:
        draw(Text.from_ansi(printed.getvalue()), PICTURE)
        print(f"written: {PICTURE.relative_to(ROOT)}")
    return code


def draw(printed: Text, path: Path) -> None:
    """Write the chosen parts as an SVG picture."""
    paper = Console(file=io.StringIO(), width=WIDTH, record=True, force_terminal=True, color_system="truecolor")
    for line in _chosen(printed):
        paper.print(Segments(_apart(line, paper)), no_wrap=True, crop=True)
    format_ = FONT.sub(FAMILY, FONT_FACE.sub("", CONSOLE_SVG_FORMAT))
    svg = paper.export_svg(title="make demo", theme=THEME, unique_id="demo", code_format=format_)
    path.write_text("\n".join(line.rstrip() for line in svg.split("\n")), encoding="utf-8")


def _chosen(printed: Text) -> Iterator[Text]:
    """The lines of the chosen chapters, without the commands that are left out and what they printed."""
    chapter, left_out = "", False
    for line in printed.split():
        heading = HEADING.match(line.plain)
        if heading is not None:
            chapter, left_out = heading[1], False
        elif line.plain.startswith("    The engine and the daemon go on"):
            return
        if chapter not in LEFT_OUT:
            continue
        if line.plain.startswith("  $ ") or not line.plain.strip():
            was, left_out = left_out, LEFT_OUT[chapter].match(line.plain) is not None
            if left_out and not was:
                yield Text("    …", "dim")
        if not left_out:
            line.rstrip()
            yield line


def _apart(line: Text, console: Console) -> Iterator[Segment]:
    """The line in pieces without blanks at their ends: not every viewer keeps those."""
    for segment in line.render(console, end="\n"):
        for piece in BLANKS.split(segment.text):
            if piece:
                yield Segment(piece, segment.style)


class _Shown(io.StringIO):
    """Keeps what it shows."""

    def write(self, text: str) -> int:
        sys.stdout.write(text)
        sys.stdout.flush()
        return super().write(text)


if __name__ == "__main__":
    sys.exit(main())

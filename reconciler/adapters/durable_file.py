"""Files that a crash leaves whole, and where they belong."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def replace_file(path: Path, text: str, opener: Callable[[str, int], int] | None = None) -> None:
    """Replace the file at `path` by one with `text`: a reader, or a crash, finds the old or the new one, whole.

    `opener` makes the new one, as for `open`. Raises OSError.
    """
    beside = path.with_name(f"{path.name}.new")
    beside.unlink(missing_ok=True)
    with open(beside, "x", encoding="utf-8", opener=opener) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    keep_names(path.parent)


def keep_names(directory: Path) -> None:
    """Have on the disk which files are in a directory. Raises OSError."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

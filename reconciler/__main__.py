"""`python -m reconciler` and the `reconciler` command: hands over to the command line."""

from __future__ import annotations

import sys

INTERRUPTED = 130
"""The exit code of what was ended with Ctrl-C, as shells expect it."""


def main() -> None:
    """Run the command line; ends the program with its exit code."""
    try:
        # Importing takes long enough to be interrupted, too.
        from reconciler.cli.app import app  # noqa: PLC0415

        app(prog_name="reconciler")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()

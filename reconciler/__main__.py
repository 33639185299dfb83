"""`python -m reconciler` and the `reconciler` command: hands over to the command line."""

from __future__ import annotations

from reconciler.cli.app import app


def main() -> None:
    """Run the command line; ends the program with its exit code."""
    app(prog_name="reconciler")


if __name__ == "__main__":
    main()

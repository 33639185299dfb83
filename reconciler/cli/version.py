"""`reconciler version`."""

from __future__ import annotations

import platform

from reconciler import __version__
from reconciler.cli.common import JsonOption, print_json, say


def version(*, as_json: JsonOption = False) -> None:
    """Print which release this is."""
    if as_json:
        print_json({"version": __version__, "python": platform.python_version()})
    else:
        say(f"reconciler {__version__} (Python {platform.python_version()})")

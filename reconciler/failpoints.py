"""Named places where the program can be made to die at once, to prove that dying there loses nothing.

`RECONCILER_FAILPOINT=docker.after_create` kills at the first hit, `…:3` at the third. Without the variable a hit costs
one comparison.
"""

from __future__ import annotations

import os
import signal

_NAME, _, _COUNT = os.environ.get("RECONCILER_FAILPOINT", "").partition(":")
_left = int(_COUNT or "1")


def hit(name: str) -> None:
    """Die here with SIGKILL if this place was chosen."""
    global _left  # noqa: PLW0603 - a failpoint counts over the whole program
    if name != _NAME:
        return
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

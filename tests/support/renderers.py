"""The programs that render, as they are: kustomize and helm, each in a directory that can be a search path."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from tests.support import kustomize
from tools import go_tools


@cache
def helm() -> Path:
    """The directory of helm. Tests are skipped where there is none and no Go to install it."""
    reason = go_tools.missing(go_tools.HELM)
    if reason:
        pytest.skip(reason)
    return go_tools.program(go_tools.HELM).parent


def search(directory: Path) -> str:
    """A search path with both programs: links in `directory`."""
    return f"{kustomize.linked(directory)}:{helm()}"

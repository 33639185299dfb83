"""Functions stay under 70 lines and modules within 400: what is longer has more than one concern."""

import ast
from pathlib import Path

import pytest

from tests.tidy import sources

LONGEST_MODULE = 400
LONGEST_FUNCTION = 69
FOLDERS = ("reconciler", "tests", "bench", "tools")


def long_functions(tree: ast.Module) -> list[str]:
    """Name and length of each function that is too long, decorators included."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            length = (node.end_lineno or first) - first + 1
            if length > LONGEST_FUNCTION:
                found.append(f"{node.name}: {length} lines")
    return found


@pytest.mark.parametrize("path", sources.modules(*FOLDERS), ids=sources.shown)
def test_module_is_small(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST_MODULE, f"{sources.shown(path)} has {lines} lines; split it by concern"
    assert long_functions(sources.tree(path)) == [], f"in {sources.shown(path)}"


@pytest.mark.parametrize(("length", "too_long"), [(69, False), (70, True)])
def test_the_measure_itself(length: int, too_long: bool) -> None:
    body = "\n".join(["    pass"] * (length - 2))
    tree = ast.parse(f"@decorated\ndef f():\n{body}\n")
    assert bool(long_functions(tree)) is too_long

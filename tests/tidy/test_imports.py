"""The direction of imports (the contracts of pyproject.toml) and the absence of cycles."""

from graphlib import CycleError, TopologicalSorter

import grimp
import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

from tests.tidy import sources


def test_the_contracts_of_pyproject_hold(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(sources.ROOT)
    code = lint_imports(cache_dir=None)
    assert code == EXIT_STATUS_SUCCESS, capsys.readouterr().out


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = grimp.build_graph("reconciler", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert any(imports.values()), "the graph has no edges: nothing was checked"
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as circle:
        pytest.fail(" <- ".join(circle.args[1]))

"""The tests of documents can fail: each way of reading them is tried on an example that is wrong."""

from pathlib import Path

import pytest

from tests.tidy import documents, names, sources

TEXT = """# A title with `code`

See `reconciler/core/plan.py`, [there](other.md#part) and ![seen](a.png).

```console
$ reconciler audit list --json
`not/a/span.py`
```

## Reasons

### Git

| reason | what |
|---|---|
| `Lost` | gone |
| `Found` | here |

## Others

| `Else` | no |
"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.md"
    path.write_text(TEXT)
    return path


def test_markdown_is_read_as_people_see_it(page: Path) -> None:
    assert [text for _, text in documents.spans(page)][:2] == ["code", "reconciler/core/plan.py"]
    assert "not/a/span.py" not in [text for _, text in documents.spans(page)]
    assert [target for _, target in documents.links(page)] == ["other.md#part", "a.png"]
    assert list(documents.commands(page, "reconciler")) == [(6, ["audit", "list", "--json"])]
    assert documents.anchors(page) == {"a-title-with-code", "reasons", "git", "others"}
    assert documents.first_cells(page, "Reasons") == ["Lost", "Found"]


@pytest.mark.parametrize(
    ("text", "is_path", "exists"),
    [
        ("reconciler/core/errors.py", True, True),
        ("core/{errors,model}.py", True, True),
        ("core/{errors,nothing}.py", True, False),
        ("reconciler/nowhere/", True, False),
        ("docs/adr/", True, True),
        ("tests/tidy/*.py", True, True),
        ("missing.md", True, False),
        ("environments/<env>/environment.yaml", False, False),
        ("reconciler audit list", False, False),
        ("/etc/reconciler/settings.yaml", False, False),
    ],
)
def test_paths(text: str, is_path: bool, exists: bool) -> None:
    assert names.looks_like_a_path(text) is is_path
    if is_path:
        assert names.path_exists(text, sources.ROOT / "README.md") is exists


@pytest.mark.parametrize(
    ("text", "exists"),
    [
        ("reconciler.core.errors", True),
        ("reconciler.core.errors.Reason.FENCED", True),
        ("reconciler.core.model.ServiceSpec.shape()", True),
        ("reconciler.core.model.ServiceSpec.replicas", True),
        ("reconciler.core.errors.Nothing", False),
        ("reconciler.nowhere", False),
    ],
)
def test_dotted_names(text: str, exists: bool) -> None:
    assert names.looks_dotted(text)
    assert names.dotted_exists(text) is exists


def test_an_api_version_is_no_code() -> None:
    assert not names.looks_dotted("reconciler.dev/v1")
    assert not names.looks_dotted("reconciler.dev")


def test_unknown_metrics_and_targets_are_seen() -> None:
    assert not names.metric_exists("reconciler_" + "no_such_thing_total")
    assert "test" in names.make_targets()
    assert "no-such-target" not in names.make_targets()

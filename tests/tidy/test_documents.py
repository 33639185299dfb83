"""The documents are there and true: paths, names, commands, metrics, reasons and links in them exist."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from reconciler.core.errors import Reason
from tests.tidy import documents, names, sources

REQUIRED = (
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "docs/operating.md",
    "docs/security.md",
    "docs/glossary.md",
    "docs/adr/0001-record-decisions.md",
    "tests/README.md",
)
LONGEST_ARCHITECTURE = 150
LONGEST_DECISION = 40
DECISION_PARTS = ("Context", "Decision", "Consequences")

every_document = pytest.mark.parametrize("path", documents.all_documents(), ids=sources.shown)


@pytest.mark.parametrize("name", REQUIRED)
def test_the_document_exists(name: str) -> None:
    path = sources.ROOT / name
    assert path.is_file(), f"{name} is missing"
    assert path.read_text(encoding="utf-8").strip(), f"{name} is empty"


@every_document
def test_each_path_in_it_exists(path: Path) -> None:
    named = [(line, text) for line, text in documents.spans(path) if names.looks_like_a_path(text)]
    assert [item for item in named if not names.path_exists(item[1], path)] == []


@every_document
def test_each_name_of_the_program_in_it_exists(path: Path) -> None:
    named = [(line, text) for line, text in documents.spans(path) if names.looks_dotted(text)]
    assert [item for item in named if not names.dotted_exists(item[1])] == []


@every_document
def test_each_metric_and_environment_variable_in_it_exists(path: Path) -> None:
    spans = list(documents.spans(path))
    metrics = [(line, text) for line, text in spans if re.match(r"reconciler_[a-z_]+(\{.*\})?$", text)]
    assert [item for item in metrics if not names.metric_exists(item[1])] == []
    variables = [(line, text.split("=")[0]) for line, text in spans if re.match(r"RECONCILER_[A-Z_]+(=.*)?$", text)]
    assert [item for item in variables if item[1] not in names.program_text()] == []


@every_document
def test_each_make_target_in_it_exists(path: Path) -> None:
    wanted = [(line, words[0]) for line, words in documents.commands(path, "make") if re.match(r"[a-z]", words[0])]
    assert [item for item in wanted if item[1] not in names.make_targets()] == []


@every_document
def test_each_link_in_it_leads_somewhere(path: Path) -> None:
    broken = []
    for line, target in documents.links(path):
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        if not file.exists() or (anchor and anchor not in documents.anchors(file)):
            broken.append((line, target))
    assert broken == []


def _command_line() -> Any:
    from reconciler.cli.app import app

    return typer.main.get_command(app)


def _unknown(words: list[str], command: Any) -> str:
    """The first word or option that the command line does not know; empty when all is known."""
    for word in (raw.strip("[](),").split("=")[0] for raw in words):
        if hasattr(command, "get_command") and re.fullmatch(r"[a-z][a-z-]*", word):
            command = command.get_command(None, word)
            if command is None:
                return word
        elif re.fullmatch(r"--[a-z][a-z-]*", word):
            known = {option for parameter in command.params for option in [*parameter.opts, *parameter.secondary_opts]}
            if word not in known | {"--help"}:
                return word
        elif word in {"|", "&&", "#", ">", ";"}:
            break
    return ""


@pytest.mark.parametrize(
    ("typed", "unknown"),
    [
        ("plan --json", ""),
        ("audit verify", ""),
        ("nowhere", "nowhere"),
        ("audit nowhere", "nowhere"),
        ("plan --no-such-option=1", "--no-such-option"),
        ("status | less", ""),
    ],
)
def test_the_reading_of_commands_itself(typed: str, unknown: str) -> None:
    assert _unknown(typed.split(), _command_line()) == unknown


@every_document
def test_each_command_in_it_exists(path: Path) -> None:
    found = [(line, words, _unknown(words, _command_line())) for line, words in documents.commands(path, "reconciler")]
    assert [item for item in found if item[2]] == []


def test_the_unit_starts_the_program_as_it_wants_to_be_started() -> None:
    unit = (sources.ROOT / "deploy/systemd/reconciler.service").read_text(encoding="utf-8")
    started = re.findall(r"^ExecStart=\S+/reconciler (.+)$", unit, re.MULTILINE)
    assert len(started) == 1
    assert _unknown(started[0].split(), _command_line()) == ""


def test_every_reason_has_its_row_in_operating_and_no_other() -> None:
    rows = documents.first_cells(sources.ROOT / "docs/operating.md", "Reasons")
    assert sorted(rows) == sorted(reason.value for reason in Reason)


def test_the_architecture_fits_on_a_few_screens() -> None:
    lines = (sources.ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= LONGEST_ARCHITECTURE


@pytest.mark.parametrize("path", sorted((sources.ROOT / "docs/adr").glob("*.md")), ids=sources.shown)
def test_a_decision_is_short_and_whole(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST_DECISION
    assert re.match(rf"# {path.name[:4]}[.:]? ", text), "its title opens with its number"
    assert [part for part in DECISION_PARTS if f"## {part}" not in text] == []


def test_the_decisions_are_numbered_without_a_gap() -> None:
    numbers = [int(path.name[:4]) for path in sorted((sources.ROOT / "docs/adr").glob("*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))

"""What must not be in the sources: I/O and clocks in the core, commands built from values, shells, loose notes."""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.tidy import purity, sources

BINARY = {".png", ".gif", ".webp", ".ico", ".gz", ".sqlite"}

Rule = Callable[[ast.Module], Iterator[str]]


def _text_files() -> list[Path]:
    return [path for path in sources.tracked() if path.suffix not in BINARY]


@pytest.mark.parametrize("path", sources.modules("reconciler/core"), ids=sources.shown)
def test_the_core_is_pure(path: Path) -> None:
    assert list(purity.impurities(sources.tree(path))) == []


@pytest.mark.parametrize("path", sources.modules("reconciler"), ids=sources.shown)
def test_no_value_becomes_a_command(path: Path) -> None:
    assert list(purity.shells(sources.tree(path))) == []
    assert list(purity.open_git_commands(sources.tree(path))) == []


@pytest.mark.parametrize("path", sources.modules("reconciler", "tests", "bench", "tools"), ids=sources.shown)
def test_every_module_says_what_it_is(path: Path) -> None:
    if path.name == "__init__.py" and not path.read_text(encoding="utf-8").strip():
        return
    assert ast.get_docstring(sources.tree(path)), f"{sources.shown(path)} has no docstring"


@pytest.mark.parametrize("path", sources.modules("reconciler", "bench", "tools"), ids=sources.shown)
def test_a_name_says_what_the_module_does(path: Path) -> None:
    assert not purity.VAGUE_NAME.search(path.stem), f"{sources.shown(path)}: say what it does"


@pytest.mark.parametrize("path", _text_files(), ids=sources.shown)
def test_no_address_of_a_registry_no_path_of_one_machine_no_loose_note(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert list(purity.words(text, purity.FORBIDDEN_WORDS)) == []
    assert list(purity.words(text, purity.BARE_NOTE)) == []


BAD = {
    "import time": purity.impurities,
    "from os import path": purity.impurities,
    "import datetime\nx = datetime.datetime.now": purity.impurities,
    "from datetime import datetime\ndatetime.now()": purity.impurities,
    "from datetime import date\ndate.today()": purity.impurities,
    "print(1)": purity.impurities,
    "open('x')": purity.impurities,
    "repo.git.log(ref)": purity.open_git_commands,
    "self.repo.git.execute(['log', ref])": purity.open_git_commands,
    "repo.git.log('HEAD', output=name)": purity.open_git_commands,
    "run(x, shell=True)": purity.shells,
    "os.system(x)": purity.shells,
}
GOOD = {
    "from datetime import datetime, timedelta\nx: datetime": purity.impurities,
    "clock.now()": purity.impurities,
    "repo.git.rev_parse('HEAD')": purity.open_git_commands,
    "repo.git.update_environment(**values)": purity.open_git_commands,
    "run(x, shell=False)": purity.shells,
}


@pytest.mark.parametrize(("source", "rule"), BAD.items(), ids=lambda value: "" if callable(value) else value)
def test_each_rule_sees_what_it_forbids(source: str, rule: Rule) -> None:
    assert list(rule(ast.parse(source)))


@pytest.mark.parametrize(("source", "rule"), GOOD.items(), ids=lambda value: "" if callable(value) else value)
def test_each_rule_lets_the_rest_be(source: str, rule: Rule) -> None:
    assert not list(rule(ast.parse(source)))


@pytest.mark.parametrize(
    ("text", "pattern", "seen"),
    [
        ("get it from https://py" + "pi.org/simple", purity.FORBIDDEN_WORDS, True),
        ("see /wo" + "rk/main", purity.FORBIDDEN_WORDS, True),
        ("a network/path and https://example.org", purity.FORBIDDEN_WORDS, False),
        ("# TO" + "DO later", purity.BARE_NOTE, True),
        ("# TO" + "DO(#12) later", purity.BARE_NOTE, False),
    ],
)
def test_the_patterns(text: str, pattern: re.Pattern[str], seen: bool) -> None:
    assert bool(list(purity.words(text, pattern))) is seen

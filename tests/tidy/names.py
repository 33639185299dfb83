"""What a document may name: files of the repository, attributes, metrics, environment variables, make targets."""

import importlib
import itertools
import re
from functools import cache
from pathlib import Path

from tests.tidy import sources

FILE = re.compile(r"^[\w.@*-]+(?:/[\w.@*-]+)*\.(?:py|md|toml|sh|txt|in|service|cfg|ini)$")
DOTTED = re.compile(r"^reconciler(?:\.[A-Za-z_]\w*)+(?:\(\))?$")
NOT_CODE = {"reconciler.dev", "reconciler.service", "reconciler.yaml", "reconciler.db"}


def _alternatives(text: str) -> list[str]:
    """`a/{b,c}.py` -> `a/b.py`, `a/c.py`."""
    parts = [part.split(",") for part in re.split(r"[{}]", text)]
    fixed = [[",".join(part)] if index % 2 == 0 else part for index, part in enumerate(parts)]
    return ["".join(choice) for choice in itertools.product(*fixed)]


@cache
def top_level() -> frozenset[str]:
    """The folders at the root of the repository."""
    names = (path.relative_to(sources.ROOT).parts for path in sources.tracked())
    return frozenset(parts[0] for parts in names if len(parts) > 1)


def looks_like_a_path(text: str) -> bool:
    """A path of this repository, or the short form of one; a `<placeholder>` makes it somebody else's."""
    if re.search(r"[\s<>$=:|()']", text) or text.startswith(("/", "~", "-", "*.")) or "…" in text:
        return False
    folder = text.removeprefix("./").split("/")[0]
    return ("/" in text and folder in top_level()) or all(FILE.match(name) for name in _alternatives(text))


def path_exists(text: str, document: Path) -> bool:
    """From the root, from the document's folder, or below `reconciler/`, as people shorten it."""
    bases = (sources.ROOT, document.parent, sources.ROOT / "reconciler", sources.ROOT / "tests")
    return all(
        any(next(base.glob(name.rstrip("/").removeprefix("./")), None) is not None for base in bases)
        for name in _alternatives(text)
    )


def looks_dotted(text: str) -> bool:
    """A module, class or function of the program by its full name."""
    return bool(DOTTED.match(text)) and text not in NOT_CODE


def dotted_exists(text: str) -> bool:
    """Import as much as can be imported, then walk the attributes."""
    parts = text.removesuffix("()").split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for name in parts[length:]:
            fields = getattr(found, "__dataclass_fields__", {})
            if not hasattr(found, name) and name not in fields:
                return False
            found = getattr(found, name, None)
        return True
    return False


@cache
def program_text() -> str:
    """All Python of the program, the tools and the tests' support, and the set-up."""
    folders = ("reconciler", "tools", "bench", "tests", ".ci")
    paths = [path for path in sources.tracked() if path.relative_to(sources.ROOT).parts[0] in {*folders, "Makefile"}]
    return "\n".join(path.read_text(encoding="utf-8") for path in paths if path.suffix in {".py", ".sh", ""})


def metric_exists(text: str) -> bool:
    """The name as a literal; the client adds `_total` and the parts of a histogram by itself."""
    bare = re.sub(r"\{.*\}$", "", text)
    short = re.sub(r"_(?:total|bucket|count|sum|created|info)$", "", bare)
    return any(f'"{name}"' in program_text() for name in (bare, short, short.removeprefix("reconciler_")))


@cache
def make_targets() -> frozenset[str]:
    """The targets of the Makefile."""
    text = (sources.ROOT / "Makefile").read_text(encoding="utf-8")
    return frozenset(re.findall(r"^([a-z][a-z-]*):", text, re.MULTILINE))

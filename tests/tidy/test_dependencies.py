"""What is installed is what the lock files say, nothing more is imported, and every licence is one we can live with."""

import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.tidy import sources

LOCKS = ("requirements-build.txt", "requirements.txt", "requirements-dev.txt")
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==([^ ;]+)(?: ;.*)? \\$")
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}(?: \\)?$")
PERMISSIVE = re.compile(r"MIT|BSD|Apache|ISC|PSF|Python Software Foundation")
# Only what docs/adr/0002-dependencies.md argues for.
ARGUED = {"certifi": "MPL-2.0"}


def _pins(name: str) -> dict[str, str]:
    matches = (PIN.match(line) for line in (sources.ROOT / name).read_text(encoding="utf-8").splitlines())
    return {canonicalize_name(match[1]): match[2] for match in matches if match}


def _project() -> dict[str, list[str]]:
    found: dict[str, list[str]] = tomllib.loads((sources.ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
        "project"
    ]
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_holds_exact_versions_with_hashes_and_nothing_else(name: str) -> None:
    lines = (sources.ROOT / name).read_text(encoding="utf-8").splitlines()
    strange = [line for line in lines if line and "#" not in line and not PIN.match(line) and not HASH.match(line)]
    assert strange == []
    assert not [line for line in lines if "://" in line or re.search(r"#.*(?<!\w)/\w", line)]
    pinned = [number for number, line in enumerate(lines) if PIN.match(line)]
    assert pinned
    assert all(HASH.match(lines[number + 1]) for number in pinned)


def test_the_locks_agree_with_each_other_and_with_pyproject() -> None:
    build, runtime, everything = (_pins(name) for name in LOCKS)
    assert {name: everything.get(name) for name in build | runtime} == build | runtime
    for line in _project()["dependencies"]:
        requirement = Requirement(line)
        locked = runtime.get(canonicalize_name(requirement.name), "")
        assert locked, f"{line} is not in requirements.txt; run: make lock"
        assert requirement.specifier.contains(locked), f"{line}, but locked is {locked}; run: make lock"


def test_the_environment_is_the_locked_one() -> None:
    installed = {name: metadata.version(name) for name in _pins("requirements-dev.txt")}
    assert installed == _pins("requirements-dev.txt"), "the environment is an old one; run: make setup"


def _imported(paths: tuple[Path, ...]) -> set[str]:
    return {module.split(".")[0] for path in paths for module in sources.imports(path)}


@pytest.mark.parametrize(
    ("folders", "needs"),
    [(("reconciler",), ["pyproject"]), (("tests", "bench", "tools"), ["pyproject", "requirements-dev.in"])],
    ids=["program", "tests"],
)
def test_every_import_is_declared_and_not_there_by_luck(folders: tuple[str, ...], needs: list[str]) -> None:
    declared = {canonicalize_name(Requirement(line).name) for line in _project()["dependencies"]}
    if "requirements-dev.in" in needs:
        lines = (sources.ROOT / "requirements-dev.in").read_text(encoding="utf-8").splitlines()
        declared |= {canonicalize_name(line) for line in lines if re.match(r"[A-Za-z]", line)}
    ours = {"reconciler", "tests", "bench", "tools"}
    providers = metadata.packages_distributions()
    undeclared = {
        module: providers.get(module, ["nothing installed"])
        for module in _imported(sources.modules(*folders)) - ours - sys.stdlib_module_names
        if not {canonicalize_name(name) for name in providers.get(module, [])} & declared
    }
    assert undeclared == {}


@pytest.mark.parametrize("name", sorted(_pins("requirements.txt")))
def test_its_licence_is_permissive(name: str) -> None:
    about = metadata.metadata(name)
    classifiers = [line for line in about.get_all("Classifier", []) if line.startswith("License")]
    said = " ".join([about.get("License-Expression") or "", (about.get("License") or "")[:200], *classifiers])
    assert ARGUED.get(name, "") in said
    assert PERMISSIVE.search(said) or name in ARGUED, f"{name}: {said.strip() or 'states no licence'}"

"""The part of the daemon's image that is Python: the locked packages, the program itself, and their compiled modules.

pip of this repository's environment installs for the Python of the image, only what the lock file names with its hash.
Modules are compiled by the image's own Python, so that a read-only container starts as fast as any.
"""

from __future__ import annotations

import csv
import fnmatch
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools import daemon_image_packages

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("reconciler", "schemas", "pyproject.toml", "README.md", "LICENSE")
"""What the program is built from."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """One Python package in the image. `sha256` is that of the file that was installed, `licence` as it names it."""

    name: str
    version: str
    sha256: str
    licence: str
    expression: bool


def python_of(root: Path) -> str:
    """`3.11`: the version of the image's Python. Raises SystemExit when it is too old."""
    names = sorted(path.name for path in (root / "usr" / "bin").glob("python3.*"))
    if not names:
        raise SystemExit("the distribution's package python3 brings no interpreter")
    version = names[-1].removeprefix("python")
    if tuple(map(int, version.split("."))) < (3, 11):
        raise SystemExit(f"Python 3.11 or newer is needed in the image, and this distribution has {version}")
    return version


def packages_folder(version: str) -> Path:
    """Where Debian's Python looks for what the machine's owner installs, from the root."""
    return Path("usr") / "local" / "lib" / f"python{version}" / "dist-packages"


def install_locked(root: Path, version: str, dropped: Sequence[str]) -> list[Wheel]:
    """Install what requirements.txt names without the files `dropped`; sorted by name. Raises SystemExit."""
    target = root / packages_folder(version)
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.json"
        _pip(
            *("--target", str(target), "--report", str(report), "--require-hashes", "--no-deps"),
            *("--implementation", "cp", "--python-version", version),
            *("--requirement", str(ROOT / "requirements.txt")),
        )
        items = json.loads(report.read_text())["install"]
    for path in sorted(target.rglob("*"), reverse=True):
        if any(fnmatch.fnmatchcase(path.relative_to(target).as_posix(), pattern) for pattern in dropped):
            path.rmdir() if path.is_dir() else path.unlink()
    _tidy(target)
    found = [_described(item) for item in items]
    return sorted(found, key=lambda wheel: wheel.name.lower())


def install_program(root: Path, version: str) -> None:
    """Build and install the program from a copy of its sources, and the command that starts it."""
    target = root / packages_folder(version)
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory) / "source"
        copy.mkdir()
        for name in PARTS:
            if (ROOT / name).is_dir():
                shutil.copytree(
                    ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
                )
            else:
                shutil.copy2(ROOT / name, copy / name)
        _pip("--target", str(target), "--no-deps", str(copy))
    _tidy(target)
    command = root / "usr" / "local" / "bin" / "reconciler"
    command.parent.mkdir(parents=True, exist_ok=True)
    command.write_text("#!/usr/bin/python3 -I\nfrom reconciler.__main__ import main\n\nmain()\n")
    command.chmod(0o755)


def compile_modules(root: Path, version: str, folders: Sequence[Path], python: Path | None = None) -> None:
    """Compile below `folders` (from the root) by the image's Python, which is in `python`, by default in `root`.

    The compiled modules are never checked against their sources: nobody changes these, and their dates are all one.
    """
    home = python or root
    command = [
        *daemon_image_packages.loader_of(home),
        str(home / "usr" / "bin" / f"python{version}"),
        *("-s", "-S", "-B", "-m", "compileall", "-q", "--workers", "2", "--invalidation-mode", "unchecked-hash"),
        *("-s", str(root), "-p", "/", *(str(root / folder) for folder in folders)),
    ]
    variables = {"PATH": os.environ.get("PATH", ""), "PYTHONHOME": str(home / "usr"), "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=variables)
    if done.returncode:
        raise SystemExit(
            f"the modules of the daemon's image could not be compiled:\n{done.stdout[-2000:]}{done.stderr}"
        )


def _pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    options = ["--no-compile", "--no-build-isolation", "--no-warn-script-location", "--root-user-action=ignore"]
    done = subprocess.run([*command, *options, *words], check=False, capture_output=True, text=True)
    if done.returncode:
        last = "\n".join(done.stderr.splitlines()[-8:])
        raise SystemExit(f"pip could not install into the daemon's image:\n{last}")


def _tidy(target: Path) -> None:
    """Without the commands, which name this machine's Python, and what says how pip was called."""
    shutil.rmtree(target / "bin", ignore_errors=True)
    for record in target.glob("*.dist-info/RECORD"):
        for name in ("REQUESTED", "INSTALLER", "direct_url.json"):
            (record.parent / name).unlink(missing_ok=True)
        with record.open(newline="") as file:
            kept = [row for row in csv.reader(file) if row and (target / row[0]).exists()]
        with record.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(sorted(kept))


def _described(item: dict[str, dict[str, object]]) -> Wheel:
    metadata, info = item["metadata"], item["download_info"]
    archive = info["archive_info"]
    assert isinstance(archive, dict), "what is locked by a hash is a file"
    licence, expression = _licence(metadata)
    name, version = str(metadata["name"]), str(metadata["version"])
    return Wheel(name, version, str(archive["hashes"]["sha256"]), licence, expression)


def _licence(metadata: dict[str, object]) -> tuple[str, bool]:
    """What a package says of its licence, and whether that is an SPDX expression."""
    expression = metadata.get("license_expression")
    if expression:
        return str(expression), True
    classifiers = metadata.get("classifier")
    names = [str(one) for one in classifiers] if isinstance(classifiers, list) else []
    licences = [one.rpartition(" :: ")[2] for one in names if one.startswith("License ::")]
    if licences:
        return " or ".join(licences), False
    text = str(metadata.get("license") or "")
    return (text, False) if text and "\n" not in text and len(text) < 100 else ("", False)

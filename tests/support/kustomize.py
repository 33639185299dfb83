"""Renders the kustomizations of deploy/ by kustomize itself, of the release that tests/deploy/kustomize pins."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools import kept

SOURCES = Path(__file__).resolve().parents[1] / "deploy" / "kustomize"
DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


@cache
def program() -> tuple[str, ...]:
    """The command that builds a kustomization. Tests are skipped where there is neither it, nor kubectl, nor Go."""
    total = hashlib.sha256(b"".join((SOURCES / name).read_bytes() for name in ("go.mod", "go.sum")))
    made = kept.cache() / f"kustomize-{total.hexdigest()[:16]}"
    if not made.exists() and kept.go() is None:
        for name, words in (("kustomize", ("build",)), ("kubectl", ("kustomize",))):
            found = shutil.which(name)
            if found:
                return (found, *words)
        pytest.skip("neither Go nor kustomize nor kubectl was found to render the kustomizations")
    with kept.locked(kept.cache() / "kustomize.lock"):
        if not made.exists():
            new = made.with_suffix(".new")
            package = "sigs.k8s.io/kustomize/kustomize/v5"
            kept.run_go("kustomize", SOURCES, "build", "-trimpath", "-o", str(new), package)
            new.rename(made)
    return str(made), "build"


def linked(directory: Path) -> str:
    """`directory` as a search path on which a daemon finds the program."""
    directory.mkdir(exist_ok=True)
    found, *words = program()
    (directory / ("kustomize" if words == ["build"] else "kubectl")).symlink_to(found)
    return str(directory)


def text(folder: Path) -> str:
    """What the kustomization in `folder` comes to."""
    done = subprocess.run([*program(), str(folder)], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def rendered(name: str) -> tuple[dict[str, Any], ...]:
    """The objects of the kustomization `name` below deploy/, in its order."""
    return tuple(yaml.safe_load_all(text(DEPLOY / name)))

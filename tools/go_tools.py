"""Programs in Go that tests run as they are: installed once from their modules, kept by version for all clones.

It asks the Go toolchain and its module proxy only for what is not there yet.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tools.kept import cache, go, locked, run_go

HELM = "helm.sh/helm/v4/cmd/helm@v4.3.1"


def missing(package: str) -> str:
    """Why a program cannot be had here; empty when it is there, or can be installed."""
    if _kept(package).exists() or go() is not None:
        return ""
    return f"no Go toolchain was found to install {package}"


def program(package: str) -> Path:
    """The program of a package, installed when it is not there yet. Raises SystemExit when that fails."""
    kept = _kept(package)
    if not kept.exists():
        with locked(cache() / "go-tools.lock"):
            if not kept.exists():
                _install(package, kept)
    return kept


def _kept(package: str) -> Path:
    """Each in a directory of its own, so that it can be the search path."""
    path, _, version = package.partition("@")
    name = next(part for part in reversed(path.split("/")) if not part.removeprefix("v").isdecimal())
    return cache() / f"{name}-{version}" / name


def _install(package: str, kept: Path) -> None:
    if go() is None:
        raise SystemExit(missing(package))
    print(f"tools    installing {package}: some minutes the first time, then it is kept", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=cache(), prefix="installing-") as directory:
        run_go(package, cache(), "install", "-trimpath", "-ldflags", "-s -w", package, GOBIN=directory)
        made = Path(directory) / "made"
        made.mkdir()
        (Path(directory) / kept.name).rename(made / kept.name)
        made.rename(kept.parent)

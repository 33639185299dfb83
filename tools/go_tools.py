"""Programs in Go that tests run as they are: installed once from their modules, kept by version for all clones.

It asks the Go toolchain and its module proxy only for what is not there yet.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.cluster_build import cache, locked

HELM = "helm.sh/helm/v4/cmd/helm@v4.3.1"


def missing(package: str) -> str:
    """Why a program cannot be had here; empty when it is there, or can be installed."""
    if _kept(package).exists() or _go() is not None:
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


def _go() -> str | None:
    return shutil.which("go", path=os.environ.get("PATH", "") + ":/usr/local/go/bin:/usr/lib/go/bin")


def _install(package: str, kept: Path) -> None:
    go = _go()
    if go is None:
        raise SystemExit(missing(package))
    print(f"tools    installing {package}: some minutes the first time, then it is kept", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=cache(), prefix="installing-") as directory:
        variables = {**os.environ, "GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOWORK": "off", "GOBIN": directory}
        variables.pop("GOFLAGS", None)
        command = [go, "install", "-trimpath", "-ldflags", "-s -w", package]
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=variables)
        if done.returncode:
            last = "\n".join(done.stderr.splitlines()[-15:])
            raise SystemExit(f"{package} could not be installed:\n{last}")
        made = Path(directory) / "made"
        made.mkdir()
        (Path(directory) / kept.name).rename(made / kept.name)
        made.rename(kept.parent)

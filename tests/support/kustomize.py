"""Renders the kustomizations of deploy/ by kustomize itself, of the release that tests/deploy/kustomize pins."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

SOURCES = Path(__file__).resolve().parents[1] / "deploy" / "kustomize"
DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


@cache
def program() -> tuple[str, ...]:
    """The command that builds a kustomization. Tests are skipped where there is neither it, nor kubectl, nor Go."""
    total = hashlib.sha256(b"".join((SOURCES / name).read_bytes() for name in ("go.mod", "go.sum")))
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reconciler"
    kept = home / f"kustomize-{total.hexdigest()[:16]}"
    go = shutil.which("go", path=os.environ.get("PATH", "") + ":/usr/local/go/bin:/usr/lib/go/bin")
    if not kept.exists() and go is None:
        for name, words in (("kustomize", ("build",)), ("kubectl", ("kustomize",))):
            found = shutil.which(name)
            if found:
                return (found, *words)
        pytest.skip("neither Go nor kustomize nor kubectl was found to render the kustomizations")
    home.mkdir(parents=True, exist_ok=True)
    with (home / "kustomize.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            _build(str(go), kept)
    return str(kept), "build"


def _build(go: str, kept: Path) -> None:
    made = kept.with_suffix(".new")
    command = [go, "build", "-trimpath", "-o", str(made), "sigs.k8s.io/kustomize/kustomize/v5"]
    variables = {**os.environ, "GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOWORK": "off"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=SOURCES, env=variables)
    assert done.returncode == 0, f"kustomize could not be built:\n{done.stderr[-2000:]}"
    made.rename(kept)


def text(folder: Path) -> str:
    """What the kustomization in `folder` comes to."""
    done = subprocess.run([*program(), str(folder)], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def rendered(name: str) -> tuple[dict[str, Any], ...]:
    """The objects of the kustomization `name` below deploy/, in its order."""
    return tuple(yaml.safe_load_all(text(DEPLOY / name)))

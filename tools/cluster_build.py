"""The binary of the tests' own cluster: built once from `tests/kube/node`, kept under the hash of its sources.

It asks the Go toolchain and its module proxy only when the binary is not there yet. It starts nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOURCES = Path(__file__).resolve().parent.parent / "tests" / "kube" / "node"
UNUSED_DAYS = 30
GATEWAY_KINDS = ("gatewayclasses", "gateways", "httproutes", "referencegrants")


def missing() -> str:
    """Why no binary can be had here; empty when there is one, or it can be built."""
    if _kept().exists():
        return ""
    found = _go()
    if found is None:
        return "no Go toolchain was found to build the cluster of the tests (tests/kube/node)"
    said = subprocess.run([found, "env", "GOVERSION"], check=False, capture_output=True, text=True, env=_variables())
    wanted, has = _numbers(_declared(r"^go ([\d.]+)$")), _numbers(said.stdout)
    if has < wanted:
        shown = ".".join(str(number) for number in wanted)
        return f"Go {shown} or newer is needed to build the cluster of the tests, and here is {said.stdout.strip()}"
    return ""


def binary() -> Path:
    """The program, built when it is not there yet. Raises SystemExit with what to do."""
    kept = _kept()
    if not kept.exists():
        reason = missing()
        if reason:
            raise SystemExit(f"{reason}. Install it, or name a cluster in RECONCILER_TEST_KUBECONFIG")
        with locked(cache() / "kube-node.lock"):
            if not kept.exists():
                _remove_unused(cache())
                _build(kept)
    os.utime(kept)
    return kept / "node"


def gateway_definitions() -> list[Path]:
    """CRDs of the Gateway API's standard channel, of the release that go.mod pins: those for HTTP."""
    return sorted((binary().parent / "gateway").glob("*.yaml"))


def cache() -> Path:
    """Where binaries are kept, for all clones of this repository."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reconciler"


def _kept() -> Path:
    sources = sorted(path for path in SOURCES.rglob("*") if path.is_file())
    total = hashlib.sha256()
    for path in sources:
        content = path.read_bytes()
        total.update(f"{path.relative_to(SOURCES)}\0{len(content)}\0".encode() + content)
    return cache() / f"kube-node-{total.hexdigest()[:16]}"


def _declared(pattern: str) -> str:
    """What go.mod says; it is ours, so it is there."""
    found = re.search(pattern, (SOURCES / "go.mod").read_text(), re.MULTILINE)
    assert found is not None, pattern
    return found[1]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def _go() -> str | None:
    return shutil.which("go", path=os.environ.get("PATH", "") + ":/usr/local/go/bin:/usr/lib/go/bin")


def _variables() -> dict[str, str]:
    # The toolchain that is here, and no C: the same binary runs on any Linux.
    return {**os.environ, "GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOWORK": "off"}


def _build(kept: Path) -> None:
    print("cluster  building tests/kube/node: about ten minutes the first time, then it is kept", file=sys.stderr)
    release = _declared(r"^\s*k8s\.io/kubernetes (v[\d.]+)$")
    major, minor, *_ = _numbers(release)
    named = {"gitVersion": release, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    flags = " ".join(
        ["-s -w", *(f"-X {package}.{key}={value}" for package in packages for key, value in named.items())]
    )
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix="building-kube-") as directory:
        made = Path(directory) / "made"
        (made / "gateway").mkdir(parents=True)
        for package, name in ((".", "node"), ("./pause", "pause")):
            _run("build", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", str(made / name), package)
        module = Path(_run("list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api").strip())
        for kind in GATEWAY_KINDS:
            name = f"gateway.networking.k8s.io_{kind}.yaml"
            shutil.copyfile(module / "config" / "crd" / "standard" / name, made / "gateway" / name)
        made.rename(kept)


def _run(*arguments: str) -> str:
    go = _go()
    assert go is not None, "missing() was asked before"
    done = subprocess.run([go, *arguments], check=False, capture_output=True, text=True, cwd=SOURCES, env=_variables())
    if done.returncode:
        last = "\n".join(done.stderr.splitlines()[-15:])
        raise SystemExit(f"tests/kube/node could not be built (go {arguments[0]}):\n{last}")
    return done.stdout


def _remove_unused(home: Path) -> None:
    """Each change of the sources leaves a binary behind: those that nobody used for a while go."""
    for path in home.glob("kube-node-*"):
        if path.is_dir() and time.time() - path.stat().st_mtime > UNUSED_DAYS * 86400:
            shutil.rmtree(path, ignore_errors=True)
    for path in home.glob("building-kube-*"):
        shutil.rmtree(path, ignore_errors=True)  # of a build that was killed: the lock is ours


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Nobody else who asks for this file's lock goes on meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield

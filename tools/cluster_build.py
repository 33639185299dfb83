"""The binary of the tests' own cluster: built once from `tests/kube/node`, kept under the hash of its sources.

It asks the Go toolchain and its module proxy only when the binary is not there yet. It starts nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from tools.kept import cache, digest, go, go_variables, locked, remove_unused, run_go

SOURCES = Path(__file__).resolve().parent.parent / "tests" / "kube" / "node"
_run = partial(run_go, "tests/kube/node", SOURCES)
GATEWAY_KINDS = ("gatewayclasses", "gateways", "httproutes", "referencegrants")


def missing() -> str:
    """Why no binary can be had here; empty when there is one, or it can be built."""
    if _kept().exists():
        return ""
    found = go()
    if found is None:
        return "no Go toolchain was found to build the cluster of the tests (tests/kube/node)"
    said = subprocess.run([found, "env", "GOVERSION"], check=False, capture_output=True, text=True, env=go_variables())
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
                remove_unused("kube-node-*", "building-kube-*")
                _build(kept)
    os.utime(kept)
    return kept / "node"


def gateway_definitions() -> list[Path]:
    """CRDs of the Gateway API's standard channel, of the release that go.mod pins: those for HTTP."""
    return sorted((binary().parent / "gateway").glob("*.yaml"))


def copy_definitions(run: Callable[..., str], kinds: Iterable[str], to: Path) -> None:
    """Copy CRDs of the Gateway API's standard channel out of the release that the go.mod where `run` asks Go pins."""
    module = Path(run("list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api").strip())
    for kind in kinds:
        name = f"gateway.networking.k8s.io_{kind}.yaml"
        shutil.copyfile(module / "config" / "crd" / "standard" / name, to / name)


def _kept() -> Path:
    return cache() / f"kube-node-{digest(SOURCES)}"


def _declared(pattern: str) -> str:
    """What go.mod says; it is ours, so it is there."""
    found = re.search(pattern, (SOURCES / "go.mod").read_text(), re.MULTILINE)
    assert found is not None, pattern
    return found[1]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


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
        copy_definitions(_run, GATEWAY_KINDS, made / "gateway")
        made.rename(kept)

"""The Gateway of the tests' cluster: built once from `tests/kube/gateway`, kept under the hash of its sources.

It asks the Go toolchain and its module proxy only when the program is not there yet.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tools.cluster_build import copy_definitions
from tools.kept import cache, digest, go, locked, remove_unused, run_go

SOURCES = Path(__file__).resolve().parent.parent / "tests" / "kube" / "gateway"
_run = partial(run_go, "tests/kube/gateway", SOURCES)
CONTROLLER = "traefik.io/gateway-controller"
"""What a GatewayClass of this program names."""
PORT = 80
"""The port that a listener has to name, wherever the program really listens."""
KINDS = ("backendtlspolicies", "gatewayclasses", "gateways", "grpcroutes", "httproutes", "referencegrants", "tlsroutes")
"""What the controller watches of the Gateway API: it waits until all of it is served."""


def missing() -> str:
    """Why the program cannot be had here; empty when it is there, or can be built."""
    if _kept().exists() or go() is not None:
        return ""
    return "no Go toolchain was found to build the Gateway of the tests (tests/kube/gateway)"


def program() -> Path:
    """The program, built when it is not there yet. Raises SystemExit when that fails."""
    kept = _kept()
    if not kept.exists():
        with locked(cache() / "kube-gateway.lock"):
            if not kept.exists():
                remove_unused("kube-gateway-*", "building-gateway-*")
                _build(kept)
    os.utime(kept)
    return kept / "gateway"


def definitions() -> list[Path]:
    """CRDs of the Gateway API's standard channel that the controller needs, of the release that go.mod pins."""
    return sorted((program().parent / "definitions").glob("*.yaml"))


@contextmanager
def running(kubeconfig: Path, namespace: str, classes: str, log: Path) -> Iterator[str]:
    """The Gateway for one namespace and the GatewayClasses that a label selector chooses: host:port of it, on loopback.

    Raises SystemExit with its last words when it does not start.
    """
    command = [str(program()), f"-namespace={namespace}", f"-classes={classes}"]
    variables = {"KUBECONFIG": str(kubeconfig), "PATH": os.environ.get("PATH", "")}
    with log.open("ab") as said:
        # It ends when its input is closed, also by the end of a run that was killed.
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, env=variables)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()  # it says one, or ends
        if not line:
            last = log.read_text(errors="replace")[-2000:]
            raise SystemExit(f"the Gateway of the tests did not start ({process.wait()}). {log} says:\n{last}")
        yield str(json.loads(line)["address"])
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=5)
        process.kill()
        process.wait()


def _kept() -> Path:
    return cache() / f"kube-gateway-{digest(SOURCES)}"


def _build(kept: Path) -> None:
    if go() is None:
        raise SystemExit(missing())
    print("gateway  building tests/kube/gateway: two minutes the first time, then it is kept", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=cache(), prefix="building-gateway-") as directory:
        made = Path(directory) / "made"
        (made / "definitions").mkdir(parents=True)
        _run("build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", str(made / "gateway"), ".")
        copy_definitions(_run, KINDS, made / "definitions")
        made.rename(kept)

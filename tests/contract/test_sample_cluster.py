"""The sample's environment on Kubernetes is right as it stands, its kustomization rendered by the real program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.adapters.rendering import ProgramRenderer
from reconciler.core import bundle, manifest
from reconciler.core.manifest import Fleet
from reconciler.core.model import DesiredState
from reconciler.core.policy import Allow
from reconciler.schemas import load_schemas
from tests.support.fake_runtime import HandClock
from tests.support.fleet import REVISION
from tests.support.renderers import search

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "sample-repo"


@pytest.fixture
def programs(tmp_path: Path) -> str:
    (tmp_path / "bin").mkdir()
    return search(tmp_path / "bin")


def sample(programs: str, work: Path) -> DesiredState:
    files = {path.relative_to(SAMPLE).as_posix(): path.read_bytes() for path in SAMPLE.rglob("*") if path.is_file()}

    def listing(directory: str) -> dict[str, str]:
        return {path: str(hash(data)) for path, data in files.items() if path.startswith(f"{directory}/")}

    directory = "environments/cluster"
    render = ProgramRenderer(HandClock(), work, search=programs).render
    fleet = Fleet(directory, listing(directory), files.__getitem__, listing, render)
    allow = Allow(native=True, namespace="cluster")
    state = manifest.parse("cluster", REVISION, fleet, schemas=load_schemas(), allow=allow, cache={})
    assert isinstance(state, DesiredState), state
    return state


def test_its_service_and_its_plain_manifests_need_no_permission(programs: str, tmp_path: Path) -> None:
    state = sample(programs, tmp_path)
    assert state.problems == {}
    assert set(state.services) == {"api", "notices"}
    found = state.services["notices"]
    assert found.bundle is not None
    assert found.depends_on == ("api",)
    kinds = [(each.kind, each.namespace) for each in bundle.identities(found.bundle, "cluster")]
    assert kinds == [("ConfigMap", "cluster"), ("Service", "cluster"), ("Deployment", "cluster")]
    assert list(bundle.remarks(found.bundle)) == [], "its images are pinned by digest"
    config, _, deployment = (json.loads(data) for data in found.bundle.objects)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["envFrom"] == [{"configMapRef": {"name": config["metadata"]["name"]}}]


def test_it_is_checked_as_its_readme_says(programs: str) -> None:
    command = [sys.executable, "-m", "reconciler", "validate", "--kubernetes", "cluster", str(SAMPLE)]
    variables = {**os.environ, "PATH": programs}
    done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False, cwd=ROOT)
    assert (done.returncode, "environments/cluster" in done.stderr + done.stdout) == (0, False), done.stderr
    assert "reconciler validate --kubernetes cluster ." in (SAMPLE / "README.md").read_text()

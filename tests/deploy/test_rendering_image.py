"""What deploy/README.md says about kustomize and helm: one's own image renders with them, the plain one does not."""

from __future__ import annotations

import io
import re
import tarfile
from pathlib import Path

import docker
import pytest

from tests.support import kustomize
from tests.support.confined import run
from tools import go_tools

README = Path(__file__).resolve().parents[2] / "deploy" / "README.md"
MANIFESTS = "apiVersion: reconciler.dev/v1\nkind: Manifests\nmetadata: {{name: {}}}\nspec: {}\n"
FLEET = {
    "environments/shop/environment.yaml": "apiVersion: reconciler.dev/v1\nkind: Environment\nmetadata: {name: shop}\n",
    "environments/shop/site.yaml": MANIFESTS.format("site", "{path: site}"),
    "environments/shop/chart.yaml": MANIFESTS.format("chart", "{helm: {chart: chart}}"),
    "site/kustomization.yaml": "configMapGenerator: [{name: made, literals: [a=b]}]\n",
    "chart/Chart.yaml": "apiVersion: v2\nname: chart\nversion: 1.0.0\n",
    "chart/templates/all.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}-all}\n",
}


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    for name, text in FLEET.items():
        file = tmp_path / "fleet" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for each in (tmp_path, *(tmp_path / "fleet").rglob("*"), tmp_path / "fleet"):
        each.chmod(0o755 if each.is_dir() else 0o644)
    return tmp_path / "fleet"


def context(base: str) -> io.BytesIO:
    """The build context that the README describes, on top of the image `base`."""
    (told,) = re.findall(r"```dockerfile\n(.*?)```", README.read_text(), re.DOTALL)
    assert told.startswith("FROM reconciler:")
    lines = [f"FROM {base}", *told.splitlines()[1:]]
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len("\n".join(lines))
        tar.addfile(entry, io.BytesIO("\n".join(lines).encode()))
        tar.add(kustomize.program()[0], "kustomize")
        tar.add(go_tools.program(go_tools.HELM), "helm")
    stream.seek(0)
    return stream


def validated(raw: docker.APIClient, image: str, fleet: Path) -> tuple[int, str]:
    binds = {str(fleet): {"bind": "/srv/fleet", "mode": "ro"}}
    command = ["validate", "--kubernetes", "*", "/srv/fleet"]
    return run(raw, image, command, tmpfs={"/tmp": "size=64m"}, binds=binds)


def test_an_image_with_both_renders_what_the_plain_one_cannot(
    daemon_image: str, raw: docker.APIClient, fleet: Path
) -> None:
    _, said = validated(raw, daemon_image, fleet)
    assert "the program kustomize or kubectl was not found" in said
    assert "the program helm was not found" in said
    tag = "reconciler-rendering:test"
    for line in raw.build(fileobj=context(daemon_image), custom_context=True, tag=tag, rm=True, decode=True):
        assert "error" not in line, line
    try:
        code, said = validated(raw, tag, fleet)
        assert (code, "not found" in said) == (0, False), said
    finally:
        raw.remove_image(tag, force=True)

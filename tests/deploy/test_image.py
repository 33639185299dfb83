"""The daemon's own image: what is in it and what is not, how it is described, and that it needs nothing else."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

import reconciler
from tests.support.confined import run
from tools import daemon_image as tool
from tools import daemon_image_archive
from tools.daemon_image import Image


class Archive:
    """The files of the image, layer over layer."""

    def __init__(self, image: Image) -> None:
        self._tar = tarfile.open(image.archive)  # noqa: SIM115 - closed by the fixture
        self.manifest = json.loads(self.blob(image.manifest))
        self.config = json.loads(self.blob(image.config))
        self.files: dict[str, tarfile.TarInfo] = {}
        self._layers: dict[str, tarfile.TarFile] = {}
        for layer in self.manifest["layers"]:
            stream = self._tar.extractfile(self._path(layer["digest"]))
            assert stream is not None
            opened = tarfile.open(fileobj=stream)  # noqa: SIM115
            for entry in opened:
                self.files[entry.name] = entry
                self._layers[entry.name] = opened

    def blob(self, digest: str) -> bytes:
        stream = self._tar.extractfile(self._path(digest))
        assert stream is not None
        return stream.read()

    def json(self, name: str) -> Any:
        stream = self._tar.extractfile(name)
        assert stream is not None
        return json.load(stream)

    def read(self, name: str) -> bytes:
        stream = self._layers[name].extractfile(self.files[name])
        assert stream is not None
        return stream.read()

    def close(self) -> None:
        self._tar.close()

    @staticmethod
    def _path(digest: str) -> str:
        return f"blobs/{digest.replace(':', '/')}"


@pytest.fixture(scope="module")
def archive(daemon_image_files: Image) -> Iterator[Archive]:
    found = Archive(daemon_image_files)
    yield found
    found.close()


def test_the_archive_is_an_oci_layout_whose_digests_hold(archive: Archive, daemon_image_files: Image) -> None:
    assert archive.json("oci-layout") == {"imageLayoutVersion": "1.0.0"}
    index = archive.json("index.json")
    assert [one["digest"] for one in index["manifests"]] == [daemon_image_files.manifest]
    described = [archive.manifest["config"], *archive.manifest["layers"], *index["manifests"]]
    for one in described:
        data = archive.blob(one["digest"])
        assert (len(data), f"sha256:{hashlib.sha256(data).hexdigest()}") == (one["size"], one["digest"])
    assert archive.config["rootfs"]["diff_ids"] == [layer["digest"] for layer in archive.manifest["layers"]]


def test_it_says_what_it_is_and_starts_as_a_user_without_rights(archive: Archive, daemon_image_files: Image) -> None:
    config = archive.config["config"]
    assert config["User"] == "65532:65532"
    labels = config["Labels"]
    assert labels["org.opencontainers.image.version"] == reconciler.__version__
    sbom = archive.read(labels["dev.reconciler.sbom"].lstrip("/"))
    assert labels["dev.reconciler.sbom.digest"] == f"sha256:{hashlib.sha256(sbom).hexdigest()}"
    assert sbom == daemon_image_files.sbom.read_bytes()
    assert "/bin/sh" not in " ".join([*config["Entrypoint"], *config["Cmd"], *config["Healthcheck"]["Test"]])


def test_nothing_in_it_can_become_more_than_it_is_or_be_changed(archive: Archive) -> None:
    for name, entry in archive.files.items():
        assert not entry.mode & 0o6000, f"{name} is setuid or setgid"
        assert entry.isfile() or entry.issym() or entry.isdir(), f"{name} is a device or a link"
        if name != "tmp" and not entry.issym():
            assert not entry.mode & 0o022, f"{name} can be changed by others"
    owned = {name for name, entry in archive.files.items() if (entry.uid, entry.gid) != (0, 0)}
    assert owned == {"var/lib/reconciler"}


def test_only_the_programs_that_are_needed_are_in_it(archive: Archive) -> None:
    folders = re.compile(r"^(?:usr/)?(?:local/)?s?bin/|^usr/local/bin/|^usr/lib/git-core/")
    programs = {Path(name).name for name, entry in archive.files.items() if folders.match(name) and not entry.isdir()}
    python = {name for name in programs if re.fullmatch(r"python3(?:\.\d+)?", name)}
    git = {"git", "git-upload-pack", "git-remote-http", "git-remote-https"}
    assert programs - python == {"dash", "sh", "ssh", "ssh-keygen", "tini", "reconciler", *git}


def test_every_package_in_it_brings_its_licence_and_is_known_to_scanners(archive: Archive) -> None:
    noted = {Path(name).name for name, entry in archive.files.items() if name.startswith("var/lib/dpkg/status.d/")}
    assert {"git", "openssh-client", "tini", "base-files"} <= noted
    for name in noted:
        assert f"Package: {name}\n" in archive.read(f"var/lib/dpkg/status.d/{name}").decode()
    assert "usr/share/doc/git/copyright" in archive.files
    assert b"ID=" in archive.read("usr/lib/os-release")


def test_modules_are_compiled_so_that_nothing_has_to_be_written(archive: Archive) -> None:
    version = next(name for name in archive.files if re.fullmatch(r"usr/bin/python3\.\d+", name)).removeprefix(
        "usr/bin/"
    )
    tag = f"cpython-{version.removeprefix('python').replace('.', '')}"
    sources = [
        name for name in archive.files if name.endswith(".py") and "/reconciler/" in name and "/lib/python" in name
    ]
    assert f"usr/local/lib/{version}/dist-packages/reconciler/daemon.py" in sources
    for name in sources:
        folder, _, file = name.rpartition("/")
        compiled = archive.read(f"{folder}/__pycache__/{file.removesuffix('.py')}.{tag}.pyc")
        assert int.from_bytes(compiled[4:8], "little") == 0b01, "by hash, and never checked"


def test_the_same_files_give_the_same_layer(tmp_path: Path) -> None:
    digests = []
    for number, names in enumerate((("b", "a", "sub/c"), ("sub/c", "a", "b"))):
        root = tmp_path / str(number)
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(name)
        layer = daemon_image_archive.write_layer(root, tmp_path / f"{number}.tar", lambda _name: 7, 0)
        digests.append(layer.digest)
        with tarfile.open(fileobj=io.BytesIO(layer.file.read_bytes())) as tar:
            assert {(one.uid, one.gid, one.uname, one.mtime) for one in tar} == {(7, 7, "", 0)}
    assert digests[0] == digests[1]


def test_building_again_gives_the_same_image(daemon_image_files: Image, tmp_path: Path) -> None:
    """The program's layer and all that describes the image; the larger part is taken from what is kept."""
    kept = daemon_image_files.archive.parent
    again = tmp_path / "again"
    tool._build_image(kept.parent / daemon_image_files.base, again)
    assert json.loads((again / "image.json").read_text()) == json.loads((kept / "image.json").read_text())


def test_it_runs_with_nothing_but_itself(daemon_image: str, raw: docker.APIClient) -> None:
    code, said = run(raw, daemon_image, ["version"])
    assert (code, said.split(" (")[0]) == (0, f"reconciler {reconciler.__version__}")
    code, said = run(raw, daemon_image, ["validate", "/usr"])
    assert "Traceback" not in said


LOOK = """
import json, os, pathlib, ssl, subprocess, sys
from importlib import import_module
for name in sys.argv[1:]:
    import_module(name)
import reconciler.schemas
status = dict(line.split(":\\t", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
try:
    pathlib.Path("/etc/x").write_text("x")
    writable = True
except OSError:
    writable = False
print(json.dumps({
    "uid": os.getuid(), "gid": os.getgid(), "capabilities": status["CapEff"].strip(),
    "no more": status["NoNewPrivs"].strip(), "schemas": sorted(reconciler.schemas.load_schemas()),
    "authorities": len(ssl.create_default_context().get_ca_certs()),
    "git": subprocess.run(["git", "--version"], capture_output=True, text=True).stdout,
    "https": subprocess.run(["git", "ls-remote", "https://127.0.0.1:1/x"], capture_output=True, text=True).stderr,
    "ssh": subprocess.run(["ssh", "-V"], capture_output=True, text=True).stderr, "writable": writable,
}))
"""


def test_all_it_needs_is_there_and_it_is_nobody(daemon_image: str, raw: docker.APIClient) -> None:
    modules = ["sqlite3", "kubernetes.client", "pg8000", "docker", "git", "uvicorn", "watchdog.observers", "yaml"]
    python = ["/usr/bin/python3", "-I", "-c", LOOK]
    code, said = run(raw, daemon_image, modules, python)
    assert code == 0, said
    seen = json.loads(said)
    assert (seen["uid"], seen["gid"], seen["capabilities"], seen["no more"]) == (65532, 65532, "0" * 16, "1")
    assert seen["writable"] is False
    assert seen["authorities"] > 50
    assert set(seen["schemas"]) >= {"service", "environment", "settings"}
    assert seen["git"].startswith("git version 2.")
    assert "Failed to connect to 127.0.0.1" in seen["https"], "git speaks HTTPS"
    assert seen["ssh"].startswith("OpenSSH")

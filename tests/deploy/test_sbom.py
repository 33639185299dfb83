"""The bill of materials: valid by CycloneDX' own schema, and it names exactly what is in the image."""

from __future__ import annotations

import json
import re
import tarfile
from functools import cache
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from tools.daemon_image import Image

LOCKED = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)
HASHES = re.compile(r"^([A-Za-z0-9._-]+)==\S+((?:[^\n]*\\\n)+[^\n]*)", re.MULTILINE)
ROOT = Path(__file__).resolve().parents[2]


@cache
def parsed(path: Path) -> Any:
    return json.loads(path.read_text())


def components(image: Image, kind: str) -> dict[str, Any]:
    found = [one for one in parsed(image.sbom)["components"] if one.get("purl", "").startswith(f"pkg:{kind}/")]
    return {one["name"].lower().replace("_", "-"): one for one in found}


def test_it_is_valid(daemon_image_files: Image) -> None:
    text = daemon_image_files.sbom.read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    broken = text.replace('"SHA-256"', '"SHA-257"')
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(broken) is not None


def test_every_locked_package_is_in_it_with_a_hash_of_the_lock(daemon_image_files: Image) -> None:
    found = components(daemon_image_files, "pypi")
    lock = (ROOT / "requirements.txt").read_text()
    assert {name: one["version"] for name, one in found.items()} == {n.lower(): v for n, v in LOCKED.findall(lock)}
    hashes = {name.lower(): set(re.findall(r"sha256:([0-9a-f]{64})", text)) for name, text in HASHES.findall(lock)}
    for name, one in found.items():
        assert one["hashes"][0]["content"] in hashes[name]
        assert one["licenses"], f"{name} says nothing of its licence"


def test_every_package_of_the_distribution_is_in_it_and_no_other(daemon_image_files: Image) -> None:
    noted = set()
    with tarfile.open(daemon_image_files.archive) as tar:
        for layer in [name for name in tar.getnames() if name.startswith("blobs/")]:
            stream = tar.extractfile(layer)
            assert stream is not None
            try:
                with tarfile.open(fileobj=stream, mode="r|") as inner:
                    noted |= {Path(one.name).name for one in inner if one.name.startswith("var/lib/dpkg/status.d/")}
            except tarfile.ReadError:
                continue  # the manifest or the configuration
    assert components(daemon_image_files, "deb").keys() == noted
    assert {"git", "python3", "libssl3", "tini"} & noted >= {"git", "python3", "tini"}


def test_names_lead_to_the_packages(daemon_image_files: Image) -> None:
    for one in parsed(daemon_image_files.sbom)["components"]:
        if "purl" not in one:
            continue
        purl = PackageURL.from_string(one["purl"])
        assert (purl.version, purl.to_string()) == (one["version"], one["purl"]), "canonical"


def test_the_references_are_whole(daemon_image_files: Image) -> None:
    document = parsed(daemon_image_files.sbom)
    known = {one["bom-ref"] for one in document["components"]} | {"image"}
    said = {one["ref"] for one in document["dependencies"]}
    meant = {other for one in document["dependencies"] for other in one.get("dependsOn", ())}
    assert said == known
    assert meant == known - {"image"}

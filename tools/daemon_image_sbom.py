"""The bill of materials of the daemon's image: CycloneDX 1.6 in JSON, the same bytes for the same image.

It lists what was put into the image, from what apt and pip said when they fetched it; it looks at nothing else.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import quote

from tools.daemon_image_packages import Package
from tools.daemon_image_wheels import Wheel

_SPACE = uuid.UUID("5f0f9a3e-6a0a-5d65-9d1c-0d6f3f3f8a51")
"""For the serial numbers; of no further meaning."""


def bill(
    version: str, distribution: tuple[str, str], packages: Sequence[Package], wheels: Sequence[Wheel], epoch: int
) -> bytes:
    """The document for an image of `version` on `distribution` (id and version) at `epoch`, seconds since 1970."""
    image = {
        "type": "container",
        "bom-ref": "image",
        "name": "reconciler",
        "version": version,
        "licenses": [{"license": {"id": "Apache-2.0"}}],
    }
    program = {
        "type": "application",
        "bom-ref": "program",
        "name": "reconciler",
        "version": version,
        "purl": f"pkg:generic/reconciler@{version}",
        "licenses": [{"license": {"id": "Apache-2.0"}}],
    }
    identity, release = distribution
    system = {"type": "operating-system", "bom-ref": "system", "name": identity, "version": release}
    debian = [_of_package(package, identity, release) for package in packages]
    python = [_of_wheel(wheel) for wheel in wheels]
    references = [str(part["bom-ref"]) for part in (*debian, *python)]
    document: dict[str, object] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": image,
        },
        "components": [program, system, *debian, *python],
        "dependencies": [
            {"ref": "image", "dependsOn": ["program", "system"]},
            {"ref": "program", "dependsOn": [str(part["bom-ref"]) for part in python]},
            {"ref": "system", "dependsOn": [str(part["bom-ref"]) for part in debian]},
            *({"ref": reference} for reference in references),
        ],
    }
    content = json.dumps(document, sort_keys=True)
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(_SPACE, content)}"
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


def _of_package(package: Package, identity: str, release: str) -> dict[str, object]:
    version = quote(package.version, safe=":~")
    purl = f"pkg:deb/{identity}/{quote(package.name, safe='')}@{version}"
    found: dict[str, object] = {
        "type": "library",
        "bom-ref": purl,
        "name": package.name,
        "version": package.version,
        "purl": f"{purl}?arch={package.architecture}&distro={identity}-{release}",
        "hashes": [{"alg": "SHA-256", "content": package.sha256}],
    }
    if package.licences:
        found["licenses"] = [{"license": {"name": name}} for name in package.licences]
    return found


def _of_wheel(wheel: Wheel) -> dict[str, object]:
    name = wheel.name.lower().replace("_", "-").replace(".", "-")
    purl = f"pkg:pypi/{name}@{quote(wheel.version, safe=':~')}"
    found: dict[str, object] = {
        "type": "library",
        "bom-ref": purl,
        "name": wheel.name,
        "version": wheel.version,
        "purl": purl,
        "hashes": [{"alg": "SHA-256", "content": wheel.sha256}],
    }
    if wheel.licence:
        choice = {"expression": wheel.licence} if wheel.expression else {"license": {"name": wheel.licence}}
        found["licenses"] = [choice]
    return found

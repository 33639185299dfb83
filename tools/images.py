"""The sample images: compile `hello`, build it through the SDK, push it to a local registry, and name it by digest."""

from __future__ import annotations

import argparse
import functools
import io
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import docker

SOURCE = Path(__file__).resolve().parent.parent / "sample-repo" / "services" / "hello"


@functools.cache
def compiled(version: str) -> bytes:
    """The static program with its version baked in. Raises SystemExit when it cannot be compiled."""
    if shutil.which("gcc") is None:
        raise SystemExit("gcc was not found. Install the packages gcc and libc6-dev")
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory) / "hello"
        sources = sorted(str(path) for path in SOURCE.glob("*.c"))
        define = f'-DDEFAULT_VERSION="{version}"'
        command = ["gcc", "-static", "-O2", "-s", "-pthread", "-Wall", define, "-o", str(program), *sources]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"hello could not be compiled:\n{done.stderr}")
        return program.read_bytes()


def context(version: str, more: str = "") -> io.BytesIO:
    """The build context as a tar: always the same bytes for the same program, so that its layer is shared.

    `more` are further lines of the Dockerfile.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content, mode in (
            ("Dockerfile", (SOURCE / "Dockerfile").read_bytes() + more.encode(), 0o644),
            ("hello", compiled(version), 0o755),
        ):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            tar.addfile(entry, io.BytesIO(content))
    buffer.seek(0)
    return buffer


def publish(host: str, registry: str, version: str, name: str = "hello", more: str = "") -> str:
    """Build and push `name:version`; the pinned reference `registry/name:version@sha256:…`. `more` as for `context`."""
    client = docker.APIClient(host, version="auto", timeout=120)
    tag = f"{registry}/{name}:{version}"
    try:
        for line in client.build(fileobj=context(version, more), custom_context=True, tag=tag, rm=True, decode=True):
            if "error" in line:
                raise SystemExit(f"{tag} could not be built: {line['error']}")
        digest = ""
        for line in client.push(f"{registry}/{name}", tag=version, stream=True, decode=True, auth_config={}):
            if "error" in line:
                raise SystemExit(f"{tag} could not be pushed: {line['error']}")
            digest = line.get("aux", {}).get("Digest", digest)
    finally:
        client.close()
    if not digest:
        raise SystemExit(f"{tag} was pushed, but the engine did not tell its digest")
    return f"{tag}@{digest}"


def main() -> None:
    """`python -m tools.images --host unix://… --registry 127.0.0.1:5000 1.0 2.0`: one pinned reference a line."""
    parser = argparse.ArgumentParser(prog="python -m tools.images", description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--registry", required=True)
    parser.add_argument("versions", nargs="+")
    chosen = parser.parse_args()
    for version in chosen.versions:
        print(publish(chosen.host, chosen.registry, version))


if __name__ == "__main__":
    main()

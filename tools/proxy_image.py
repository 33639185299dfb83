"""The image of the managed proxy for tests and the demo: built on an engine by deploy/haproxy/build.sh, once."""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

import docker

SCRIPT = Path(__file__).resolve().parent.parent / "deploy" / "haproxy" / "build.sh"
TAG = "reconciler-haproxy:debian"


def build(host: str) -> str:
    """The reference of the image on the engine at `host`, built if it is not there. Raises SystemExit with words."""
    client = docker.APIClient(host, version="auto", timeout=60)
    try:
        if client.images(TAG):
            return TAG
    finally:
        client.close()
    done = subprocess.run(["bash", str(SCRIPT), TAG, host], check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the proxy's image could not be built:\n{done.stderr}")
    return TAG


def main() -> None:
    """`python -m tools.proxy_image --host unix://…`: its reference."""
    parser = argparse.ArgumentParser(prog="python -m tools.proxy_image", description=__doc__)
    parser.add_argument("--host", required=True)
    print(build(parser.parse_args().host))


if __name__ == "__main__":
    main()

"""A program of an image, run in a container that may do nothing, and writes nowhere but in the places it is given."""

from __future__ import annotations

from typing import Any

import docker


def run(
    raw: docker.APIClient, image: str, command: list[str], entrypoint: list[str] | None = None, **places: Any
) -> tuple[int, str]:
    """Its exit code and output. `places` are those of `create_host_config`, as `binds` and `tmpfs`."""
    config = raw.create_host_config(
        read_only=True, cap_drop=["ALL"], security_opt=["no-new-privileges"], network_mode="none", **places
    )
    made = raw.create_container(image, command, entrypoint=entrypoint, host_config=config)
    try:
        raw.start(made)
        code = raw.wait(made, timeout=120)["StatusCode"]
        return code, raw.logs(made).decode()
    finally:
        raw.remove_container(made, force=True)

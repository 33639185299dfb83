"""Objects of plain manifests for tests, small enough for Pod Security "restricted" and quick to stand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Object = dict[str, Any]
RESTRICTED: Object = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""What Pod Security of that name asks of a container."""


def written(*objects: Object) -> str:
    """A file with these objects."""
    return "---\n".join(json.dumps(each) + "\n" for each in objects)


def config(name: str, annotations: Mapping[str, str] | None = None, **data: str) -> Object:
    """A ConfigMap."""
    about = {"name": name, **({"annotations": dict(annotations)} if annotations else {})}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": data}


def job(name: str, seconds: int, image: str, annotations: Mapping[str, str] | None = None) -> Object:
    """A Job that is suspended; its pods may take so many seconds, which never changes."""
    pod = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": seconds,
        "containers": [{"name": "main", "image": image}],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, **({"annotations": dict(annotations)} if annotations else {})},
        "spec": {"suspend": True, "template": {"spec": pod}},
    }


def deployment(name: str, image: str, *, port: int = 8080, deadline: int = 600) -> Object:
    """One instance of the sample service, ready when `port` answers; it has `deadline` seconds for that."""
    labels = {"app": name}
    container = {
        "name": "main",
        "image": image,
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": port}, "periodSeconds": 1},
        "securityContext": RESTRICTED,
    }
    pod = {"terminationGracePeriodSeconds": 1, "containers": [container]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": 1,
            "progressDeadlineSeconds": deadline,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }

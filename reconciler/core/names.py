"""Names are derived: everything outside is called after (environment, service, version, ordinal).

Doing a step twice is then the same as doing it once, and what exists after a crash is recognised.
Dots separate the parts because environment and service names (DNS labels) cannot contain one.
"""

from __future__ import annotations

PREFIX = "rec"
LABEL = "dev.reconciler."
BASELINE = 10_000
"""From here on ordinals belong to instances of the stable version that a candidate is compared with."""

LABEL_OWNER = LABEL + "owner"
LABEL_ENVIRONMENT = LABEL + "environment"
LABEL_SERVICE = LABEL + "service"
LABEL_VERSION = LABEL + "version"
LABEL_REVISION = LABEL + "revision"
LABEL_ORDINAL = LABEL + "ordinal"
LABEL_IMAGE = LABEL + "image"
LABEL_SHAPE = LABEL + "shape"
LABEL_ROLE = LABEL + "role"


def short(version: str) -> str:
    """The first 12 hex digits of a version: enough for names and screens."""
    return version[:12]


def network(environment: str) -> str:
    """The private network of an environment."""
    return f"{PREFIX}.{environment}"


def instance(environment: str, service: str, version: str, ordinal: int) -> str:
    """The name of one instance."""
    return f"{PREFIX}.{environment}.{service}.{short(version)}.{ordinal}"


def backend(environment: str, service: str, *, preview: bool = False) -> str:
    """The backend of a service in the environment's proxy."""
    return f"{PREFIX}.{environment}.{service}{'.preview' if preview else ''}"


def proxy(environment: str) -> str:
    """The container of the environment's proxy. No service can be called so: names have no underscore."""
    return f"{PREFIX}.{environment}._proxy"


def volume(environment: str, service: str, name: str) -> str:
    """A volume that outlives instances."""
    return f"{PREFIX}.{environment}.{service}.{name}"


def group(service: str, version: str = "") -> str:
    """A group of instances in the namespace of its environment: one for all versions, or one for each."""
    return f"{service}-{short(version)}" if version else service


def inventory(bundle: str) -> str:
    """The ConfigMap that lists the objects of a bundle of plain manifests."""
    return f"{bundle}-inventory"

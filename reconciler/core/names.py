"""Names are derived: everything outside is called after (environment, service, version, ordinal).

Doing a step twice is then the same as doing it once, and what exists after a crash is recognised.
Dots separate the parts because environment and service names (DNS labels) cannot contain one.
"""

from __future__ import annotations

PREFIX = "rec"
LABEL = "dev.reconciler."

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

"""Finding what is ours: nothing is touched before its labels say that it belongs to this installation and environment.

Reads only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from reconciler.adapters.docker_connection import Connection, Json, NotFound, engine_errors
from reconciler.core import names
from reconciler.core.errors import Reason, ReconcilerError, Stalled

_DERIVED = re.compile(rf"{names.PREFIX}\.([^.]+)\.([^.]+)\.([^.]+)\.([0-9]+)")


def environment_of(name: str) -> str:
    """The environment in a derived name of an instance, or empty."""
    match = _DERIVED.fullmatch(name)
    return match[1] if match else ""


def derived_name(labels: Mapping[str, str]) -> str:
    """The name that an instance with these labels has to have, empty when the labels are incomplete."""
    try:
        return names.instance(
            labels[names.LABEL_ENVIRONMENT],
            labels[names.LABEL_SERVICE],
            labels[names.LABEL_VERSION],
            int(labels[names.LABEL_ORDINAL]),
        )
    except (KeyError, ValueError):
        return ""


def not_owned(name: str, where: str) -> ReconcilerError:
    """The refusal to touch something."""
    return Stalled(
        Reason.NOT_OWNED,
        f"{name} does not carry the labels of this installation and environment",
        where=where,
        remedy="Rename or remove it by hand if it is in the way; Reconciler never touches what it did not make",
    )


def name_taken(name: str, where: str) -> ReconcilerError:
    """Something that is not ours has a name that we need."""
    return Stalled(
        Reason.NAME_TAKEN,
        f"the name {name} is taken by something that is not ours",
        where=where,
        remedy="Rename or remove it by hand",
    )


class Ownership:
    """Looks at the engine with the eyes of one owner."""

    def __init__(self, connection: Connection, owner: str) -> None:
        self.connection = connection
        self.owner = owner

    def owns(self, labels: Mapping[str, str] | None, environment: str) -> bool:
        """Whether the labels are those of this owner in this environment."""
        found = labels or {}
        return found.get(names.LABEL_OWNER) == self.owner and found.get(names.LABEL_ENVIRONMENT) == environment

    def inspect(self, reference: str) -> Json | None:
        """A container by name or id, whoever owns it; None when there is none."""
        with engine_errors(f"{self.connection.where}, container {reference}"):
            try:
                found: Json = dict(self.connection.client().inspect_container(reference))
            except NotFound:
                return None
        # The engine also resolves prefixes of ids; a name is meant exactly.
        exact = found["Name"].lstrip("/") == reference or found["Id"] == reference
        return found if exact else None

    def find(self, name: str) -> Json | None:
        """Our instance with the derived name `name`, also when it was renamed by hand and another took its name.

        Raises Stalled(NOT_OWNED) when the name belongs to something else and ours does not exist.
        """
        environment = environment_of(name)
        if not environment:
            raise not_owned(name, self.connection.where)
        found = self.inspect(name)
        if found is not None:
            labels = found["Config"].get("Labels") or {}
            if self.owns(labels, environment) and derived_name(labels) == name:
                return found
        for summary in self.listed(environment):
            if derived_name(summary.get("Labels") or {}) == name:
                return self.inspect(str(summary["Id"]))
        if found is not None:
            raise not_owned(name, self.connection.where)
        return None

    def listed(self, environment: str) -> list[Json]:
        """The engine's summaries of all containers of ours in an environment, in one call."""
        wanted = [f"{names.LABEL_OWNER}={self.owner}", f"{names.LABEL_ENVIRONMENT}={environment}"]
        client = self.connection.client()
        with engine_errors(self.connection.where):
            return [dict(item) for item in client.containers(all=True, filters={"label": wanted})]

    def volumes(self, environment: str) -> list[Json]:
        """Our volumes in an environment."""
        wanted = [f"{names.LABEL_OWNER}={self.owner}", f"{names.LABEL_ENVIRONMENT}={environment}"]
        client = self.connection.client()
        with engine_errors(self.connection.where):
            return [dict(item) for item in client.volumes(filters={"label": wanted}).get("Volumes") or ()]

    def network(self, environment: str) -> Json | None:
        """The network with the environment's name, whoever owns it."""
        name = names.network(environment)
        with engine_errors(f"{self.connection.where}, network {name}"):
            found: list[Any] = self.connection.client().networks(names=[name])
        return next((dict(item) for item in found if item["Name"] == name), None)

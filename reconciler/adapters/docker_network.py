"""The private network of an environment, and the switch: who can be found in it under a service's name.

The switch leaves and joins the network with the same address, so that established connections live on. An engine
accepts a chosen address only in a network whose subnet was given at its creation.
"""

from __future__ import annotations

import ipaddress
import threading
from collections import defaultdict
from typing import Any

from docker.types import IPAMConfig, IPAMPool

from reconciler.adapters.docker_connection import APIError, Json, NotFound, engine_errors, message_of
from reconciler.adapters.docker_create import ROLE_DRAFT, ROLE_NETWORK, ownership
from reconciler.adapters.docker_ownership import Ownership, name_taken
from reconciler.core import names
from reconciler.core.errors import Reason, Retryable
from reconciler.failpoints import hit

ATTEMPTS = 5


class Network:
    """The networks of one owner on one engine. `lock` of an environment guards an address that is free for a moment."""

    def __init__(self, ownership: Ownership) -> None:
        self._owned = ownership
        self._connection = ownership.connection
        self._locks: dict[str, threading.RLock] = defaultdict(threading.RLock)
        self._guard = threading.Lock()

    def lock(self, environment: str) -> threading.RLock:
        """Held by whatever starts, attaches, detaches or looks at instances of the environment."""
        with self._guard:
            return self._locks[environment]

    def ready(self, environment: str) -> bool:
        """Whether the finished network is there and ours."""
        found = self._owned.network(environment)
        return found is not None and self._is_ours(found, environment) and _role(found) == ROLE_NETWORK

    def gateway(self, environment: str) -> str:
        """The address of the engine's host in the private network, empty when there is no network."""
        found = self._owned.network(environment)
        pools = ((found or {}).get("IPAM") or {}).get("Config") or ()
        for pool in pools:
            if pool.get("Gateway"):
                return str(pool["Gateway"]).partition("/")[0]
            if pool.get("Subnet"):  # the engine takes the first address, and does not always say so
                return str(next(ipaddress.ip_network(pool["Subnet"], strict=False).hosts()))
        return ""

    def ensure(self, environment: str) -> None:
        """Make the network with a subnet of its own.

        The engine chooses a free subnet for a draft; the network is then made again with that subnet as if a person
        had chosen it. A crash in between leaves a draft, which the next call finishes.
        """
        name = names.network(environment)
        where = f"{self._connection.where}, network {name}"
        with self.lock(environment):
            for _ in range(ATTEMPTS):
                found = self._owned.network(environment)
                if found is None:
                    self._create(environment, ROLE_DRAFT, None, where)
                    continue
                if not self._is_ours(found, environment):
                    raise name_taken(name, self._connection.where)
                if _role(found) == ROLE_NETWORK:
                    return
                subnet = found["IPAM"]["Config"][0]["Subnet"]
                hit("docker.before_network_remove")
                with engine_errors(where):
                    self._connection.client().remove_network(found["Id"])
                hit("docker.after_network_remove")
                if self._create(environment, ROLE_NETWORK, subnet, where):
                    return
        raise Retryable(
            Reason.ENGINE_REFUSED,
            "no free subnet was found",
            where=where,
            remedy="Remove unused networks, or widen the engine's default-address-pools",
        )

    def _create(self, environment: str, role: str, subnet: str | None, where: str) -> bool:
        """Whether the network was made; not when somebody else took the subnet in between."""
        ipam = IPAMConfig(pool_configs=[IPAMPool(subnet=subnet)] if subnet else [])
        labels = ownership(self._owned.owner, environment, role)
        hit("docker.before_network_create")
        with engine_errors(where):
            try:
                self._connection.client().create_network(
                    names.network(environment), driver="bridge", ipam=ipam, check_duplicate=True, labels=labels
                )
            except APIError as error:
                if subnet and "overlap" in message_of(error).lower():
                    return False
                raise
        hit("docker.after_network_create")
        return True

    def _is_ours(self, found: Json, environment: str) -> bool:
        return self._owned.owns(found.get("Labels"), environment)

    def switch(self, container: Json, environment: str, service: str, *, attached: bool) -> None:
        """Let a container be found under `service`, or no longer. Call with the lock held."""
        if container["HostConfig"].get("NetworkMode") == "host":
            return
        endpoint = endpoint_of(container, environment)
        if endpoint is not None and (service in (endpoint.get("Aliases") or ())) == attached:
            return
        name, identity = names.network(environment), container["Id"]
        where = f"{self._connection.where}, instance {container['Name'].lstrip('/')}"
        address = ""
        client = self._connection.client()
        if endpoint is not None:
            address = endpoint.get("IPAddress") or ""
            hit("docker.before_disconnect")
            with engine_errors(where):
                client.disconnect_container_from_network(identity, name)
            hit("docker.after_disconnect")
        hit("docker.before_connect")
        with engine_errors(where):
            aliases = [service] if attached else []
            try:
                client.connect_container_to_network(identity, name, ipv4_address=address or None, aliases=aliases)
            except NotFound:
                raise
            except APIError:
                if not address:
                    raise
                # Somebody took the address in that moment: reachable under a new one is better than not at all.
                client.connect_container_to_network(identity, name, aliases=aliases)
        hit("docker.after_connect")


def endpoint_of(container: Json, environment: str) -> dict[str, Any] | None:
    """The container's place in the private network, None when it was taken out of it."""
    joined = (container.get("NetworkSettings") or {}).get("Networks") or {}
    found: dict[str, Any] | None = joined.get(names.network(environment))
    return found


def _role(found: Json) -> str:
    return str((found.get("Labels") or {}).get(names.LABEL_ROLE, ""))

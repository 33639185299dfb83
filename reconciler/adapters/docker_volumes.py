"""Volumes that outlive instances: made before the first instance that uses them, given to its user, never removed."""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import Iterable

from reconciler.adapters import docker_create
from reconciler.adapters.docker_connection import APIError, engine_errors
from reconciler.adapters.docker_ownership import Ownership, name_taken
from reconciler.core import names
from reconciler.core.steps import CreateInstance
from reconciler.failpoints import hit


class Volumes:
    """The volumes of the services of one owner."""

    def __init__(self, owned: Ownership) -> None:
        self._owned = owned
        self._connection = owned.connection

    def ensure(self, effect: CreateInstance) -> None:
        """Make what volumes of the instance's service do not exist yet.

        Raises Stalled(NAME_TAKEN) when something that is not ours has such a name.
        """
        labels = docker_create.ownership(self._owned.owner, effect.environment, docker_create.ROLE_VOLUME)
        labels[names.LABEL_SERVICE] = effect.spec.name
        for volume in docker_create.kept_volumes(effect):
            where = f"{self._connection.where}, volume {volume.name}"
            hit("docker.before_volume_create")
            with engine_errors(where):
                try:
                    # The engine answers with the volume that has this name, whoever made it.
                    found = self._connection.client().create_volume(volume.name, labels=labels)
                except APIError as error:
                    if error.status_code != 409:
                        raise
                    raise name_taken(volume.name, self._connection.where) from error
            hit("docker.after_volume_create")
            given = found.get("Labels") or {}
            ours = self._owned.owns(given, effect.environment)
            if not ours or given.get(names.LABEL_ROLE) != docker_create.ROLE_VOLUME:
                raise name_taken(volume.name, self._connection.where)

    def give(self, filler: str, volumes: Iterable[docker_create.KeptVolume], uid: int, gid: int, where: str) -> None:
        """Let the instance's user own the volumes that still belong to root, as a new one does.

        Instances have no rights beyond those of their user, so they could never write there. Only the directory itself
        is given, and a volume that has an owner keeps it: what is in it is the service's own affair.
        """
        client = self._connection.client()
        for volume in volumes:
            with engine_errors(where):
                owner, group, mode = client.owner_of(filler, volume.directory)
            if owner or group:
                continue
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
                entry = tarfile.TarInfo(posixpath.basename(volume.directory))
                entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, mode, uid, gid
                tar.addfile(entry)
            hit("docker.before_fill")
            with engine_errors(where):
                client.put_archive(filler, posixpath.dirname(volume.directory), buffer.getvalue())
            hit("docker.after_fill")

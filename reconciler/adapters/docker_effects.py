"""The effects on instances: each looks first, acts only on what is ours, and does nothing when it is done already."""

from __future__ import annotations

import io
import posixpath
import tarfile
import time
from datetime import timedelta

from reconciler.adapters import docker_create
from reconciler.adapters.docker_connection import APIError, Json, NotFound, engine_errors, message_of
from reconciler.adapters.docker_images import Images
from reconciler.adapters.docker_network import Network, endpoint_of
from reconciler.adapters.docker_observe import PORT_TAKEN
from reconciler.adapters.docker_ownership import Ownership, derived_name, environment_of, name_taken, not_owned
from reconciler.adapters.docker_volumes import Volumes
from reconciler.core import names
from reconciler.core.errors import Reason, Retryable
from reconciler.core.steps import CreateInstance
from reconciler.failpoints import hit
from reconciler.ports import Secrets

MAX_PASSWD = 1024 * 1024
REMOVAL_SECONDS = 5.0
"""How long a removal by hand may take until the name is free again; it is looked at every REMOVAL_LOOK seconds."""
REMOVAL_LOOK = 0.02
UNSTARTABLE = (
    "oci runtime",
    "executable file not found",
    "no such file or directory",
    "permission denied",
    "exec format",
)


class Effects:
    """What `DockerRuntime.apply` does to instances."""

    def __init__(self, owned: Ownership, network: Network, images: Images, secrets: Secrets) -> None:
        self._owned = owned
        self._network = network
        self._images = images
        self._secrets = secrets
        self._volumes = Volumes(owned)
        self._connection = owned.connection

    def _where(self, name: str) -> str:
        return f"{self._connection.where}, instance {name}"

    def create(self, effect: CreateInstance) -> None:
        """Create an instance and its file volumes, completely or not at all: the container comes last."""
        where = self._where(effect.name)
        if environment_of(effect.name) != effect.environment:
            raise not_owned(effect.name, self._connection.where)
        if self._exists(effect):
            return
        spec = effect.spec
        image = self._images.inspect(spec.image.pinned)
        if image is None:
            raise Retryable(
                Reason.IMAGE_UNAVAILABLE,
                f"the engine does not have {spec.image.pinned}",
                where=where,
                remedy="It is pulled again",
            )
        revealed = {use.secret: self._secrets.reveal(effect.environment, use.secret) for use in spec.secrets}
        volumes = docker_create.file_volumes(effect.name, docker_create.placed_files(spec, revealed))
        hidden = docker_create.secret_env(spec, revealed)
        request = docker_create.create_request(
            effect, self._owned.owner, image, self._connection.info(), hidden, volumes
        )
        self._clear_leftovers(effect.name, effect.environment, len(volumes))
        self._volumes.ensure(effect)
        root = request["User"].split(":", maxsplit=1)[0] in ("", "0", "root")
        given = tuple(v for v in docker_create.kept_volumes(effect) if not (v.read_only or root))
        if volumes or given:
            self._fill(effect, volumes, given, request["User"])
        self._create_container(effect, request, where)

    def _exists(self, effect: CreateInstance) -> bool:
        found = self._staying(effect.name)
        if found is None:
            return False
        labels = found["Config"].get("Labels") or {}
        same = labels.get(names.LABEL_VERSION) == effect.version and derived_name(labels) == effect.name
        if not self._owned.owns(labels, effect.environment) or not same:
            raise name_taken(effect.name, self._connection.where)
        return True

    def _staying(self, name: str) -> Json | None:
        """The container with a name, once none that is just being removed has it. Raises Retryable when that lasts."""
        end = time.monotonic() + REMOVAL_SECONDS
        while (found := self._owned.inspect(name)) is not None and found["State"].get("Status") == "removing":
            if time.monotonic() >= end:
                raise Retryable(
                    Reason.ENGINE_REFUSED,
                    "the container that had this name before is still being removed",
                    where=self._where(name),
                    remedy="It is tried again; see the engine's log if this stays",
                    after=timedelta(seconds=1),
                )
            time.sleep(REMOVAL_LOOK)
        return found

    def _create_container(self, effect: CreateInstance, request: Json, where: str) -> None:
        hit("docker.before_create")
        with engine_errors(where):
            try:
                self._connection.client().create(effect.name, request)
            except APIError as error:
                if error.status_code != 409:
                    raise
                if not self._exists(effect):  # what had the name is gone by now
                    self._connection.client().create(effect.name, request)
        hit("docker.after_create")

    def _fill(
        self,
        effect: CreateInstance,
        volumes: tuple[docker_create.FileVolume, ...],
        given: tuple[docker_create.KeptVolume, ...],
        user: str,
    ) -> None:
        """Make the file volumes and put the files in, through a container that never starts.

        Through the same one the volumes `given` become those of the user.

        The engine refuses to write into a container with a read-only root, and a new volume takes over what the image
        has at its place: both are why the filler has the same image and the same mounts, writable.
        """
        client, where = self._connection.client(), self._where(effect.name)
        labels = docker_create.ownership(self._owned.owner, effect.environment, docker_create.ROLE_FILES)
        filler = docker_create.filler_name(effect.name)
        for volume in volumes:
            hit("docker.before_volume_create")
            with engine_errors(where):
                client.create_volume(volume.name, labels=labels)
            hit("docker.after_volume_create")
        request = docker_create.filler_request(
            self._owned.owner, effect.environment, effect.spec.image.pinned, (*volumes, *given)
        )
        hit("docker.before_filler_create")
        with engine_errors(where):
            client.create(filler, request)
        hit("docker.after_filler_create")
        numbers = self._numbers(filler, user)
        uid, gid = numbers or (0, 0)
        for volume in volumes:
            content = docker_create.archive(volume, uid, gid, known_user=numbers is not None)
            hit("docker.before_fill")
            with engine_errors(where):
                client.put_archive(filler, volume.directory, content)
            hit("docker.after_fill")
        if numbers is not None:
            self._volumes.give(filler, given, uid, gid, where)
        hit("docker.before_filler_remove")
        with engine_errors(where):
            client.remove_container(filler, force=True)
        hit("docker.after_filler_remove")

    def _numbers(self, filler: str, user: str) -> tuple[int, int] | None:
        """The user's uid and gid, looked up in the image's /etc/passwd when it is a name; None when unknown."""
        name, _, group = user.partition(":")
        if name.isdigit():
            return int(name), int(group) if group.isdigit() else 0
        try:
            stream, status = self._connection.client().get_archive(filler, "/etc/passwd")
            if status.get("size", 0) > MAX_PASSWD:
                return None
            with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
                file = tar.extractfile(posixpath.basename("/etc/passwd"))
                lines = file.read(MAX_PASSWD).decode("utf-8", "replace").splitlines() if file else []
        except (APIError, tarfile.TarError, KeyError):
            return None
        for line in lines:
            fields = line.split(":")
            if len(fields) > 3 and fields[0] == name and fields[2].isdigit() and fields[3].isdigit():
                return int(fields[2]), int(fields[3])
        return None

    def start(self, name: str) -> None:
        """Start an instance, out of traffic: it must not be found under its service's name before it is healthy.

        A program that cannot be run is not an error here: the instance is then observed as ended, with the reason.
        """
        environment, where = environment_of(name), self._where(name)
        with self._network.lock(environment):
            found = self._must(name)
            if found["State"].get("Running"):
                return
            self._unswitch(found, environment)
            hit("docker.before_start")
            with engine_errors(where):
                try:
                    self._connection.client().start(found["Id"])
                except APIError as error:
                    said = message_of(error).lower()
                    taken = any(words in said for words in PORT_TAKEN)
                    if taken or not any(words in said for words in UNSTARTABLE):
                        raise
            hit("docker.after_start")

    def _unswitch(self, found: Json, environment: str) -> None:
        """A stopped instance of ours may still hold its service's name and an address that is another's by now."""
        endpoint = endpoint_of(found, environment)
        service = found["Config"]["Labels"][names.LABEL_SERVICE]
        if endpoint is None:
            self._network.switch(found, environment, service, attached=False)
            return
        if service in (endpoint.get("Aliases") or ()) or (endpoint.get("IPAMConfig") or {}).get("IPv4Address"):
            name = names.network(environment)
            with engine_errors(self._where(found["Name"])):
                client = self._connection.client()
                hit("docker.before_disconnect")
                client.disconnect_container_from_network(found["Id"], name, force=True)
                hit("docker.after_disconnect")
                hit("docker.before_connect")
                client.connect_container_to_network(found["Id"], name)
                hit("docker.after_connect")

    def attach(self, name: str, service: str) -> None:
        """Let the running instance be found."""
        environment = environment_of(name)
        with self._network.lock(environment):
            found = self._must(name)
            if not found["State"].get("Running"):
                raise Retryable(
                    Reason.INSTANCE_EXITED, "it does not run", where=self._where(name), remedy="It is replaced"
                )
            self._network.switch(found, environment, service, attached=True)

    def detach(self, name: str, service: str) -> None:
        """Let the instance no longer be found; one that is gone cannot be found anyway."""
        environment = environment_of(name)
        with self._network.lock(environment):
            found = self._owned.find(name)
            if found is not None:
                self._network.switch(found, environment, service, attached=False)

    def signal(self, name: str, *, kill: bool) -> None:
        """Send the image's stop signal (SIGTERM unless it names another), or SIGKILL, to an instance that runs."""
        found = self._owned.find(name)
        if found is None or not found["State"].get("Running"):
            return
        effect = "kill" if kill else "terminate"
        signal = "SIGKILL" if kill else found["Config"].get("StopSignal") or "SIGTERM"
        hit(f"docker.before_{effect}")
        with engine_errors(self._where(name)):
            try:
                self._connection.client().kill(found["Id"], signal)
            except NotFound:
                pass
            except APIError as error:
                if error.status_code != 409:  # it ended in this moment
                    raise
        hit(f"docker.after_{effect}")

    def remove(self, name: str) -> None:
        """Remove an instance with its anonymous volumes, then what was made for it."""
        found = self._owned.find(name)
        if found is not None:
            hit("docker.before_remove")
            self._remove_container(found["Id"], self._where(name))
            hit("docker.after_remove")
        self._clear_leftovers(name, environment_of(name))

    def sweep(self, name: str) -> None:
        """Remove a leftover: a filler, a file volume without instance, or a second container that claims to be one."""
        environment = environment_of(docker_create.instance_of(name))
        found = self._owned.inspect(name)
        if found is not None:
            labels = found["Config"].get("Labels") or {}
            environment = environment or labels.get(names.LABEL_ENVIRONMENT, "")
            leftover = labels.get(names.LABEL_ROLE) == docker_create.ROLE_FILLER or derived_name(labels) not in (
                "",
                name,
            )
            if not self._owned.owns(labels, environment) or not leftover:
                raise not_owned(name, self._connection.where)
            self._remove_container(found["Id"], f"{self._connection.where}, leftover {name}")
        elif environment and self._owned.find(docker_create.instance_of(name)) is None:
            self._remove_filler(docker_create.instance_of(name), environment)  # it holds the volume
            self._remove_volume(name, environment)

    def _clear_leftovers(self, name: str, environment: str, volumes: int = 0) -> None:
        """Remove the filler and the volumes of an instance that does not exist: `volumes` of them at least."""
        self._remove_filler(name, environment)
        index = 0
        while self._remove_volume(docker_create.volume_name(name, index), environment) or index < volumes:
            index += 1

    def _remove_filler(self, name: str, environment: str) -> None:
        filler = self._owned.inspect(docker_create.filler_name(name))
        if filler is not None:
            if not self._owned.owns(filler["Config"].get("Labels"), environment):
                raise name_taken(docker_create.filler_name(name), self._connection.where)
            self._remove_container(filler["Id"], self._where(name))

    def _remove_container(self, identity: str, where: str) -> None:
        with engine_errors(where):
            try:
                self._connection.client().remove_container(identity, v=True, force=True)
            except NotFound:
                pass
            except APIError as error:
                if "already in progress" not in message_of(error):
                    raise

    def _remove_volume(self, name: str, environment: str) -> bool:
        """Whether there was such a volume; it is gone now. Raises Stalled(NOT_OWNED) when it is not ours."""
        client, where = self._connection.client(), f"{self._connection.where}, volume {name}"
        with engine_errors(where):
            try:
                found = client.inspect_volume(name)
                labels = found.get("Labels") or {}
                kept = labels.get(names.LABEL_ROLE) == docker_create.ROLE_VOLUME
                if kept or not self._owned.owns(labels, environment):
                    raise not_owned(name, self._connection.where)
                hit("docker.before_volume_remove")
                client.remove_volume(name)
                hit("docker.after_volume_remove")
            except NotFound:
                return False
        return True

    def _must(self, name: str) -> Json:
        found = self._owned.find(name)
        if found is None:
            raise Retryable(
                Reason.DRIFT_MISSING, "there is no such instance", where=self._where(name), remedy="It is made anew"
            )
        return found

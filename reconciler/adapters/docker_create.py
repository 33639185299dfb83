"""What is asked of the engine for one instance: the create request with its immutable defaults, and its file volumes.

Pure: specs in, requests and archives out. Nothing here talks to an engine.
"""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reconciler.adapters import docker_projection
from reconciler.core import names
from reconciler.core.errors import Reason, Rejected, Stalled
from reconciler.core.model import SecretTarget, ServiceSpec
from reconciler.core.steps import CreateInstance

Json = dict[str, Any]

ROLE_INSTANCE = "instance"
ROLE_FILLER = "filler"
ROLE_FILES = "files"
ROLE_NETWORK = "network"
ROLE_DRAFT = "draft"
ROLE_PROXY = "proxy"
ROLE_VOLUME = "volume"

DEFAULT_USER = "65532:65532"
DEFAULT_PIDS = 512
STOPPED_LOGS = {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "2"}}


@dataclass(frozen=True, slots=True)
class Placed:
    """One file to put into an instance; `secret` ones are readable by its user only."""

    path: str
    content: bytes = field(repr=False)
    mode: int
    secret: bool = False


@dataclass(frozen=True, slots=True)
class FileVolume:
    """A volume of one instance, mounted read-only at `directory`, and the files it holds."""

    name: str
    directory: str
    files: tuple[Placed, ...]


@dataclass(frozen=True, slots=True)
class KeptVolume:
    """A volume of a service, mounted at `directory`: it stays when its instances go."""

    name: str
    directory: str
    read_only: bool


def filler_name(instance: str) -> str:
    """The container that is never started: through it the volumes of an instance are filled."""
    return f"{instance}.filler"


def volume_name(instance: str, index: int) -> str:
    """The volumes of an instance are numbered in the order of their directories."""
    return f"{instance}.files.{index}"


def instance_of(leftover: str) -> str:
    """The instance for which a filler or a volume was made. A service may be called `files` itself."""
    instance, _, end = leftover.rpartition(".files.")
    return instance if instance and end.isdigit() else leftover.removesuffix(".filler")


def ownership(owner: str, environment: str, role: str) -> dict[str, str]:
    """The labels without which nothing is ever touched."""
    return {names.LABEL_OWNER: owner, names.LABEL_ENVIRONMENT: environment, names.LABEL_ROLE: role}


def instance_labels(owner: str, effect: CreateInstance) -> dict[str, str]:
    """Ours over those of the spec."""
    return {
        **effect.spec.labels,
        **ownership(owner, effect.environment, ROLE_INSTANCE),
        names.LABEL_SERVICE: effect.spec.name,
        names.LABEL_VERSION: effect.version,
        names.LABEL_REVISION: effect.revision,
        names.LABEL_ORDINAL: str(effect.ordinal),
        names.LABEL_IMAGE: effect.spec.image.pinned,
    }


def placed_files(spec: ServiceSpec, revealed: Mapping[str, bytes]) -> tuple[Placed, ...]:
    """The files of a spec and its secrets that are given as files."""
    plain = [Placed(file.path, file.content, file.mode) for file in spec.files]
    secret = [
        Placed(use.target, revealed[use.secret], 0o400, secret=True)
        for use in spec.secrets
        if use.kind is SecretTarget.FILE
    ]
    return tuple(sorted((*plain, *secret), key=lambda file: file.path))


def file_volumes(instance: str, files: tuple[Placed, ...]) -> tuple[FileVolume, ...]:
    """One volume for each outermost directory that gets files. Raises Rejected for a file that has none.

    A directory inside another one shares its volume: inside a read-only volume nothing else could be mounted.
    """
    for file in files:
        parent = posixpath.dirname(file.path)
        if not file.path.startswith("/") or posixpath.normpath(file.path) != file.path or parent == "/":
            raise Rejected(
                Reason.MANIFEST_INVALID,
                f"a file cannot be put at {file.path}",
                where=instance,
                remedy="Name an absolute path inside a directory, like /config/app.yaml",
            )
    parents = {posixpath.dirname(file.path) for file in files}
    outermost = sorted(d for d in parents if not any(_inside(d, other) for other in parents if other != d))
    return tuple(
        FileVolume(
            volume_name(instance, index),
            directory,
            tuple(file for file in files if _inside(posixpath.dirname(file.path), directory)),
        )
        for index, directory in enumerate(outermost)
    )


def kept_volumes(effect: CreateInstance) -> tuple[KeptVolume, ...]:
    """The volumes that the instance's service declares.

    Their names have four parts and those of file volumes seven, and no part contains a dot: they cannot collide.
    """
    return tuple(
        KeptVolume(
            names.volume(effect.environment, effect.spec.name, volume.name),
            posixpath.normpath(volume.path),
            volume.read_only,
        )
        for volume in effect.spec.volumes
    )


def _inside(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory + "/")


def archive(volume: FileVolume, uid: int, gid: int, *, known_user: bool) -> bytes:
    """A tar of the volume's files, relative to its directory.

    Secrets are for the user only; where its number cannot be told (`known_user` false), everyone in this instance may
    read them: nobody else sees the volume.
    """
    buffer = io.BytesIO()
    made: set[str] = set()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for file in volume.files:
            relative = posixpath.relpath(file.path, volume.directory)
            _add_directories(tar, posixpath.dirname(relative), made)
            entry = tarfile.TarInfo(relative)
            entry.size = len(file.content)
            entry.mode = file.mode if known_user or not file.secret else 0o444
            entry.uid, entry.gid = uid, gid
            tar.addfile(entry, io.BytesIO(file.content))
    return buffer.getvalue()


def _add_directories(tar: tarfile.TarFile, directory: str, made: set[str]) -> None:
    parts = directory.split("/") if directory else []
    for depth in range(1, len(parts) + 1):
        path = "/".join(parts[:depth])
        if path not in made:
            made.add(path)
            entry = tarfile.TarInfo(path)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)


def secret_env(spec: ServiceSpec, revealed: Mapping[str, bytes]) -> dict[str, str]:
    """The secrets that are given as environment variables; one newline at the end of a secret's file is not part of it.

    Raises Stalled(SECRET_MISSING) for content that a variable cannot hold.
    """
    found = {}
    for use in spec.secrets:
        if use.kind is not SecretTarget.ENV:
            continue
        try:
            text = revealed[use.secret].decode()
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            raise Stalled(
                Reason.SECRET_MISSING,
                "its content cannot be an environment variable",
                where=f"secret {use.secret} of service {spec.name}",
                remedy="Give it to the service as a file",
            )
        found[use.target] = text.removesuffix("\n")
    return found


def user_for(spec: ServiceSpec, image: Mapping[str, Any]) -> str:
    """The spec's user, else the image's if it is not root, else 65532."""
    if spec.security.user is not None:
        return spec.security.user
    own = str((image.get("Config") or {}).get("User") or "")
    return DEFAULT_USER if own.split(":", maxsplit=1)[0] in ("", "0", "root") else own


def create_request(
    effect: CreateInstance,
    owner: str,
    image: Mapping[str, Any],
    engine: Mapping[str, Any],
    hidden: Mapping[str, str],
    volumes: tuple[FileVolume, ...],
) -> Json:
    """The body of POST /containers/create. `image` and `engine` are the engine's answers, `hidden` the secret env."""
    spec = effect.spec
    defaults = image.get("Config") or {}
    own = {**spec.env, **hidden}
    inherited = [item for item in defaults.get("Env") or () if item.split("=", 1)[0] not in own]
    request: Json = {
        "Image": spec.image.pinned,
        "User": user_for(spec, image),
        "Env": [f"{key}={value}" for key, value in own.items()] + inherited,
        "Labels": instance_labels(owner, effect),
        "ExposedPorts": {f"{port.container}/{port.protocol}": {} for port in spec.ports},
        "HostConfig": _host_config(effect, engine, volumes),
    }
    if spec.command:
        request["Entrypoint"] = list(spec.command)
    if spec.args:
        request["Cmd"] = list(spec.args)
    if not spec.security.host_network:
        request["NetworkingConfig"] = {"EndpointsConfig": {names.network(effect.environment): {}}}
    entrypoint = list(spec.command) or defaults.get("Entrypoint")
    # As the engine does it: an entrypoint of one's own drops the image's arguments.
    arguments = list(spec.args) or (None if spec.command else defaults.get("Cmd"))
    whole = {**request, "Entrypoint": entrypoint, "Cmd": arguments}
    shape = docker_projection.projection(whole, str(image["Id"]), hidden, spec.security.writable_paths)
    if "MemorySwap" not in request["HostConfig"]:
        shape.pop("memory_and_swap")  # the engine chooses then
    request["Labels"][names.LABEL_SHAPE] = docker_projection.label(shape)
    return request


def _host_config(effect: CreateInstance, engine: Mapping[str, Any], volumes: tuple[FileVolume, ...]) -> Json:
    spec, security = effect.spec, effect.spec.security
    host: Json = {
        "NetworkMode": "host" if security.host_network else names.network(effect.environment),
        "ReadonlyRootfs": not security.writable_root,
        "Privileged": security.privileged,
        "CapDrop": ["ALL"],
        "CapAdd": list(security.capabilities),
        "SecurityOpt": ["no-new-privileges"],
        "Tmpfs": {item.path: f"rw,noexec,nosuid,nodev,size={item.size}" for item in spec.tmpfs},
        "RestartPolicy": {"Name": "no"},
        "LogConfig": STOPPED_LOGS,
        "PortBindings": _bindings(spec),
        "Mounts": [
            *(mount(volume, read_only=True) for volume in volumes),
            *(mount(volume, read_only=volume.read_only) for volume in kept_volumes(effect)),
        ],
        "Init": False,
        **_limits(spec, engine),
    }
    if security.privileged:
        # The engine ignores dropped capabilities for a privileged container and turns confinement off.
        host["CapDrop"], host["SecurityOpt"] = [], []
    return host


def mount(volume: FileVolume | KeptVolume, *, read_only: bool) -> Json:
    """A volume at its directory."""
    return {"Type": "volume", "Source": volume.name, "Target": volume.directory, "ReadOnly": read_only}


def _bindings(spec: ServiceSpec) -> Json:
    found: Json = {}
    for port in spec.ports:
        if port.host is not None and not spec.security.host_network:
            binding = {"HostIp": port.address, "HostPort": str(port.host)}
            found.setdefault(f"{port.container}/{port.protocol}", []).append(binding)
    return found


def _limits(spec: ServiceSpec, engine: Mapping[str, Any]) -> Json:
    """The limits. An engine that cannot hold one of them refuses the service: it would silently run without."""
    wanted = spec.resources
    found: Json = {}
    if wanted.memory is not None:
        _must(engine, "MemoryLimit", spec, "memory")
        found["Memory"] = wanted.memory
        if engine.get("SwapLimit", True):
            found["MemorySwap"] = wanted.memory
    if wanted.nano_cpus is not None:
        _must(engine, "CpuCfsQuota", spec, "cpus")
        found["NanoCpus"] = wanted.nano_cpus
    if wanted.pids is not None:
        _must(engine, "PidsLimit", spec, "pids")
    if engine.get("PidsLimit", True):
        found["PidsLimit"] = wanted.pids if wanted.pids is not None else DEFAULT_PIDS
    return found


def _must(engine: Mapping[str, Any], ability: str, spec: ServiceSpec, limit: str) -> None:
    if not engine.get(ability, True):
        raise Stalled(
            Reason.ENGINE_REFUSED,
            f"the engine's kernel cannot limit {limit}",
            where=f"service {spec.name}",
            remedy=f"Enable that cgroup controller on the engine's host, or take resources.{limit} away",
        )


def filler_request(owner: str, environment: str, image: str, volumes: tuple[FileVolume | KeptVolume, ...]) -> Json:
    """A container that is created and never started, with the volumes writable."""
    return {
        "Image": image,
        "Cmd": ["never-started"],
        "Labels": ownership(owner, environment, ROLE_FILLER),
        "NetworkDisabled": True,
        "HostConfig": {
            "NetworkMode": "none",
            "RestartPolicy": {"Name": "no"},
            "Mounts": [mount(volume, read_only=False) for volume in volumes],
        },
    }

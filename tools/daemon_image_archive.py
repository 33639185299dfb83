"""Writes an image as one file: the OCI image layout, with the index that `docker load` of any age reads beside it.

The same files give the same bytes: names are sorted, dates are one, and everything belongs to root but what is said.
It knows nothing of what is in the image.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

LAYER = "application/vnd.oci.image.layer.v1.tar"
CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: an uncompressed tar, its digest and its size in bytes."""

    file: Path
    digest: str
    size: int


def write_layer(root: Path, file: Path, owner: Callable[[str], int], epoch: int) -> Layer:
    """Everything below `root` as a layer in `file`. `owner` gives the uid and gid of a name, `epoch` its date."""
    with file.open("wb") as output, tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(_below(root), key=lambda one: one.relative_to(root).as_posix()):
            name = path.relative_to(root).as_posix()
            entry = tar.gettarinfo(path, arcname=name)
            if entry.islnk():  # which of several names comes first is known, yet each is small: no links
                entry.type, entry.size, entry.linkname = tarfile.REGTYPE, path.lstat().st_size, ""
            entry.uid = entry.gid = owner(name)
            entry.uname = entry.gname = ""
            entry.mtime, entry.mode = epoch, stat.S_IMODE(entry.mode) & 0o1777
            entry.pax_headers = {}
            if entry.isreg():
                with path.open("rb") as content:
                    tar.addfile(entry, content)
            else:
                tar.addfile(entry)
    return known_layer(file)


def known_layer(file: Path) -> Layer:
    """The layer in a file that is there."""
    with file.open("rb") as content:
        return Layer(file, f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}", file.stat().st_size)


def write(file: Path, layers: list[Layer], config: Mapping[str, Any], name: str) -> dict[str, str]:
    """The image of `layers` in `file`, called `name`; the digests of its `config` (its id) and its `manifest`."""
    full = {**config, "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]}}
    config_bytes = _json(full)
    described = [{"mediaType": LAYER, "digest": layer.digest, "size": layer.size} for layer in layers]
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": _about(CONFIG, config_bytes), "layers": described}
    manifest_bytes = _json(manifest)
    named = {"io.containerd.image.name": f"docker.io/library/{name}", "org.opencontainers.image.ref.name": name}
    first = {**_about(MANIFEST, manifest_bytes), "annotations": named, "platform": _platform(config)}
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [first]}
    blobs = [(_digest(data), data) for data in (config_bytes, manifest_bytes)]
    older = [
        {
            "Config": _blob(_digest(config_bytes)),
            "RepoTags": [name],
            "Layers": [_blob(layer.digest) for layer in layers],
        }
    ]
    with file.open("wb") as output, tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(tar, "index.json", _json(index))
        _add(tar, "manifest.json", _json(older))
        for digest, data in blobs:
            _add(tar, _blob(digest), data)
        for layer in {layer.digest: layer for layer in layers}.values():
            with layer.file.open("rb") as content:
                _add(tar, _blob(layer.digest), content, layer.size)
    return {"config": _digest(config_bytes), "manifest": _digest(manifest_bytes)}


def _below(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        for name in [*folders, *files]:
            yield Path(folder) / name


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _about(kind: str, data: bytes) -> dict[str, object]:
    return {"mediaType": kind, "digest": _digest(data), "size": len(data)}


def _platform(config: Mapping[str, Any]) -> dict[str, object]:
    return {"architecture": config["architecture"], "os": config["os"]}


def _add(tar: tarfile.TarFile, name: str, content: bytes | IO[bytes], size: int = 0) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode = 0o644
    if isinstance(content, bytes):
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    else:
        entry.size = size
        tar.addfile(entry, content)

"""Image references as people write them. Text in, ImageRef out; asks no registry."""

from __future__ import annotations

import re

from reconciler.core.model import ImageRef

# The grammar of the OCI distribution specification 1.1, "Pulling manifests", and of github.com/distribution/reference.
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|\[[0-9a-fA-F:.]{2,45}\])(?::[0-9]{1,5})?")
_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def parse(text: str) -> ImageRef | str:
    """The reference in `repository[:tag]@sha256:<64 hex digits>`, or what is wrong with it and what to write."""
    name, at, digest = text.partition("@")
    if not at:
        return (
            f"image {text} is not pinned: a tag can move; write {text}@sha256:… with the digest "
            "(docker buildx imagetools inspect shows it)"
        )
    if not _DIGEST.fullmatch(digest):
        return "the image's digest must be sha256: and 64 lower-case hex digits; copy it from the registry"
    repository, tag = name, None
    head, colon, last = name.rpartition(":")
    if colon and "/" not in last:
        repository, tag = head, last
        if not _TAG.fullmatch(tag):
            return f"image tag {tag!r} is not valid; use letters, digits, '.', '_' and '-', at most 128"
    parts = repository.split("/")
    if len(parts) > 1 and ("." in parts[0] or ":" in parts[0] or parts[0] == "localhost"):
        host = parts.pop(0)
        if not _HOST.fullmatch(host):
            return f"registry {host!r} is not a host name with an optional port"
    if len(repository) > 255 or not all(_NAME.fullmatch(part) for part in parts):
        return f"image name {repository!r} is not valid; use lower-case letters, digits, and / . _ - between them"
    return ImageRef(repository=repository, digest=digest, tag=tag)

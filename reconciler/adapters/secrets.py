"""Secrets from a directory of the operator: one file a secret, `<root>/<environment>/<name>`.

Nothing outside the root is ever read: names that could leave it, and links, are refused. Content is never logged and
never part of an error.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from reconciler.core.errors import Reason, Retryable, Stalled

MAX_BYTES = 64 * 1024
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}")
_KEPT = 10_000


class DirectorySecrets:
    """`ports.Secrets` on a directory. Without a root there are no secrets."""

    def __init__(self, root: Path | None) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._versions: dict[tuple[str, str], tuple[tuple[int, ...], str]] = {}

    def versions(self, environment: str, names: Sequence[str]) -> Mapping[str, str]:
        """A version for each secret that exists, as 32 hex digits.

        It is a scrypt digest (RFC 7914) salted with the secret's place, because versions end up in names and labels:
        a plain hash would let anybody who reads those guess a short secret. Kept in memory per file identity, since
        it costs some 50 ms and 16 MiB.

        Raises Retryable(SECRET_MISSING) when a secret is there but cannot be read.
        """
        found = {}
        for name in dict.fromkeys(names):
            version = self._version(environment, name)
            if version is not None:
                found[name] = version
        return found

    def reveal(self, environment: str, name: str) -> bytes:
        """The content. Raises Stalled(SECRET_MISSING)."""
        read = self._read(environment, name)
        if read is None:
            raise Stalled(
                Reason.SECRET_MISSING,
                "there is no such secret, or it is not a regular file",
                where=f"secret {name} of environment {environment}",
                remedy=f"Put a file {environment}/{name} into the directory of secrets",
            )
        return read[1]

    def _version(self, environment: str, name: str) -> str | None:
        read = self._read(environment, name)
        if read is None:
            with self._lock:
                self._versions.pop((environment, name), None)
            return None
        identity, content = read
        with self._lock:
            known = self._versions.get((environment, name))
        if known is not None and known[0] == identity:
            return known[1]
        salt = f"reconciler/{environment}/{name}".encode()
        version = hashlib.scrypt(content, salt=salt, n=2**14, r=8, p=1, dklen=16).hex()
        with self._lock:
            if len(self._versions) >= _KEPT:
                self._versions.clear()
            self._versions[environment, name] = (identity, version)
        return version

    def _read(self, environment: str, name: str) -> tuple[tuple[int, ...], bytes] | None:
        """Identity and content of the file, or None when there is no such secret."""
        if self._root is None or not (_NAME.fullmatch(environment) and _NAME.fullmatch(name)):
            return None
        place = f"secret {name} of environment {environment}"
        try:
            directory = os.open(self._root / environment, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                # Without O_NONBLOCK a named pipe in the place of a secret would block for ever.
                handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
            finally:
                os.close(directory)
            try:
                status = os.fstat(handle)
                if not stat.S_ISREG(status.st_mode):
                    return None
                content = _content(handle)
            finally:
                os.close(handle)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):  # a link, a socket
                return None
            raise Retryable(
                Reason.SECRET_MISSING,
                f"cannot be read: {error.strerror}",
                where=place,
                remedy="Let the user that runs Reconciler read the file",
            ) from error
        if len(content) > MAX_BYTES:
            raise Stalled(
                Reason.SECRET_MISSING,
                f"is larger than {MAX_BYTES} bytes",
                where=place,
                remedy="Keep large content in a volume or in the image",
            )
        identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        return identity, content


def _content(handle: int) -> bytes:
    """Everything in the file, or just enough of it to see that it is too large."""
    content = b""
    while len(content) <= MAX_BYTES and (piece := os.read(handle, MAX_BYTES + 1 - len(content))):
        content += piece
    return content

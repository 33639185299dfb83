"""The directory that the daemon shares with a proxy of ours: its configuration, its sockets and its servers' state.

Only the daemon and the proxy may enter it: whoever reaches the runtime socket decides over all traffic.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from reconciler.adapters.docker_proxy_request import ADMIN, CONFIG, MASTER, STATE, WAKE
from reconciler.adapters.durable_file import replace_file
from reconciler.core.errors import Reason, Stalled

PROXY_UID = 99
"""The user of the official images, which is nobody in particular on the host."""
_LONGEST_SOCKET = 107
_MOST = 32 * 2**20


class ProxyFiles:
    """The files of one proxy. A daemon that is root gives them to `PROXY_UID`, any other one keeps them its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self._handle: int | None = None
        self._writing = threading.Lock()

    @property
    def user(self) -> str:
        """Who the proxy runs as, `uid:gid`."""
        uid, gid = self._owner()
        return f"{uid}:{gid}"

    def prepare(self) -> None:
        """Make the directory and what every proxy needs in it. Raises Stalled(PROXY_REFUSED)."""
        uid, gid = self._owner()
        with self._usable():
            self.directory.parent.mkdir(parents=True, exist_ok=True)
            self.directory.mkdir(mode=0o700, exist_ok=True)
            if stat.S_ISLNK(self.directory.lstat().st_mode):
                raise OSError("it is a symbolic link")
            self.directory.chmod(0o700)
            os.chown(self.directory, uid, gid)
        wake = files("reconciler.adapters").joinpath("haproxy_wake.lua").read_text(encoding="utf-8")
        if self._read(WAKE) != wake:
            self._place(WAKE, wake)

    def write_config(self, text: str) -> None:
        """Replace the configuration, whole or not at all."""
        if self._read(CONFIG) != text:
            self._place(CONFIG, text)

    def write_state(self, text: str) -> None:
        """Replace the saved state of the servers, whole or not at all."""
        self._place(STATE, text)

    @contextmanager
    def proposed(self, text: str) -> Iterator[str]:
        """The name of a configuration that stands beside the one in force while it is looked at."""
        name = f"{CONFIG}.proposed"
        self._place(name, text)
        try:
            yield name
        finally:
            (self.directory / name).unlink(missing_ok=True)

    def admin(self) -> str:
        """The path of the runtime socket."""
        return self._socket(ADMIN)

    def master(self) -> str:
        """The path of the master's socket."""
        return self._socket(MASTER)

    def close(self) -> None:
        """Let go of the directory."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _owner(self) -> tuple[int, int]:
        return (PROXY_UID, PROXY_UID) if os.geteuid() == 0 else (os.geteuid(), os.getegid())

    def _socket(self, name: str) -> str:
        """A socket's path has to be short: in a deep directory, one through a handle of it."""
        path = str(self.directory / name)
        if len(os.fsencode(path)) <= _LONGEST_SOCKET or not self.directory.is_dir():
            return path
        if self._handle is not None and os.fstat(self._handle).st_nlink == 0:
            self.close()  # somebody removed the directory, and it was made anew
        if self._handle is None:
            self._handle = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._handle}/{name}"

    def _read(self, name: str) -> str:
        """What a file holds; "" for none, and for what the proxy may have put there: a link, a pipe, too much."""
        try:
            handle = os.open(self.directory / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return ""
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST:
                return ""
            return file.read(_MOST).decode("utf-8", "replace")

    def _place(self, name: str, text: str) -> None:
        uid, gid = self._owner()

        def own(path: str, flags: int) -> int:
            # The proxy may enter the directory: what it could have put there is never written through.
            handle = os.open(path, flags | os.O_NOFOLLOW, 0o600)
            os.fchown(handle, uid, gid)
            return handle

        with self._writing, self._usable():
            replace_file(self.directory / name, text, own)

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Stalled(
                Reason.PROXY_REFUSED,
                f"the directory of the proxy cannot be used: {error.strerror or error}",
                where=str(self.directory),
                remedy="Let the daemon write to its data directory, and free space there",
            ) from error

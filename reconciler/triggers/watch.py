"""File events: the refs of local repositories, and the operator's settings file.

An event says only "look". Bursts are merged by the inbox, so nothing here waits or counts. Reading events are not asked
for: our own fetch reads these very files.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

import structlog
from watchdog.events import (
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver
from watchdog.observers.polling import PollingObserver

from reconciler.ports import Cause, Clock
from reconciler.settings import Settings

POLL_SECONDS = 2.0
_REMOTE = ("9p", "afs", "ceph", "cifs", "fuse", "glusterfs", "nfs", "smb", "vboxsf", "virtiofs")
_CHANGES: list[type[FileSystemEvent]] = [
    FileCreatedEvent,
    FileModifiedEvent,
    FileClosedEvent,
    FileDeletedEvent,
    FileMovedEvent,
    DirMovedEvent,
]

_log = structlog.get_logger(__name__)


def git_directory(url: str) -> Path | None:
    """Where the refs of a `file://` URL live: the bare repository itself, or `.git` below it. None for other URLs.

    A `.git` file (a worktree or submodule) names the directory; its common directory holds the refs.
    """
    parts = urlsplit(url)
    if parts.scheme != "file":
        return None
    root = Path(unquote(parts.path))
    inner = root / ".git"
    if inner.is_file():
        pointed = inner.read_text(encoding="utf-8", errors="replace")[:4096].removeprefix("gitdir:").strip()
        inner = root / pointed
        common = inner / "commondir"
        return inner / common.read_text(encoding="utf-8").strip() if common.is_file() else inner
    return inner if inner.is_dir() else root


def remote_file_system(path: Path, mounts: str = "/proc/self/mountinfo") -> bool:
    """Whether `path` lies where the kernel does not report what others change (network and shared file systems)."""
    try:
        lines = Path(mounts).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    best, kind = "", ""
    for line in lines:
        # Fields of proc(5) mountinfo: the fifth is the mount point; after " - " comes the type.
        left, _, right = line.partition(" - ")
        point = left.split(" ")[4].replace("\\040", " ")
        if len(point) >= len(best) and (str(path) + "/").startswith(point.rstrip("/") + "/"):
            best, kind = point, right.split(" ", 1)[0]
    return kind.startswith(_REMOTE)


class _Handler(FileSystemEventHandler):
    """Calls `changed(path)` when `concerns` says so of one of an event's paths."""

    def __init__(self, concerns: Callable[[Path], bool], changed: Callable[[Path], None]) -> None:
        self._concerns = concerns
        self._changed = changed

    def on_any_event(self, event: FileSystemEvent) -> None:
        for name in (event.dest_path, event.src_path):
            if name and self._concerns(Path(os.fsdecode(name))):
                self._changed(Path(os.fsdecode(name)))
                return


def _is_ref(git: Path, path: Path) -> bool:
    """Whether a change of `path` can move a ref: lock files are only the way there, objects and logs say nothing."""
    try:
        inside = path.relative_to(git)
    except ValueError:
        return False
    if path.suffix == ".lock" or not inside.parts:
        return False
    return inside.parts[0] in ("refs", "reftable") or str(inside) in ("packed-refs", "HEAD")


class Watch:
    """Watches from `start` until `stop`. `request` is `Inbox.request`; `reload` must return at once."""

    def __init__(self, clock: Clock, request: Callable[[str, Cause], None], reload: Callable[[], None]) -> None:
        self._clock = clock
        self._request = request
        self._reload = reload
        self._lock = threading.Lock()
        self._observers: list[BaseObserver] = []

    def start(self, settings: Settings, remote: Callable[[Path], bool] = remote_file_system) -> None:
        """Watch the settings file and every `file://` repository of `settings`."""
        with self._lock:
            self._settings_file(settings.file, remote)
            for name, repository in settings.repositories.items():
                environments = tuple(e.name for e in settings.environments.values() if e.repository == name)
                try:
                    git = git_directory(repository.url)
                except OSError as error:
                    _log.warning("not_watched", what=f"repository {name}", error=str(error))
                    continue
                if git is not None and environments:
                    self._repository(name, git.resolve(), environments, remote)

    def apply(self, settings: Settings) -> None:
        """Follow `settings` from now on."""
        self.stop()
        self.start(settings)

    def stop(self) -> None:
        """Watch no more."""
        with self._lock:
            observers, self._observers = self._observers, []
        for observer in observers:
            observer.stop()
        for observer in observers:
            if observer is not threading.current_thread():
                observer.join(timeout=5)

    def _settings_file(self, file: Path, remote: Callable[[Path], bool]) -> None:
        # The directory, because editors replace the file; "..data" is how Kubernetes swaps a mounted ConfigMap.
        file = Path(os.path.abspath(file))  # noqa: PTH100 (resolve() would follow the link that gets swapped)
        places = {file.parent: False, file.resolve().parent: False}
        names = {file, file.parent / "..data", file.resolve()}
        self._observe(f"settings {file}", places, _Handler(names.__contains__, lambda _path: self._reload()), remote)

    def _repository(self, name: str, git: Path, environments: tuple[str, ...], remote: Callable[[Path], bool]) -> None:
        def changed(path: Path) -> None:
            detail = f"{name} {path.relative_to(git)}"
            cause = Cause(kind="file", at=self._clock.now(), detail=detail, git=True)
            for environment in environments:
                self._request(environment, cause)

        places = {git: False} | {git / part: True for part in ("refs", "reftable") if (git / part).is_dir()}
        self._observe(f"repository {name}", places, _Handler(lambda path: _is_ref(git, path), changed), remote)

    def _observe(
        self, what: str, places: Mapping[Path, bool], handler: _Handler, remote: Callable[[Path], bool]
    ) -> None:
        """Watch `places` (directory: with all below). Where the kernel cannot tell, look every POLL_SECONDS instead."""
        missing = [str(place) for place in places if not place.is_dir()]
        if missing:
            _log.warning("not_watched", what=what, missing=missing, remedy="polling still finds changes")
            return
        kinds: list[Callable[[], BaseObserver]] = [lambda: PollingObserver(timeout=POLL_SECONDS)]
        if not any(remote(place) for place in places):
            kinds.insert(0, Observer)
        for kind in kinds:
            observer = kind()
            try:
                for place, recursive in places.items():
                    observer.schedule(handler, str(place), recursive=recursive, event_filter=_CHANGES)
                observer.start()
            except OSError as error:
                _log.warning("file_events_unavailable", what=what, error=str(error), remedy="raise fs.inotify limits")
                continue
            _log.info("watching", what=what, by="events" if kind is Observer else "polling")
            self._observers.append(observer)
            return

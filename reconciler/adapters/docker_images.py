"""Images of one engine: which are there, and pulls that hang nothing but themselves.

A pull asks for `repository@digest` only. Two pulls run at a time for each registry, so that a stalled registry does
not keep another one's images away.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from docker.errors import DockerException
from docker.types import CancellableStream

from reconciler.adapters.docker_connection import APIError, Connection, Json, NotFound, engine_errors, message_of
from reconciler.core.errors import Reason, ReconcilerError
from reconciler.core.live import ImageState, ImageStatus
from reconciler.failpoints import hit
from reconciler.ports import Clock

PULLS_A_REGISTRY = 2
MAX_CONFIG = 1024 * 1024
HUB = "https://index.docker.io/v1/"

PRESENT = ImageState(ImageStatus.PRESENT)
ABSENT = ImageState(ImageStatus.ABSENT)
PULLING = ImageState(ImageStatus.PULLING)


@dataclass(slots=True)
class _Lane:
    """The pulls of one registry."""

    waiting: deque[str] = field(default_factory=deque)
    active: int = 0


class Images:
    """What is known of the images of an engine; `on_change` is called after a pull ended."""

    def __init__(self, connection: Connection, clock: Clock, on_change: Callable[[str], None]) -> None:
        self._connection = connection
        self._clock = clock
        self._on_change = on_change
        self._lock = threading.Lock()
        self._ids: dict[str, str] = {}
        self._listed: dict[str, str] | None = None
        self._generation = 0
        self._pulls: dict[str, ImageState] = {}
        self._lanes: dict[str, _Lane] = {}
        self._streams: dict[str, CancellableStream[Any]] = {}
        self._closed = False

    def forget(self) -> None:
        """What was seen may no longer hold: look again at the next question."""
        with self._lock:
            self._generation += 1
            self._ids.clear()
            self._listed = None

    def states(self, images: Iterable[str]) -> Mapping[str, ImageState]:
        """The state of each image. One list call for all of them after `forget`, none otherwise."""
        found = {}
        for image in images:
            with self._lock:
                pull = self._pulls.get(image)
            if pull is not None and pull.status is ImageStatus.PULLING:
                found[image] = pull
            elif self.id_of(image) is not None:
                found[image] = PRESENT
                with self._lock:
                    self._pulls.pop(image, None)
            else:
                found[image] = pull or ABSENT
        return found

    def id_of(self, image: str) -> str | None:
        """The engine's id of `repository@digest`, None when it is not there."""
        with self._lock:
            known, listed, generation = self._ids.get(image), self._listed, self._generation
        if known is not None:
            return known or None
        if listed is None:
            listed = self._list()
        # The engine lists images of Docker Hub under short names: what is not in the list is asked for by its own name.
        found = listed.get(image) or self._ask(image)
        with self._lock:
            if generation == self._generation:
                self._ids[image] = found
                self._listed = listed
        return found or None

    def inspect(self, image: str) -> Json | None:
        """The engine's full answer about an image, None when it is not there."""
        with engine_errors(f"{self._connection.where}, image {image}"):
            try:
                return self._connection.client().image(image)
            except NotFound:
                return None

    def _ask(self, image: str) -> str:
        found = self.inspect(image)
        return str(found["Id"]) if found else ""

    def _list(self) -> dict[str, str]:
        client = self._connection.client()
        with engine_errors(self._connection.where):
            return {name: str(item["Id"]) for item in client.images() for name in item.get("RepoDigests") or ()}

    def pull(self, image: str) -> None:
        """Begin to pull unless the image is there or on its way; the outcome is seen in `states`."""
        if self.id_of(image) is not None:
            return
        with self._lock:
            before = self._pulls.get(image)
            if self._closed or (before is not None and before.status is ImageStatus.PULLING):
                return
            self._pulls[image] = ImageState(ImageStatus.PULLING, attempts=before.attempts if before else 0)
            lane = self._lanes.setdefault(registry_of(image), _Lane())
            lane.waiting.append(image)
            if lane.active >= PULLS_A_REGISTRY:
                return
            lane.active += 1
        threading.Thread(target=self._work, args=(lane,), name="pull", daemon=True).start()

    def close(self) -> None:
        """Give up what is being pulled: the engine keeps the layers it has."""
        with self._lock:
            self._closed = True
            streams = list(self._streams.values())
            for lane in self._lanes.values():
                lane.waiting.clear()
        for stream in streams:
            with contextlib.suppress(DockerException, OSError, AttributeError):
                stream.close()

    def _work(self, lane: _Lane) -> None:
        while True:
            with self._lock:
                if not lane.waiting:
                    lane.active -= 1
                    return
                image = lane.waiting.popleft()
            failure = self._fetch(image)
            self.forget()
            with self._lock:
                if failure is None:
                    self._pulls.pop(image, None)
                else:
                    reason, detail = failure
                    attempts = self._pulls[image].attempts + 1
                    self._pulls[image] = ImageState(ImageStatus.FAILED, reason, detail, self._clock.now(), attempts)
            self._on_change(f"pull of {image} {'ended' if failure is None else 'failed'}")

    def _fetch(self, image: str) -> tuple[Reason, str] | None:
        """Pull once; why it failed, or None."""
        try:
            credentials = credentials_for(image, self._connection.settings.registry_config)
        except ValueError as error:
            return Reason.IMAGE_UNAUTHORIZED, str(error)
        hit("docker.before_pull")
        try:
            with engine_errors(f"{self._connection.where}, image {image}"):
                said = self._stream(image, credentials)
        except ReconcilerError as error:
            cause = error.__cause__
            said = message_of(cause) if isinstance(cause, APIError) else error.what
        hit("docker.after_pull")
        if said:
            return classified(said), said
        if self._ask_quietly(image):
            return None
        return Reason.IMAGE_MISMATCH, "the pull ended, but the engine does not have this digest"

    def _ask_quietly(self, image: str) -> bool:
        try:
            return bool(self._ask(image))
        except ReconcilerError:
            return False

    def _stream(self, image: str, credentials: Mapping[str, str]) -> str:
        """Follow a pull to its end; the engine's complaint, or empty."""
        limit = self._connection.settings.pull_timeout.total_seconds()
        end = time.monotonic() + limit
        response: requests.Response = self._connection.client().pull_stream(image, credentials, limit)
        lines = response.iter_lines(chunk_size=None)
        with self._lock:
            self._streams[image] = CancellableStream(lines, response)
        try:
            for line in lines:
                said = json.loads(line) if line.strip() else {}
                if "error" in said:
                    return " ".join(str(said["error"]).split())[:500]
                if time.monotonic() > end:
                    return f"the pull took longer than {limit:.0f} s"
        except (ValueError, AttributeError):  # of JSON; of a stream that `close` cut off
            return "the engine's answer could not be read"
        finally:
            with self._lock:
                self._streams.pop(image, None)
            response.close()
        return ""


def registry_of(image: str) -> str:
    """The registry's host and port in `repository@digest`; a first part that is no host name is a name at the Hub."""
    first, slash, _ = image.partition("/")
    if slash and (first == "localhost" or not {".", ":"}.isdisjoint(first)):
        return "docker.io" if first == "index.docker.io" else first
    return "docker.io"


def classified(said: str) -> Reason:
    """Why a pull failed, from the words of the engine."""
    lowered = said.lower()
    if any(words in lowered for words in ("unauthorized", "denied", "authentication required", "no basic auth", "403")):
        return Reason.IMAGE_UNAUTHORIZED
    if any(words in lowered for words in ("manifest unknown", "not found", "no such image", "name unknown")):
        return Reason.IMAGE_NOT_FOUND
    if "no space left" in lowered:
        return Reason.OUT_OF_DISK
    return Reason.IMAGE_UNAVAILABLE


def credentials_for(image: str, file: Path | None) -> Mapping[str, str]:
    """The credentials of exactly this image's registry in a Docker config.json, as the engine wants them.

    Read anew for each pull, so that they can be rotated. Credential programs are not run. Raises ValueError in words.
    """
    if file is None:
        return {}
    registry = registry_of(image)
    keys = (registry, f"https://{registry}", f"http://{registry}", *((HUB,) if registry == "docker.io" else ()))
    try:
        with file.open("rb") as handle:
            text = handle.read(MAX_CONFIG + 1)
        if len(text) > MAX_CONFIG:
            raise ValueError("it is too large")
        auths = json.loads(text).get("auths") or {}
        entry = next((auths[key] for key in keys if key in auths), None)
        if entry is None:
            return {}
        if entry.get("identitytoken"):
            return {"identitytoken": str(entry["identitytoken"]), "serveraddress": registry}
        if entry.get("auth"):
            user, _, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
        else:
            user, password = str(entry["username"]), str(entry["password"])
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError, binascii.Error) as error:
        # The error's own text may quote the file.
        raise ValueError(f"the registry credentials in {file.name} cannot be used ({type(error).__name__})") from None
    return {"username": user, "password": password, "serveraddress": HUB if registry == "docker.io" else registry}

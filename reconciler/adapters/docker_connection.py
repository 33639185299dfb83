"""The connection to one Docker Engine: made when first needed, never taken from the environment's DOCKER_* variables.

Every exception of the SDK and of requests becomes one of ours here. No knowledge of environments or instances.
"""

from __future__ import annotations

import json
import math
import re
import tarfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import docker
import requests
import urllib3
from docker import auth
from docker.constants import MINIMUM_DOCKER_API_VERSION
from docker.errors import APIError, DockerException, InvalidVersion, NotFound
from docker.tls import TLSConfig
from docker.utils import version_lt

from reconciler.adapters.docker_tunnel import Tunnel
from reconciler.core.errors import Reason, ReconcilerError, Retryable, Stalled, innermost
from reconciler.settings import DockerSettings

POOL = 64
MAX_LINE = 2000

Json = dict[str, Any]


class Engine(docker.APIClient):
    """The SDK's low-level client, with the few calls that it offers only without a deadline."""

    if TYPE_CHECKING:  # the type stubs leave these out
        _get: Callable[..., requests.Response]
        _post: Callable[..., requests.Response]
        _url: Callable[..., str]
        _raise_for_status: Callable[[requests.Response], None]

    def __init__(self, host: str, timeout: float, tls: TLSConfig | None) -> None:
        lowest = MINIMUM_DOCKER_API_VERSION
        super().__init__(host, version=lowest, timeout=math.ceil(timeout), tls=tls or False, max_pool_size=POOL)
        # The SDK reads proxies, headers and credentials from the caller's home, and requests an authority from
        # REQUESTS_CA_BUNDLE in place of ours; the operator's settings alone count, from the first question on.
        self.trust_env = False
        self._general_configs: Json = {}
        self._auth_configs = auth.AuthConfig({})
        self._version = str(self.version(api_version=False).get("ApiVersion"))
        if not re.fullmatch(r"[0-9]+(\.[0-9]+)+", self._version) or version_lt(self._version, lowest):
            raise InvalidVersion(f"its API is {self._version[:20]}, and at least {lowest} is needed")

    def image(self, reference: str) -> Json:
        """Inspect an image. Raises NotFound."""
        response = self._get(self._url("/images/{0}/json", reference))
        self._raise_for_status(response)
        found: Json = response.json()
        return found

    def create(self, name: str, request: Json) -> None:
        """Create a container from a whole request."""
        response = self._post(self._url("/containers/create"), params={"name": name}, json=request)
        self._raise_for_status(response)

    def pull_stream(self, image: str, credentials: Mapping[str, str], timeout: float) -> requests.Response:
        """Begin to pull `repository@digest`. `timeout` in seconds bounds the wait for each piece of the answer."""
        repository, digest = image.split("@", 1)
        response = self._post(
            self._url("/images/create"),
            params={"fromImage": repository, "tag": digest},
            headers={"X-Registry-Auth": auth.encode_header(dict(credentials))},
            stream=True,
            timeout=timeout,
        )
        self._raise_for_status(response)
        return response

    def event_stream(self, since: str | None, filters: Mapping[str, Any], timeout: float) -> requests.Response:
        """Open the events from `since` (engine time) on; a silence of `timeout` seconds ends it with an error."""
        params = {"filters": json.dumps(filters)} | ({"since": since} if since else {})
        response = self._get(self._url("/events"), params=params, stream=True, timeout=timeout)
        self._raise_for_status(response)
        return response

    def stats_now(self, container: str, timeout: float) -> Json:
        """The counters of a container, at once: the engine's own command looks twice and takes two seconds."""
        params = {"stream": "0", "one-shot": "1"}
        response = self._get(self._url("/containers/{0}/stats", container), params=params, timeout=timeout)
        self._raise_for_status(response)
        found: Json = response.json()
        return found

    def owner_of(self, container: str, path: str) -> tuple[int, int, int]:
        """The uid, gid and permissions of a path in a container, of whose archive only the beginning is read."""
        plain = {"Accept-Encoding": "identity"}
        address = self._url("/containers/{0}/archive", container)
        response = self._get(address, params={"path": path}, headers=plain, stream=True)
        self._raise_for_status(response)
        with response:
            try:
                with tarfile.open(fileobj=response.raw, mode="r|") as tar:
                    entry = tar.next()
            except tarfile.TarError as error:
                raise EOFError(f"its archive of {path} cannot be read") from error
        if entry is None:
            raise EOFError(f"its archive of {path} is empty")
        return entry.uid, entry.gid, entry.mode & 0o7777

    def log_tail(self, container: str, lines: int) -> tuple[str, ...]:
        """The last lines of a container's output, each cut to 2,000 characters; memory is bounded by what is kept."""
        params = {"stdout": 1, "stderr": 1, "tail": lines, "follow": 0, "timestamps": 0}
        response = self._get(self._url("/containers/{0}/logs", container), params=params, stream=True)
        self._raise_for_status(response)
        kept: deque[str] = deque(maxlen=lines)
        with response:
            for line in _lines(_frames(response.raw)):
                kept.append(line)
        return tuple(kept)


def _frames(raw: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """The payloads of the engine's multiplexed stream: 8 bytes of header (kind, 0, 0, 0, length), then the bytes."""
    while len(header := raw.read(8)) == 8:
        left = int.from_bytes(header[4:], "big")
        while left > 0:
            piece = raw.read(min(left, 65536))
            if not piece:
                return
            left -= len(piece)
            yield piece


def _lines(pieces: Iterator[bytes]) -> Iterator[str]:
    line = b""
    for piece in pieces:
        *whole, rest = piece.split(b"\n")
        for part in whole:
            yield (line + part)[:MAX_LINE].decode("utf-8", "replace").rstrip("\r")
            line = b""
        line = (line + rest)[:MAX_LINE]
    if line:
        yield line.decode("utf-8", "replace")


class Connection:
    """One engine, reached when first asked; the same client afterwards, which opens sockets anew by itself.

    An `ssh://` engine is reached through a tunnel, which is opened anew whenever it is found broken.
    """

    def __init__(self, settings: DockerSettings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._client: Engine | None = None
        self._info: Json | None = None
        self._tunnel: Tunnel | None = None

    @property
    def where(self) -> str:
        """How errors name this engine."""
        return f"engine {self.settings.name} at {self.settings.host}"

    def client(self) -> Engine:
        """The client. Raises Retryable(ENGINE_UNREACHABLE), Stalled(SETTINGS_INVALID)."""
        with self._lock:
            host = self._reached_at()
            if self._client is None:
                with engine_errors(self.where, said=lambda: self._tunnel.said if self._tunnel else ""):
                    self._client = Engine(host, self.settings.timeout.total_seconds(), self._tls())
            return self._client

    def info(self) -> Json:
        """What the engine says of itself, asked once."""
        client = self.client()
        with self._lock:
            if self._info is None:
                with engine_errors(self.where):
                    self._info = client.info()
            return self._info

    def host_address(self) -> str | None:
        """Where published ports are reached, or None when the instances' own addresses are in reach from here.

        Only the network of a local engine that is neither rootless nor inside a virtual machine is.
        """
        parts = urlsplit(self.settings.host)
        if parts.scheme != "unix":
            return parts.hostname or "127.0.0.1"
        info = self.info()
        apart = any("rootless" in option for option in info.get("SecurityOptions") or ())
        return "127.0.0.1" if apart or "Docker Desktop" in str(info.get("OperatingSystem")) else None

    def close(self) -> None:
        """Close idle sockets; calls under way end by themselves."""
        with self._lock:
            if self._client is not None:
                self._client.close()
            if self._tunnel is not None:
                self._tunnel.close()

    def _reached_at(self) -> str:
        host = self.settings.host
        if not host.startswith("ssh://"):
            return host
        if self._tunnel is None:
            self._tunnel = Tunnel(host, self.settings.timeout.total_seconds())
        return f"unix://{self._tunnel.open()}"

    def _tls(self) -> TLSConfig | None:
        settings = self.settings
        files = (settings.tls_ca, settings.tls_cert, settings.tls_key)
        if not any(files):
            return None
        if settings.tls_ca is None or settings.tls_cert is None or settings.tls_key is None:
            raise Stalled(
                Reason.SETTINGS_INVALID,
                "only some of the three TLS files are set",
                where=self.where,
                remedy="Set the CA, the certificate and the key of this runtime",
            )
        return TLSConfig(
            client_cert=(str(settings.tls_cert), str(settings.tls_key)), ca_cert=str(settings.tls_ca), verify=True
        )


@contextmanager
def engine_errors(where: str, remedy: str = "", said: Callable[[], str] = str) -> Iterator[None]:
    """Translate whatever a call to the engine raises. `where` names the engine and the thing asked about.

    `said` tells what the way to the engine has to say of the failure.
    """
    try:
        yield
    except ReconcilerError:
        raise
    except APIError as error:
        raise translated(error, where, remedy) from error
    except (
        DockerException,
        requests.RequestException,
        urllib3.exceptions.HTTPError,
        OSError,
        EOFError,
    ) as error:
        raise Retryable(
            Reason.ENGINE_UNREACHABLE,
            f"the engine does not answer: {'; '.join(filter(None, (innermost(error), said())))}",
            where=where,
            remedy="Check that the Docker daemon runs and that this user may use it",
        ) from error


def moment(text: str | None) -> datetime | None:
    """An engine's time (RFC 3339 with nanoseconds, of which microseconds are kept) in UTC, None for its zero value."""
    if not text or text.startswith("0001"):
        return None
    return datetime.fromisoformat(text).astimezone(UTC)


def message_of(error: APIError) -> str:
    """What the engine said, on one line of at most 500 characters."""
    return " ".join(str(error.explanation or error).split())[:500]


def translated(error: APIError, where: str, remedy: str = "") -> ReconcilerError:
    """The error for a refusal of the engine, told apart by status and by what it says."""
    said = message_of(error)
    lowered = said.lower()
    if any(words in lowered for words in ("port is already allocated", "address already in use", "failed to bind")):
        return Stalled(
            Reason.PORT_TAKEN,
            f"a host port is in use: {said}",
            where=where,
            remedy="Free the port on the host, or declare another host port",
        )
    if "no space left on device" in lowered or "disk quota exceeded" in lowered:
        return Retryable(
            Reason.OUT_OF_DISK, f"no space left: {said}", where=where, remedy="Free disk space on the engine's host"
        )
    status = error.status_code or 500
    if status in (400, 403, 405, 406):
        advice = remedy or "Change what the service asks for, or the engine's configuration"
        return Stalled(Reason.ENGINE_REFUSED, f"the engine refused: {said}", where=where, remedy=advice)
    advice = remedy or "It is tried again; see the engine's log if this stays"
    return Retryable(Reason.ENGINE_REFUSED, f"the engine answered {status}: {said}", where=where, remedy=advice)


__all__ = [
    "APIError",
    "Connection",
    "Engine",
    "Json",
    "NotFound",
    "engine_errors",
    "message_of",
    "moment",
    "translated",
]

"""The proxy of an environment that Reconciler runs itself: a HAProxy in a container, on an engine of this machine.

It knows no server and no weight. A configuration changes by a hitless reload only; the container is replaced only
when the operator's settings ask for another one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from reconciler.adapters import docker_proxy_request as asked
from reconciler.adapters.docker_connection import Connection, Json, NotFound, engine_errors
from reconciler.adapters.docker_create import ROLE_PROXY
from reconciler.adapters.docker_images import Images
from reconciler.adapters.docker_ownership import Ownership, name_taken
from reconciler.adapters.docker_proxy_files import ProxyFiles
from reconciler.adapters.haproxy_former import Former
from reconciler.adapters.haproxy_master import refused, reload
from reconciler.adapters.haproxy_socket import ask
from reconciler.core import names
from reconciler.core.errors import Reason, ReconcilerError, Retryable, Stalled
from reconciler.core.live import ImageStatus, ProxyStatus
from reconciler.core.proxy_config import DIGEST_VARIABLE, DIRECTORY
from reconciler.failpoints import hit
from reconciler.ports import Clock
from reconciler.settings import ProxySettings

START_SECONDS = 15.0
"""How long a started or reloaded proxy may take to show its configuration."""
STOP_SECONDS = 10
"""How long a proxy that is replaced may go on with what is under way."""
_CHECK_SECONDS = 10.0
_LOOK = 0.02


class ManagedFront:
    """`haproxy_front.Front` with one proxy. Its directory is `data`/proxy/`environment`; `owner` is on its labels.

    `connection` is made for it alone: it is closed with it.
    """

    def __init__(
        self, environment: str, settings: ProxySettings, connection: Connection, owner: str, data: Path, clock: Clock
    ) -> None:
        self._environment = environment
        self._settings = settings
        self._connection = connection
        self._owned = Ownership(connection, owner)
        self._images = Images(connection, clock, lambda _detail: None)
        self._files = ProxyFiles(data / "proxy" / environment)
        self._former = Former(self._files.master, settings.timeout.total_seconds())
        self._name = names.proxy(environment)
        self._where = f"{connection.where}, proxy {self._name}"
        self._lock = threading.Lock()

    def sockets(self) -> Sequence[str]:
        """The one runtime socket."""
        return (f"unix://{self._files.admin()}",)

    def ensure(self, config: str, text: str) -> None:
        """`Front.ensure`. Whatever a crash left half done is finished; a refused configuration leaves the one before.

        Raises Stalled(PROXY_REFUSED, NAME_TAKEN, IMAGE_NOT_FOUND), Retryable while the image is fetched.
        """
        with self._lock:
            if not self._connection.settings.host.startswith("unix://"):
                raise self._too_far()
            self._files.prepare()
            wanted, found = self._wanted(), self._find()
            if found is not None and not asked.matches(found, wanted, self._environment):
                self._check_image()
                self._replace(found)
                found = None
            if found is None:
                self._check_image()
                self._write(text)
                found = self._create(wanted)
                self._start(found, config)
            elif not _stands(found):
                self._write(text)
                self._start(found, config)
            elif self._answered() != config:
                self._reload(found, config, text)
            else:
                self._write(text)  # whatever was done to the file: the next start is with this one

    def status(self) -> tuple[ProxyStatus, str, str]:
        """`Front.status`. ABSENT is also one that does not run; the digest is "" when the settings ask for another."""
        try:
            found = self._find()
        except Stalled as error:
            return ProxyStatus.ABSENT, "", str(error)
        except ReconcilerError:
            found = {}  # the proxy may well be there while its engine is not
        if found is None:
            return ProxyStatus.ABSENT, "", "the proxy was not made yet"
        if found and not _stands(found):
            return ProxyStatus.ABSENT, "", f"the proxy does not run: it is {found['State'].get('Status')}"
        try:
            digest = self._digest()
        except ReconcilerError as error:
            return ProxyStatus.UNREACHABLE, "", str(error)
        if found and not asked.matches(found, self._wanted(), self._environment):
            return ProxyStatus.READY, "", "the proxy is not the one that the settings ask for"
        return ProxyStatus.READY, digest, ""

    def keep(self, index: int, state: str) -> None:  # noqa: ARG002 - there is one
        """`Front.keep`."""
        with _around("state"):
            self._files.write_state(state)

    def former(self) -> Sequence[str]:
        """`Front.former`. It knows of reloads that are ours; a new daemon asks once."""
        return self._former.texts()

    def cut(self, backend: str, address: str, port: int) -> None:
        """`Front.cut`."""
        self._former.cut(backend, address, port)

    def close(self) -> None:
        """`Front.close`."""
        self._images.close()
        self._files.close()
        self._connection.close()

    def _wanted(self) -> Json:
        files, rootless = self._files, False
        if self._connection.settings.host.startswith("unix://"):
            options = self._connection.info().get("SecurityOptions") or ()
            rootless = any("rootless" in option for option in options)
        # The root of a rootless engine's containers is the user on the host that the engine runs as.
        user = "0:0" if rootless else files.user
        return asked.request(self._environment, self._settings, self._owned.owner, files.directory, user)

    def _find(self) -> Json | None:
        """Our proxy, under whatever name. Raises Stalled(NAME_TAKEN) when something else has its name."""
        found = self._owned.inspect(self._name)
        if found is not None:
            labels = found["Config"].get("Labels") or {}
            if self._owned.owns(labels, self._environment) and labels.get(names.LABEL_ROLE) == ROLE_PROXY:
                return found
            raise name_taken(self._name, self._connection.where)
        for summary in self._owned.listed(self._environment):
            if (summary.get("Labels") or {}).get(names.LABEL_ROLE) == ROLE_PROXY:
                return self._owned.inspect(str(summary["Id"]))
        return None

    def _check_image(self) -> None:
        """Before anything is taken away, the image has to be there; one named by digest is fetched meanwhile."""
        image = self._settings.image
        self._images.forget()
        if self._images.inspect(image) is not None:
            return
        if "@" not in image:
            raise Stalled(
                Reason.IMAGE_NOT_FOUND,
                f"the engine does not have the image {image}",
                where=self._where,
                remedy="Build it with deploy/haproxy/build.sh, or name an official image by its digest",
            )
        named, _, digest = image.partition("@")
        repository, colon, tag = named.rpartition(":")
        pinned = f"{repository if colon and '/' not in tag else named}@{digest}"
        state = self._images.states([pinned])[pinned]
        self._images.pull(pinned)
        raise Retryable(
            state.reason or Reason.IMAGE_UNAVAILABLE,
            state.detail if state.status is ImageStatus.FAILED else f"the image {image} is being fetched",
            where=self._where,
            remedy="Check the image in the settings and the way to its registry if this stays",
            after=timedelta(seconds=1),
        )

    def _create(self, wanted: Json) -> Json:
        with _around("create"), engine_errors(self._where):
            self._connection.client().create(self._name, wanted)
        found = self._find()
        if found is None:
            raise self._unreachable("the proxy's container was removed as soon as it was made")
        return found

    def _start(self, found: Json, config: str) -> None:
        """Start what is created, ended, paused, or tried again and again by the engine, and wait for `config`."""
        client, state = self._connection.client(), found["State"]
        with _around("start"), engine_errors(self._where):
            if state.get("Paused"):
                client.unpause(found["Id"])
            elif state.get("Restarting"):
                client.stop(found["Id"], timeout=0)
            client.start(found["Id"])
        self._await(config, found)

    def _replace(self, found: Json) -> None:
        """Stop and remove a proxy that the settings do not ask for; what its servers were is kept for the next one."""
        if _stands(found):
            self._save_state()
        client = self._connection.client()
        with engine_errors(self._where):
            try:
                with _around("stop"):
                    client.stop(found["Id"], timeout=STOP_SECONDS)
                with _around("remove"):
                    client.remove_container(found["Id"], force=True, v=True)
            except NotFound:
                return

    def _reload(self, found: Json, config: str, text: str) -> None:
        with self._files.proposed(text) as name:
            self._check(found, name)
        self._save_state()
        self._write(text)
        with self._former.reload():
            with _around("reload"):
                reload(self._files.master(), self._settings.timeout.total_seconds() + START_SECONDS)
            self._await(config)

    def _check(self, found: Json, name: str) -> None:
        """Let the running HAProxy itself judge a configuration. Raises Stalled(PROXY_REFUSED) with its words."""
        client, command = self._connection.client(), ["haproxy", "-c", "-f", f"{DIRECTORY}/{name}"]
        with engine_errors(self._where):
            identity = client.exec_create(found["Id"], command)["Id"]
            client.exec_start(identity, detach=True)
            end = time.monotonic() + _CHECK_SECONDS
            while (result := client.exec_inspect(identity))["Running"] and time.monotonic() < end:
                time.sleep(_LOOK)
            if result["Running"]:
                raise self._unreachable(f"the proxy could not judge a configuration within {_CHECK_SECONDS:g} s")
            if result["ExitCode"]:
                said = client.exec_start(client.exec_create(found["Id"], command)["Id"])
                raise refused(said.decode("utf-8", "replace"), self._where)

    def _save_state(self) -> None:
        """What the next worker starts with, as it is now; with a proxy that does not answer, as it was last kept."""
        try:
            state = self._ask("show servers state")
        except Retryable:
            return
        self.keep(0, state)

    def _write(self, text: str) -> None:
        with _around("config"):
            self._files.write_config(text)

    def _await(self, config: str, started: Json | None = None) -> None:
        """Wait until the proxy shows `config`. A `started` one that dies of it has refused it, in its own words."""
        end = time.monotonic() + START_SECONDS
        problem = ""
        while time.monotonic() < end:
            try:
                if self._digest() == config:
                    return
                problem = "it still runs another configuration"
            except Retryable as error:
                problem = error.what
                if started is not None:
                    self._look_for_death(started)
            time.sleep(_LOOK)
        raise self._unreachable(f"the proxy did not take its configuration within {START_SECONDS:g} s: {problem}")

    def _look_for_death(self, started: Json) -> None:
        found = self._owned.inspect(started["Id"])
        if found is None:
            raise self._unreachable("the proxy's container was removed")
        if _stands(found) and found.get("RestartCount", 0) <= started.get("RestartCount", 0):
            return
        client = self._connection.client()
        with engine_errors(self._where):
            said = "\n".join(client.log_tail(found["Id"], 50))
            client.stop(found["Id"], timeout=0)  # else the engine would try it again for ever
        raise refused(said, self._where)

    def _answered(self) -> str:
        """The digest that the proxy shows, also when it is just starting."""
        end = time.monotonic() + self._settings.timeout.total_seconds()
        while True:
            try:
                return self._digest()
            except Retryable:
                if time.monotonic() >= end:
                    raise
            time.sleep(_LOOK)

    def _digest(self) -> str:
        """The digest of the configuration that runs. Raises Retryable(PROXY_UNREACHABLE)."""
        return self._ask(f"show env {DIGEST_VARIABLE}").strip().partition("=")[2]

    def _ask(self, command: str) -> str:
        return ask(self.sockets()[0], command, self._settings.timeout.total_seconds())

    def _unreachable(self, what: str) -> ReconcilerError:
        remedy = "It is tried again; see the log of the proxy's container if this stays"
        return Retryable(Reason.PROXY_UNREACHABLE, what, where=self._where, remedy=remedy)

    def _too_far(self) -> ReconcilerError:
        return Stalled(
            Reason.PROXY_REFUSED,
            "a proxy can be run on an engine of this machine only: its runtime socket has to be in reach",
            where=self._where,
            remedy="Run a HAProxy of your own beside that engine, and name its sockets in the environment's settings",
        )


def _stands(container: Json) -> bool:
    state = container["State"]
    return bool(state.get("Running")) and not state.get("Restarting") and not state.get("Paused")


@contextmanager
def _around(effect: str) -> Iterator[None]:
    """The failpoints of one mutation."""
    hit(f"proxy.before_{effect}")
    yield
    hit(f"proxy.after_{effect}")

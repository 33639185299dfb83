"""The real Kubernetes cluster for tests: the one that is named, or our own on one node with the registry of the run.

`RECONCILER_TEST_KUBECONFIG` names a cluster to use as it is; `RECONCILER_TEST_REGISTRY`, host:port, is then a registry
that it can pull from and that answers on this machine by plain HTTP. `RECONCILER_TEST_CLUSTER_DIR` names the directory
of a cluster of our own that stays between runs. Otherwise the last worker of the run ends it, and a run that was
killed before it could do so is cleaned up after by the next. Workers share it under a file lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from tools import cluster as tool
from tools import cluster_build, images
from tools import engine as started
from tools.kept import cache, locked

NAMED = os.environ.get("RECONCILER_TEST_KUBECONFIG", "")
KEPT = os.environ.get("RECONCILER_TEST_CLUSTER_DIR", "")
PREFIX = "rec-kube-"
DEADLINE = 180.0
T = TypeVar("T")


@dataclass(frozen=True)
class Given:
    """A cluster to test against. `own` has the handles of its components, and is None for somebody else's."""

    kubeconfig: Path
    registry: str
    own: tool.Cluster | None


def eventually(look: Callable[[], T], *, during: type[Exception] | tuple[type[Exception], ...] = ()) -> T:
    """The first true answer of `look`, within three minutes. Until then errors of the kinds `during` count as a no."""
    end = time.monotonic() + DEADLINE
    while True:
        try:
            found = look()
        except during:
            if time.monotonic() > end:
                raise
        else:
            if found:
                return found
            assert time.monotonic() < end, f"still {found!r} after {DEADLINE:.0f} s"
        time.sleep(0.1)


def _users(file: Path) -> list[started.Started]:
    """The workers that use a cluster, those left out that were killed."""
    with contextlib.suppress(FileNotFoundError):
        words = (line.split() for line in file.read_text().splitlines())
        return [one for one in (started.Started(int(pid), born) for pid, born in words) if started.alive(one)]
    return []


def _note(file: Path, users: list[started.Started]) -> None:
    file.write_text("".join(f"{one.pid} {one.born}\n" for one in users))


def end_forgotten(home: Path, mine: Path) -> None:
    """End the clusters of runs that were killed: nobody else would, and each costs much of a core."""
    for users in home.glob(f"{PREFIX}*.users"):
        directory = users.with_suffix("")
        if directory != mine and not _users(users):
            tool.down(directory)
            shutil.rmtree(directory, ignore_errors=True)
            users.unlink(missing_ok=True)


@contextmanager
def _shared(run: str, registry: str) -> Iterator[tool.Cluster]:
    home = Path(KEPT).parent if KEPT else Path(tempfile.gettempdir())
    directory = Path(KEPT) if KEPT else home / f"{PREFIX}{run[:12]}"
    home.mkdir(parents=True, exist_ok=True)
    users, lock = home / f"{directory.name}.users", cache() / "kube-clusters.lock"
    me = started.Started(os.getpid(), started.born(os.getpid()))
    try:
        with locked(lock):
            end_forgotten(home, directory)
            _note(users, [*_users(users), me])
            running = tool.up(directory, registry=registry)
        yield running
    finally:
        with locked(lock):
            left = [one for one in _users(users) if one != me]
            _note(users, left)
            if not left:
                users.unlink()
                if not KEPT:
                    tool.down(directory)
                    shutil.rmtree(directory, ignore_errors=True)


@functools.cache
def _missing() -> str:
    return "" if NAMED else tool.missing()


def _needs_one(item: pytest.Item) -> bool:
    return "cluster" in getattr(item, "fixturenames", ())


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the binary before the first test begins: a build takes longer than any test may."""
    building = not NAMED and not session.config.option.collectonly
    if building and any(map(_needs_one, session.items)) and not _missing():
        tool.build()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip all that need a cluster where none can be had, from one place: pytest then says it in one line."""
    if _needs_one(item) and _missing():
        pytest.skip(f"no Kubernetes cluster: {_missing()}; or name one in RECONCILER_TEST_KUBECONFIG")


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Given]:
    """The cluster of the run."""
    if NAMED:
        yield Given(Path(NAMED), os.environ.get("RECONCILER_TEST_REGISTRY", ""), None)
        return
    registry: str = request.getfixturevalue("registry")
    worker = getattr(request.config, "workerinput", None)
    run = str(worker["testrunuid"]) if worker else f"{os.getpid():x}"
    with _shared(run, registry) as own:
        yield Given(own.kubeconfig, registry, own)


@contextmanager
def turn(directory: Path, *, alone: bool) -> Iterator[None]:
    """While one worker breaks the cluster of a directory, no other uses it.

    Whoever waits keeps the door: without it those who share would let each other in for as long as they overlap.
    """
    with (directory / "turn.lock").open("a") as handle:
        with (directory / "door.lock").open("a") as door:
            fcntl.flock(door, fcntl.LOCK_EX)
            fcntl.flock(handle, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


def _turn(cluster: Given, *, alone: bool) -> AbstractContextManager[None]:
    return turn(cluster.own.directory, alone=alone) if cluster.own is not None else contextlib.nullcontext()


@pytest.fixture
def cluster_turn(request: pytest.FixtureRequest, cluster: Given) -> Iterator[None]:
    """A turn at the cluster. Whoever asks for `own_cluster` has the cluster for itself during the test."""
    with _turn(cluster, alone="own_cluster" in request.fixturenames):
        yield


@pytest.fixture(autouse=True)
def _take_turns(request: pytest.FixtureRequest) -> None:
    """For all that name the cluster; a fixture that asks for it on the way takes a turn itself."""
    if "cluster" in request.fixturenames:
        request.getfixturevalue("cluster_turn")


@pytest.fixture(scope="session")
def own_cluster(cluster: Given) -> tool.Cluster:
    """The handles to stop, pause and start its components, alone; somebody else's cluster has none."""
    if cluster.own is None:
        pytest.skip("the components of the cluster in RECONCILER_TEST_KUBECONFIG are not ours to stop")
    return cluster.own


@pytest.fixture(scope="session")
def kube(cluster: Given) -> Iterator[client.ApiClient]:
    """The API as the administrator uses it."""
    with config.new_client_from_config(config_file=str(cluster.kubeconfig)) as api:
        yield api


@pytest.fixture(scope="session")
def gateway_api(cluster: Given, kube: client.ApiClient) -> None:
    """The CRDs of the Gateway API's standard channel, served; no controller acts on them."""
    with _turn(cluster, alone=False):
        install_definitions(kube, cluster_build.gateway_definitions())


def install_definitions(kube: client.ApiClient, paths: Iterable[Path]) -> None:
    """Make the CRDs in these files, and wait until they are served."""
    definitions, objects = client.ApiextensionsV1Api(kube), client.CustomObjectsApi(kube)
    kinds = []
    for path in paths:
        definition = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)  # 700 KB: the other takes seconds
        about = definition["spec"]
        versions = [version["name"] for version in about["versions"] if version["served"]]
        kinds += [(about["group"], version, about["names"]["plural"]) for version in versions]
        with contextlib.suppress(ApiException):  # another worker, or an earlier run, was first
            # The answer is as long, and models of it are as slow.
            definitions.create_custom_resource_definition(definition, _preload_content=False, _request_timeout=DEADLINE)
    for kind in kinds:
        # That it is established is said a little before it is so.
        eventually(
            lambda kind=kind: objects.list_cluster_custom_object(*kind, limit=1, _request_timeout=DEADLINE),
            during=ApiException,
        )


@pytest.fixture
def namespace(kube: client.ApiClient) -> Iterator[str]:
    """A fresh namespace with its service account; deleted afterwards, and nobody waits for that."""
    name = f"t-{uuid.uuid4().hex[:12]}"
    core = client.CoreV1Api(kube)
    core.create_namespace({"metadata": {"name": name}}, _request_timeout=DEADLINE)
    # A controller makes it a little later, and until then pods are refused.
    eventually(lambda: core.read_namespaced_service_account("default", name), during=ApiException)
    yield name
    with contextlib.suppress(ApiException):
        core.delete_namespace(name, grace_period_seconds=0, _request_timeout=DEADLINE)


@pytest.fixture(scope="session")
def image(request: pytest.FixtureRequest, cluster: Given) -> Callable[[str], str]:
    """`image("1.0")`: the sample service of that version in a registry of the cluster, pinned by digest."""
    known: dict[str, str] = {}

    def published(version: str) -> str:
        if version not in known:
            host: str = request.getfixturevalue("engine")
            assert cluster.registry, "name a registry in RECONCILER_TEST_REGISTRY, host:port"
            known[version] = images.publish(host, cluster.registry, version)
        return known[version]

    return published

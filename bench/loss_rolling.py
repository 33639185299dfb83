"""A rolling release of four beside the sum of the waits that nobody can avoid, measured by doing just these by hand."""

from __future__ import annotations

import http.client
import time
from statistics import median

from bench import load
from bench.figure import Figure
from bench.fleet import pinned
from bench.loss_stage import ENVIRONMENT, HOST, Shape, Stage
from reconciler.core import names

ROUNDS = 3
REPLICAS = 4
GOAL = 1.15
START = "1000"
"""Milliseconds that an instance takes before it listens."""
_FIRST, _GROWTH, _LONGEST = 0.1, 1.5, 0.5
"""The spacing of health checks while an instance starts: that of `core/health.py`, up to the declared interval."""


def rolling(stage: Stage) -> list[Figure]:
    """Each round releases by the daemon and does the waits by hand; the image is fetched anew each time."""
    first = _shape("1.0")
    stage.settle(first, stage.release(first))
    ours, gone, bare = [], [], []
    for number in range(ROUNDS):
        shape = _shape("2.0" if number % 2 == 0 else "1.0")
        promoted, settled = _by_daemon(stage, shape)
        ours.append(promoted)
        gone.append(settled)
        bare.append(_by_hand(stage, "2.1" if number % 2 == 0 else "1.1"))
    stage.settle(Shape("1.0"), stage.release(Shape("1.0")))
    ratio = median(ours) / median(bare)
    how = (
        f"{REPLICAS} instances one after the other (surge 1), each with {START} ms until it listens; median of {ROUNDS}"
    )
    waits = "pull, then create, start and health of each instance, one after the other, by the SDK"
    return [
        Figure("rolling release", median(ours) * 1000, "ms", "", None, f"git push -> last instance in traffic; {how}"),
        Figure(
            "rolling, old ones gone", median(gone) * 1000, "ms", "", None, f"git push -> last old one removed; {how}"
        ),
        Figure("its unavoidable waits", median(bare) * 1000, "ms", "", None, f"{waits}; {how}"),
        Figure("rolling ratio", ratio, "x", f"<= {GOAL}", ratio <= GOAL, "the first by the third"),
    ]


def _shape(version: str) -> Shape:
    return Shape(version, replicas=REPLICAS, rollout="{surge: 1}", env={"START_DELAY_MS": START})


def _by_daemon(stage: Stage, shape: Shape) -> tuple[float, float]:
    """Seconds until the promotion, which follows the last instance's traffic, and until the old ones were gone."""
    stage.forget(shape.version)
    said = stage.said()
    with stage.load(load.keep_alive(2, 100)) as running:
        running.reached(100, 10)
        at, began = time.time(), time.monotonic()
        revision = stage.release(shape)
        stage.settle(shape, revision, said)
        settled = time.monotonic() - began
    if running.stop().failed:
        raise stage.lost(f"requests failed in a rolling release:\n{running.so_far()}")
    return stage.promoted(revision) - at, settled


def _by_hand(stage: Stage, version: str) -> float:
    """Seconds for the waits alone, in the same network, under the same load."""
    stage.forget(version)
    reference = pinned(stage.images[version])
    made: list[str] = []
    with stage.load(load.keep_alive(2, 100)) as running:
        running.reached(100, 10)
        began = time.monotonic()
        stage.client.pull(reference)
        for _ in range(REPLICAS):
            made.append(_started(stage, reference))
            _healthy(stage, made[-1])
        taken = time.monotonic() - began
    for identity in made:
        stage.client.remove_container(identity, force=True)
    return taken


def _started(stage: Stage, reference: str) -> str:
    config = stage.client.create_host_config(network_mode=names.network(ENVIRONMENT), read_only=True)
    made = stage.client.create_container(reference, environment={"START_DELAY_MS": START}, host_config=config)
    stage.client.start(made["Id"])
    return str(made["Id"])


def _healthy(stage: Stage, identity: str) -> None:
    found = stage.client.inspect_container(identity)["NetworkSettings"]["Networks"]
    address = found[names.network(ENVIRONMENT)]["IPAddress"]
    wait, end = _FIRST, time.monotonic() + 30
    while not _answers(address):
        if time.monotonic() > end:
            raise stage.lost("an instance that was started by hand does not become healthy")
        time.sleep(wait)
        wait = min(wait * _GROWTH, _LONGEST)


def _answers(address: str) -> bool:
    connection = http.client.HTTPConnection(address, 8080, timeout=2)
    try:
        connection.request("GET", "/healthz", headers={"Host": HOST})
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()

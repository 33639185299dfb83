"""The scenarios of `bench loss`: what is done to a fleet while clients of every kind ask it without a retry."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from bench import load
from bench.loss_stage import ENVIRONMENT, LOOK, Shape, Stage
from bench.loss_table import Row
from reconciler.core import names
from tools import engine

FIRST = 300
"""So many requests are answered before anything is done."""
AFTER = 1.0
"""Seconds that the load goes on when all is as declared."""
HOLD = "{strategy: blueGreen, hold: 4s}"
LONG_HOLD = "{strategy: blueGreen, hold: 10m}"
CANARY = "{strategy: canary, steps: [{weight: 10, soak: 1s}, {weight: 50, soak: 1s}]}"


@dataclass(frozen=True)
class Pace:
    """How hard the clients ask: requests per second of each, None for as fast as answers come."""

    steady: float | None = 60.0

    def kinds(self, *, websockets: bool = True, longest: int = 2000) -> list[load.Kind]:
        """Clients of every kind; the endless requests take `longest` ms, and the idle clients ask once in 2.5 s."""
        found = [
            load.keep_alive(8, self.steady),
            replace(load.keep_alive(6, 0.4), name="idle"),
            load.new_connection(2, self.steady),
            load.http2(1, 4, self.steady),
            load.http2_tls(1, 4, self.steady),
            load.slow(),
            load.endless(2, longest),
            load.post(2, self.steady),
        ]
        return [*found, load.websocket()] if websockets else found


@contextmanager
def asked(stage: Stage, kinds: list[load.Kind], *, inside: bool = False) -> Iterator[load.LoadThread]:
    """A load that has begun, and that goes on a little when the block is done."""
    with stage.load(*kinds, inside=inside) as running:
        running.reached(FIRST, 30)
        yield running
        time.sleep(AFTER)


def released(stage: Stage, pace: Pace, name: str, shape: Shape, push: Callable[[], str] | None = None) -> Row:
    """A commit until it is in sync, and no other version is left where none is held."""
    with asked(stage, pace.kinds()) as running:
        said, began = stage.said(), time.monotonic()
        revision = push() if push else stage.release(shape, name)
        if shape.rollout == LONG_HOLD:
            stage.until(lambda: stage.synced(revision, said), f"{name} in sync")
        else:
            stage.settle(shape, revision, said)
        seconds = time.monotonic() - began
    return Row(name, running.stop(), seconds)


def releases(stage: Stage, pace: Pace) -> Iterator[Row]:
    """Every strategy, every way back, more and fewer instances. It begins and ends with 1.0 alone."""
    yield released(stage, pace, "rolling", Shape("2.0", replicas=3, rollout="{surge: 1}"))
    yield released(stage, pace, "blue-green", Shape("1.1", rollout=HOLD))
    yield released(stage, pace, "canary", Shape("2.1", rollout=CANARY))
    yield released(stage, pace, "rollback, old ones gone", Shape("1.1", rollout=HOLD), stage.revert)
    before = Shape("1.1", rollout=LONG_HOLD)
    stage.settle(before, stage.release(before))
    after = replace(before, version="2.0")
    yield released(stage, pace, "blue-green, old ones held", after)
    yield released(stage, pace, "rollback while held", before, stage.revert)
    yield released(stage, pace, "rolling after a rollback", Shape("1.0"))
    yield released(stage, pace, "scale up", Shape("1.0", replicas=5))
    yield released(stage, pace, "scale down", Shape("1.0"))


def rolling(stage: Stage, pace: Pace, number: int) -> Row:
    """One more rolling release."""
    version = ("2.0", "1.1", "2.1", "1.0")[number % 4]
    return released(stage, pace, f"rolling again {number + 1}", Shape(version))


def proxy_killed(stage: Stage, pace: Pace) -> Row:
    """SIGKILL of HAProxy by the number of its first program, so that the engine starts it again by itself."""
    with asked(stage, pace.kinds()) as running:
        pid = int(stage.proxy()["State"]["Pid"])
        before = running.so_far()
        began = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        stage.until(lambda: stage.proxy()["State"]["Pid"] not in (0, pid), "the engine starts the proxy again")
        cut = back = running.so_far()
        while back.failed > cut.failed or back.answered == cut.answered:  # while it is away, clients fail all the time
            cut = back
            time.sleep(5 * LOOK)
            back = running.so_far()
        seconds = time.monotonic() - began
        time.sleep(2 * AFTER)
        revision = stage.release(Shape("2.0"), "after the kill of the proxy")
        stage.settle(Shape("2.0"), revision)
    tally = running.stop()
    return Row("proxy SIGKILL, then rolling", tally, seconds, cut=back.failed - before.failed)


def engine_restarted(stage: Stage, pace: Pace) -> Row:
    """dockerd ends by SIGTERM and starts again (live-restore), then a release. Its port forwarders end with it, so that
    these clients ask the proxy at its address in the private network."""
    with asked(stage, pace.kinds(), inside=True) as running:
        known = engine.read(stage.engine_directory)
        if known is None or known.dockerd is None:
            raise stage.lost("the engine is not ours")
        said, began = stage.said(), time.monotonic()
        engine.stop(known.dockerd)
        engine.revive(stage.engine_directory)
        seconds = time.monotonic() - began
        stage.settle(Shape("1.1"), stage.release(Shape("1.1"), "after the restart of the engine"), said)
    return Row("dockerd restart, then rolling", running.stop(), seconds)


def term_ignored(stage: Stage, pace: Pace) -> Row:
    """A version that ignores SIGTERM is replaced: it is killed after its grace. Its websockets would have to be cut."""
    deaf = Shape("1.0", env={"IGNORE_TERM": "1"})
    stage.settle(deaf, stage.release(deaf))
    with asked(stage, pace.kinds(websockets=False)) as running:
        said, began = stage.said(), time.monotonic()
        stage.settle(Shape("1.0"), stage.release(Shape("1.0")), said)
        seconds = time.monotonic() - began
    return Row("SIGTERM ignored", running.stop(), seconds, note="no websockets")


def backend() -> str:
    """The service's backend in the proxy."""
    return names.backend(ENVIRONMENT, "web")

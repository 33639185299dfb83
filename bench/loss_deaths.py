"""The daemon dies by SIGKILL at every failpoint that a release passes, one release each, and is started again at once.

The load runs throughout. A failpoint that no release of ours passes is a fault of this benchmark, which then ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from bench import load
from bench.loss_scenes import Pace, asked
from bench.loss_stage import HOST, Shape, Stage
from bench.loss_table import Row

_MOMENTS = ("before", "after")
_EFFECTS = (
    *("docker.{}_pull", "docker.{}_volume_create", "docker.{}_filler_create", "docker.{}_fill"),
    *("docker.{}_filler_remove", "docker.{}_create", "docker.{}_start", "docker.{}_terminate", "docker.{}_remove"),
    *("docker.{}_volume_remove", "proxy.{}_state", "proxy.{}_config", "proxy.{}_reload"),
)
FAILPOINTS = ("loop.after_intent", "loop.after_effect", *(each.format(when) for each in _EFFECTS for when in _MOMENTS))
"""Those of a release. Not among them: what makes or removes a network or the proxy itself, or names without a proxy."""
KILLS = ("docker.before_kill", "docker.after_kill")
"""Passed only where SIGTERM is ignored."""
_CYCLE = ("1.0", "2.0", "1.1", "2.1")
BRIEF = "{deadline: 300ms, tail: 800ms, grace: 2s}"
LONGEST = 900
"""Milliseconds that the endless requests take here: less than deadline and tail, so that none has to be cut."""


def deaths(stage: Stage, pace: Pace, tell: Callable[[str], None]) -> list[Row]:
    """One row for all failpoints with every kind, and one for the kill, which cuts websockets in any case."""
    begun = time.monotonic()
    with asked(stage, pace.kinds(longest=LONGEST)) as running:
        for number, failpoint in enumerate(FAILPOINTS):
            _die(stage, running, failpoint, _shape(failpoint, number), tell)
    rows = [Row(f"daemon SIGKILL at {len(FAILPOINTS)} failpoints", running.stop(), time.monotonic() - begun)]
    deaf = Shape("1.0", env={"IGNORE_TERM": "1"}, drain=BRIEF)
    stage.settle(deaf, stage.release(deaf))
    begun = time.monotonic()
    with asked(stage, pace.kinds(websockets=False, longest=LONGEST)) as running:
        for number, failpoint in enumerate(KILLS):
            _die(stage, running, failpoint, replace(deaf, version=_CYCLE[number + 1]), tell)
    seconds = time.monotonic() - begun
    stage.settle(Shape("1.0"), stage.release(Shape("1.0")))
    note = "no websockets"
    return [*rows, Row("daemon SIGKILL around the kill", running.stop(), seconds, note=note)]


def _shape(failpoint: str, number: int) -> Shape:
    """A version other than the one before. What concerns the proxy's configuration is passed when that changes.

    Then the proxy reloads, and idle clients, which ask once in 2.5 s, have as long as elsewhere for their last request.
    """
    version = _CYCLE[(number + 1) % len(_CYCLE)]
    if failpoint.startswith("proxy."):
        return Shape(version, hosts=f"[{HOST}, web{number}.example]")
    return Shape(version, drain=BRIEF)


def _die(stage: Stage, running: load.LoadThread, failpoint: str, shape: Shape, tell: Callable[[str], None]) -> None:
    before, began = running.so_far().failed, time.monotonic()
    stage.end()
    if "pull" in failpoint:
        stage.forget(shape.version)
    said = stage.said()
    stage.begin(failpoint)
    revision = stage.release(shape, failpoint)
    stage.until(lambda: stage.died() or stage.synced(revision, said), f"death at {failpoint}")
    if not stage.died():
        raise stage.lost(f"{failpoint} was not passed: it is no failpoint of a release")
    said = stage.said()
    stage.begin()
    stage.settle(shape, revision, said)
    failed = running.so_far().failed - before
    tell(f"daemon SIGKILL at {failpoint}: {failed} failed, {time.monotonic() - began:.1f} s")

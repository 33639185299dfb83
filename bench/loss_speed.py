"""How fast traffic moves: a change of weights until it is felt, and the way back to a version that is still held.

Each figure is from what clients saw, on the clock of their load; only the moment of a change is read from the proxy.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median, quantiles
from typing import Self

from bench import load
from bench.figure import Figure
from bench.fleet import pinned
from bench.loss_rolling import rolling
from bench.loss_scenes import LONG_HOLD, backend
from bench.loss_stage import ENVIRONMENT, Shape, Stage
from reconciler.adapters.haproxy_socket import ask
from reconciler.core import names

ROUNDS = 10
FELT_GOAL, BACK_GOAL = 50.0, 300.0
QUIET = 0.5
"""Seconds without an answer of the version that goes: then it is gone."""
_ADMIN, _WEIGHT, _ADDRESS = 6, 7, 4
_OUT = 1 | 8
"""Bits of a server's administrative state: maint and drain (management guide, `show servers state`)."""


def figures(stage: Stage, tell: Callable[[str], None]) -> list[Figure]:
    """All of them. The stage runs 1.0 before and after."""
    tell("weight changes and returns to a held version")
    found = _returns(stage)
    tell("rolling releases beside their unavoidable waits")
    return [*found, *rolling(stage)]


@dataclass(frozen=True)
class _Return:
    """Milliseconds: from the weights to the first answer; from the push, and from its arrival, to the last old one."""

    felt: float
    pushed: float
    hinted: float


def _returns(stage: Stage) -> list[Figure]:
    """Releases, each of them reverted as soon as it is promoted; the instances of 1.0 are held meanwhile."""
    base = Shape("1.0", rollout=LONG_HOLD)
    _promote(stage, base)
    found = []
    for number in range(ROUNDS):
        _promote(stage, replace(base, version=("2.0", "1.1", "2.1")[number % 3]))
        found.append(_return(stage, base))
    plain = Shape("1.0")
    stage.settle(plain, stage.release(plain))
    felt, pushed, hinted = ([getattr(one, name) for one in found] for name in ("felt", "pushed", "hinted"))
    p95 = quantiles(felt, n=20)[-1]
    shift = f"{ROUNDS} changes of weights, seen at the runtime socket -> first answer of that version at a client"
    back = f"git push of a revert, noticed by a file event -> last answer of the other version; {ROUNDS} times"
    hint = "the branch moved in the watched repository -> last answer of the other version"
    return [
        Figure("weight change felt, p50", median(felt), "ms", "", None, shift),
        Figure("weight change felt, p95", p95, "ms", f"<= {FELT_GOAL:g}", p95 <= FELT_GOAL, shift),
        Figure(
            "rollback while held, p50", median(pushed), "ms", f"<= {BACK_GOAL:g}", median(pushed) <= BACK_GOAL, back
        ),
        Figure("rollback while held, worst", max(pushed), "ms", f"<= {BACK_GOAL:g}", max(pushed) <= BACK_GOAL, back),
        Figure("rollback from the hint, p50", median(hinted), "ms", "", None, hint),
        Figure("rollback from the hint, worst", max(hinted), "ms", "", None, hint),
    ]


def _promote(stage: Stage, shape: Shape) -> None:
    said = stage.said()
    revision = stage.release(shape)
    stage.until(lambda: stage.synced(revision, said), f"{shape.version} in sync")


def _return(stage: Stage, shape: Shape) -> _Return:
    """One revert of the last commit, which brings back `shape`."""
    stage.house.git("revert", "--no-edit", "HEAD")
    wanted = _addresses(stage, shape.version)
    if not wanted:
        raise stage.lost(f"no instance of {shape.version} is held")
    said = stage.said()
    with stage.load(*_quick()) as running, _Eye(stage, wanted) as eye:
        running.reached(200, 10)
        started = running.so_far().started
        began = time.monotonic() - started
        stage.house.git("push", "-q", "origin", "main")
        moved = (stage.house.origin / "refs" / "heads" / "main").stat().st_mtime
        hint = moved - time.time() + time.monotonic() - started
        stage.until(lambda: _gone(running.so_far(), shape.version), "all answers of the version that came back")
    tally = running.stop()
    if tally.failed:
        raise stage.lost(f"requests failed in a return:\n{tally}")
    last = max(at for version, at in tally.last_seen.items() if version != shape.version)
    revision = stage.house.git("rev-parse", "HEAD")
    stage.until(lambda: stage.synced(revision, said), "the return in sync")
    felt = tally.first_seen[shape.version] + started - eye.moment
    return _Return(felt * 1000, (last - began) * 1000, (last - hint) * 1000)


def _quick() -> list[load.Kind]:
    """Some hundred requests a second, none of which takes long."""
    return [load.keep_alive(4, 100), load.new_connection(2, 50), load.http2(1, 4, 50)]


def _gone(tally: load.Tally, version: str) -> bool:
    now = time.monotonic() - tally.started
    return version in tally.first_seen and all(
        now - at > QUIET for other, at in tally.last_seen.items() if other != version
    )


def _addresses(stage: Stage, version: str) -> set[str]:
    image = pinned(stage.images[version])
    mine = [box for box in stage.instances() if box["Labels"][names.LABEL_IMAGE] == image]
    return {box["NetworkSettings"]["Networks"][names.network(ENVIRONMENT)]["IPAddress"] for box in mine}


class _Eye:
    """Looks at the proxy's table without a pause; `moment` is before the first look that shows weight at `wanted`."""

    def __init__(self, stage: Stage, wanted: set[str]) -> None:
        self.moment = 0.0
        self._socket = f"unix://{stage.house.directory}/data/proxy/{ENVIRONMENT}/admin.sock"
        self._wanted = wanted
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        before = time.monotonic()
        while not self._over.wait(0.001):
            began = time.monotonic()
            if self._shown():
                self.moment = before
                return
            before = began

    def _shown(self) -> bool:
        lines = ask(self._socket, f"show servers state {backend()}", 2.0).splitlines()
        rows = [words for words in map(str.split, lines) if len(words) > _WEIGHT and words[0].isdigit()]
        return any(
            row[_ADDRESS] in self._wanted and not int(row[_ADMIN]) & _OUT and int(row[_WEIGHT]) > 0 for row in rows
        )

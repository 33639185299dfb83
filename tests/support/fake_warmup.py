"""What a warm-up comes to at an instance of the fake world: counted, not waited for."""

from __future__ import annotations

import math
from collections import deque

from reconciler.adapters.warmup import p95
from reconciler.core.delivery import WarmUp
from reconciler.core.live import Warmth, WarmthStatus
from tests.support.fake_engine import FakeContainer

ANSWER = 0.001
"""Seconds that an answer takes where nothing delays it."""
PAUSE = 0.5


def usual(container: FakeContainer) -> float:
    """Seconds that a warm instance takes for an answer."""
    return ANSWER + container.setting("DELAY_MS", 0) / 1000


def outcome(container: FakeContainer, wanted: WarmUp, beside: float | None) -> tuple[float, Warmth]:
    """How long it takes, in seconds, and what it comes to. `beside` is the p95 of the stable version."""
    bound = wanted.p95.total_seconds() if wanted.p95 is not None else math.inf
    if wanted.relative is not None and beside is not None:
        bound = min(bound, wanted.relative * beside)
    cold, failing = container.setting("COLD_REQUESTS", 0), float(container.env.get("FAIL_PERCENT") or 0) / 100
    deadline = wanted.deadline.total_seconds()
    last: deque[float] = deque(maxlen=max(wanted.count, 1))
    elapsed, made = 0.0, 0
    while elapsed <= deadline and made <= cold + 1000 * wanted.count:
        made += 1
        container.asked += 1
        took = usual(container) + (container.setting("COLD_MS", 0) / 1000 if container.asked <= cold else 0)
        elapsed += took
        if int(container.asked * failing + 1e-9) > int((container.asked - 1) * failing + 1e-9):
            last.clear()
            elapsed += PAUSE
            continue
        last.append(took)
        if elapsed <= deadline and len(last) == last.maxlen and p95(last) <= bound:
            return elapsed, Warmth(WarmthStatus.WARM, made, p95(last), f"warm after {made} requests")
    return deadline, Warmth(WarmthStatus.FAILED, made, p95(last) if last else None, f"not warm after {deadline:g} s")

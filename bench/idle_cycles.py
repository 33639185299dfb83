"""`python -m bench.idle_cycles SETTINGS CYCLES`: reconciles that many times; prints CPU seconds, memory and the result.

A process of its own, so that nothing else is counted.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from reconciler import journal_access, settings, wiring
from reconciler.adapters.clock import SystemClock
from reconciler.core.live import HealthStatus, LiveState
from reconciler.core.model import Health
from reconciler.core.steps import RuntimeEffect
from reconciler.loop import Reconciler
from reconciler.ports import Cause, Runtime
from reconciler.redact import Redactor


class Healthy(Runtime):
    """A runtime whose running instances count as healthy: the stub has no service that could be asked."""

    def __init__(self, inner: Runtime) -> None:
        self._inner = inner

    def observe(
        self, environment: str, checks: Mapping[str, Health], images: Sequence[str], metered: Collection[str] = ()
    ) -> LiveState:
        """The inner one's answer, all healthy."""
        live = self._inner.observe(environment, dict.fromkeys(checks, Health()), images, metered)
        instances = tuple(replace(i, health=HealthStatus.HEALTHY) for i in live.instances)
        return replace(live, instances=instances)

    def apply(self, effect: RuntimeEffect) -> None:
        """An idle cycle has no effects."""
        raise SystemExit(f"not idle: {effect}")

    def logs(self, name: str, lines: int) -> tuple[str, ...]:
        """As the inner one."""
        return self._inner.logs(name, lines)

    def watch(self, notify: Callable[[str, str], None]) -> None:
        """As the inner one."""
        self._inner.watch(notify)

    def close(self) -> None:
        """As the inner one."""
        self._inner.close()


def main() -> None:
    """Adopt what is there in a first cycle, then measure."""
    found = settings.read(Path(sys.argv[1]))
    wiring.prepare_data(found)
    journal = journal_access.open_journal(found, SystemClock(), act=True)
    house = wiring.build_house(found, journal, Redactor())
    house = replace(house, runtimes={name: Healthy(inner) for name, inner in house.runtimes.items()})
    for runtime in house.runtimes.values():
        # As in the daemon: with the engine's events only what changed is inspected anew.
        runtime.watch(lambda *_: None)
    reconciler = Reconciler(house)
    cycle = None
    for _ in range(4):
        cycle = reconciler.reconcile("bench", [Cause("poll", house.clock.now(), git=True)])
    spent = []
    for _ in range(int(sys.argv[2])):
        begin = time.process_time()
        cycle = reconciler.reconcile("bench", [Cause("poll", house.clock.now(), git=True)])
        spent.append(time.process_time() - begin)
    assert cycle is not None
    plan = cycle.status.plan
    resident = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    print(
        json.dumps(
            {
                "cpu": spent,
                "rss": int(resident.split()[1]) / 1024,
                "synced": cycle.result == "synced" and not cycle.steps_done,
                "services": len(plan.services) if plan else 0,
                "reason": cycle.status.message,
            }
        )
    )
    sys.stdout.flush()
    reconciler.close()
    wiring.close_house(house)
    journal.close()


if __name__ == "__main__":
    main()

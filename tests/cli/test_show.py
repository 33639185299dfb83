"""What `status` and `plan` draw: at 80 columns nothing is squeezed, and a release says where it stands."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console, RenderableType

from reconciler.cli import progress, show
from reconciler.core.analysis import Verdict
from reconciler.core.delivery import Strategy
from reconciler.core.errors import Reason
from reconciler.core.gate import GateFinding
from reconciler.core.live import HealthStatus, Instance, Phase, Server, ServerMode, Warmth, WarmthStatus
from reconciler.core.memory import EnvironmentMemory, ServiceMemory
from reconciler.core.record import VersionRef
from reconciler.core.status import (
    EnvironmentStatus,
    Kept,
    Plan,
    Progress,
    Scale,
    ServiceHealth,
    ServicePlan,
    StageProgress,
    Sync,
    VersionTraffic,
)
from reconciler.core.steps import ShiftTraffic

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
OLD, NEW = (VersionRef(letter * 64, f"registry.test/web@sha256:{letter * 64}", letter * 40) for letter in "ab")
STAGE = StageProgress(2, 4, 25, NOW - timedelta(seconds=18), NOW + timedelta(seconds=42), gated=True)
SPLIT = (VersionTraffic(OLD.version, 0.75, 38, 4), VersionTraffic(NEW.version, 0.25, 2, 1))
CANARY = Progress(
    Strategy.CANARY,
    NOW - timedelta(minutes=3),
    stage=replace(STAGE, finding=GateFinding(Verdict.HOLD, "errors 0 of 34: too few requests, 100 are needed")),
    split=SPLIT,
)
INSTANCE = Instance(
    "i",
    "rec.production.web.bbbbbbbbbbbb.0",
    "web",
    NEW.version,
    "r",
    0,
    NEW.image,
    Phase.RUNNING,
    NOW,
    health=HealthStatus.HEALTHY,
    server=Server("10.0.0.2", 8080, ServerMode.READY, 26, up=True, sessions=2),
    warmth=Warmth(WarmthStatus.WARM, 20, 0.0123),
)
UNDER_WAY = ServicePlan(
    "web",
    Sync.OUT_OF_SYNC,
    ServiceHealth.PROGRESSING,
    waiting="the soak of stage 2 (25 %)",
    recheck_at=NOW + timedelta(seconds=8),
    desired=NEW,
    stable=OLD,
    replicas=4,
    instances=(INSTANCE,),
    progress=CANARY,
)
CALM = ServicePlan("db", Sync.SYNCED, ServiceHealth.HEALTHY, desired=OLD, stable=OLD, replicas=1)


def drawn(what: RenderableType, width: int = 80) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, markup=False, highlight=False, emoji=False).print(what)
    return out.getvalue().splitlines()


def statuses(
    *plans: ServicePlan, width: int = 80, instances: bool = False, environment: str = "production"
) -> list[str]:
    services: Mapping[str, ServicePlan] = {plan.service: plan for plan in plans}
    status = EnvironmentStatus(environment, NOW, plan=Plan(environment, None, services))
    known = ServiceMemory(stable=OLD, promoted_at=NOW - timedelta(hours=3))
    memory = EnvironmentMemory(services={"web": known})
    return drawn(show.statuses({environment: status}, {environment: memory}, NOW, instances=instances), width)


def under(*, width: int = 80, **changes: object) -> list[str]:
    """The lines below the row of a release that differs from CANARY in this."""
    return [
        line.removeprefix("    ")
        for line in statuses(replace(UNDER_WAY, progress=replace(CANARY, **changes)), width=width)[2:]  # type: ignore[arg-type]
    ]


def test_a_canary_under_way_at_80_columns() -> None:
    assert statuses(UNDER_WAY, CALM) == [
        "service         sync       health       version       instances  since",
        "production/db   Synced     Healthy      aaaaaaaaaaaa  0/1        -",
        "production/web  OutOfSync  Progressing  aaaaaaaaaaaa  1/4        3h",
        "    -> bbbbbbbbbbbb (web@bbbbbbbbbbbb)",
        "    canary, stage 2 of 4 (25 %) for 18s, soaks 42s more (until 12:00:42 UTC)",
        "    [===========####]  = aaaaaaaaaaaa 75 %, 38 open  # bbbbbbbbbbbb 25 %, 2 open",
        "    gate: hold: errors 0 of 34: too few requests, 100 are needed",
    ]


def test_a_wide_terminal_shows_the_image_and_a_longer_bar() -> None:
    lines = statuses(UNDER_WAY, width=200)
    assert lines[1].endswith("3h     web@aaaaaaaaaaaa")
    assert f"[{'=' * 30}{'#' * 10}]  = aaaaaaaaaaaa" in lines[4]


def test_a_narrow_terminal_breaks_lines_and_keeps_the_indentation() -> None:
    lines = statuses(replace(UNDER_WAY, reason=Reason.DRIFT_CHANGED, message="word " * 30), width=60)
    assert all(len(line) <= 60 for line in lines)
    assert lines[-4].startswith("    why: DriftChanged: word")
    assert lines[-1].startswith("    word")
    bar = next(place for place, line in enumerate(lines) if "[=" in line)
    assert lines[bar].endswith("]")
    assert lines[bar + 1].startswith("    = aaaaaaaaaaaa 75 %")


def test_a_long_name_has_a_line_of_its_own() -> None:
    lines = statuses(replace(CALM, service="a" * 60))
    assert lines[1] == f"production/{'a' * 60}"
    assert lines[2].split() == ["Synced", "Healthy", "aaaaaaaaaaaa", "0/1", "-"]


def test_a_pause_tells_what_to_type_and_only_once() -> None:
    paused = replace(
        UNDER_WAY,
        reason=Reason.PAUSED,
        message="paused at stage 2 (25 %)",
        waiting="a person: `reconciler promote` goes on",
        progress=replace(CANARY, stage=replace(STAGE, paused=True, gated=False)),
    )
    text = " ".join(" ".join(statuses(paused)).split())
    assert "canary, stage 2 of 4 (25 %) for 18s, paused: `reconciler promote production/web` goes on" in text
    assert text.count("paused") == 1
    assert text.count("`reconciler promote") == 1
    assert show.reason(paused) == ""
    assert progress.brief(paused) == ("canary, stage 2 of 4 (25 %), paused; aaaaaaaaaaaa 75 %, bbbbbbbbbbbb 25 %")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"stage": replace(STAGE, since=None)}, "canary, stage 2 of 4 (25 %): its instances are on their way"),
        ({"stage": replace(STAGE, until=NOW)}, "canary, stage 2 of 4 (25 %) for 18s, the soak is over"),
        (
            {"strategy": Strategy.BLUE_GREEN, "stage": StageProgress(1, 2, 0)},
            "blue-green, stage 1 of 2 (preview only): its instances are on their way",
        ),
        ({"stage": None}, "canary, under way for 3m"),
        ({"stage": None, "returning": NOW}, "going back to the stable version for 0s"),
    ],
)
def test_each_part_of_a_release_has_its_words(changes: dict[str, object], line: str) -> None:
    assert line in under(**changes)


def test_nobody_is_rounded_away() -> None:
    split = (VersionTraffic(OLD.version, 0.999, None, 4), VersionTraffic(NEW.version, 0.001, 0, 1))
    assert f"[{'=' * 14}#]  = aaaaaaaaaaaa >99 %, open ?  # bbbbbbbbbbbb <1 %, 0 open" in "\n".join(under(split=split))


def test_a_service_that_nobody_serves_is_plain_to_see() -> None:
    split = tuple(replace(each, share=0.0) for each in SPLIT)
    assert "no instance takes requests" in "\n".join(under(split=split, width=120))
    assert not any("[" in line for line in under(split=()))


def test_what_only_the_daemon_can_know_is_not_made_up() -> None:
    assert any(line.startswith("gate: only the daemon") for line in under(stage=STAGE))
    assert not any("gate" in line for line in under(stage=replace(STAGE, since=None)))


def test_an_instant_return_and_demand() -> None:
    kept = tuple(Kept(f"rec.production.web.{'a' * 12}.{n}", OLD.version, NOW + timedelta(days=1)) for n in range(2))
    calm = Progress(Strategy.ROLLING, split=SPLIT[:1], scale=Scale(3, 1, 10), kept=kept, queued=1200)
    lines = statuses(replace(UNDER_WAY, sync=Sync.SYNCED, desired=OLD, waiting="", progress=calm))
    assert lines[1].split()[4:6] == ["1/4", "(1-10)"]
    assert lines[2:] == [
        "    1,200 requests kept at the proxy until an instance is up",
        "    2 instances of aaaaaaaaaaaa kept for an instant return until 2026-01-03",
        "    12:00:00 UTC",
    ]
    held = replace(INSTANCE, name=kept[0].name)
    assert "0/4" in statuses(replace(UNDER_WAY, instances=(held,), progress=calm))[1]


def test_what_is_waited_for_has_a_line_with_its_time() -> None:
    waiting = replace(UNDER_WAY, waiting="rec.production.web.bbbbbbbbbbbb.0 to become healthy", progress=None)
    assert statuses(waiting)[-2:] == [
        "    waits for rec.production.web.bbbbbbbbbbbb.0 to become healthy; looks again",
        "    in 8s",
    ]
    assert show.reason(waiting) == "waits for rec.production.web.bbbbbbbbbbbb.0 to become healthy"
    assert progress.brief(waiting) == ""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "running healthy, ready 26, 2 open, warm (p95 12.3 ms)"),
        ({"server": None, "warmth": None, "phase": Phase.EXITED, "detail": "exit code 1"}, "exited, exit code 1"),
        (
            {
                "server": Server("a", 1, ServerMode.DRAIN, 26, up=False, sessions=None, even=False),
                "warmth": Warmth(WarmthStatus.RUNNING, 1),
            },
            "running healthy, drain, down, open ?, the proxies differ, warming up (1 request)",
        ),
        (
            {"server": None, "warmth": Warmth(WarmthStatus.FAILED, 3, said="too slow")},
            "running healthy, not warm: too slow",
        ),
        ({"server": None, "warmth": Warmth(WarmthStatus.WARM)}, "running healthy, warm"),
    ],
)
def test_each_instance_on_request(changes: dict[str, object], said: str) -> None:
    plan = replace(UNDER_WAY, instances=(replace(INSTANCE, **changes),))  # type: ignore[arg-type]
    assert statuses(plan, width=200, instances=True)[-1] == f"    {INSTANCE.name}  {said}"
    assert INSTANCE.name not in "".join(statuses(plan))


def test_a_plan_shows_the_release_its_instances_and_the_next_steps() -> None:
    shift = ShiftTraffic("rec.production.web", "web", ())
    plan = Plan("production", None, {"web": replace(UNDER_WAY, steps=(shift,)), "db": CALM})
    lines = drawn(show.planned(EnvironmentStatus("production", NOW, plan=plan)))
    assert lines[0] == "production (changes)"
    assert "    canary, stage 2 of 4 (25 %) for 18s, soaks 42s more (until 12:00:42 UTC)" in lines
    assert f"    {INSTANCE.name}  running healthy, ready 26, 2 open, warm" in lines
    assert "    (p95 12.3 ms)" in lines
    assert "    + shift the traffic of rec.production.web: nobody" in lines

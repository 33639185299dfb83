"""Values as JSON: everything shows, nothing secret does, and it is JSON whatever is inside."""

import json
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core import render
from reconciler.core.analysis import Verdict
from reconciler.core.delivery import Strategy, WarmRequest, WarmUp
from reconciler.core.errors import Reason
from reconciler.core.gate import GateFinding
from reconciler.core.live import (
    Difference,
    HealthStatus,
    Instance,
    Phase,
    Served,
    Server,
    ServerMode,
    Warmth,
    WarmthStatus,
)
from reconciler.core.model import File, ImageRef, Port, Revision, SecretTarget, SecretUse, ServiceSpec
from reconciler.core.record import Entry, Record, VersionRef, What
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
from reconciler.core.steps import (
    CreateInstance,
    DetachTraffic,
    EnsureProxy,
    PullImage,
    Share,
    ShiftTraffic,
    TerminateInstance,
    Transition,
    WarmInstance,
)

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
VERSION = VersionRef("ab" * 32, "r.test/web@sha256:" + "a" * 64, "c" * 40)
REVISION = Revision("c" * 40, ("d" * 40,), "A <a@x.test>", "B <b@x.test>", AT, "subject")
SPEC = ServiceSpec(
    "web",
    ImageRef("r.test/web", "sha256:" + "a" * 64, "1"),
    env={"PASSWORD": "hunter2hunter2", "A": "b"},
    files=(File("/etc/app", b"hidden content"),),
    secrets=(SecretUse("db", SecretTarget.ENV, "DB"),),
    ports=(Port("http", 80, host=8080),),
)
INSTANCE = Instance(
    id="i1",
    name="rec.prod.web.abab.0",
    service="web",
    version="ab" * 32,
    revision="c" * 40,
    ordinal=0,
    image="sha256:x",
    phase=Phase.RUNNING,
    created_at=AT,
    started_at=AT,
    health=HealthStatus.HEALTHY,
    differences=(Difference(Reason.DRIFT_FILESYSTEM, "/etc/passwd changed"),),
)
SERVICE = ServicePlan(
    "web",
    Sync.OUT_OF_SYNC,
    ServiceHealth.PROGRESSING,
    steps=(PullImage("x"), Transition(What.PROMOTED, {"at": AT}, "Because")),
    waiting="for health",
    recheck_at=AT,
    reason=Reason.UNHEALTHY,
    message="m",
    desired=VERSION,
    replicas=1,
    instances=(INSTANCE,),
)
PLAN = Plan("prod", REVISION, {"web": SERVICE, "api": ServicePlan("api", Sync.SYNCED, ServiceHealth.HEALTHY)})


class Colour(Enum):
    RED = timedelta(seconds=1)


class Odd:
    def __str__(self):
        return "odd"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None),
        (True, True),
        (1.5, 1.5),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        ("x", "x"),
        (Reason.UNHEALTHY, "Unhealthy"),
        (Colour.RED, 1.0),
        (AT, "2026-01-02T03:04:05Z"),
        (AT.astimezone(timezone(timedelta(hours=2))), "2026-01-02T03:04:05Z"),
        (timedelta(minutes=1), 60.0),
        (b"secret", "(6 bytes)"),
        ({1: (2, [3])}, {"1": [2, [3]]}),
        ({"b", "a"}, ["a", "b"]),
        (frozenset({2, 1}), [1, 2]),
        (Odd(), "odd"),
    ],
)
def test_any_value_has_a_plain_form(value, shown):
    assert render.plain(value) == shown


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text() | st.binary() | st.datetimes(timezones=st.just(UTC)),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner),
        max_leaves=10,
    )
)
def test_the_plain_form_is_json(value):
    json.dumps(render.plain(value), allow_nan=False)


def test_no_time_and_no_version_stay_none():
    assert render.time(None) is None
    assert render.version(None) is None
    assert render.revision(None) is None


def test_a_specification_shows_names_and_hashes_only():
    text = json.dumps(render.step(CreateInstance("n", "prod", SPEC, "ab" * 32, "c" * 40, 0)))
    assert "hunter2" not in text
    assert "hidden content" not in text
    shown = json.loads(text)
    assert shown["effect"] == "CreateInstance"
    assert shown["spec"]["env"] == ["A", "PASSWORD"]
    assert shown["spec"]["secrets"] == ["db"]
    assert shown["spec"]["files"][0]["path"] == "/etc/app"
    assert shown["spec"]["image"] == "r.test/web:1@sha256:" + "a" * 64
    assert shown["spec"]["ports"] == [
        {"name": "http", "container": 80, "protocol": "tcp", "host": 8080, "address": "127.0.0.1"}
    ]


@pytest.mark.parametrize(
    ("step", "shown"),
    [
        (PullImage("x"), {"effect": "PullImage", "image": "x"}),
        (TerminateInstance("n", keep=True), {"effect": "TerminateInstance", "name": "n", "keep": True}),
        (DetachTraffic("n", "web"), {"effect": "DetachTraffic", "name": "n", "service": "web"}),
        (
            ShiftTraffic("rec.prod.web", "web", (Share("n", "10.0.0.2", 80, ServerMode.READY, 100),), 1),
            {
                "effect": "ShiftTraffic",
                "name": "rec.prod.web",
                "service": "web",
                "shares": [{"name": "n", "address": "10.0.0.2", "port": 80, "mode": "ready", "weight": 100}],
                "stage": 1,
            },
        ),
        (
            EnsureProxy("prod", "d" * 64, "global\n"),
            {"effect": "EnsureProxy", "environment": "prod", "config": "d" * 64},
        ),
        (
            WarmInstance("n", 80, WarmUp((WarmRequest("/", headers=(("Authorization", "hunter2"),)),))),
            {"effect": "WarmInstance", "name": "n", "port": 80, "beside": ""},
        ),
        (
            Transition(What.PROMOTED, {"at": AT}, "Because"),
            {"transition": "Promoted", "reason": "Because", "details": {"at": "2026-01-02T03:04:05Z"}},
        ),
    ],
)
def test_steps_show_their_parameters(step, shown):
    assert render.step(step) == shown


def test_every_field_of_an_instance_shows():
    shown = render.instance(INSTANCE)
    assert len(shown) == len(fields(Instance))
    assert shown["createdAt"] == "2026-01-02T03:04:05Z"
    assert shown["finishedAt"] is None
    assert shown["differences"] == [{"reason": "DriftFilesystem", "detail": "/etc/passwd changed"}]


def test_an_instance_shows_its_place_and_its_warm_up():
    server = Server("10.0.0.2", 80, ServerMode.DRAIN, 26, up=True, sessions=None, served=Served(9, 2), even=False)
    shown = render.instance(replace(INSTANCE, server=server, warmth=Warmth(WarmthStatus.WARM, 20, 0.01, "warm")))
    assert shown["server"] == {
        "address": "10.0.0.2",
        "port": 80,
        "mode": "drain",
        "weight": 26,
        "up": True,
        "sessions": None,
        "requests": 9,
        "errors": 2,
        "even": False,
    }
    assert shown["preview"] is None
    assert shown["warmth"] == {"status": "warm", "requests": 20, "p95": 0.01, "said": "warm"}
    assert render.instance(INSTANCE)["warmth"] is None


def test_progress_shows_all_of_it():
    stage = StageProgress(2, 4, 25, AT, AT, paused=True, gated=True)
    progress = Progress(
        Strategy.CANARY,
        AT,
        stage=stage,
        split=(VersionTraffic("ab", 1 / 3, 7, 2),),
        scale=Scale(3, 1, 10),
        kept=(Kept("n", "ab", AT),),
        queued=5,
    )
    shown = render.progress(progress)
    at = "2026-01-02T03:04:05Z"
    assert len(shown) == len(fields(Progress))
    assert (shown["strategy"], shown["startedAt"], shown["returningSince"], shown["queued"]) == ("canary", at, None, 5)
    assert shown["stage"] == {
        "number": 2,
        "of": 4,
        "weight": 25,
        "since": at,
        "until": at,
        "paused": True,
        "gate": {"verdict": None, "said": "", "seen": {}},
    }
    assert shown["split"] == [{"version": "ab", "percent": 33.33, "sessions": 7, "places": 2}]
    assert shown["scaling"] == {"count": 3, "min": 1, "max": 10}
    assert shown["kept"] == [{"name": "n", "version": "ab", "until": at}]
    asked = replace(stage, finding=GateFinding(Verdict.HOLD, "too few", {"errors": {"verdict": "hold"}}))
    seen = {"verdict": "hold", "said": "too few", "seen": {"errors": {"verdict": "hold"}}}
    assert render.stage(asked)["gate"] == seen
    assert render.stage(replace(stage, gated=False))["gate"] is None
    bare = render.progress(Progress(Strategy.ROLLING))
    assert (bare["stage"], bare["scaling"], bare["split"], bare["kept"]) == (None, None, [], [])
    assert render.progress(None) is None


def test_a_plan_shows_its_services_in_order():
    shown = render.plan(PLAN)
    assert list(shown["services"]) == ["api", "web"]
    assert shown["inSync"] is False
    assert shown["revision"]["subject"] == "subject"
    web = shown["services"]["web"]
    assert len(web) == len(fields(ServicePlan))
    assert (web["sync"], web["health"], web["reason"]) == ("OutOfSync", "Progressing", "Unhealthy")
    assert web["desired"] == {"version": "ab" * 32, "image": VERSION.image, "revision": "c" * 40}
    assert [next(iter(step)) for step in web["steps"]] == ["effect", "transition"]


def test_a_status_shows_with_and_without_a_plan():
    bare = EnvironmentStatus("prod", AT, reason=Reason.BRANCH_MISSING, message="m", problems={"web": ("a:1:1: x",)})
    shown = render.environment_status(bare)
    assert shown["plan"] is None
    assert shown["lastSuccessAt"] is None
    assert (shown["reason"], shown["problems"]) == ("BranchMissing", {"web": ["a:1:1: x"]})
    assert render.environment_status(EnvironmentStatus("prod", AT, plan=PLAN))["plan"] == render.plan(PLAN)
    assert render.environment_status(EnvironmentStatus("prod", AT))["reason"] is None


def test_a_record_shows_all_of_its_entry():
    entry = Entry(AT, What.PROMOTED, "prod", "web", None, VERSION, duration=timedelta(seconds=2), details={"x": {1}})
    shown = render.record(Record(7, 2, "p", "h", entry))
    # `entry` is taken apart, and `body` holds the same once more.
    assert len(shown) == len(fields(Record)) - 2 + len(fields(Entry))
    assert (shown["index"], shown["from"], shown["durationSeconds"], shown["details"]) == (7, None, 2.0, {"x": [1]})
    assert shown["to"]["image"] == VERSION.image
    assert render.record(Record(1, 1, "", "", Entry(AT, What.STALLED)))["durationSeconds"] is None

"""The running server keeps to its own description: schemathesis asks everything the description allows, and more."""

from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, assume, given, settings
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig

from reconciler.core.analysis import Verdict
from reconciler.core.delivery import Strategy
from reconciler.core.gate import GateFinding
from reconciler.core.live import Instance, Phase, Server, ServerMode, Warmth, WarmthStatus
from reconciler.core.status import Kept, Progress, Scale, StageProgress, VersionTraffic
from reconciler.core.steps import Share, ShiftTraffic
from reconciler.web.app import create_app
from reconciler.web.openapi import document
from tests.support.webhouse import TOKEN, entry, running, status


def released(environment):
    """A status of a service with everything that a release and a proxy can show."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    server = Server("10.0.0.2", 80, ServerMode.READY, 26, up=True, sessions=None)
    instance = Instance("i", "n", "web0", "ab" * 32, "r", 0, "image", Phase.RUNNING, at, server=server, cpu=0.5)
    finding = GateFinding(Verdict.HOLD, "too few", {"errors": {"verdict": "hold"}})
    progress = Progress(
        Strategy.CANARY,
        at,
        at,
        StageProgress(1, 3, 5, at, at, gated=True, finding=finding),
        (VersionTraffic("ab" * 32, 0.95, 7, 2), VersionTraffic("cd" * 32, 0.05, None, 1)),
        Scale(2, 0, 5),
        (Kept("n", "ab" * 32, at),),
        3,
    )
    found = status(environment)
    web = replace(
        found.plan.services["web0"],
        progress=progress,
        instances=(
            instance,
            replace(instance, server=None, preview=server, warmth=Warmth(WarmthStatus.WARM, 20, 0.01)),
        ),
        steps=(ShiftTraffic("rec.x.web0", "web0", (Share("n", "10.0.0.2", 80, ServerMode.READY, 1),)),),
    )
    ungated = replace(web, progress=replace(progress, stage=StageProgress(1, 2, 0), scale=None))
    unseen = replace(web, progress=replace(progress, stage=StageProgress(1, 2, 5, gated=True)))
    return replace(found, plan=replace(found.plan, services={"web0": web, "web1": ungated, "web2": unseen}))


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    with running(tmp_path_factory.mktemp("house")) as it:
        it.board.publish(status("github-production", services=2))
        it.board.publish(released("github-staging"))
        it.board.publish(status("gogs-production", plan=None, message="no"))
        it.journal.append(*(entry(number) for number in range(20)))
        yield it


@pytest.fixture(scope="module")
def api(house):
    return schemathesis.openapi.from_dict(document(), config=SchemathesisConfig.from_dict({"base-url": house.base}))


OPERATIONS = [
    (path, method.upper(), mode)
    for path, methods in document()["paths"].items()
    for method, operation in methods.items()
    for mode in GenerationMode
    # Where nothing can be given, nothing can be given wrongly.
    if mode.is_positive or operation.get("parameters")
]


@pytest.mark.parametrize(("path", "method", "mode"), OPERATIONS)
def test_the_server_keeps_to_its_description(api, house, path, method, mode):
    """Status, headers and content of each answer are as described, to fitting and to unfitting questions alike."""

    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=api[path][method].as_strategy(generation_mode=mode))
    def ask(case):
        # An empty list or object has no place in a URL: what was to be wrong with it would not be asked.
        url = requests.Request(method, house.base, params=case.query).prepare().url
        assume({name for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True)} == set(case.query or ()))
        case.call_and_validate(headers={"Authorization": f"Bearer {TOKEN.decode()}"}, timeout=60)

    ask()


def test_every_route_is_described_and_served_as_described(house):
    assert house.client.get("/api/v1/openapi.json").json() == document()
    served = {(route.path, method) for route in create_app(house.house).routes for method in route.methods - {"HEAD"}}
    described = {(path, method.upper()) for path, methods in document()["paths"].items() for method in methods}
    assert served == described


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/v1/environments", 200),
        ("/api/v1/environments/github-production", 200),
        ("/api/v1/environments/github-production/plan", 200),
        ("/api/v1/environments/github-staging", 200),
        ("/api/v1/environments/github-staging/plan", 200),
        ("/api/v1/records?limit=5", 200),
        ("/api/v1/records/1", 200),
        ("/readyz", 200),
    ],
)
def test_answers_with_content_fit_their_schemas(house, api, path, expected):
    """Generated names seldom hit what exists: these do."""
    answer = house.client.get(path)
    assert answer.status_code == expected
    named = path.split("?")[0].replace("github-production", "{name}").replace("github-staging", "{name}")
    template = named.replace("records/1", "records/{index}")
    api[template]["GET"].validate_response(answer)

"""The running server keeps to its own description: schemathesis asks everything the description allows, and more."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig

from reconciler.web.app import create_app
from reconciler.web.openapi import document
from tests.support.webhouse import TOKEN, entry, running, status


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    with running(tmp_path_factory.mktemp("house")) as it:
        it.board.publish(status("github-production", services=2))
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
def test_the_server_keeps_to_its_description(api, path, method, mode):
    """Status, headers and content of each answer are as described, to fitting and to unfitting questions alike."""

    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=api[path][method].as_strategy(generation_mode=mode))
    def ask(case):
        case.call_and_validate(headers={"Authorization": f"Bearer {TOKEN.decode()}"}, timeout=20)

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
        ("/api/v1/records?limit=5", 200),
        ("/api/v1/records/1", 200),
        ("/readyz", 200),
    ],
)
def test_answers_with_content_fit_their_schemas(house, api, path, expected):
    """Generated names seldom hit what exists: these do."""
    answer = house.client.get(path)
    assert answer.status_code == expected
    template = path.split("?")[0].replace("github-production", "{name}").replace("records/1", "records/{index}")
    api[template]["GET"].validate_response(answer)

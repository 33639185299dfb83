"""What a Gateway says of a route (`status.parents`): whether requests are led as declared, and why not."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.kubernetes_objects import Gateway, route_objects
from reconciler.core.kubernetes_read import Seen, live_state, slim
from reconciler.core.kubernetes_read_routes import refusal
from tests.support.kube_answers import answered
from tests.support.kube_specs import PLACE, RICH, VERSION, lead

Said = dict[str, tuple[int, str]]
PUBLIC = {"kind": "Gateway", "name": "public", "namespace": "gateways", "sectionName": "https"}
WELL: Said = {"Accepted": (3, "True"), "ResolvedRefs": (3, "True"), "PartiallyInvalid": (3, "False")}
WHERE = "Gateway public, HTTPRoute web: "
NOTHING = f"{WHERE}it has said nothing yet; is there such a Gateway, and who serves it?"
UNSAID = f"{WHERE}it has not said yet whether it takes the last change"
NOW = datetime(2026, 1, 1, 1, tzinfo=UTC)


def way(*parents: tuple[object, Said]) -> dict:
    """A route of the generation 3 and what its status has."""
    objects = route_objects(lead(RICH, {VERSION: 100}), PLACE, Gateway("public", "gateways", "https"))
    found = answered(next(each for each in objects if each["kind"] == "HTTPRoute"))
    found["metadata"]["generation"] = 3
    found["status"] = {"parents": [{"parentRef": place, "conditions": _conditions(said)} for place, said in parents]}
    return found


def _conditions(said: Said) -> list[dict]:
    more = {"reason": "Why", "message": "x\ny"}
    return [
        {"type": kind, "status": status, "observedGeneration": seen, **more} for kind, (seen, status) in said.items()
    ]


@pytest.mark.parametrize(
    "said",
    [
        WELL,
        {"Accepted": (3, "True")},
        # What was said of an earlier generation, and not taken back since, says nothing of this one.
        {"Accepted": (3, "True"), "ResolvedRefs": (2, "False")},
        {"Accepted": (3, "True"), "PartiallyInvalid": (2, "True")},
    ],
)
def test_a_route_that_its_gateway_takes(said: Said) -> None:
    assert refusal(way((PUBLIC, said))) == ""
    assert refusal(way((PUBLIC, {"Accepted": (3, "False")}), (PUBLIC, said))) == ""


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({}, UNSAID),
        ({"Accepted": (2, "True"), "ResolvedRefs": (2, "True")}, UNSAID),
        ({"Accepted": (3, "False")}, f"{WHERE}Accepted is False (Why): x y"),
        ({"Accepted": (3, "True"), "ResolvedRefs": (3, "False")}, f"{WHERE}ResolvedRefs is False (Why): x y"),
        ({"Accepted": (3, "True"), "PartiallyInvalid": (3, "True")}, f"{WHERE}PartiallyInvalid is True (Why): x y"),
    ],
)
def test_why_a_gateway_does_not_take_a_route(said: Said, why: str) -> None:
    assert refusal(way((PUBLIC, said))) == why


def test_what_is_said_for_another_gateway_or_listener_does_not_count() -> None:
    assert refusal(way()) == NOTHING
    for other in ({"sectionName": "http"}, {"namespace": "prod"}, {"name": "private"}):
        assert refusal(way(({**PUBLIC, **other}, WELL))) == NOTHING


def test_a_gateway_without_a_namespace_is_in_that_of_the_route() -> None:
    found = way(({"name": "public"}, WELL))
    found["spec"]["parentRefs"] = [{"name": "public", "namespace": PLACE.namespace}]
    assert refusal(found) == ""


def test_it_is_told_of_the_service_also_by_what_is_kept_of_the_route() -> None:
    objects = [answered(each) for each in route_objects(lead(RICH, {VERSION: 100}), PLACE, Gateway("public"))]
    services = [each for each in objects if each["kind"] == "Service"]
    for found, why in ((way((PUBLIC, WELL)), ""), (way(), NOTHING)):
        seen = Seen(services=[slim(each) for each in services], routes=[slim(found)])
        live = live_state(seen, PLACE.owner, "production", NOW, {}, [])
        assert live.routes["web"].refusal == why
    alone = live_state(Seen(services=services), PLACE.owner, "production", NOW, {}, [])
    assert alone.routes["web"].refusal == ""


@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from(["metadata", "spec", "status"]), st.recursive(st.none() | st.text(), st.lists)))
def test_nothing_strange_raises(strange: dict[str, object]) -> None:
    assert refusal({**way((PUBLIC, WELL)), **strange}) is not None

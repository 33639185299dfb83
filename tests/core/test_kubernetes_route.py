"""Services and the routes of a Gateway: who gets the requests, by which address, and what must not be left over."""

from __future__ import annotations

import re
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.delivery import RouteMode
from reconciler.core.kubernetes_labels import Ref, ref
from reconciler.core.kubernetes_objects import Gateway, must_be_remade, route_objects, unwanted_of_route
from reconciler.core.model import Port, ServiceSpec
from reconciler.core.steps import RouteGroups
from tests.support.kube_answers import answered
from tests.support.kube_specs import OTHER, PLACE, PLAIN, RICH, VERSION, lead, specs

GATEWAY = Gateway("public", "gateways", "https")
MINE, THEIRS = "web-" + "a" * 12, "web-" + "b" * 12
SELECTED = {
    "dev.reconciler.owner": "default",
    "dev.reconciler.environment": "production",
    "dev.reconciler.service": "web",
}


def objects(effect: RouteGroups, gateway: Gateway | None = GATEWAY) -> dict[Ref, dict]:
    return {ref(each): each for each in route_objects(effect, PLACE, gateway)}


def refs(effect: RouteGroups, gateway: Gateway | None = GATEWAY) -> list[str]:
    return [f"{each['kind']}/{each['metadata']['name']}" for each in route_objects(effect, PLACE, gateway)]


def test_a_service_leads_to_all_instances_when_they_are_mixed() -> None:
    found = objects(lead(RICH, {"": 100}, mixed=True), None)
    assert list(found) == [Ref("Service", "web")]
    assert found[Ref("Service", "web")]["spec"] == {
        "type": "ClusterIP",
        "selector": SELECTED,
        "ports": [
            {"name": "http", "port": 8080, "targetPort": 8080, "protocol": "TCP"},
            {"name": "a-long-name-for-a-port", "port": 9090, "targetPort": 9090, "protocol": "TCP"},
            {"name": "dns", "port": 53, "targetPort": 53, "protocol": "UDP"},
        ],
    }


def test_without_a_gateway_the_service_selects_the_one_that_has_it_all() -> None:
    found = objects(lead(RICH, {VERSION: 100, OTHER: 0}), None)
    assert found[Ref("Service", "web")]["spec"]["selector"] == {**SELECTED, "dev.reconciler.group": MINE}
    nobody = objects(lead(RICH, {}), None)
    assert nobody[Ref("Service", "web")]["spec"]["selector"]["dev.reconciler.group"] == "0"


def test_a_gateway_splits_by_weight_and_shows_a_preview() -> None:
    effect = lead(RICH, {VERSION: 10, OTHER: 90}, preview=MINE)
    assert refs(effect) == [
        f"Service/{MINE}",
        f"Service/{THEIRS}",
        "Service/web",
        "HTTPRoute/web",
        "HTTPRoute/web.preview",
    ]
    found = objects(effect)
    assert found[Ref("Service", MINE)]["spec"]["selector"]["dev.reconciler.group"] == MINE
    # Who comes past the gateway gets the version with the larger share.
    assert found[Ref("Service", "web")]["spec"]["selector"]["dev.reconciler.group"] == THEIRS
    assert found[Ref("HTTPRoute", "web")]["spec"] == {
        "hostnames": ["www.example.org", "*.shop.example.org"],
        "parentRefs": [
            {
                "group": "gateway.networking.k8s.io",
                "kind": "Gateway",
                "name": "public",
                "namespace": "gateways",
                "sectionName": "https",
            }
        ],
        "rules": [
            {
                "matches": [
                    {"path": {"type": "PathPrefix", "value": "/"}},
                    {"path": {"type": "PathPrefix", "value": "/api"}},
                ],
                "backendRefs": [
                    {"group": "", "kind": "Service", "name": MINE, "port": 8080, "weight": 10},
                    {"group": "", "kind": "Service", "name": THEIRS, "port": 8080, "weight": 90},
                ],
                "timeouts": {"request": "1m30s500ms"},
            }
        ],
    }
    preview = found[Ref("HTTPRoute", "web.preview")]["spec"]
    assert preview["hostnames"] == ["next.example.org"]
    assert [each["name"] for each in preview["rules"][0]["backendRefs"]] == [MINE]


def test_a_gateway_before_mixed_instances_leads_to_the_one_service() -> None:
    effect = lead(RICH, {"": 100}, mixed=True, preview="web")
    assert refs(effect) == ["Service/web", "HTTPRoute/web"]
    backends = objects(effect)[Ref("HTTPRoute", "web")]["spec"]["rules"][0]["backendRefs"]
    assert [(each["name"], each["weight"]) for each in backends] == [("web", 1)]


def test_the_group_for_all_versions_has_a_service_of_another_name() -> None:
    found = objects(lead(RICH, {"": 90, VERSION: 10}))
    name = "web-" + "0" * 12
    assert found[Ref("Service", name)]["spec"]["selector"]["dev.reconciler.group"] == "web"
    assert found[Ref("Service", "web")]["spec"]["selector"]["dev.reconciler.group"] == "web"
    backends = found[Ref("HTTPRoute", "web")]["spec"]["rules"][0]["backendRefs"]
    assert {each["name"]: each["weight"] for each in backends} == {name: 90, MINE: 10}


def test_no_route_is_made_for_a_service_without_one_or_for_tcp() -> None:
    tcp = replace(RICH, route=replace(RICH.route, mode=RouteMode.TCP))
    for spec in (replace(RICH, route=None), tcp):
        assert refs(lead(spec, {VERSION: 100})) == ["Service/web"]


def test_no_preview_without_an_address_or_a_group() -> None:
    hidden = replace(RICH, route=replace(RICH.route, preview="", hosts=()))
    found = objects(lead(hidden, {VERSION: 100}, preview=MINE), Gateway("public"))
    assert Ref("HTTPRoute", "web.preview") not in found
    assert found[Ref("HTTPRoute", "web")]["spec"].keys() == {"parentRefs", "rules"}
    assert found[Ref("HTTPRoute", "web")]["spec"]["parentRefs"] == [
        {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "public"}
    ]
    assert Ref("HTTPRoute", "web.preview") not in objects(lead(RICH, {VERSION: 100}, preview="web-gone"))


def test_a_route_to_a_port_that_is_not_declared_gets_one() -> None:
    spec = replace(RICH, ports=(Port("dns", 8080, "udp"),))
    ports = objects(lead(spec, {"": 100}, mixed=True))[Ref("Service", "web")]["spec"]["ports"]
    assert ports[1] == {"name": "8080-traffic", "port": 8080, "targetPort": 8080, "protocol": "TCP"}


def test_a_service_without_ports_is_a_name_for_addresses() -> None:
    without = objects(lead(PLAIN, {"": 100}, mixed=True), None)[Ref("Service", "plain")]
    with_one = objects(lead(replace(PLAIN, ports=(Port("a", 1),)), {"": 100}, mixed=True), None)[
        Ref("Service", "plain")
    ]
    assert without["spec"]["clusterIP"] == "None"
    assert "ports" not in without["spec"]
    given_address = {**with_one, "spec": {**with_one["spec"], "clusterIP": "10.0.0.1"}}
    assert must_be_remade(without, with_one)
    assert must_be_remade(given_address, without)
    assert not must_be_remade(without, without)
    assert not must_be_remade(given_address, with_one)
    assert not must_be_remade({}, {"kind": "HTTPRoute", "spec": {}})


def test_what_is_left_over_goes_routes_first_and_the_name_last() -> None:
    before = [
        answered(each) for each in route_objects(lead(RICH, {VERSION: 10, OTHER: 90}, preview=MINE), PLACE, GATEWAY)
    ]
    other = [answered(each) for each in route_objects(lead(PLAIN, {"": 100}, mixed=True), PLACE, None)]
    strange = {"kind": "Ingress", "metadata": {"name": "web", "labels": {"dev.reconciler.service": "web"}}}
    live = [*before, *other, strange]
    after = route_objects(lead(RICH, {VERSION: 100}), PLACE, GATEWAY)
    assert unwanted_of_route(after, "web", live) == (Ref("HTTPRoute", "web.preview"), Ref("Service", THEIRS))
    assert unwanted_of_route((), "web", live) == (
        Ref("HTTPRoute", "web.preview"),
        Ref("HTTPRoute", "web"),
        Ref("Service", MINE),
        Ref("Service", THEIRS),
        Ref("Service", "web"),
    )


@settings(max_examples=40)
@given(specs, st.booleans(), st.booleans())
def test_names_of_services_and_ports_are_valid(spec: ServiceSpec, mixed: bool, exact: bool) -> None:
    found = route_objects(lead(spec, {VERSION: 1, OTHER: 99}, mixed=mixed), PLACE, GATEWAY if exact else None)
    assert found == route_objects(lead(spec, {VERSION: 1, OTHER: 99}, mixed=mixed), PLACE, GATEWAY if exact else None)
    for each in found:
        name = each["metadata"]["name"]
        if each["kind"] == "Service":
            assert re.fullmatch(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?", name)
            ports = each["spec"].get("ports", [])
            assert len({port["name"] for port in ports}) == len(ports)
            assert all(re.fullmatch(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", port["name"]) for port in ports)
        else:
            assert re.fullmatch(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?", name)

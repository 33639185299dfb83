"""What the operator allows: every loosening field, with and without its permission."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.core.delivery import Gate, Query, Rollout, Route, RouteMode, Volume
from reconciler.core.model import ImageRef, Port, Security, ServiceSpec
from reconciler.core.policy import Allow, Denial, denials

IMAGE = ImageRef("r/web", "sha256:" + "a" * 64)


def service(security: Security = Security(), ports: tuple[Port, ...] = (), **more: Any) -> ServiceSpec:  # noqa: B008
    return ServiceSpec("web", IMAGE, security=security, ports=ports, **more)


def listening(port: int) -> ServiceSpec:
    return service(route=Route(8080, RouteMode.TCP, listen=port))


def gated(*queries: Query) -> ServiceSpec:
    return service(rollout=Rollout(gate=Gate(queries=queries)))


CASES = [
    (
        service(Security(writable_root=True)),
        Allow(writable_root=True),
        ("security", "writableRoot"),
        "allow.writableRoot",
    ),
    (service(Security(privileged=True)), Allow(privileged=True), ("security", "privileged"), "allow.privileged"),
    (service(Security(host_network=True)), Allow(host_network=True), ("security", "hostNetwork"), "allow.hostNetwork"),
    (service(Security(user="0")), Allow(root_user=True), ("security", "user"), "allow.rootUser"),
    (service(Security(user="root:5")), Allow(root_user=True), ("security", "user"), "allow.rootUser"),
    (service(Security(user="00")), Allow(root_user=True), ("security", "user"), "allow.rootUser"),
    (service(Security(user="+0:1")), Allow(root_user=True), ("security", "user"), "allow.rootUser"),
    (service(Security(user="")), Allow(root_user=True), ("security", "user"), "allow.rootUser"),
    (
        service(Security(capabilities=("CHOWN", "SYS_ADMIN"))),
        Allow(capabilities=("CHOWN", "SYS_ADMIN")),
        ("security", "capabilities", 0),
        "allow.capabilities",
    ),
    (
        service(ports=(Port("a", 1), Port("b", 2, host=80))),
        Allow(host_ports=((80, 80),)),
        ("ports", 1, "host"),
        "allow.hostPorts",
    ),
    (service(volumes=(Volume("data", "/data"),)), Allow(volumes=True), ("volumes",), "allow.volumes"),
    (service(route=Route(8080)), Allow(proxy=True), ("traffic",), "set proxy"),
    (listening(5000), Allow(proxy=True, listen=((5000, 5000),)), ("traffic",), "set proxy"),
    (gated(Query("q", "up")), Allow(prometheus=True), ("rollout", "gate", "queries"), "set prometheus"),
]
NATIVE = [
    (service(route=Route(8080)), Allow(native=True, gateway=True), ("traffic",), "set gateway"),
    (service(volumes=(Volume("data", "/data"),)), Allow(native=True, volumes=True), ("volumes",), "allow.volumes"),
    (
        service(Security(host_network=True)),
        Allow(native=True, host_network=True),
        ("security", "hostNetwork"),
        "allow.hostNetwork",
    ),
    (
        gated(Query("q", "up")),
        Allow(native=True, prometheus=True),
        ("rollout", "gate", "queries"),
        "set prometheus",
    ),
]


@pytest.mark.parametrize(("spec", "allow", "field", "setting"), CASES)
def test_a_loosening_field_needs_the_permission_named_in_its_denial(spec, allow, field, setting):
    first = denials(spec, Allow())[0]
    assert first.field == field
    assert first.message.endswith(setting)
    assert denials(spec, allow) == ()


@pytest.mark.parametrize(("spec", "allow", "field", "setting"), NATIVE)
def test_on_kubernetes_too(spec, allow, field, setting):
    (denial,) = denials(spec, Allow(native=True))
    assert denial.field == field
    assert denial.message.endswith(setting)
    assert denials(spec, allow) == ()


@pytest.mark.parametrize("spec", [service(), service(Security(user="1000:0")), service(ports=(Port("a", 1),)), gated()])
def test_the_defaults_need_no_permission(spec):
    assert denials(spec, Allow()) == ()


def test_each_capability_and_port_is_judged_by_itself():
    spec = service(
        Security(capabilities=("A", "B")), (Port("a", 1, host=79), Port("b", 2, host=90), Port("c", 3, host=100))
    )
    found = denials(spec, Allow(capabilities=("A",), host_ports=((80, 90), (100, 110))))
    assert found == (
        Denial(
            ("security", "capabilities", 1),
            "capability B is not allowed here; the operator can add it to allow.capabilities",
        ),
        Denial(("ports", 0, "host"), "host port 79 is not allowed here; the operator can add it to allow.hostPorts"),
    )


@pytest.mark.parametrize(("port", "allowed"), [(4999, False), (5000, True), (5100, True), (5101, False), (6000, True)])
def test_the_proxy_listens_for_services_within_its_ranges(port: int, allowed: bool):
    denied = Denial(
        ("traffic", "listen"),
        f"the proxy may not listen at port {port}; the operator can add it to proxy.tcp.ports",
    )
    found = denials(listening(port), Allow(proxy=True, listen=((5000, 5100), (6000, 6000))))
    assert found == (() if allowed else (denied,))


def test_everything_denied_is_said_at_once():
    everything = Security(user="root", writable_root=True, capabilities=("ALL",), privileged=True, host_network=True)
    more = {
        "volumes": (Volume("data", "/data"),),
        "route": Route(1),
        "rollout": Rollout(gate=Gate(queries=(Query("q", "up"),))),
    }
    assert len(denials(service(everything, (Port("a", 1, host=1),), **more), Allow())) == 9


def test_no_service_has_the_name_of_the_proxy_beside_it() -> None:
    named = ServiceSpec("proxy", IMAGE)
    assert denials(named, Allow()) == ()
    (denial,) = denials(named, Allow(proxy=True))
    assert denial.field == ()
    assert "another name" in denial.message

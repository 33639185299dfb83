"""How a version takes over, is reached, warmed up and scaled: every field into its value, with its default."""

from __future__ import annotations

from datetime import timedelta

import pytest

from reconciler.core.delivery import (
    Against,
    Gate,
    Query,
    Rollout,
    Route,
    RouteMode,
    Scaling,
    Stage,
    Strategy,
    Undecided,
    Volume,
    WarmRequest,
    WarmUp,
)
from reconciler.core.model import Drain, ServiceSpec, version_of
from reconciler.core.policy import Allow
from tests.support.fleet import spec_of

ALLOW = Allow(proxy=True, prometheus=True, volumes=True, listen=((5000, 6000),))
PORTS = "ports: [{name: http, container: 8080}]\n"
ROUTE = f"{PORTS}traffic: {{port: http}}\n"


def built(text: str) -> ServiceSpec:
    return spec_of(text, ALLOW)


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


CANARY = """
rollout:
  strategy: canary
  surge: 2
  unavailable: 1
  progressDeadline: 1h
  steps:
  - {weight: 5, soak: 10s, pause: true}
  - {weight: 50}
  soak: 2m
  hold: 3m
  gate:
    against: stable
    alpha: 0.01
    minimumRequests: 1000
    errors: {max: 0.02}
    latency: {slowerThan: 1s, max: 1}
    queries:
    - {name: orders, promql: 'sum(x{version="{version}"})', max: 5, min: 0.5}
    - {name: stock, promql: up, min: -3}
    undecided: advance
replicas: 4
"""


def test_a_canary_has_all_its_values():
    assert built(ROUTE + CANARY).rollout == Rollout(
        strategy=Strategy.CANARY,
        surge=2,
        unavailable=1,
        progress_deadline=timedelta(hours=1),
        stages=(Stage(5, seconds(10), pause=True), Stage(50, seconds(60))),
        soak=seconds(120),
        hold=seconds(180),
        gate=Gate(
            against=Against.STABLE,
            alpha=0.01,
            minimum=1000,
            errors=True,
            max_errors=0.02,
            slow=seconds(1),
            max_slow=1.0,
            queries=(
                Query("orders", 'sum(x{version="{version}"})', maximum=5.0, minimum=0.5),
                Query("stock", "up", minimum=-3.0),
            ),
            undecided=Undecided.ADVANCE,
        ),
    )


@pytest.mark.parametrize(
    ("text", "rollout"),
    [
        ("rollout: {}", Rollout()),
        ("rollout: {soak: 5s}", Rollout(soak=seconds(5))),
        ("rollout: {strategy: recreate}", Rollout(Strategy.RECREATE)),
        ("rollout: {strategy: recreate, surge: 0}", Rollout(Strategy.RECREATE, 0)),
        ("replicas: 2\nrollout: {surge: 0, unavailable: 1}", Rollout(surge=0, unavailable=1)),
        ("replicas: 0\nrollout: {unavailable: 1}", Rollout(unavailable=1)),
        ("rollout: {strategy: blueGreen}", Rollout(Strategy.BLUE_GREEN, hold=timedelta(minutes=5))),
        (
            "rollout: {strategy: blueGreen, hold: 0s, preview: {soak: 7s, pause: true}}",
            Rollout(Strategy.BLUE_GREEN, preview_soak=seconds(7), preview_pause=True),
        ),
        (
            "rollout: {strategy: canary, steps: [{weight: 1}]}",
            Rollout(Strategy.CANARY, stages=(Stage(1, seconds(60)),)),
        ),
    ],
)
def test_the_defaults_of_a_rollout_depend_on_its_strategy(text, rollout):
    assert built(ROUTE + text).rollout == rollout


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        ("{}", Gate()),
        ("{errors: true}", Gate()),
        ("{errors: {}}", Gate()),
        ("{errors: false, latency: {slowerThan: 200ms}}", Gate(errors=False, slow=seconds(0.2))),
        (
            "{errors: false, queries: [{name: q, promql: up, max: 1}]}",
            Gate(errors=False, queries=(Query("q", "up", 1),)),
        ),
    ],
)
def test_a_gate_of_canary_compares_errors_unless_told_otherwise(text, gate):
    assert built(f"{ROUTE}rollout: {{strategy: canary, steps: [{{weight: 9}}], gate: {text}}}").rollout.gate == gate


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        ("{errors: {max: 0}}", Gate(errors=True, max_errors=0.0)),
        ("{latency: {slowerThan: 5ms, max: 0.5}}", Gate(errors=False, slow=seconds(0.005), max_slow=0.5)),
        (
            "{errors: false, latency: {slowerThan: 5ms, max: 0.5}}",
            Gate(errors=False, slow=seconds(0.005), max_slow=0.5),
        ),
        ("{queries: [{name: q, promql: up, min: 1}]}", Gate(errors=False, queries=(Query("q", "up", minimum=1),))),
    ],
)
def test_a_gate_of_blue_green_looks_only_at_what_has_a_limit(text, gate):
    assert built(f"{ROUTE}rollout: {{strategy: blueGreen, gate: {text}}}").rollout.gate == gate


@pytest.mark.parametrize(
    ("text", "route"),
    [
        ("{port: http}", Route(8080)),
        ("{port: 9}", Route(9)),
        ("{port: 9, mode: http, sticky: false}", Route(9)),
        (
            "{port: http, hosts: [a.test, '*.b.test', localhost], paths: [/, /a/b.c~d], preview: next.test, "
            "sticky: true, maxConnections: 7, timeout: 5s}",
            Route(
                8080,
                hosts=("a.test", "*.b.test", "localhost"),
                paths=("/", "/a/b.c~d"),
                preview="next.test",
                sticky=True,
                max_connections=7,
                timeout=seconds(5),
            ),
        ),
        (
            "{port: http, mode: tcp, listen: 5432, maxConnections: 1, sticky: false}",
            Route(8080, RouteMode.TCP, listen=5432, max_connections=1),
        ),
    ],
)
def test_the_traffic(text, route):
    assert built(f"{PORTS}traffic: {text}").route == route


def test_another_port_may_be_published_beside_traffic():
    allow = Allow(proxy=True, host_ports=((1, 100),))
    ports = (
        "ports: [{name: http, container: 80}, {name: a, container: 81, host: 81}, {name: dns, container: 80, host: 53"
    )
    spec = spec_of(f"{ports}, protocol: udp}}]\ntraffic: {{port: 80}}", allow)
    assert (spec.route, spec.stop_first) == (Route(80), True)


@pytest.mark.parametrize(
    ("text", "warm_up"),
    [
        ("{requests: [{path: /}]}", WarmUp((WarmRequest("/"),))),
        (
            "{requests: [{path: '/a?b', method: POST, headers: {Host: x, A: '1'}, body: hello}, {path: /}], count: 5, "
            "p95: 50ms, relativeToStable: 2, deadline: 1m}",
            WarmUp(
                (WarmRequest("/a?b", "POST", (("Host", "x"), ("A", "1")), "hello"), WarmRequest("/")),
                count=5,
                p95=seconds(0.05),
                relative=2.0,
                deadline=seconds(60),
            ),
        ),
    ],
)
def test_the_warm_up(text, warm_up):
    assert built(f"{ROUTE}warmUp: {text}").warm_up == warm_up


@pytest.mark.parametrize(
    ("text", "scaling", "replicas"),
    [
        ("{min: 0, max: 1, sessionsPerInstance: 5}", Scaling(0, 1, sessions=5.0), 1),
        ("{min: 1, max: 3, requestsPerSecondPerInstance: 0.5}", Scaling(1, 3, rate=0.5), 1),
        (
            "{min: 2, max: 2, cpu: 250m, stabilization: 1m, wake: 5s}",
            Scaling(2, 2, cpu=0.25, stabilization=seconds(60), wake=seconds(5)),
            2,
        ),
    ],
)
def test_scaling_owns_the_number_of_instances(text, scaling, replicas):
    spec = built(f"{ROUTE}scaling: {text}")
    assert (spec.scaling, spec.replicas) == (scaling, replicas)


def test_scaling_by_processor_needs_no_proxy():
    assert spec_of('scaling: {min: 1, max: 3, cpu: "1.5"}').scaling == Scaling(1, 3, cpu=1.5)


def test_volumes_and_the_tail_of_a_drain():
    spec = built(
        "volumes: [{name: data, path: /data}, {name: a, path: /a, shared: true, readOnly: true}]\n"
        "rollout: {strategy: recreate}\ndrain: {tail: 1m}\ntmpfs: [{path: /data/tmp, size: 1Mi}]"
    )
    assert spec.volumes == (Volume("data", "/data"), Volume("a", "/a", shared=True, read_only=True))
    assert spec.drain == Drain(tail=seconds(60))
    assert spec.stop_first


def test_a_volume_that_can_be_shared_hinders_nothing():
    spec = built(
        f"{ROUTE}replicas: 3\nvolumes: [{{name: data, path: /data, shared: true}}]{CANARY.partition('replicas')[0]}"
    )
    assert (spec.replicas, spec.stop_first) == (3, False)


OPERATED = [
    "traffic: {port: http, hosts: [a.test]}",
    "traffic: {port: 9}",
    "traffic: {port: http}\nrollout: {strategy: blueGreen, gate: {errors: {max: 0.1}}}",
    "traffic: {port: http}\nwarmUp: {requests: [{path: /}]}",
    "scaling: {min: 1, max: 3, cpu: 500m}",
    "drain: {tail: 1s}",
]


@pytest.mark.parametrize("text", OPERATED)
def test_how_a_service_is_operated_is_no_part_of_its_version(text):
    plain, operated = built(PORTS), built(PORTS + text)
    assert operated != plain
    assert version_of(operated, {}) == version_of(plain, {})


def test_volumes_are_part_of_the_version():
    recreate = "rollout: {strategy: recreate}\n"
    variants = ["name: a, path: /a", "name: b, path: /a", "name: a, path: /b", "name: a, path: /a, readOnly: true"]
    specs = [built(recreate), *(built(f"{recreate}volumes: [{{{each}}}]") for each in variants)]
    assert len({version_of(each, {}) for each in specs}) == 5
    shared = built("volumes: [{name: a, path: /a, shared: true}]")
    assert version_of(shared, {}) == version_of(specs[1], {}), "to share a volume or not replaces nothing"


def test_what_just_fits_is_accepted():
    hosts, paths = ", ".join(f"h{n}" for n in range(20)), ", ".join(f"/{n}" for n in range(10))
    route = built(f"traffic: {{port: 80, hosts: [{hosts}], paths: [{paths}]}}").route
    assert route is not None
    assert len(route.hosts) * len(route.paths) == 200
    query = "{errors: false, queries: [{name: q, promql: up, min: 1, max: 1}]}"
    assert built(f"{ROUTE}rollout: {{strategy: blueGreen, gate: {query}}}").rollout.gate is not None
    alone = "ports: [{name: a, container: 1, host: 80}]\nscaling: {min: 1, max: 1, cpu: 500m}"
    assert spec_of(alone, Allow(host_ports=((80, 80),))).scaling == Scaling(1, 1, cpu=0.5)

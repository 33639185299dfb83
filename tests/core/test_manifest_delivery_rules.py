"""What is refused of traffic, rollouts, gates, warm-ups, scaling and volumes: with its place, reason and remedy."""

from __future__ import annotations

import pytest

from reconciler.core.policy import Allow
from tests.support.fleet import problems_of

ALLOW = Allow(
    proxy=True,
    prometheus=True,
    volumes=True,
    host_network=True,
    host_ports=((1, 65535),),
    listen=((1, 65535),),
)
TRAFFIC = "traffic: {port: 80}\n"

TRAFFIC_PROBLEMS = [
    ("traffic: {}", '7:3: missing field "port" in traffic; add it'),
    ("traffic: {port: web}", '7:19: there is no port "web" in spec.ports'),
    (
        "ports: [{name: dns, container: 53, protocol: udp}]\ntraffic: {port: dns}",
        "8:19: port dns is a udp port; name a tcp port",
    ),
    ("traffic: {port: 80, mode: tpc}", '7:29: "tpc" is not allowed here; did you mean "tcp"?'),
    (
        "traffic: {port: 80, mode: tcp}",
        "7:29: a tcp service is told apart by its port at the proxy; add traffic.listen",
    ),
    *(
        (
            f"traffic: {{port: 80, mode: tcp, listen: 5, {field}: {value}}}",
            f"7:{47 + len(field)}: {field} is for mode http: a tcp service is told apart by listen alone; remove it",
        )
        for field, value in (("hosts", "[a.test]"), ("paths", "[/]"), ("preview", "a.test"), ("sticky", "true"))
    ),
    (
        "traffic: {port: 80, listen: 5}",
        "7:31: listen is for mode tcp: http services share the proxy's ports and differ in hosts and paths; "
        "remove it or set mode: tcp",
    ),
    (
        "traffic: {port: 80, hosts: [a.test, b.test], preview: b.test}",
        "7:57: the preview host is one of hosts; give the preview a name of its own",
    ),
    ("traffic: {port: 80, hosts: [a.test, a.test]}", "7:30: a host is here twice; remove one"),
    ("traffic: {port: 80, paths: [/a, /a]}", "7:30: a path is here twice; remove one"),
    ("traffic: {port: 80, paths: []}", "7:30: this is empty; add something or remove it"),
    (
        f"traffic: {{port: 80, hosts: [{', '.join(f'h{n}' for n in range(21))}], "
        f"paths: [{', '.join(f'/{n}' for n in range(10))}]}}",
        "7:30: each host has each path: that makes 210 places, more than 200; use a wildcard host",
    ),
    (
        "replicas: 129\ntraffic: {port: 80}",
        "7:13: replicas is 129, more than 128 behind one proxy; split the service",
    ),
    (
        "traffic: {port: 80}\nsecurity: {hostNetwork: true}",
        "8:27: an instance in the host's network cannot stand behind the proxy; remove hostNetwork or traffic",
    ),
    (
        "ports: [{name: http, container: 80, host: 8080}]\ntraffic: {port: http}",
        "7:45: host port 8080 would go past the proxy to the port of traffic; remove host or traffic",
    ),
    (
        "ports: [{name: http, container: 80, host: 8080}]\ntraffic: {port: 80}",
        "7:45: host port 8080 would go past the proxy to the port of traffic; remove host or traffic",
    ),
]

ROLLOUT_PROBLEMS = [
    (
        f"{TRAFFIC}rollout: {{steps: [{{weight: 5}}]}}",
        "8:20: steps is for strategy canary only; remove it or change the strategy",
    ),
    (
        f"{TRAFFIC}rollout: {{strategy: canary, steps: [{{weight: 5}}], preview: {{soak: 5s}}}}",
        "8:62: preview is for strategy blueGreen only; remove it or change the strategy",
    ),
    (
        "rollout: {hold: 5s}",
        "7:19: hold is for strategy blueGreen and canary only; remove it or change the strategy",
    ),
    (
        "rollout: {strategy: recreate, gate: {}}",
        "7:39: gate is for strategy blueGreen and canary only; remove it or change the strategy",
    ),
    (
        f"{TRAFFIC}rollout: {{strategy: canary}}",
        "8:23: canary needs steps, shares of the traffic that rise; add rollout.steps, as in [{weight: 5}]",
    ),
    (f"{TRAFFIC}rollout: {{strategy: canary, steps: []}}", "8:38: this is empty; add something or remove it"),
    (f"{TRAFFIC}rollout: {{strategy: canary, steps: [{{weight: 100}}]}}", "8:48: 100 is too large; at most 99"),
    (f"{TRAFFIC}rollout: {{strategy: canary, steps: [{{soak: 1s}}]}}", '8:39: missing field "weight"; add it'),
    (
        f"{TRAFFIC}rollout: {{strategy: canary, steps: [{{weight: 5}}, {{weight: 5}}]}}",
        "8:61: weight 5 is not more than 5, that of the step before it; let the weights rise",
    ),
    (
        "rollout: {strategy: blueGreen}",
        "7:23: blueGreen moves traffic at the proxy, and this service has none; add traffic, or use rolling",
    ),
    (
        "rollout: {strategy: canary, steps: [{weight: 5}]}",
        "7:23: canary moves traffic at the proxy, and this service has none; add traffic, or use rolling",
    ),
    (
        f"{TRAFFIC}ports: [{{name: a, container: 81}}, {{name: b, container: 1, host: 1}}]\n"
        "rollout: {strategy: blueGreen}",
        "8:67: blueGreen runs two versions side by side, and a host port is held by one instance only; "
        "remove host or use recreate",
    ),
    (
        "replicas: 2\nrollout: {strategy: recreate}",
        "7:13: recreate is for a service that runs one instance, but replicas is 2; set it to 1 or change the strategy",
    ),
    (
        "scaling: {min: 1, max: 2, cpu: 500m}\nrollout: {strategy: recreate}",
        "7:26: recreate is for a service that runs one instance, but scaling.max is 2; set it to 1 or change the "
        "strategy",
    ),
    (
        "rollout: {strategy: recreate, surge: 1}",
        "7:40: recreate never runs an instance beyond the replicas; remove surge",
    ),
    (
        "rollout: {unavailable: 1}",
        "7:26: unavailable is 1, but the service may have 1 only; write fewer, or more instances",
    ),
    (
        f"{TRAFFIC}scaling: {{min: 0, max: 9, cpu: 500m}}\nrollout: {{unavailable: 1}}",
        "9:26: unavailable is 1, but the service may have 1 only; write fewer, or more instances",
    ),
]

GATE_PROBLEMS = [
    ("{alpha: 0}", "0 is too small; at least 0.0001"),
    ("{alpha: 0.6}", "0.6 is too large; at most 0.5"),
    ("{errors: 0.1}", "0.1 cannot stand here; write a mapping or true or false"),
    ("{errors: {max: 2}}", "2 is too large; at most 1"),
    ("{errors: {maximum: 1}}", 'unknown field "maximum"; did you mean "max"?'),
    ("{errors: false}", "this gate looks at nothing; remove errors: false, or add latency or queries"),
    ("{errors: false, queries: []}", "this gate looks at nothing; remove errors: false, or add latency or queries"),
    ("{latency: {max: 1}}", 'missing field "slowerThan" in latency; add it'),
    ("{latency: {slowerThan: 120ms}}", "the proxy does not count by 120ms; write 100ms or 200ms"),
    ("{latency: {slowerThan: 0s}}", "the proxy does not count by 0s; write 1ms"),
    ("{latency: {slowerThan: 1m}}", "the proxy does not count by 1m; write 5s"),
    ("{queries: [{name: a, promql: up}]}", "a query without a bound decides nothing; add max, min or both"),
    (
        "{queries: [{name: a, promql: up, max: 1}, {name: a, promql: up, max: 1}]}",
        "two queries are named a; rename one",
    ),
    (
        "{queries: [{name: a, promql: up, max: 1, min: 1.5}]}",
        "min 1.5 is above max 1: no answer is right; change one",
    ),
]

ALONE = "after the switch of blueGreen the stable version has no traffic to compare with; "
ALONE_PROBLEMS = [
    ("{}", "add errors.max, latency or queries, or remove the gate"),
    ("{errors: false}", "add errors.max, latency or queries, or remove the gate"),
    ("{errors: true}", "add errors.max or write errors: false"),
    (
        "{errors: {max: 0.1}, against: stable}",
        "remove it and set limits (errors.max, latency.max)",
    ),
    ("{errors: {max: 0.1}, latency: {slowerThan: 1s}}", "add latency.max"),
]

OTHER_PROBLEMS = [
    (
        "warmUp: {requests: [{path: /}]}",
        "7:11: warmUp asks at the port of traffic, and there is none; add traffic or remove warmUp",
    ),
    (f"{TRAFFIC}warmUp: {{requests: []}}", "8:22: this is empty; add something or remove it"),
    (
        f"{TRAFFIC}warmUp: {{requests: [{{path: /, method: get}}]}}",
        '8:41: "get" is not allowed here; did you mean "GET"?',
    ),
    (
        f"{TRAFFIC}warmUp: {{requests: [{{path: /, headers: {{Content-Length: '5'}}}}]}}",
        "8:59: header Content-Length is set by the warm-up itself; remove it",
    ),
    (
        "scaling: {min: 1, max: 2}",
        "7:12: scaling needs exactly one target: sessionsPerInstance, requestsPerSecondPerInstance or cpu",
    ),
    (
        f"{TRAFFIC}scaling: {{min: 1, max: 2, cpu: 500m, sessionsPerInstance: 5}}",
        "8:12: scaling needs exactly one target: sessionsPerInstance, requestsPerSecondPerInstance or cpu",
    ),
    ("scaling: {min: 1, cpu: 500m}", '7:3: missing field "max" in scaling; add it'),
    (
        "replicas: 2\nscaling: {min: 1, max: 2, cpu: 500m}",
        "7:13: replicas and scaling both say how many instances run; remove one (a base's replicas by null)",
    ),
    ("scaling: {min: 3, max: 2, cpu: 500m}", "7:18: min 3 is above max 2; change one"),
    (
        "scaling: {min: 0, max: 2, cpu: 500m}",
        "7:18: min 0 lets the service sleep until the proxy gets a request, and there is no traffic; "
        "add traffic or set min to 1",
    ),
    *(
        (
            f"scaling: {{min: 1, max: 2, {field}: 5}}",
            f"7:{31 + len(field)}: {field} is counted by the proxy, and there is no traffic; "
            "add traffic or scale by cpu",
        )
        for field in ("sessionsPerInstance", "requestsPerSecondPerInstance")
    ),
    (
        "traffic: {port: 80, mode: tcp, listen: 5}\nscaling: {min: 1, max: 2, requestsPerSecondPerInstance: 5}",
        "8:59: a tcp service has no requests to count; use sessionsPerInstance",
    ),
    (
        "ports: [{name: a, container: 1, host: 80}]\nscaling: {min: 1, max: 2, cpu: 500m}",
        "7:41: host port 80 can be held by one instance only, but scaling.max is 2; "
        "remove host or set scaling.max to 1",
    ),
    (
        "rollout: {strategy: recreate}\nvolumes: [{name: a, path: /a}, {name: a, path: /b}]",
        "8:41: two volumes are named a; rename one",
    ),
    ("volumes: [{name: a}]", '7:13: missing field "path"; add it'),
    (
        "rollout: {strategy: recreate}\nvolumes: [{name: a, path: /a}]\nfiles: [{path: /a, content: x}]",
        "9:18: /a is given twice; remove one",
    ),
    (
        "rollout: {strategy: recreate}\nvolumes: [{name: a, path: /a}]\nfiles: [{path: /a/b, content: x}]",
        "9:18: /a/b would be hidden by volume /a; move one of them",
    ),
    (
        "rollout: {strategy: recreate}\nvolumes: [{name: a, path: /a/b}]\ntmpfs: [{path: /a, size: 1Mi}]",
        "8:29: /a/b would be hidden by tmpfs /a; move one of them",
    ),
    (
        "rollout: {strategy: recreate}\nvolumes: [{name: a, path: /a}, {name: b, path: /a/b}]",
        "8:50: /a/b would be hidden by volume /a; move one of them",
    ),
]


@pytest.mark.parametrize(("text", "problem"), TRAFFIC_PROBLEMS + ROLLOUT_PROBLEMS + OTHER_PROBLEMS)
def test_a_problem_is_named_with_its_place_and_remedy(text, problem):
    assert problems_of(text, ALLOW) == [problem]


@pytest.mark.parametrize(("text", "problem"), GATE_PROBLEMS)
def test_a_gate_that_cannot_decide_rightly_is_refused(text, problem):
    found = problems_of(f"{TRAFFIC}rollout: {{strategy: canary, steps: [{{weight: 5}}], gate: {text}}}", ALLOW)
    assert [each.partition(": ")[2] for each in found] == [problem]
    assert found[0].startswith("8:")


@pytest.mark.parametrize(("text", "problem"), ALONE_PROBLEMS)
def test_a_gate_of_blue_green_has_nothing_to_compare_with(text, problem):
    found = problems_of(f"{TRAFFIC}rollout: {{strategy: blueGreen, gate: {text}}}", ALLOW)
    assert [each.partition(": ")[2] for each in found] == [ALONE + problem]
    assert found[0].startswith("8:")


VOLUME = "volumes: [{name: a, path: /a, shared: true}, {name: data, path: /data, readOnly: true}]\n"
NEEDS = (
    "7:48: volume data is for one instance at a time: needs rollout.strategy: recreate, or volumes[1].shared: true "
    "if several instances can use it at the same time"
)


class TestStatefulGuard:
    """A volume that several instances cannot use at the same time is for recreate and one instance only."""

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "rollout: {surge: 1}",
            "replicas: 0",
            f"{TRAFFIC}rollout: {{strategy: blueGreen}}",
            f"{TRAFFIC}rollout: {{strategy: canary, steps: [{{weight: 5}}]}}",
        ],
    )
    def test_every_other_strategy_is_refused(self, text):
        assert problems_of(VOLUME + text, ALLOW) == [NEEDS]

    @pytest.mark.parametrize(
        ("text", "place", "name"),
        [("replicas: 2", "8:13", "replicas"), ("scaling: {min: 1, max: 2, cpu: 500m}", "8:26", "scaling.max")],
    )
    def test_so_is_a_second_instance(self, text, place, name):
        assert problems_of(VOLUME + text, ALLOW) == [
            NEEDS,
            f"{place}: {name} is 2, but volume data is for one instance at a time; set it to 1, or "
            "volumes[1].shared: true if several instances can use it at the same time",
        ]
        (problem,) = problems_of(f"{VOLUME}{text}\nrollout: {{strategy: recreate}}", ALLOW)
        assert problem.startswith(f"{place}: recreate is for a service that runs one instance, but {name} is 2;")

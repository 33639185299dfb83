"""What Git may declare in an environment on Kubernetes: what is refused, what is possible there only, defaults."""

from __future__ import annotations

from datetime import timedelta

import pytest

from reconciler.core.delivery import Against, Gate, Query, Rollout, Scaling, Stage, Strategy
from reconciler.core.policy import Allow
from tests.support.fleet import DIRECTORY, Repository, problems_of, service, spec_of

GATEWAY = Allow(native=True, gateway=True, prometheus=True, volumes=True, host_network=True, root_user=True)
PLAIN = Allow(native=True, prometheus=True)
DOCKER = Allow(proxy=True, listen=((1, 65535),), prometheus=True, host_ports=((1, 65535),))
CANARY = "rollout: {strategy: canary, steps: [{weight: 5}]}"
STABLE = "against: stable, errors: false"
QUERIES = "queries: [{name: q, promql: up, max: 1}]"

REFUSED = [
    (
        "warmUp: {requests: [{path: /}]}",
        "7:11: warmUp is not available on Kubernetes; remove it, and let the health check fail until it is warm",
    ),
    ("lifetime: 1h", "7:13: lifetime is not available on Kubernetes; remove it"),
    (
        "ports: [{name: a, container: 1}, {name: b, container: 2, host: 80}]",
        "7:66: host port 80 is not available on Kubernetes; remove host",
    ),
    *(
        (
            f"traffic: {{port: 80, mode: tcp{more}}}",
            "7:29: tcp routes are not available on Kubernetes; remove traffic: in the cluster the ports can be reached",
        )
        for more in ("", ", listen: 5432")
    ),
    ("traffic: {port: 80, listen: 5}", "7:31: listen is for mode tcp, not available on Kubernetes; remove it"),
    ("traffic: {port: 80, sticky: true}", "7:31: sticky is not available on Kubernetes; remove it"),
    ("traffic: {port: 80, maxConnections: 5}", "7:39: maxConnections is not available on Kubernetes; remove it"),
    (
        f"traffic: {{port: 80, hosts: [{', '.join(f'h{n}' for n in range(17))}]}}",
        "7:30: a route of a Gateway has 16 hosts at most, and these are 17; use a wildcard host",
    ),
    (
        "rollout: {strategy: blueGreen, preview: {soak: 5s}}",
        "7:43: preview shows the new version at a Gateway, and this service has no traffic; "
        "add traffic or remove preview",
    ),
    ("scaling: {min: 0, max: 2, cpu: 500m}", "7:18: min 0 is not available on Kubernetes; set it to 1 or more"),
    (
        "scaling: {min: 1, max: 2, cpu: 500m, stabilization: 61m}",
        "7:55: on Kubernetes stabilization is at most 1h; write that or less",
    ),
    *(
        (
            f"traffic: {{port: 80}}\nscaling: {{min: 1, max: 2, {field}: 5}}",
            f"8:{31 + len(field)}: {field} is not available on Kubernetes; scale by cpu",
        )
        for field in ("sessionsPerInstance", "requestsPerSecondPerInstance")
    ),
    (
        "security: {user: nobody}",
        '7:20: Kubernetes takes users and groups by number only; write that of "nobody", as in "1000:1000"',
    ),
    (
        'security: {user: "1:staff"}',
        '7:20: Kubernetes takes users and groups by number only; write that of "staff", as in "1000:1000"',
    ),
    (
        'security: {user: "2147483648"}',
        "7:20: 2147483648 is too large; at most 2147483647 on Kubernetes",
    ),
    (
        "labels: {a/b/c: x}",
        "7:19: on Kubernetes a label's name has at most 63 letters, digits and - _ . after one domain/ at most; "
        "rename it",
    ),
    (
        "labels: {a..b/c: x}",
        "7:20: on Kubernetes a label's name has at most 63 letters",
    ),
    (
        "labels: {a: two words}",
        "7:15: on Kubernetes a label's value has at most 63 letters, digits and - _ . (no other characters); ",
    ),
    # What holds on every engine holds here, too.
    ("traffic: {port: web}", '7:19: there is no port "web" in spec.ports'),
    ("scaling: {min: 3, max: 2, cpu: 500m}", "7:18: min 3 is above max 2; change one"),
    (
        "rollout: {strategy: canary}",
        "7:23: canary needs steps, shares of the traffic that rise; add rollout.steps, as ",
    ),
]

GATES = [
    (
        f"{{errors: true, {QUERIES}}}",
        "on Kubernetes no proxy counts failed requests; remove errors, and ask by queries",
    ),
    (
        f"{{errors: {{max: 0.1}}, {QUERIES}}}",
        "on Kubernetes no proxy counts failed requests; remove errors, and ask by queries",
    ),
    (
        f"{{latency: {{slowerThan: 120ms}}, {QUERIES}}}",
        "on Kubernetes no proxy counts slow answers; remove latency, and ask by queries",
    ),
    (f"{{against: baseline, {QUERIES}}}", "baseline is not available on Kubernetes; remove it, or write stable"),
    *(
        (text, "on Kubernetes a gate is made of queries, and this one has none; add queries or remove the gate")
        for text in ("{}", f"{{{STABLE}}}", "{queries: []}")
    ),
    (
        "{queries: [{name: q, promql: up, max: 1}, {name: q, promql: up, max: 1}]}",
        "two queries are named q; rename one",
    ),
]


@pytest.mark.parametrize("allow", [GATEWAY, PLAIN], ids=["gateway", "plain"])
@pytest.mark.parametrize(("text", "problem"), REFUSED)
def test_what_kubernetes_cannot_do_is_refused_with_its_place(text: str, problem: str, allow: Allow):
    (found,) = problems_of(text, allow)
    assert found.startswith(problem)


@pytest.mark.parametrize("strategy", ["canary, steps: [{weight: 5}]", "blueGreen"])
@pytest.mark.parametrize(("gate", "problem"), GATES)
def test_a_gate_is_made_of_queries(gate: str, problem: str, strategy: str):
    (found,) = problems_of(f"rollout: {{strategy: {strategy}, gate: {gate}}}", PLAIN)
    assert found.startswith("7:")
    assert found.partition(": ")[2] == problem


def test_the_defaults_of_a_gate_are_others_than_on_docker():
    gate = f"rollout: {{strategy: canary, steps: [{{weight: 5}}], gate: {{%s{QUERIES}}}}}"
    query = (Query("q", "up", maximum=1.0),)
    asked = Gate(against=Against.STABLE, errors=False, queries=query)
    assert spec_of(gate % "", PLAIN).rollout.gate == asked
    assert spec_of(gate % f"{STABLE}, ", PLAIN).rollout.gate == asked
    on_docker = spec_of(f"traffic: {{port: 80}}\n{gate % ''}", DOCKER).rollout.gate
    assert on_docker == Gate(against=Against.BASELINE, errors=True, queries=query)
    blue = spec_of(f"rollout: {{strategy: blueGreen, gate: {{{QUERIES}}}}}", PLAIN).rollout.gate
    assert blue == asked


@pytest.mark.parametrize("allow", [GATEWAY, PLAIN], ids=["gateway", "plain"])
def test_two_versions_side_by_side_need_no_traffic(allow: Allow):
    spec = spec_of(CANARY, allow)
    assert spec.rollout == Rollout(Strategy.CANARY, stages=(Stage(5, timedelta(minutes=1)),))
    assert spec_of("rollout: {strategy: blueGreen}", allow).rollout.strategy is Strategy.BLUE_GREEN
    (problem,) = problems_of(CANARY, DOCKER)
    assert "this service has none; add traffic" in problem


@pytest.mark.parametrize(
    "text",
    [
        "replicas: 1000\ntraffic: {port: 80, sticky: false}",
        f"traffic: {{port: 80, hosts: [{', '.join(f'h{n}' for n in range(16))}], preview: next.test}}\n"
        "rollout: {strategy: blueGreen, preview: {soak: 5s}}",
        "traffic: {port: 80}\nsecurity: {hostNetwork: true}",
        "volumes: [{name: data, path: /data}]\nrollout: {strategy: recreate}",
        "resources: {pids: 5}\ndrain: {tail: 5s}",
        'security: {user: "2147483647:0"}',
        'security: {user: "root:root"}',
        "labels: {example.org/team: a.b_c-d, plain: ''}",
    ],
)
def test_what_kubernetes_can_do_is_accepted(text: str):
    assert spec_of(text, GATEWAY)


def test_scaling_by_cpu_is_accepted():
    scaling = spec_of("scaling: {min: 1, max: 3, cpu: 250m, stabilization: 1h}", PLAIN).scaling
    assert scaling == Scaling(1, 3, cpu=0.25, stabilization=timedelta(hours=1))


def test_a_field_that_the_schema_refuses_is_not_judged_again():
    assert len(problems_of("warmUp: 5\nlabels: {a: 5}\nscaling: {min: 0}", PLAIN)) == 4


def test_a_service_is_not_named_like_a_version_of_another():
    for name, refused in (("web-0123456789ab", True), ("web-0123456789a", False), ("web-0123456789abc", False)):
        files = {f"{DIRECTORY}/{name}.yaml": service(name)}
        found = Repository(files).state(PLAIN).problems.get(name, ())
        message = "a name that ends in - and 12 hex digits is that of a service's version on Kubernetes; choose another"
        assert [each.message for each in found] == ([message] if refused else [])
        assert all((each.line, each.column) == (4, 9) for each in found)
        assert not Repository(files).state(DOCKER).problems

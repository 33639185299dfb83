"""What a schema cannot say about how a service takes over, is reached and is scaled.

As in `core/rules.py`, each rule reads some fields of `spec` that the schema found right, and yields problems.
`RULES` hold on every engine, `PROXY_RULES` where Reconciler's own proxy is the front; those of Kubernetes are in
`core/rules_native.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from itertools import pairwise
from typing import Any

from reconciler.core import quantity
from reconciler.core.delivery import RouteMode, Strategy
from reconciler.core.model import Problem
from reconciler.core.proxy_config import LATENCY_BOUNDS_MS
from reconciler.core.rules import Rule, View, wrong_port
from reconciler.core.words import shown

MAX_CLAIMS = 200
"""How many pairs of a host and a path a service may have."""
MOST_INSTANCES = 128
"""Of a service behind the proxy: a table of up to three times as many has to fit into one record of the journal."""
_BESIDE = (Strategy.CANARY, Strategy.BLUE_GREEN)
"""The strategies in which two versions run side by side, each with a share of the traffic of its own."""
_OWN_HEADERS = ("connection", "content-length", "transfer-encoding")


def _strategy(view: View) -> Strategy:
    return Strategy(view.section("rollout").get("strategy", Strategy.ROLLING))


def _most(view: View) -> tuple[int, tuple[str, ...], str]:
    """The most instances that are asked for, the place that asks, and its name for people."""
    if "scaling" in view.spec:
        return view.spec["scaling"]["max"], ("scaling", "max"), "scaling.max"
    return view.spec.get("replicas", 1), ("replicas",), "replicas"


def _is_tcp(view: View) -> bool:
    return view.section("traffic").get("mode") == RouteMode.TCP


def _traffic(view: View) -> Iterator[Problem]:
    traffic = view.section("traffic")
    if not traffic:
        return
    yield from wrong_port(view, "traffic", verb="name")
    if not _is_tcp(view):
        yield from _http(view, traffic)


def _behind(view: View) -> Iterator[Problem]:
    """What stands behind the proxy: told apart by what it can tell apart, and by no other way to be reached."""
    traffic = view.section("traffic")
    if not traffic:
        return
    if _is_tcp(view):
        yield from _tcp(view, traffic)
    elif "listen" in traffic:
        message = "listen is for mode tcp: http services share the proxy's ports and differ in hosts and paths"
        yield view.at("traffic", "listen", say=f"{message}; remove it or set mode: tcp")
    if view.section("security").get("hostNetwork"):
        message = "an instance in the host's network cannot stand behind the proxy; remove hostNetwork or traffic"
        yield view.at("security", "hostNetwork", say=message)
    for index, item in enumerate(view.items("ports")):
        tcp = item.get("protocol", "tcp") == "tcp"
        if "host" in item and tcp and traffic["port"] in (item["name"], item["container"]):
            message = f"host port {item['host']} would go past the proxy to the port of traffic"
            yield view.at("ports", index, "host", say=f"{message}; remove host or traffic")


def _tcp(view: View, traffic: Mapping[str, Any]) -> Iterator[Problem]:
    if "listen" not in traffic:
        message = "a tcp service is told apart by its port at the proxy; add traffic.listen"
        yield view.at("traffic", "mode", say=message)
    for field in ("hosts", "paths", "preview", "sticky"):
        if traffic.get(field):
            message = f"{field} is for mode http: a tcp service is told apart by listen alone; remove it"
            yield view.at("traffic", field, say=message)


def _http(view: View, traffic: Mapping[str, Any]) -> Iterator[Problem]:
    claims = len(traffic.get("hosts", ())) * len(traffic.get("paths", ()))
    if claims > MAX_CLAIMS:
        message = f"each host has each path: that makes {claims} places, more than {MAX_CLAIMS}; use a wildcard host"
        yield view.at("traffic", "hosts", say=message)
    if traffic.get("preview") in traffic.get("hosts", ()):
        message = "the preview host is one of hosts; give the preview a name of its own"
        yield view.at("traffic", "preview", say=message)


def _table(view: View) -> Iterator[Problem]:
    """What one proxy's table of a service can hold."""
    count, place, named = _most(view)
    if "traffic" in view.spec and count > MOST_INSTANCES:
        message = f"{named} is {count}, more than {MOST_INSTANCES} behind one proxy; split the service"
        yield view.at(*place, say=message)


def _rollout(view: View) -> Iterator[Problem]:
    """What belongs to which strategy."""
    rollout, strategy = view.section("rollout"), _strategy(view)
    for field, owners in (
        ("steps", (Strategy.CANARY,)),
        ("preview", (Strategy.BLUE_GREEN,)),
        ("hold", _BESIDE),
        ("gate", _BESIDE),
    ):
        if field in rollout and strategy not in owners:
            message = f"{field} is for strategy {' and '.join(sorted(owners))} only; remove it or change the strategy"
            yield view.at("rollout", field, say=message)
    if strategy is Strategy.CANARY and "steps" not in rollout:
        message = "canary needs steps, shares of the traffic that rise; add rollout.steps, as in [{weight: 5}]"
        yield view.at("rollout", "strategy", say=message)
    for index, (before, after) in enumerate(pairwise(rollout.get("steps", ())), start=1):
        if after["weight"] <= before["weight"]:
            message = f"weight {after['weight']} is not more than {before['weight']}, that of the step before it"
            yield view.at("rollout", "steps", index, "weight", say=f"{message}; let the weights rise")


def _beside(view: View) -> Iterator[Problem]:
    """Two versions side by side need the proxy, and nothing that only one instance can hold."""
    strategy = _strategy(view)
    if strategy not in _BESIDE:
        return
    if "traffic" not in view.spec:
        message = f"{strategy} moves traffic at the proxy, and this service has none; add traffic, or use rolling"
        yield view.at("rollout", "strategy", say=message)
    for index, item in enumerate(view.items("ports")):
        if "host" in item:
            message = f"{strategy} runs two versions side by side, and a host port is held by one instance only"
            yield view.at("ports", index, "host", say=f"{message}; remove host or use recreate")


def _numbers(view: View) -> Iterator[Problem]:
    """How many instances may be there, and may be missing."""
    rollout = view.section("rollout")
    most, place, name = _most(view)
    if _strategy(view) is Strategy.RECREATE:
        if most > 1:
            message = f"recreate is for a service that runs one instance, but {name} is {most}"
            yield view.at(*place, say=f"{message}; set it to 1 or change the strategy")
        if rollout.get("surge", 0) > 0:
            message = "recreate never runs an instance beyond the replicas; remove surge"
            yield view.at("rollout", "surge", say=message)
    least = max(view.spec["scaling"]["min"], 1) if "scaling" in view.spec else most
    # With no replicas the service is stopped: nothing can be missing then.
    missing = rollout.get("unavailable", 0)
    if 0 < least <= missing:
        message = f"unavailable is {missing}, but the service may have {least} only; write fewer, or more instances"
        yield view.at("rollout", "unavailable", say=message)


def _gate(view: View) -> Iterator[Problem]:
    gate, strategy = view.section("rollout").get("gate"), _strategy(view)
    if gate is None:
        return
    yield from _latency(view, gate)
    if strategy is Strategy.BLUE_GREEN:
        yield from _limits_only(view, gate)
    elif gate.get("errors", True) is False and "latency" not in gate and not gate.get("queries"):
        message = "this gate looks at nothing; remove errors: false, or add latency or queries"
        yield view.at("rollout", "gate", "errors", say=message)


def _latency(view: View, gate: Mapping[str, Any]) -> Iterator[Problem]:
    if "latency" not in gate:
        return
    written = gate["latency"]["slowerThan"]
    bounds = [timedelta(milliseconds=each) for each in LATENCY_BOUNDS_MS]
    asked = quantity.duration(written)
    if asked not in bounds:
        around = [*[each for each in bounds if each < asked][-1:], *[each for each in bounds if each > asked][:1]]
        nearest = " or ".join(quantity.duration_text(each) for each in around)
        message = f"the proxy does not count by {written}; write {nearest}"
        yield view.at("rollout", "gate", "latency", "slowerThan", say=message)


def _queries(view: View) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, item in enumerate(view.section("rollout").get("gate", {}).get("queries", ())):
        if item["name"] in seen:
            message = f"two queries are named {item['name']}; rename one"
            yield view.at("rollout", "gate", "queries", index, "name", say=message)
        seen.add(item["name"])
        if "min" in item and "max" in item and item["min"] > item["max"]:
            message = f"min {shown(item['min'])} is above max {shown(item['max'])}: no answer is right; change one"
            yield view.at("rollout", "gate", "queries", index, "min", say=message)


def _limits_only(view: View, gate: Mapping[str, Any]) -> Iterator[Problem]:
    """After the switch of blueGreen the stable version has no traffic: there is nothing to compare with."""
    why = "after the switch of blueGreen the stable version has no traffic to compare with"
    if "against" in gate:
        yield view.at("rollout", "gate", "against", say=f"{why}; remove it and set limits (errors.max, latency.max)")
    errors = gate.get("errors", False)
    if errors is not False and (errors is True or "max" not in errors):
        yield view.at("rollout", "gate", "errors", say=f"{why}; add errors.max or write errors: false")
    if "latency" in gate and "max" not in gate["latency"]:
        yield view.at("rollout", "gate", "latency", say=f"{why}; add latency.max")
    if not errors and "latency" not in gate and not gate.get("queries"):
        yield view.at("rollout", "gate", say=f"{why}; add errors.max, latency or queries, or remove the gate")


def _warm_up(view: View) -> Iterator[Problem]:
    section = view.section("warmUp")
    if section and "traffic" not in view.spec:
        message = "warmUp asks at the port of traffic, and there is none; add traffic or remove warmUp"
        yield view.at("warmUp", say=message)
    for index, item in enumerate(section.get("requests", ())):
        for name in item.get("headers", {}):
            if name.lower() in _OWN_HEADERS:
                place = ("warmUp", "requests", index, "headers", name)
                yield view.at(*place, say=f"header {name} is set by the warm-up itself; remove it")


def _scaling(view: View) -> Iterator[Problem]:
    scaling = view.section("scaling")
    if not scaling:
        return
    if "replicas" in view.spec:
        message = "replicas and scaling both say how many instances run; remove one (a base's replicas by null)"
        yield view.at("replicas", say=message)
    if scaling["min"] > scaling["max"]:
        message = f"min {scaling['min']} is above max {scaling['max']}; change one"
        yield view.at("scaling", "min", say=message)


def _demand(view: View) -> Iterator[Problem]:
    """What the proxy counts, and that it keeps requests for a service that sleeps."""
    scaling = view.section("scaling")
    if not scaling:
        return
    if scaling["min"] == 0 and "traffic" not in view.spec:
        message = "min 0 lets the service sleep until the proxy gets a request, and there is no traffic"
        yield view.at("scaling", "min", say=f"{message}; add traffic or set min to 1")
    for field in ("sessionsPerInstance", "requestsPerSecondPerInstance"):
        if field in scaling and "traffic" not in view.spec:
            message = f"{field} is counted by the proxy, and there is no traffic; add traffic or scale by cpu"
            yield view.at("scaling", field, say=message)
    if "requestsPerSecondPerInstance" in scaling and _is_tcp(view):
        message = "a tcp service has no requests to count; use sessionsPerInstance"
        yield view.at("scaling", "requestsPerSecondPerInstance", say=message)
    for index, item in enumerate(view.items("ports")):
        if "host" in item and scaling["max"] > 1:
            message = f"host port {item['host']} can be held by one instance only, but scaling.max is {scaling['max']}"
            yield view.at("ports", index, "host", say=f"{message}; remove host or set scaling.max to 1")


def _volumes(view: View) -> Iterator[Problem]:
    """A volume that cannot be shared is used by one instance at a time: the old one has to stop first."""
    most, place, name = _most(view)
    seen: set[str] = set()
    for index, item in enumerate(view.items("volumes")):
        if item["name"] in seen:
            yield view.at("volumes", index, "name", say=f"two volumes are named {item['name']}; rename one")
        seen.add(item["name"])
        if item.get("shared", False) or _strategy(view) is Strategy.RECREATE:
            continue
        remedy = f"volumes[{index}].shared: true if several instances can use it at the same time"
        message = f"volume {item['name']} is for one instance at a time: needs rollout.strategy: recreate, or {remedy}"
        yield view.at("volumes", index, say=message)
        if most > 1:
            message = f"{name} is {most}, but volume {item['name']} is for one instance at a time"
            yield view.at(*place, say=f"{message}; set it to 1, or {remedy}")


RULES: tuple[tuple[frozenset[str], Rule], ...] = (
    (frozenset({"traffic", "ports"}), _traffic),
    (frozenset({"rollout"}), _rollout),
    (frozenset({"rollout", "replicas", "scaling"}), _numbers),
    (frozenset({"rollout"}), _queries),
    (frozenset({"scaling", "replicas"}), _scaling),
    (frozenset({"volumes", "rollout", "replicas", "scaling"}), _volumes),
)
"""The rules with the fields of `spec` that they read: a rule is asked only when the schema found those right."""

PROXY_RULES: tuple[tuple[frozenset[str], Rule], ...] = (
    (frozenset({"traffic", "ports", "security"}), _behind),
    (frozenset({"traffic", "replicas", "scaling"}), _table),
    (frozenset({"rollout", "traffic", "ports"}), _beside),
    (frozenset({"rollout"}), _gate),
    (frozenset({"warmUp", "traffic"}), _warm_up),
    (frozenset({"scaling", "traffic", "ports"}), _demand),
)
"""The same where Reconciler's own proxy is the front."""

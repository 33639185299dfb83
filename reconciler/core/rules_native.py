"""What Kubernetes does differently, or not at all: refused here, so that nothing is declared that has no effect.

As in `core/rules.py`, each rule reads some fields of `spec` that the schema found right, and yields problems. What is
only ignored there (`resources.pids`, `drain.tail`) is said in the guide.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta

from reconciler.core import quantity
from reconciler.core.delivery import Against, RouteMode, Strategy
from reconciler.core.model import Problem
from reconciler.core.overlay import Manifest
from reconciler.core.rules import Rule, View
from reconciler.core.words import shown

MOST_HOSTS = 16
"""Of one HTTPRoute, by the Gateway API."""
LONGEST_LOOK = timedelta(hours=1)
"""How far a HorizontalPodAutoscaler looks back at most."""
LARGEST_USER = 2**31 - 1
"""The largest number of a user or group in a pod's security context."""

_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_DOMAIN = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*"
_LABEL = re.compile(f"(?:{_DOMAIN}/)?{_WORD}")
_LABEL_VALUE = re.compile(f"(?:{_WORD})?")
_LIKE_A_VERSION = re.compile(r".+-[0-9a-f]{12}")


def misnamed(manifest: Manifest, name: str) -> Iterator[Problem]:
    """A service named like a version of another one (`core/names.py: group`) would take its objects."""
    if _LIKE_A_VERSION.fullmatch(name):
        message = "a name that ends in - and 12 hex digits is that of a service's version on Kubernetes; choose another"
        yield manifest.problem(("metadata", "name"), message)


def _absent(view: View) -> Iterator[Problem]:
    if "warmUp" in view.spec:
        message = "warmUp is not available on Kubernetes; remove it, and let the health check fail until it is warm"
        yield view.at("warmUp", say=message)
    if "lifetime" in view.spec:
        yield view.at("lifetime", say="lifetime is not available on Kubernetes; remove it")
    for index, item in enumerate(view.items("ports")):
        if "host" in item:
            message = f"host port {item['host']} is not available on Kubernetes; remove host"
            yield view.at("ports", index, "host", say=message)


def _traffic(view: View) -> Iterator[Problem]:
    traffic = view.section("traffic")
    if traffic.get("mode") == RouteMode.TCP:
        message = "tcp routes are not available on Kubernetes; remove traffic: in the cluster the ports can be reached"
        yield view.at("traffic", "mode", say=message)
    elif "listen" in traffic:
        yield view.at("traffic", "listen", say="listen is for mode tcp, not available on Kubernetes; remove it")
    for field in ("sticky", "maxConnections"):
        if traffic.get(field):
            yield view.at("traffic", field, say=f"{field} is not available on Kubernetes; remove it")
    hosts = len(traffic.get("hosts", ()))
    if hosts > MOST_HOSTS:
        message = f"a route of a Gateway has {MOST_HOSTS} hosts at most, and these are {hosts}; use a wildcard host"
        yield view.at("traffic", "hosts", say=message)


def _preview(view: View) -> Iterator[Problem]:
    rollout = view.section("rollout")
    if "preview" in rollout and rollout.get("strategy") == Strategy.BLUE_GREEN and "traffic" not in view.spec:
        message = "preview shows the new version at a Gateway, and this service has no traffic"
        yield view.at("rollout", "preview", say=f"{message}; add traffic or remove preview")


def _gate(view: View) -> Iterator[Problem]:
    gate = view.section("rollout").get("gate")
    if gate is None:
        return
    for field in ("errors", "latency"):
        if gate.get(field, False) is not False:
            message = f"on Kubernetes no proxy counts {'failed requests' if field == 'errors' else 'slow answers'}"
            yield view.at("rollout", "gate", field, say=f"{message}; remove {field}, and ask by queries")
    if gate.get("against") == Against.BASELINE:
        message = "baseline is not available on Kubernetes; remove it, or write stable"
        yield view.at("rollout", "gate", "against", say=message)
    if not gate.get("queries"):
        message = "on Kubernetes a gate is made of queries, and this one has none; add queries or remove the gate"
        yield view.at("rollout", "gate", say=message)


def _scaling(view: View) -> Iterator[Problem]:
    scaling = view.section("scaling")
    if scaling.get("min") == 0:
        yield view.at("scaling", "min", say="min 0 is not available on Kubernetes; set it to 1 or more")
    for field in ("sessionsPerInstance", "requestsPerSecondPerInstance"):
        if field in scaling:
            yield view.at("scaling", field, say=f"{field} is not available on Kubernetes; scale by cpu")
    if quantity.duration(scaling.get("stabilization", "0s")) > LONGEST_LOOK:
        message = "on Kubernetes stabilization is at most 1h; write that or less"
        yield view.at("scaling", "stabilization", say=message)


def _user(view: View) -> Iterator[Problem]:
    user = view.section("security").get("user")
    for part in user.split(":") if user is not None else ():
        if part == "root":
            continue
        if not part.isdecimal():
            message = f"Kubernetes takes users and groups by number only; write that of {shown(part)}"
            yield view.at("security", "user", say=f'{message}, as in "1000:1000"')
        elif int(part) > LARGEST_USER:
            yield view.at("security", "user", say=f"{part} is too large; at most {LARGEST_USER} on Kubernetes")


def _labels(view: View) -> Iterator[Problem]:
    for name, value in view.section("labels").items():
        if not _LABEL.fullmatch(name):
            message = "on Kubernetes a label's name has at most 63 letters, digits and - _ . after one domain/ at most"
            yield view.at("labels", name, say=f"{message}; rename it")
        elif not _LABEL_VALUE.fullmatch(value):
            message = "on Kubernetes a label's value has at most 63 letters, digits and - _ . (no other characters)"
            yield view.at("labels", name, say=f"{message}; shorten it")


RULES: tuple[tuple[frozenset[str], Rule], ...] = (
    (frozenset({"warmUp", "lifetime", "ports"}), _absent),
    (frozenset({"traffic"}), _traffic),
    (frozenset({"rollout", "traffic"}), _preview),
    (frozenset({"rollout"}), _gate),
    (frozenset({"scaling"}), _scaling),
    (frozenset({"security"}), _user),
    (frozenset({"labels"}), _labels),
)
"""The rules with the fields of `spec` that they read: a rule is asked only when the schema found those right."""

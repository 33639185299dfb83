"""What a private engine changes in this host's packet filter, and putting it back as it was.

dockerd adds its chains, may set the policy of FORWARD to DROP and switches IPv4 forwarding on, and leaves all of that
behind when it ends. Where an engine had been before, nothing is touched here: the chains are shared.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
TABLES = ("filter", "nat")


@dataclass(frozen=True)
class Before:
    """How it was. `docker`: there were chains of an engine already."""

    docker: bool
    forwarding: str
    policy: str


def look() -> Before:
    """How it is now."""
    filter_rules, nat_rules = _rules("filter"), _rules("nat")
    policy = next((rule.split()[2] for rule in filter_rules if rule.startswith("-P FORWARD ")), "")
    chains = any(rule.startswith("-N DOCKER") for rule in (*filter_rules, *nat_rules))
    return Before(chains, FORWARDING.read_text().strip() if FORWARDING.exists() else "", policy)


def put_back(before: Before) -> None:
    """Remove the chains of an engine that has ended, unless there were some before or another engine runs by now."""
    if before.docker or _another_engine_runs():
        return
    for table in TABLES:
        rules = _rules(table)
        for rule in rules:
            if rule.startswith("-A ") and "DOCKER" in rule and not rule.startswith("-A DOCKER"):
                _iptables(table, "-D", *rule.split()[1:])
        chains = [rule.split()[1] for rule in rules if rule.startswith("-N DOCKER")]
        for order in ("-F", "-X"):
            for chain in chains:
                _iptables(table, order, chain)
    if before.policy:
        _iptables("filter", "-P", "FORWARD", before.policy)
    if before.forwarding and FORWARDING.read_text().strip() != before.forwarding:
        FORWARDING.write_text(before.forwarding)


def _another_engine_runs() -> bool:
    for status in Path("/proc").glob("[0-9]*/comm"):
        try:
            if status.read_text().strip() == "dockerd":
                return True
        except OSError:
            continue
    return False


def _rules(table: str) -> list[str]:
    return _iptables(table, "-S").splitlines()


def _iptables(table: str, *arguments: str) -> str:
    """What iptables says; nothing where it is missing or refuses."""
    try:
        done = subprocess.run(
            ["iptables", "--wait", "-t", table, *arguments],
            check=False,
            capture_output=True,
            text=True,
            env={"PATH": "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin:/bin"},
        )
    except FileNotFoundError:
        return ""
    return done.stdout

"""One rule of our own in this host's packet filter, by which containers of a private engine reach each other.

A private engine leaves the packet filter alone, because an engine that sets it up takes away the chains of another.
Yet where another engine or a firewall filters what is forwarded, frames between two containers on one bridge pass
there too, and are dropped. The rule accepts just those: it opens no way from one network to another.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

BRIDGES_ARE_FILTERED = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")


def accept(pool: str) -> None:
    """Let frames within the bridges of `pool`, a subnet, pass. Nothing is done where nothing is filtered."""
    forward = _rules()
    filtered = BRIDGES_ARE_FILTERED.exists() and BRIDGES_ARE_FILTERED.read_text().strip() == "1"
    if filtered and forward not in ([], [["-P", "FORWARD", "ACCEPT"]]) and ["-A", *_rule(pool)] not in forward:
        _iptables("-I", *_rule(pool))


def withdraw(pool: str) -> None:
    """Remove the rule again, if it is there."""
    for _ in range(_rules().count(["-A", *_rule(pool)])):
        _iptables("-D", *_rule(pool))


def _rule(pool: str) -> list[str]:
    return ["FORWARD", "-s", pool, "-d", pool, "-m", "physdev", "--physdev-is-bridged", "-j", "ACCEPT"]


def _rules() -> list[list[str]]:
    """The words of each rule for what is forwarded."""
    return [line.split() for line in _iptables("-S", "FORWARD").splitlines()]


def _iptables(*arguments: str) -> str:
    """What iptables says; nothing where it is missing or refuses."""
    try:
        done = subprocess.run(
            ["iptables", "--wait", "-t", "filter", *arguments],
            check=False,
            capture_output=True,
            text=True,
            env={"PATH": "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin:/bin"},
        )
    except FileNotFoundError:
        return ""
    return done.stdout

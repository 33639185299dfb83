"""What the API server of the tests' own cluster saw: who changed what in a namespace, in the order of the calls."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from tools import cluster as tool

CHANGES = {"create", "patch", "update", "delete"}
POD = "authentication.kubernetes.io/pod-name"


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """One call that was answered: when it arrived, by which pod or account, what was asked, and the answer's code."""

    at: str
    who: str
    verb: str
    what: str
    code: int


def events(own: tool.Cluster) -> Iterator[dict[str, Any]]:
    """Each call as the audit log has it, but for a last line that is just being written."""
    whole, _, _ = own.audit.read_text().rpartition("\n")
    return map(json.loads, whole.splitlines())


def changes(own: tool.Cluster, namespace: str, *, group: str = "system:serviceaccounts:") -> list[Change]:
    """What accounts of a group of accounts changed in a namespace; leases are not counted."""
    found = []
    for event in events(own):
        target, user = event.get("objectRef") or {}, event["user"]
        if target.get("namespace") != namespace or event["verb"] not in CHANGES or target["resource"] == "leases":
            continue
        if not any(one.startswith(group) for one in user.get("groups", ())):
            continue
        (who,) = user.get("extra", {}).get(POD) or [user["username"].rpartition(":")[2]]
        what = f"{target['resource']}/{target.get('name', '')}"
        code = event.get("responseStatus", {}).get("code", 0)
        found.append(Change(event["requestReceivedTimestamp"], who, event["verb"], what, code))
    return sorted(found)


def turns(names: Iterable[str]) -> list[str]:
    """Who came after whom: somebody who is in it twice came again after another had."""
    return [name for name, _ in groupby(names)]

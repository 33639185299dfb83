"""What a schema cannot say about the settings: URLs, references between sections, fields that go together."""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from reconciler.core import quantity
from reconciler.core.addresses import is_ssh, listen, port_range, url_problem
from reconciler.core.journal_rules import journal_remarks
from reconciler.core.proxy_rules import proxy_remarks, shared
from reconciler.core.words import nearest, shown
from reconciler.core.yaml_reader import Path, Value

Remark = tuple[Path, str]

_LOCAL = "unix:///var/run/docker.sock"
_HTTP_URL = re.compile(
    r"https?://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~/-]*)?"
)


def rules(value: Value, wrong: Sequence[Path]) -> Iterator[Remark]:
    """(place, problem) for each, in the parts where the schema found nothing `wrong`."""
    if not isinstance(value, dict):
        return
    for name, entry in _right(value, "repositories", wrong).items():
        yield from _repository(("repositories", name), entry)
    runtimes = _right(value, "runtimes", wrong)
    for name, entry in runtimes.items():
        docker = entry.get("docker", {})
        if "tls" in docker and not docker.get("host", "").startswith("tcp://"):
            yield ("runtimes", name, "docker", "tls"), "tls goes with a tcp:// host only; change host or remove tls"
    environments = _right(value, "environments", wrong)
    for name, entry in environments.items():
        yield from _environment(("environments", name), entry, value)
        yield from _engine(("environments", name), entry, runtimes.get(entry["runtime"], {}))
    yield from shared({name: (_host(entry, value), entry.get("proxy", {})) for name, entry in environments.items()})
    yield from _namespaces(environments, runtimes)
    sound = {key: each for key, each in value.items() if not any(path[:1] == (key,) for path in wrong)}
    http = sound.get("http", {})
    if "listen" in http and listen(http["listen"])[1] > 65535:
        yield ("http", "listen"), "the port is above 65535; choose another"
    yield from journal_remarks(sound)
    yield from _leader(sound.get("leader", {}), value.get("runtimes"))
    yield from _shards(sound.get("shard", {}), environments, sharded="shard" in value)


def _right(value: Mapping[str, Any], section: str, wrong: Sequence[Path]) -> Mapping[str, Mapping[str, Any]]:
    """The entries of a section in which the schema found nothing wrong."""
    entries = value.get(section)
    bad = {path[1] for path in wrong if path[:1] == (section,) and len(path) > 1}
    return {name: each for name, each in entries.items() if name not in bad} if isinstance(entries, dict) else {}


def _repository(place: Path, entry: Mapping[str, Any]) -> Iterator[Remark]:
    problem = url_problem(entry["url"], allow_file=entry.get("allowFile", False))
    if problem:
        yield (*place, "url"), problem
        return
    ssh, https = is_ssh(entry["url"]), entry["url"].startswith("https://")
    for key, fits, other in (("sshKey", ssh, "ssh"), ("knownHosts", ssh, "ssh"), ("tokenFile", https, "https")):
        if key in entry and not fits:
            yield (*place, key), f"{key} goes with an {other} URL only; remove it or change the URL"


def _environment(place: Path, entry: Mapping[str, Any], value: Mapping[str, Any]) -> Iterator[Remark]:
    for section, key in (("repositories", "repository"), ("runtimes", "runtime")):
        known = value.get(section)
        if isinstance(known, dict) and entry[key] not in known:
            yield (*place, key), f"there is no {shown(entry[key])} in {section}{nearest(entry[key], known)}"
    for index, text in enumerate(entry.get("allow", {}).get("hostPorts", ())):
        low, high = port_range(text)
        if not 1 <= low <= high <= 65535:
            message = f"{text} is not a range of ports; write the lower one first, within 1-65535"
            yield (*place, "allow", "hostPorts", index), message
    for where, message in proxy_remarks(entry.get("proxy", {})):
        yield (*place, "proxy", *where), message
    url = entry.get("prometheus", {}).get("url")
    if url is not None and not _HTTP_URL.fullmatch(url):
        # It is not repeated: a password may stand in it.
        message = "write http://host:port or https://host; credentials belong into tokenFile, a query nowhere"
        yield (*place, "prometheus", "url"), message


def _engine(place: Path, entry: Mapping[str, Any], runtime: Mapping[str, Any]) -> Iterator[Remark]:
    """What does not go with the kind of the environment's `runtime`, which is empty when that is not known."""
    if "kubernetes" in runtime:
        if "proxy" in entry:
            yield (*place, "proxy"), "proxy goes with a docker runtime only; remove it (on Kubernetes: gateway)"
        if "hostPorts" in entry.get("allow", {}):
            yield (*place, "allow", "hostPorts"), "host ports go with a docker runtime only; remove it"
    elif "docker" in runtime:
        for key in ("namespace", "gateway"):
            if key in entry:
                yield (*place, key), f"{key} goes with a kubernetes runtime only; remove it or change runtime"
        for key in ("namespaces", "clusterScoped"):
            if key in entry.get("allow", {}):
                yield (*place, "allow", key), f"{key} goes with a kubernetes runtime only; remove it or change runtime"


def _namespaces(
    environments: Mapping[str, Mapping[str, Any]], runtimes: Mapping[str, Mapping[str, Any]]
) -> Iterator[Remark]:
    """Two environments in one namespace would take each other's names. Two runtimes may be the same cluster."""
    taken: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name, entry in environments.items():
        cluster = runtimes.get(entry["runtime"], {}).get("kubernetes")
        if cluster is not None:
            reached = posixpath.normpath(cluster["kubeconfig"]) if "kubeconfig" in cluster else ""
            taken[reached, cluster.get("context", ""), entry.get("namespace", name)].append(name)
    for (*_, namespace), names in taken.items():
        for name in names if len(names) > 1 else ():
            others = ", ".join(other for other in names if other != name)
            where = "namespace" if "namespace" in environments[name] else "runtime"
            message = f"namespace {namespace} of this cluster is also that of {others}; give each its own (namespace)"
            yield ("environments", name, where), message


def _leader(leader: Mapping[str, Any], runtimes: Value) -> Iterator[Remark]:
    if not leader:
        return
    name = leader["runtime"]
    if isinstance(runtimes, dict) and name not in runtimes:
        yield ("leader", "runtime"), f"there is no {shown(name)} in runtimes{nearest(name, runtimes)}"
    elif isinstance(runtimes, dict) and isinstance(runtimes[name], dict) and "kubernetes" not in runtimes[name]:
        yield ("leader", "runtime"), "a Lease is kept by a cluster; name a kubernetes runtime"
    duration, renew, retry = (
        quantity.duration(leader.get(key, default))
        for key, default in (("duration", "15s"), ("renew", "10s"), ("retry", "2s"))
    )
    if duration % timedelta(seconds=1):
        yield ("leader", "duration"), "a Lease holds for whole seconds; write some, as in 15s"
    if renew + timedelta(seconds=1) > duration:
        message = "renew is to be at least 1s less than duration, so that a step in hand can end; change one of them"
        yield ("leader", "renew"), message
    if 2 * retry >= renew:
        yield ("leader", "retry"), "two attempts have to fit into renew; write less than half of it"


def _shards(
    shard: Mapping[str, Any], environments: Mapping[str, Mapping[str, Any]], *, sharded: bool
) -> Iterator[Remark]:
    count = shard.get("count")
    if count is not None and shard.get("index", 0) >= count:
        yield ("shard", "index"), f"of {count} the last one is {count - 1}; write one from 0 on"
    if count is not None and "index" not in shard:
        yield ("shard",), "index says which of them this daemon is; add it, or give it when the program is started"
    for name, entry in environments.items():
        place: Path = ("environments", name, "shard")
        if "shard" in entry and not sharded:
            yield place, "there are no shards; remove this, or say at the top how many there are (shard.count)"
        elif count is not None and entry.get("shard", 0) >= count:
            yield place, f"of {count} shards the last one is {count - 1}; write one from 0 on"


def _host(entry: Mapping[str, Any], value: Mapping[str, Any]) -> str:
    """What tells the machines of environments apart: two runtimes may be the same engine."""
    runtimes = value.get("runtimes")
    runtime = runtimes.get(entry["runtime"]) if isinstance(runtimes, dict) else None
    docker = runtime.get("docker") if isinstance(runtime, dict) else None
    return str(docker.get("host", _LOCAL)) if isinstance(docker, dict) else ""

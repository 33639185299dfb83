"""What a schema cannot say about the settings: URLs, references between sections, fields that go together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reconciler.core.addresses import is_ssh, listen, port_range, url_problem
from reconciler.core.document import Path, Value
from reconciler.core.proxy_rules import proxy_remarks, shared
from reconciler.core.words import nearest, shown

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
    for name, entry in _right(value, "runtimes", wrong).items():
        docker = entry["docker"]
        if "tls" in docker and not docker.get("host", "").startswith("tcp://"):
            yield ("runtimes", name, "docker", "tls"), "tls goes with a tcp:// host only; change host or remove tls"
    environments = _right(value, "environments", wrong)
    for name, entry in environments.items():
        yield from _environment(("environments", name), entry, value)
    yield from shared({name: (_host(entry, value), entry.get("proxy", {})) for name, entry in environments.items()})
    http = {} if any(path[:1] == ("http",) for path in wrong) else value.get("http", {})
    if "listen" in http and listen(http["listen"])[1] > 65535:
        yield ("http", "listen"), "the port is above 65535; choose another"


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


def _host(entry: Mapping[str, Any], value: Mapping[str, Any]) -> str:
    """What tells the machines of environments apart: two runtimes may be the same engine."""
    runtimes = value.get("runtimes")
    runtime = runtimes.get(entry["runtime"]) if isinstance(runtimes, dict) else None
    docker = runtime.get("docker") if isinstance(runtime, dict) else None
    return str(docker.get("host", _LOCAL)) if isinstance(docker, dict) else ""

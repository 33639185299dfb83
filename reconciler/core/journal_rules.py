"""What a schema cannot say about the journal in the settings: its URL, and what goes with it. Text only.

No part of a wrong URL is ever repeated in a message: a password may stand in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from reconciler.core.addresses import is_loopback
from reconciler.core.yaml_reader import Path

SQLITE = "sqlite:///"
POSTGRES = "postgresql://"
SCHEMA = "reconciler"
"""The schema of the database where the URL names none."""

_FILE = re.compile(r"(?!:memory:)[^?#%$\s][^?#%$]*")
_SERVER = re.compile(
    r"[^:@/?#%$\s]+@(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|)(?P<port>:[0-9]{1,5})?"
    r"/[^@/?#%$\s]+(?:\?(?P<options>[^#\s]*))?"
)
_LONGEST_SCHEMA = 63
_OPTIONS = {
    "schema": (
        re.compile(r"(?!pg_)[a-z_][a-z0-9_]*"),
        "schema is a name of at most 63 lower-case letters, digits and underscores, without pg_ in front",
    ),
    "sslmode": (
        re.compile(r"disable|require|verify-ca|verify-full"),
        "sslmode is one of disable, require, verify-ca and verify-full",
    ),
    "host": (re.compile(r"/[A-Za-z0-9._/@+-]*"), "host= is the directory of a socket; a server stands before the path"),
    "port": (re.compile(r"[0-9]{1,5}"), "port= is the number of a port"),
}
_OPTION = re.compile(r"([a-z]+)=([^&]+)")


def journal_remarks(value: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """(place, problem) for each. `value` are the sections of the settings in which the schema found nothing wrong."""
    url = value.get("journal", f"{SQLITE}journal.db")
    if url.startswith(POSTGRES):
        problem = _server_problem(url.removeprefix(POSTGRES), sharded="shard" in value)
        if problem:
            yield ("journal",), problem
        return
    if not (url.startswith(SQLITE) and _FILE.fullmatch(url.removeprefix(SQLITE))):
        yield ("journal",), "write sqlite:/// and the path of a file, or postgresql://user@host/database"
    for key in ("journalPasswordFile", "journalTls"):
        if key in value:
            yield (key,), f"{key} goes with a postgresql:// journal only; remove it"


def _server_problem(rest: str, *, sharded: bool) -> str:
    """What is wrong with a URL after its scheme; empty when nothing is."""
    if ":" in rest.partition("/")[0].rpartition("@")[0]:
        return "a password stands in the URL; remove it, and use journalPasswordFile"
    found = _SERVER.fullmatch(rest)
    if found is None:
        return "write postgresql://user@host:port/database?schema=name, or user@/database?host=/directory of the socket"
    options: dict[str, str] = {}
    for text in (found["options"] or "").split("&") if found["options"] is not None else ():
        option = _OPTION.fullmatch(text)
        if option is None or option[1] not in _OPTIONS or option[1] in options:
            return f"after the ? stand {', '.join(sorted(_OPTIONS))}, each once and with a value; use no other"
        pattern, remedy = _OPTIONS[option[1]]
        if not pattern.fullmatch(option[2]):
            return remedy
        options[option[1]] = option[2]
    if bool(found["host"]) == ("host" in options):
        return "name one server: a host before the path, or host= with the directory of its socket after it"
    if found["host"] and "port" in options:
        return "the port of a server stands behind its host, as in host:5432"
    if not 1 <= int((found["port"] or ":5432")[1:]) <= 65535 or not 1 <= int(options.get("port", "5432")) <= 65535:
        return "the port is not within 1-65535; choose another"
    if len(options.get("schema", "")) > _LONGEST_SCHEMA - (len("_255") if sharded else 0):
        return "the name of the schema is too long: at most 63 characters, with shard 59"
    return ""


def of_shard(url: str, index: int) -> str:
    """The URL of a valid journal in PostgreSQL with the schema of one shard: no two shards may have one."""
    before, _, options = url.partition("?")
    kept = [option for option in options.split("&") if option]
    schema = next((option.removeprefix("schema=") for option in kept if option.startswith("schema=")), SCHEMA)
    others = [option for option in kept if not option.startswith("schema=")]
    return f"{before}?{'&'.join([f'schema={schema}_{index}', *others])}"


def unverified(url: str) -> str:
    """The sslmode of a valid journal that lets somebody between here and the database listen, if it does."""
    found = _SERVER.fullmatch(url.removeprefix(POSTGRES)) if url.startswith(POSTGRES) else None
    if found is None or not found["host"] or is_loopback(found["host"]):
        return ""
    modes = [mode for mode in ("disable", "require") if f"sslmode={mode}" in (found["options"] or "").split("&")]
    return "".join(modes)

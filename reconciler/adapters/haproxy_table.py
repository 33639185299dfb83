"""What a HAProxy answers, as values: `show servers state`, `show stat`, `show table`. Pure; it asks nothing.

Columns are found by their names, so that those which other versions add do no harm; what is needed and missing or
not a number is an error, never a guess. Sources: HAProxy's management guide, sections "Statistics and monitoring"
and "Unix Socket commands"; the bits of the administrative state are those of `show servers state` there.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from reconciler.core.errors import Reason, Retryable
from reconciler.core.live import ServerMode

_STATE = "# be_id "
_STAT = "# pxname,"
_TABLE = re.compile(r"# table: ([^,\s]+),")
_ENTRY = re.compile(r"0x[0-9a-f]+: key=([^/\s]+)/([0-9]+|inf) .*\bgpc0=([0-9]+)\b")
_BACKEND = re.compile(r"^backend[ \t]+(\S+)", re.MULTILINE)
_MAINT = 0x01 | 0x02 | 0x20 | 0x40  # asked for, inherited, unresolved; 0x04 only says what the file once said
_DRAIN = 0x08 | 0x10
_NOWHERE = frozenset({"0.0.0.0", "::", "-", ""})  # noqa: S104 - no address to listen at but one that means none
_HEAVIEST = 256


@dataclass(frozen=True, slots=True)
class Place:
    """One slot of a backend in one proxy; `address` is "" when it is free.

    `proven`: the proxy's own checks all passed since it began to look, or it makes none. `counts`: what only grows:
    `requests`, `errors`, and the answers by latency bucket (`"10"`: up to 10 ms and above the bound before; `"inf"`).
    """

    backend: str
    slot: str
    address: str
    port: int
    mode: ServerMode
    weight: int
    up: bool
    proven: bool
    sessions: int
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def at(self) -> tuple[str, int]:
        """Whom it leads to."""
        return self.address, self.port

    @property
    def carries(self) -> bool:
        """New requests come here."""
        return self.mode is ServerMode.READY and self.up and self.weight > 0


@dataclass(frozen=True, slots=True)
class Row:
    """One line of `show stat`: a server, or a whole backend when `server` is "". `status` as the proxy words it;
    `http`: it is asked by requests, not by connections."""

    backend: str
    server: str
    status: str
    address: str
    weight: str
    sessions: int
    queued: int
    requests: int
    errors: int
    proven: bool
    http: bool

    @property
    def up(self) -> bool:
        """Whether a backend has a server that takes new requests."""
        return self.status == "UP"


@dataclass(frozen=True, slots=True)
class Table:
    """All that one proxy shows: its places, and the rows of its backends by name."""

    places: tuple[Place, ...]
    totals: Mapping[str, Row]

    def of(self, backend: str) -> tuple[Place, ...]:
        """The places of one backend."""
        return tuple(place for place in self.places if place.backend == backend)


def table(text: str, where: str) -> Table:
    """What is in the answers to `show servers state`, `show stat` and any `show table`, in any order.

    Raises Retryable(PROXY_UNREACHABLE), naming `where`, when that cannot be read.
    """
    rows = {(row.backend, row.server): row for row in stat(text, where)}
    latencies = latency(text)
    places = []
    for values in _state(text, where):
        backend, slot, address = (_text(values, name, where) for name in ("be_name", "srv_name", "srv_addr"))
        if (backend, "") not in rows:
            continue  # one that statistics do not show, such as an internal one, is none of ours
        row = rows.get((backend, slot))
        if row is None:
            raise _unreadable(where, f"`show stat` lacks {backend}/{slot}")
        counts = {"requests": row.requests, "errors": row.errors, **latencies.get((backend, slot), {})}
        admin = _number(values, "srv_admin_state", where)
        places.append(
            Place(
                backend,
                slot,
                "" if address in _NOWHERE else address,
                _number(values, "srv_port", where),
                ServerMode.MAINT if admin & _MAINT else ServerMode.DRAIN if admin & _DRAIN else ServerMode.READY,
                _number(values, "srv_uweight", where, _HEAVIEST),
                _number(values, "srv_op_state", where) > 0,
                row.proven,
                row.sessions + row.queued,
                counts,
            )
        )
    return Table(tuple(places), {row.backend: row for row in rows.values() if not row.server})


def stat(text: str, where: str) -> tuple[Row, ...]:
    """The rows of all answers to `show stat` in `text`: servers and backends. Raises Retryable as `table` does."""
    found = []
    for header, lines in _blocks(text, _STAT):
        names = header.removeprefix("# ").split(",")
        for cells in csv.reader(lines):
            values = dict(zip(names, cells, strict=False))
            if values.get("svname") != "FRONTEND":
                found.append(_row(values, where))
    if not found and _STAT not in text:
        raise _unreadable(where, "`show stat`")
    return tuple(found)


def clients(text: str, frontend: str, where: str) -> int:
    """The connections of clients of `frontend` in all answers to `show stat` in `text`. Raises Retryable as `table`."""
    found = 0
    for header, lines in _blocks(text, _STAT):
        names = header.removeprefix("# ").split(",")
        for cells in csv.reader(lines):
            values = dict(zip(names, cells, strict=False))
            if (values.get("pxname"), values.get("svname")) == (frontend, "FRONTEND"):
                found += _number(values, "scur", where)
    return found


def _row(values: Mapping[str, str], where: str) -> Row:
    server = _text(values, "svname", where)
    return Row(
        _text(values, "pxname", where),
        "" if server == "BACKEND" else server,
        _text(values, "status", where),
        values.get("addr", ""),
        values.get("uweight") or values.get("weight", ""),
        _number(values, "scur", where),
        _number(values, "qcur", where),
        _number(values, "stot", where),
        sum(_number(values, name, where) for name in ("econ", "eresp")) + _optional(values, "hrsp_5xx", where),
        _proven(values, where),
        values.get("mode") != "tcp",
    )


def _proven(values: Mapping[str, str], where: str) -> bool:
    """A check that passes makes the health full: rise + fall - 1. One that has not run yet leaves it at rise."""
    if not values.get("check_health"):
        return True
    health, rise, fall = (_number(values, f"check_{name}", where) for name in ("health", "rise", "fall"))
    return health >= rise + fall - 1


def latency(text: str) -> Mapping[tuple[str, str], Mapping[str, int]]:
    """The answers counted by latency bucket in the stick tables, by backend and slot; other keys are left out."""
    found: dict[tuple[str, str], dict[str, int]] = {}
    for header, lines in _blocks(text, "# table: "):
        name = _TABLE.match(header)
        for line in lines if name else ():
            entry = _ENTRY.match(line)
            if name and entry:
                found.setdefault((name[1], entry[1]), {})[entry[2]] = int(entry[3])
    return found


def backends_of(config: str) -> tuple[str, ...]:
    """The names of the backends that a configuration defines."""
    return tuple(_BACKEND.findall(config))


def state_of(text: str, where: str) -> str:
    """The answer to `show servers state` as the proxy reads it back at its start. Raises Retryable as `table` does."""
    for header, lines in _blocks(text, _STATE):
        return "\n".join(("1", header, *lines, ""))
    raise _unreadable(where, "`show servers state`")


def _state(text: str, where: str) -> Iterator[Mapping[str, str]]:
    header = ""
    for header, lines in _blocks(text, _STATE):
        names = header.removeprefix("# ").split()
        for line in lines:
            cells = line.split()
            if len(cells) < len(names):
                raise _unreadable(where, "`show servers state`")
            yield dict(zip(names, cells, strict=False))
    if not header:
        raise _unreadable(where, "`show servers state`")


def _blocks(text: str, start: str) -> Iterator[tuple[str, Sequence[str]]]:
    """Each header line that begins with `start`, and the lines up to the next empty one."""
    lines = text.split("\n")
    position = 0
    while position < len(lines):
        header = lines[position]
        position += 1
        if header.startswith(start):
            first = position
            while position < len(lines) and lines[position]:
                position += 1
            yield header, lines[first:position]


def _optional(values: Mapping[str, str], name: str, where: str) -> int:
    return _number(values, name, where) if values.get(name) else 0


def _text(values: Mapping[str, str], name: str, where: str) -> str:
    if not values.get(name):
        raise _unreadable(where, f"the column {name} is missing")
    return values[name]


def _number(values: Mapping[str, str], name: str, where: str, most: int = 2**63) -> int:
    given = values.get(name, "")
    if not re.fullmatch("[0-9]{1,19}", given) or int(given) > most:
        raise _unreadable(where, f"the column {name}: {given[:40]!r}")
    return int(given)


def _unreadable(where: str, what: str) -> Retryable:
    return Retryable(
        Reason.PROXY_UNREACHABLE,
        f"what the proxy answers cannot be read: {what}",
        where=where,
        remedy="See that this is the runtime socket of a HAProxy of version 2.6 or later",
        after=timedelta(seconds=1),
    )

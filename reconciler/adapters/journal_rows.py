"""Rows of the journal's tables to records and back. Inside a transaction of the caller; errors are the caller's too."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import (
    JSON,
    Connection,
    Engine,
    Insert,
    RowMapping,
    Select,
    Text,
    bindparam,
    cast,
    column,
    func,
    insert,
    literal_column,
    select,
)

from reconciler.adapters.journal_errors import damaged, reading
from reconciler.adapters.journal_schema import records
from reconciler.core import audit
from reconciler.core.audit import GENESIS, Head
from reconciler.core.entry_codec import UnreadableError, timestamp
from reconciler.core.record import Record, What

PAGE = 500

_HEAD = select(records.c.index, records.c.epoch, records.c.hash)
_NEWEST = _HEAD.order_by(records.c.index.desc()).limit(literal_column("1"))


def newest_head(connection: Connection) -> Head:
    """The place of the last record, or GENESIS."""
    row = connection.execute(_NEWEST).one_or_none()
    return GENESIS if row is None else Head(*row)


def head_at(connection: Connection, index: int) -> Head | None:
    """The place of record `index` (0: GENESIS), or None when there is none."""
    row = connection.execute(_HEAD.where(records.c.index == index)).one_or_none()
    if row is None:
        return GENESIS if index == 0 else None
    return Head(*row)


def add(connection: Connection, found: Sequence[Record]) -> None:
    """Insert the records, in order."""
    if not found:
        return
    if connection.dialect.name == "postgresql":
        rows = [_columns(r) | {"hash": r.hash, "body": r.body.decode()} for r in found]
        connection.execute(_INSERT_JSON, {"rows": json.dumps(rows, ensure_ascii=False)})
    else:
        connection.execute(insert(records), [_columns(r) | {"hash": r.hash, "body": r.body} for r in found])


def _insert_json() -> Insert:
    """All rows in one statement: pg8000 would go to the server and back three times for each of several."""
    names = [each.name for each in records.columns]
    typed = [column(name, Text() if name == "body" else records.c[name].type) for name in names]
    rows = func.json_to_recordset(cast(bindparam("rows", type_=Text), JSON)).table_valued(*typed)
    rows = rows.render_derived(name="row", with_types=True)
    values = [func.convert_to(rows.c.body, "UTF8") if name == "body" else rows.c[name] for name in names]
    return insert(records).from_select(names, select(*values))


_INSERT_JSON = _insert_json()


def _columns(record: Record) -> dict[str, Any]:
    """What stands in the columns for queries and for people, out of the body."""
    entry = record.entry
    return {
        "index": record.index,
        "epoch": record.epoch,
        "previous": record.previous,
        "at": timestamp(entry.at),
        "environment": entry.environment,
        "service": entry.service,
        "what": entry.what.value,
        "revision": entry.revision,
    }


def record_of(row: RowMapping, place: str) -> Record:
    """The record of a row, not checked. Raises Stalled(JOURNAL_DAMAGED) when its body cannot be read."""
    try:
        return audit.read(_body(row), row["hash"])
    except UnreadableError as error:
        raise damaged(f"record {row['index']} cannot be read: {error}", place) from error


def _body(row: RowMapping) -> bytes:
    """The stored bytes. A damaged row can hold another type than its table says."""
    body = row["body"]
    return body if isinstance(body, bytes) else str(body).encode()


def checked(after: Head, row: RowMapping) -> Record | str:
    """The record of a row, when it holds as the one after `after`; otherwise the problem, naming its index."""
    if row["index"] != after.index + 1:
        return f"record {after.index + 1} is missing: record {row['index']} stands in its place"
    body = _body(row)
    if audit.digest(body) != row["hash"]:
        return f"record {row['index']} was changed: its content does not have the hash recorded"
    try:
        record = audit.read(body, row["hash"])
    except UnreadableError as error:
        return f"record {row['index']} cannot be read: {error}"
    for name, value in _columns(record).items():
        # A word of a newer release is in the column as it was written.
        if row[name] != value and not (name == "what" and record.entry.what is What.UNKNOWN):
            return f"record {row['index']} was changed: its column {name} is not what its body says"
    return audit.link_problem(after, record) or record


def pages(engine: Engine, place: str, query: Select[Any], after: int, limit: int | None) -> Iterator[RowMapping]:
    """The rows of `query` beyond index `after`, rising, at most `limit`.

    Each page is a transaction of its own: one that stays open for long would keep SQLite's WAL from being moved away
    and PostgreSQL's old rows from being cleared.
    """
    left = limit
    while left is None or left > 0:
        size = PAGE if left is None else min(PAGE, left)
        page = query.where(records.c.index > after).order_by(records.c.index).limit(size)
        with reading(engine, place) as connection:
            rows = connection.execute(page).mappings().all()
        yield from rows
        if len(rows) < size:
            return
        after = rows[-1]["index"]
        left = None if left is None else left - size

"""The journal's tables, the same in each database. What is a database's own stands in the module of that database."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, Table, Text

from reconciler.core.errors import Reason, Stalled

SCHEMA = 1

# On SQLite only INTEGER makes the key the row's own place in the file.
Big = BigInteger().with_variant(Integer(), "sqlite")
# An index in the order of a language breaks when the operating system's idea of that language changes.
Word = Text().with_variant(Text(collation="C"), "postgresql")

metadata = MetaData()

records = Table(
    "records",
    metadata,
    Column("index", Big, primary_key=True, autoincrement=False),
    Column("epoch", Big, nullable=False),
    Column("previous", Word, nullable=False),
    Column("hash", Word, nullable=False),
    # What follows is a copy out of the body, for queries; `verify` compares it.
    Column("at", Word, nullable=False),
    Column("environment", Word, nullable=False),
    Column("service", Word, nullable=False),
    Column("what", Word, nullable=False),
    Column("revision", Word, nullable=False),
    Column("body", LargeBinary, nullable=False),
    sqlite_strict=True,
)
Index("records_of_service", records.c.environment, records.c.service, records.c.index)
Index("records_of_environment", records.c.environment, records.c.index)

# A cache: the memory of each environment, folded up to and with the record `upto`, whose hash is `head`. All rows are
# written together; `digest` is over all of them, so a row that is missing or changed by accident is noticed.
projections = Table(
    "projections",
    metadata,
    Column("environment", Word, primary_key=True),
    Column("upto", Big, nullable=False),
    Column("head", Word, nullable=False),
    Column("program", Word, nullable=False),
    Column("memory", LargeBinary, nullable=False),
    Column("digest", Word, nullable=False),
    sqlite_strict=True,
)


def check_layout(found: int, place: str) -> None:
    """Raises Stalled for tables that a newer release made."""
    if found > SCHEMA:
        raise Stalled(
            Reason.JOURNAL_UNAVAILABLE,
            f"the journal has layout {found}, and this release knows up to {SCHEMA}",
            where=place,
            remedy="Use the newer release of Reconciler that wrote it",
        )

"""What the journal needs of a database, and what each kind of database does in its own way. No record is read here."""

from __future__ import annotations

from typing import Protocol

from sqlalchemy import Connection, Engine


class Lock(Protocol):
    """One daemon acts on a journal. The fence by epoch holds even where this lock does not."""

    def release(self, writing: Engine) -> None:
        """Close the connection of `writing` and let go, in the order that the database wants. It must not raise."""


class Store(Protocol):
    """A place for one journal. Nothing is opened before it is used. Whatever a library raises is the caller's."""

    @property
    def place(self) -> str:
        """Its name in errors, without anything that is secret."""

    @property
    def settles(self) -> bool:
        """Whether what is read after a failed commit is what will stay.

        So it is for a server, which recovers before it answers; but a disk that refused to sync may show from its cache
        what it does not keep.
        """

    def exists(self) -> bool:
        """Whether it is worth connecting as a reader."""

    def make(self) -> None:
        """Make the place that holds a new journal, where there is none."""

    def writing_engine(self, *, acts: bool) -> Engine:
        """One connection; after `fence` its transaction is the only one that adds records."""

    def reading_engine(self) -> Engine:
        """Connections that cannot write."""

    def take(self, writing: Engine, *, over: bool) -> Lock:
        """Lock it for one daemon. `over`: also from another that does not let go, where that is possible.

        Raises Stalled(JOURNAL_LOCKED).
        """

    def check_fit(self, engine: Engine) -> None:
        """Raises Stalled(JOURNAL_UNAVAILABLE) where it cannot keep what is written."""

    def check_schema(self, connection: Connection) -> None:
        """Raises Stalled for tables that a newer release made."""

    def has_tables(self, connection: Connection) -> bool:
        """Whether this is a journal at all."""

    def create_tables(self, connection: Connection) -> None:
        """Make the tables and indexes of a new journal, and what refuses to change records."""

    def create_triggers(self, connection: Connection) -> None:
        """Make the database refuse to change records, also where someone took that away."""

    def fence(self, connection: Connection) -> None:
        """Hold off all other writers until the end of the transaction; what is read after it is the newest."""

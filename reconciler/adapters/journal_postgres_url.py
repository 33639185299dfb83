"""The address of a journal in PostgreSQL, and what a connection to it is opened with. It opens none.

The password is read from its file at each new connection, so that it can be changed while the daemon runs; it is in
no URL, no message and no log. The environment (PGHOST, PGPASSWORD …) is not read.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from reconciler.core.addresses import is_loopback
from reconciler.core.errors import Reason, Stalled
from reconciler.core.journal_rules import SCHEMA, journal_remarks
from reconciler.settings import JournalSettings

ANSWER_SECONDS = 15.0
"""For the server to be reached, and for each of its answers. Longer than the server's own limits below."""
STATEMENT_SECONDS = 12.0
LOCK_SECONDS = 10.0
"""How long to wait for another writer's transaction. Longer than a transaction may stand still."""
IDLE_SECONDS = 5.0
"""How long a writer that stopped in the middle of a transaction holds off the others: the server ends it then."""
PORT = 5432
_PASSWORD_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class Address:
    """A server, at `host` or at the `socket`; a database of it, and the schema in that which is the journal."""

    user: str
    host: str
    socket: str
    port: int
    database: str
    schema: str
    mode: str

    @property
    def shown(self) -> str:
        """As people name it: without the user."""
        server = f"{self.host}:{self.port}" if self.host else self.socket
        return f"postgresql {server}, database {self.database}, schema {self.schema}"


def address_of(url: str) -> Address:
    """The parts of `postgresql://USER@HOST[:PORT]/DATABASE[?schema=NAME][&sslmode=MODE]`, or with `host=` a socket.

    Raises Stalled(SETTINGS_INVALID), which does not show the URL: a password may stand in it.
    """
    for _, problem in journal_remarks({"journal": url}):
        raise Stalled(Reason.SETTINGS_INVALID, problem, where="journal", remedy="See docs/operating.md for its form")
    parsed = make_url(url)
    options = {name: str(value) for name, value in parsed.query.items()}
    port = parsed.port or int(options.get("port", PORT))
    directory = options.get("host", "")
    near = bool(directory) or is_loopback(parsed.host or "")
    return Address(
        user=parsed.username or "",
        host=parsed.host or "",
        socket=f"{directory.rstrip('/')}/.s.PGSQL.{port}" if directory else "",
        port=port,
        database=parsed.database or "",
        schema=options.get("schema", SCHEMA),
        mode=options.get("sslmode", "disable" if near else "verify-full"),
    )


def arguments(address: Address, login: JournalSettings, name: str, **parameters: str) -> dict[str, Any]:
    """What pg8000 connects with. `name` is who we are, for people; `parameters` are settings of the session.

    Raises Stalled(SETTINGS_INVALID) for a file that cannot be used.
    """
    session = {
        "client_encoding": "UTF8",
        "bytea_output": "hex",
        "search_path": "pg_catalog",
        "default_transaction_isolation": "read committed",
        "statement_timeout": _milliseconds(STATEMENT_SECONDS),
        "lock_timeout": _milliseconds(LOCK_SECONDS),
        "idle_in_transaction_session_timeout": _milliseconds(IDLE_SECONDS),
        # A client whose machine is gone must not hold its lock for the two hours of TCP's default.
        "tcp_keepalives_idle": "10",
        "tcp_keepalives_interval": "5",
        "tcp_keepalives_count": "3",
    }
    where = {"unix_sock": address.socket} if address.socket else {"host": address.host, "port": address.port}
    return where | {
        "user": address.user,
        "database": address.database,
        # pg8000 takes "" for a wrong password, but None for a reason to fail without a word.
        "password": _password(login.password_file),
        "ssl_context": _tls(address, login),
        "timeout": ANSWER_SECONDS,
        "application_name": name[:63],
        "startup_params": session | parameters,
    }


def _milliseconds(seconds: float) -> str:
    return str(int(seconds * 1000))


def _password(file: Path | None) -> str:
    if file is None:
        return ""
    try:
        with file.open("rb") as opened:
            content = opened.read(_PASSWORD_LIMIT + 1)
        if len(content) > _PASSWORD_LIMIT:
            raise _unusable("it is too long for a password", file)
        return content.decode().removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise _unusable(f"it cannot be read: {error.strerror or error}", file) from error
    except UnicodeDecodeError:
        raise _unusable("it is not text in UTF-8", file) from None


def _tls(address: Address, login: JournalSettings) -> ssl.SSLContext | bool:
    """False for no TLS: for None pg8000 would try it and go on without."""
    if address.mode == "disable" or address.socket:
        return False
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = address.mode == "verify-full"
    context.verify_mode = ssl.CERT_NONE if address.mode == "require" else ssl.CERT_REQUIRED
    file = login.tls_ca
    try:
        if file is not None:
            context.load_verify_locations(cafile=file)
        elif context.verify_mode is ssl.CERT_REQUIRED:
            context.load_default_certs()
        file = login.tls_cert
        if file is not None:
            context.load_cert_chain(file, login.tls_key)
    except (OSError, ValueError) as error:  # an ssl.SSLError is an OSError
        raise _unusable(f"it or its key cannot be used for TLS: {error}", file) from error
    return context


def _unusable(what: str, file: Path | None) -> Stalled:
    return Stalled(
        Reason.SETTINGS_INVALID, what, where=str(file), remedy="Correct journalPasswordFile or journalTls, or the file"
    )

"""How a journal in PostgreSQL is reached, and what it asks of the server: address, password, TLS, rights, settings."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from sqlalchemy import text

from reconciler.adapters import journal_postgres
from reconciler.adapters.clock import SystemClock
from reconciler.adapters.journal import SqlJournal
from reconciler.adapters.journal_postgres_url import address_of
from reconciler.adapters.journal_writer import JournalWriter
from reconciler.core.errors import Fenced, Reason, ReconcilerError, Retryable, Stalled
from reconciler.core.fold import remember
from reconciler.core.memory import EnvironmentMemory
from reconciler.core.record import Entry, What
from reconciler.journal_follower import JournalFollower
from reconciler.settings import JournalSettings
from reconciler.telemetry import Metrics
from tests.cli.installation import Installation
from tests.support.database import Place
from tools import database as tool

CLOCK = SystemClock()
RIGHTS = (
    "GRANT USAGE ON SCHEMA {schema} TO {role}",
    "GRANT SELECT, INSERT ON {schema}.records TO {role}",
    "GRANT SELECT, INSERT, DELETE ON {schema}.projections TO {role}",
    "GRANT SELECT, UPDATE ON {schema}.fence TO {role}",
)


def note(what: What = What.INSTANCE_LOST) -> Entry:
    return Entry(at=CLOCK.now(), what=what, environment="staging", service="", author="grace")


def opened(url: str, login: JournalSettings | None = None, *, act: bool = True, take_over: bool = False) -> SqlJournal:
    return SqlJournal.open(url, CLOCK, "test", act=act, login=login, take_over=take_over)


def refused(url: str, login: JournalSettings | None = None) -> ReconcilerError:
    with pytest.raises(ReconcilerError) as found:
        opened(url, login).close()
    return found.value


@pytest.fixture
def role(database: Place) -> Iterator[str]:
    """A user with the password `hunter2` and no rights."""
    name = f"r_{database.schema}"
    with database.owner() as owner:
        owner.run(f"CREATE ROLE {name} LOGIN PASSWORD 'hunter2'")
        yield name
        owner.run(f"DROP OWNED BY {name}")
        owner.run(f"DROP ROLE {name}")


@pytest.mark.parametrize(
    ("url", "shown", "mode"),
    [
        ("postgresql://a@db.example/d", "postgresql db.example:5432, database d, schema reconciler", "verify-full"),
        ("postgresql://a@127.0.0.1:6/d?schema=x", "postgresql 127.0.0.1:6, database d, schema x", "disable"),
        ("postgresql://a@[::1]:6/d?sslmode=require", "postgresql ::1:6, database d, schema reconciler", "require"),
        (
            "postgresql://a@/d?host=/run/p&port=7",
            "postgresql /run/p/.s.PGSQL.7, database d, schema reconciler",
            "disable",
        ),
    ],
)
def test_an_address_is_shown_without_its_user_and_is_verified_where_others_listen(
    url: str, shown: str, mode: str
) -> None:
    found = address_of(url)
    assert (found.shown, found.mode, found.user) == (shown, mode, "a")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hunter2@db/journal",
        "postgresql://me@db/journal?password=hunter2",
        "postgresql://me@db/journal?options=-csearch_path",
        "postgresql://me@db/journal?schema=a;DROP",
        "postgresql://me@db/journal?schema=pg_x",
        "postgresql://me@db/journal?host=/run/x",
        "postgresql://db/journal",
        "postgresql://me@db",
    ],
)
def test_an_address_that_cannot_be_a_journal_is_refused_without_showing_it(url: str) -> None:
    found = refused(url)
    assert isinstance(found, Stalled)
    assert found.reason is Reason.SETTINGS_INVALID
    assert "hunter2" not in str(found)


def test_the_password_is_read_from_its_file_at_each_new_connection(database: Place, role: str, tmp_path: Path) -> None:
    opened(database.url).close()
    with database.owner() as owner:
        for right in RIGHTS:
            owner.run(right.format(schema=database.schema, role=role))
        file = tmp_path / "password"
        login = JournalSettings(password_file=file)
        url = database.remote().replace(f"//{tool.USER}@", f"//{role}@")
        missing = refused(url, login)
        assert isinstance(missing, Stalled)
        assert (missing.reason, missing.where) == (Reason.SETTINGS_INVALID, str(file))
        for wrong in (login, JournalSettings()):
            file.write_text("hunter1\n")
            said = refused(url, wrong)
            assert isinstance(said, Retryable)
            assert "28P01" in str(said)
            assert "journalPasswordFile" in str(said)
            assert "hunter" not in str(said)
        file.write_text("hunter2\n")
        with closing(opened(url, login)) as journal:
            owner.run(f"ALTER ROLE {role} PASSWORD 'hunter3'")
            file.write_text("hunter3")
            assert database.end_sessions() == 1
            journal.append(note())
            assert journal.verify().problem == ""


@pytest.mark.parametrize(
    ("mode", "host", "authority", "works"),
    [
        ("verify-full", "127.0.0.1", True, True),
        ("verify-full", "127.0.0.1", False, False),
        ("verify-full", "localhost", True, False),
        ("verify-ca", "localhost", True, True),
        ("verify-ca", "127.0.0.1", False, False),
        ("require", "localhost", False, True),
    ],
)
def test_the_server_is_who_its_certificate_says(
    database: Place, mode: str, host: str, *, authority: bool, works: bool
) -> None:
    url = database.remote(mode=mode).replace("@127.0.0.1:", f"@{host}:")
    login = JournalSettings(password_file=Path(database.server.password))
    login = database.login if authority else login
    if not works:
        said = refused(url, login)
        assert said.reason is Reason.JOURNAL_UNAVAILABLE
        assert "certificate" in str(said)
        return
    with closing(opened(url, login)) as journal, journal._writing.begin() as connection:
        encrypted = connection.execute(text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")).scalar_one()
        assert encrypted is True


def test_without_tls_on_the_server_nothing_is_said_to_it(database: Place) -> None:
    """A server in the middle that refuses TLS gets neither the user's name nor the password."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        heard: SimpleQueue[bytes] = SimpleQueue()

        def refuse() -> None:
            link = listener.accept()[0]
            with link:
                heard.put(link.recv(100))
                link.sendall(b"N")
                heard.put(link.recv(100))

        thread = threading.Thread(target=refuse)
        thread.start()
        said = refused(database.remote(listener.getsockname()[1], "require"), database.login)
        thread.join()
    assert "Server refuses SSL" in str(said)
    assert len(heard.get()) == len("request.")
    assert heard.get() == b""


def test_a_file_that_is_no_certificate_is_named(database: Place, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    for login in (JournalSettings(tls_ca=file), JournalSettings(tls_cert=file, tls_key=file)):
        file.write_text("nothing")
        said = refused(database.remote(mode="require"), login)
        assert (said.reason, said.where) == (Reason.SETTINGS_INVALID, str(file))


def test_a_server_that_is_not_there_is_tried_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for url in (f"postgresql://me@127.0.0.1:{port}/d", "postgresql://me@/d?host=/nowhere"):
        said = refused(url)
        assert isinstance(said, Retryable)
        assert said.reason is Reason.JOURNAL_UNAVAILABLE


def test_two_schemas_of_a_database_are_two_journals(database: Place) -> None:
    other = Place(database.server, f"{database.schema}_b")
    try:
        with closing(opened(database.url)) as first, closing(opened(other.url)) as second:
            first.append(note())
            assert (first.epoch, second.epoch) == (1, 1)
            assert (first.verify().records, second.verify().records) == (3, 2)
    finally:
        other.drop()


def test_a_database_that_cannot_hold_everything_is_refused(database: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"d_{database.schema}"
    with database.owner() as owner:
        owner.run(f"CREATE DATABASE {name} OWNER {tool.USER} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
        try:
            said = refused(database.server.url_of(tool.USER, name))
        finally:
            owner.run(f"DROP DATABASE {name} WITH (FORCE)")
    assert isinstance(said, Stalled)
    assert "SQL_ASCII" in str(said)
    monkeypatch.setattr(journal_postgres, "OLDEST", 990000)
    said = refused(database.url)
    assert isinstance(said, Stalled)
    assert "too old" in str(said)


def test_a_missing_database_and_a_missing_right_are_said_with_a_remedy(database: Place, role: str) -> None:
    server = database.server
    assert "3D000" in str(refused(server.url_of(tool.USER, "nowhere")))
    said = refused(f"{server.url_of(role)}&schema={database.schema}")
    assert isinstance(said, Retryable)
    assert "42501" in str(said)
    assert "Grant the user" in str(said)


def test_the_rights_that_are_documented_are_enough_and_no_more(database: Place, role: str) -> None:
    opened(database.url).close()
    url = f"{database.server.url_of(role)}&schema={database.schema}"
    with database.owner() as owner:
        for right in RIGHTS:
            owner.run(right.format(schema=database.schema, role=role))
    with closing(opened(url)) as journal:
        assert journal.epoch == 2
        journal.append(note())
        assert journal.memory("staging") == remember(EnvironmentMemory(), note())
    with closing(opened(url, act=False)) as person:
        assert person.verify().problem == ""
    with database.owner(role) as link:
        for statement in ("UPDATE records SET epoch = 1", "DELETE FROM records", "TRUNCATE records"):
            with pytest.raises(Exception, match="permission denied"):
                link.run(statement)


def test_who_may_only_read_reads_and_cannot_write(database: Place, role: str) -> None:
    opened(database.url).close()
    with database.owner() as owner:
        owner.run(f"GRANT USAGE ON SCHEMA {database.schema} TO {role}")
        owner.run(f"GRANT SELECT ON ALL TABLES IN SCHEMA {database.schema} TO {role}")
    with closing(opened(f"{database.server.url_of(role)}&schema={database.schema}", act=False)) as reader:
        assert reader.verify().records == 2
        with pytest.raises(Retryable, match="42501"):
            reader.append(note())


def test_a_commit_is_on_the_disk_whatever_the_user_is_set_to(database: Place, role: str) -> None:
    with database.owner() as owner:
        for setting in (
            "synchronous_commit = off",
            "default_transaction_isolation = serializable",
            "bytea_output = escape",
        ):
            owner.run(f"ALTER ROLE {role} SET {setting}")
        owner.run(f"CREATE SCHEMA {database.schema} AUTHORIZATION {role}")
    with closing(opened(f"{database.server.url_of(role)}&schema={database.schema}")) as journal:
        journal.append(note())
        assert journal.verify().problem == ""
        for name, value in (("synchronous_commit", "on"), ("transaction_isolation", "read committed")):
            with journal._writing.begin() as connection:
                assert connection.exec_driver_sql(f"SHOW {name}").scalar_one() == value
        with journal._reading.connect() as connection, pytest.raises(Exception, match="read-only"):
            connection.exec_driver_sql(f"DELETE FROM {database.schema}.projections")


def test_many_appends_share_their_commits(database: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    commits: list[int] = []
    original = JournalWriter._written

    def counted(self: JournalWriter, group: list[Any]) -> object:
        commits.append(len(group))
        return original(self, group)

    monkeypatch.setattr(JournalWriter, "_written", counted)
    with closing(opened(database.url)) as journal, database.owner() as other:
        other.run("BEGIN")
        other.run("SELECT FROM fence FOR UPDATE")
        threads = [threading.Thread(target=journal.append, args=(note(),)) for _ in range(16)]
        for thread in threads:
            thread.start()
        while journal._writer._jobs.qsize() + sum(commits) < len(threads):
            threading.Event().wait(0.01)
        other.run("COMMIT")
        for thread in threads:
            thread.join()
        assert sum(commits) == len(threads)
        assert len(commits) <= 4


def test_a_person_elsewhere_and_a_newer_epoch_are_noticed(database: Place) -> None:
    requests: SimpleQueue[tuple[str, str]] = SimpleQueue()
    fatal: SimpleQueue[BaseException] = SimpleQueue()
    with closing(opened(database.url)) as journal:
        follower = JournalFollower(
            journal, CLOCK, Metrics(), lambda name, cause: requests.put((name, cause.detail)), fatal.put
        )
        follower.start()
        with closing(opened(database.url, act=False)) as person:
            person.append(note(What.SUSPENDED))
        assert requests.get(timeout=60) == ("staging", "Suspended by grace")
        opened(database.url, take_over=True).close()
        assert isinstance(fatal.get(timeout=60), Fenced)
        follower.stop()


def test_the_commands_of_the_audit_work_on_it(database: Place, tmp_path: Path) -> None:
    installation = Installation(tmp_path)
    settings = installation.settings.read_text()
    password = f"journalPasswordFile: {database.server.password}\njournalTls: {{ca: {database.server.certificate}}}\n"
    installation.settings.write_text(f"{settings}journal: {database.remote(mode='verify-full')}\n{password}")
    assert "no journal here yet" in installation("audit", "list").stderr
    with closing(opened(database.url)) as journal:
        journal.append(note(What.RESUMED))
        head = journal.verify().head
        assert "Resumed" in installation("audit", "list").stdout
        assert "EpochOpened" in installation("audit", "show", "2").stdout
        found = json.loads(installation("audit", "verify", "--json").stdout)
        assert found == {"records": 3, "head": head, "epochs": 1, "problem": None}
        assert len(installation("audit", "export").stdout.splitlines()) == 3
        database.sql("UPDATE records SET service = 'x' WHERE \"index\" = 3")
        assert installation("audit", "verify").exit_code == 1

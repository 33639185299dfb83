"""The settings of several daemons: a journal in PostgreSQL, leader election, shards. No message repeats a password."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from reconciler import settings
from reconciler.core.errors import Reason, Rejected
from reconciler.core.shards import shard_of
from reconciler.settings import JournalSettings, LeaderSettings, ShardSettings

HERE = Path("/etc/rec")
DATABASE = "postgresql://rec@db.test/rec"
NAMES = ("a", "b", "c", "d", "e")


def parse(text: str = "", environment: str = "", shard: int | None = None) -> settings.Settings:
    """Settings with `text` as further lines, and environments `a` (with `environment`) to `e`."""
    others = ", ".join(f"{name}: {{repository: fleet, runtime: local}}" for name in NAMES[1:])
    return settings.parse(
        f"""data: data
repositories: {{fleet: {{url: "https://git.test/fleet.git"}}}}
runtimes: {{local: {{docker: {{}}}}, kube: {{kubernetes: {{inCluster: true}}}}}}
environments: {{a: {{repository: fleet, runtime: local, {environment}}}, {others}}}
{text}
""".encode(),
        HERE / "settings.yaml",
        shard,
    )


def problems(text: str = "", environment: str = "", shard: int | None = None) -> list[str]:
    with pytest.raises(Rejected) as caught:
        parse(text, environment, shard)
    assert caught.value.reason is Reason.SETTINGS_INVALID
    return [line.removeprefix("/etc/rec/settings.yaml:") for line in str(caught.value).splitlines()]


@pytest.mark.parametrize(
    "url",
    [
        DATABASE,
        f"{DATABASE}?schema=prod&sslmode=verify-ca",
        "postgresql://rec@[::1]:5433/rec",
        "postgresql://rec@/rec?host=/var/run/postgresql&port=5433",
        f"{DATABASE}?schema={'s' * 63}",
    ],
)
def test_the_url_of_a_database_stays_as_it_is(url: str):
    assert parse(f"journal: '{url}'").journal == url


def test_a_database_is_reached_with_a_password_and_by_tls():
    found = parse(
        f"journal: {DATABASE}\njournalPasswordFile: pw\njournalTls: {{ca: ca.pem, cert: /c.pem, key: key.pem}}"
    )
    assert found.journal_settings == JournalSettings(HERE / "pw", HERE / "ca.pem", Path("/c.pem"), HERE / "key.pem")
    assert parse(f"journal: {DATABASE}\njournalTls: {{ca: ca.pem}}").journal_settings == JournalSettings(
        tls_ca=HERE / "ca.pem"
    )
    assert parse().journal_settings == JournalSettings()


FORM = "write postgresql://user@host:port/database?schema=name, or user@/database?host=/directory of the socket"
ONE = "name one server: a host before the path, or host= with the directory of its socket after it"
AFTER = "after the ? stand host, port, schema, sslmode, each once and with a value; use no other"
SCHEMA = "schema is a name of at most 63 lower-case letters, digits and underscores, without pg_ in front"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("postgresql://rec:secret@db.test/rec", "a password stands in the URL; remove it, and use journalPasswordFile"),
        ("postgresql://rec:se@cret@db/rec", "a password stands in the URL; remove it, and use journalPasswordFile"),
        ("postgresql://db.test/secret", FORM),
        ("postgresql://rec@db.test", FORM),
        ("postgresql://rec@-secret/rec", FORM),
        ("postgresql://rec@db.test/rec#secret", FORM),
        (f"{DATABASE}?", AFTER),
        (f"{DATABASE}?password=secret", AFTER),
        (f"{DATABASE}?schema=secret&schema=b", AFTER),
        (f"{DATABASE}?secret", AFTER),
        (f"{DATABASE}?schema=pg_secret", SCHEMA),
        (f"{DATABASE}?schema=Secret", SCHEMA),
        (f"{DATABASE}?sslmode=secret", "sslmode is one of disable, require, verify-ca and verify-full"),
        (f"{DATABASE}?schema={'s' * 64}", "the name of the schema is too long: at most 63 characters, with shard 59"),
        ("postgresql://rec@/rec", ONE),
        (f"{DATABASE}?host=/run", ONE),
        ("postgresql://rec@/rec?host=secret", "host= is the directory of a socket; a server stands before the path"),
        (f"{DATABASE}?port=5", "the port of a server stands behind its host, as in host:5432"),
        ("postgresql://rec@/rec?host=/run&port=x", "port= is the number of a port"),
        ("postgresql://rec@/rec?host=/run&port=65536", "the port is not within 1-65535; choose another"),
        ("postgresql://rec@db.test:0/rec", "the port is not within 1-65535; choose another"),
        (
            "mysql://rec:secret@db.test/rec",
            "write sqlite:/// and the path of a file, or postgresql://user@host/database",
        ),
        ("sqlite:///a?secret", "write sqlite:/// and the path of a file, or postgresql://user@host/database"),
        ("sqlite:///", "write sqlite:/// and the path of a file, or postgresql://user@host/database"),
    ],
)
def test_a_wrong_url_is_refused_and_not_repeated(url: str, problem: str):
    (found,) = problems(f"journal: '{url}'")
    assert found == f"5:10: {problem}"
    assert "ecret" not in found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("journalPasswordFile: pw", "5:22: journalPasswordFile goes with a postgresql:// journal only; remove it"),
        (
            "journal: sqlite:///a.db\njournalTls: {ca: ca}",
            "6:13: journalTls goes with a postgresql:// journal only; remove it",
        ),
        (f"journal: {DATABASE}\njournalTls: {{cert: c}}", "6:13: cert and key go together; write both or none"),
        ("journal: 5", "5:10: value 5 is a number here; quote it"),
        ("journal: ''", "5:10: this is empty; add something or remove it"),
    ],
)
def test_what_goes_with_a_database_goes_with_nothing_else(text: str, expected: str):
    (found,) = problems(text)
    assert found.startswith(expected)


@pytest.mark.parametrize(
    ("url", "mode"),
    [
        (DATABASE, ""),
        (f"{DATABASE}?sslmode=verify-full", ""),
        (f"{DATABASE}?schema=a&sslmode=require", "require"),
        (f"{DATABASE}?sslmode=disable", "disable"),
        ("postgresql://rec@127.0.0.1/rec?sslmode=disable", ""),
        ("postgresql://rec@/rec?host=/run&sslmode=disable", ""),
        ("sqlite:///a", ""),
    ],
)
def test_a_database_that_is_not_verified_is_warned_of(url: str, mode: str):
    warning = f"journal: with sslmode={mode} somebody else can answer as the database; use verify-full"
    assert parse(f"journal: '{url}'").warnings == ((warning,) if mode else ())


def test_the_leader_has_its_values():
    assert parse().leader is None
    assert parse(f"journal: {DATABASE}\nleader: {{runtime: kube}}").leader == LeaderSettings("kube")
    found = parse("leader: {runtime: kube, namespace: ops, lease: rec.blue, duration: 1m, renew: 59s, retry: 29s}")
    assert found.leader == LeaderSettings(
        "kube", "ops", "rec.blue", timedelta(seconds=60), timedelta(seconds=59), timedelta(seconds=29)
    )
    assert found.warnings == (
        "leader: a SQLite journal can be opened on one machine only, and a stopped leader keeps its lock; "
        "use PostgreSQL for several replicas",
    )


@pytest.mark.parametrize(
    ("leader", "expected"),
    [
        ("{}", ['5:1: missing field "runtime" in leader; add it']),
        ("{runtime: kub}", ['5:19: there is no "kub" in runtimes; did you mean "kube"?']),
        ("{runtime: local}", ["5:19: a Lease is kept by a cluster; name a kubernetes runtime"]),
        ("{runtime: kube, lease: A}", ['5:32: "A" is not valid here: write the name of a Lease']),
        ("{runtime: kube, duration: 15500ms}", ["5:35: a Lease holds for whole seconds; write some, as in 15s"]),
        (
            "{runtime: kube, duration: 10s}",
            ["5:1: renew is to be at least 1s less than duration, so that a step in hand can end; change one of them"],
        ),
        ("{runtime: kube, renew: 14001ms}", ["5:32: renew is to be at least 1s less than duration"]),
        ("{runtime: kube, renew: 14s, retry: 7s}", ["5:44: two attempts have to fit into renew; write less than half"]),
        ("{runtime: kube, duration: 6m}", ['5:35: "6m" is too large; at most 5m']),
    ],
)
def test_a_leader_that_could_not_lead_is_refused(leader: str, expected: list[str]):
    found = problems(f"leader: {leader}")
    assert len(found) == len(expected), found
    for line, beginning in zip(found, expected, strict=True):
        assert line.startswith(beginning)


def test_a_leader_is_not_judged_by_runtimes_that_are_wrong_themselves():
    text = "data: d\nrepositories: {f: {url: 'https://h/x'}}\nenvironments: {e: {repository: f, runtime: k}}\n"
    for runtimes in ("5", "{k: 5}"):
        with pytest.raises(Rejected) as caught:
            settings.parse(f"{text}runtimes: {runtimes}\nleader: {{runtime: k}}".encode(), HERE / "s.yaml")
        assert "Lease" not in str(caught.value)
        assert "there is no" not in str(caught.value)


def test_each_environment_belongs_to_one_shard():
    shards = [parse(f"shard: {{index: {index}, count: 3}}") for index in range(3)]
    assert [found.shard for found in shards] == [ShardSettings(index, 3) for index in range(3)]
    assert sorted(name for found in shards for name in found.environments) == list(NAMES)
    for index, found in enumerate(shards):
        assert all(shard_of(name, 3) == index for name in found.environments)
    assert parse().shard is None


def test_an_environment_can_say_its_shard():
    for index in range(2):
        found = parse(f"shard: {{index: {index}, count: 2}}", "shard: 1")
        assert ("a" in found.environments) is (index == 1)
    assert parse("shard: {index: 1, count: 2}", "shard: 1").environments["a"].shard == 1


def test_the_shard_can_be_given_when_the_program_is_started(tmp_path: Path):
    assert parse("shard: {count: 2}", shard=1) == parse("shard: {index: 1, count: 2}")
    assert parse("shard: {index: 0, count: 2}", shard=1).shard == ShardSettings(1, 2)
    (tmp_path / "s.yaml").write_text("5")
    with pytest.raises(Rejected, match="5 cannot stand here"):
        settings.read(tmp_path / "s.yaml", 0)
    assert problems(shard=0) == [
        " shard 0 is asked for, but the settings have none. Add shard: {count: N} to them, or start without a shard"
    ]
    assert problems("shard: {count: 2}", shard=2) == ["5:1: of 2 the last one is 1; write one from 0 on"]


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        ("shard: {index: 0}", "", ['5:1: missing field "count" in shard; add it']),
        ("shard: {index: 2, count: 2}", "", ["5:16: of 2 the last one is 1; write one from 0 on"]),
        (
            "shard: {count: 2}",
            "",
            ["5:8: index says which of them this daemon is; add it, or give it when the program is started"],
        ),
        ("shard: {index: 0, count: 2}", "shard: 2", ["4:62: of 2 shards the last one is 1; write one from 0 on"]),
        (
            "",
            "shard: 0",
            ["4:62: there are no shards; remove this, or say at the top how many there are (shard.count)"],
        ),
        ("shard: {index: 0, count: x}", "shard: 300", ["4:62: 300 is too large", '5:26: "x" cannot stand here']),
        ("shard: {index: 0, count: x}", "shard: 3", ['5:26: "x" cannot stand here']),
    ],
)
def test_a_shard_that_there_is_not_is_refused(text: str, environment: str, expected: list[str]):
    found = problems(text, environment)
    assert len(found) == len(expected), found
    for line, beginning in zip(found, expected, strict=True):
        assert line.startswith(beginning)


@pytest.mark.parametrize(
    ("journal", "expected"),
    [
        ("", "sqlite:////etc/rec/data/journal-1.db"),
        ("journal: sqlite:////j/one.db", "sqlite:////j/one.db"),
        (f"journal: {DATABASE}", f"{DATABASE}?schema=reconciler_1"),
        (
            f"journal: '{DATABASE}?sslmode=require&schema=prod'",
            f"{DATABASE}?schema=prod_1&sslmode=require",
        ),
    ],
)
def test_each_shard_has_a_journal_of_its_own(journal: str, expected: str):
    assert parse(f"shard: {{index: 1, count: 2}}\n{journal}").journal == expected


def test_the_schema_of_a_shard_has_room_for_its_number():
    sharded = "shard: {{index: 1, count: 2}}\njournal: '{}?schema={}'".format
    assert parse(sharded(DATABASE, "s" * 59)).journal.endswith("s_1")
    assert problems(sharded(DATABASE, "s" * 60)) == [
        "6:10: the name of the schema is too long: at most 63 characters, with shard 59"
    ]

"""The operator's settings: every field into its value, every problem with its place, nothing expanded or fetched."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from reconciler import settings
from reconciler.core.addresses import is_loopback, url_problem
from reconciler.core.errors import Reason, Rejected
from reconciler.core.policy import Allow
from reconciler.schemas import load_schemas
from reconciler.settings import (
    DockerSettings,
    EnvironmentSettings,
    HttpSettings,
    LogSettings,
    RepositorySettings,
    WebhookSettings,
)
from reconciler.triggers.webhook_forges import FORGES

LEAST = """data: data
repositories: {fleet: {url: "https://git.test/fleet.git"}}
runtimes: {local: {docker: {}}}
environments: {prod: {repository: fleet, runtime: local}}
"""

ALL = """
name: blue
data: /var/lib/rec
journal: sqlite:///j/journal.db
secrets: secrets
concurrency: 4
log: {format: console, level: debug}
http: {listen: "[::]:9000", tokenFile: token}
repositories:
  fleet: {url: "https://git.test/fleet.git", poll: 30s, username: bot, tokenFile: t, onRewrite: hold, timeout: 5s,
    webhook: {forge: gitea, secretFile: /etc/hook}}
  other: {url: "git@git.test:team/other.git", sshKey: key, knownHosts: hosts}
  here: {url: "file:///srv/here.git", allowFile: true}
runtimes:
  far: {docker: {host: "tcp://10.0.0.1:2376", tls: {ca: ca.pem, cert: cert.pem, key: key.pem}, registryConfig: r.json,
    timeout: 5s, pullTimeout: 1m, relist: 30s}}
  open: {docker: {host: "tcp://10.0.0.1:2375"}}
environments:
  prod: {repository: fleet, runtime: far, ref: release/1.0, path: fleets/prod, allow: {writableRoot: true,
    rootUser: true, privileged: true, hostNetwork: true, capabilities: [CHOWN], hostPorts: ["80", "8000-8100"]}}
  stage: {repository: fleet, runtime: open}
"""


def parse(text: str) -> settings.Settings:
    return settings.parse(text.encode(), Path("/etc/rec/settings.yaml"))


def problems(text: str) -> list[str]:
    with pytest.raises(Rejected) as caught:
        parse(text)
    assert caught.value.reason is Reason.SETTINGS_INVALID
    return [line.removeprefix("/etc/rec/settings.yaml:") for line in str(caught.value).splitlines()]


def test_the_least_settings_and_their_defaults():
    found = parse(LEAST)
    assert found == settings.Settings(
        file=Path("/etc/rec/settings.yaml"),
        data=Path("/etc/rec/data"),
        journal="sqlite:////etc/rec/data/journal.db",
        repositories={"fleet": RepositorySettings("fleet", "https://git.test/fleet.git")},
        environments={"prod": EnvironmentSettings("prod", "fleet", "local", "environments/prod")},
        runtimes={"local": DockerSettings("local")},
    )
    assert found.warnings == ()


def test_every_field_has_its_value():
    found = parse(ALL)
    here = Path("/etc/rec")
    assert (found.name, found.data, found.secrets, found.concurrency) == (
        "blue",
        Path("/var/lib/rec"),
        here / "secrets",
        4,
    )
    assert found.journal == "sqlite:////etc/rec/j/journal.db"
    assert found.log == LogSettings("console", "debug")
    assert found.http == HttpSettings("::", 9000, here / "token")
    assert found.repositories == {
        "fleet": RepositorySettings(
            "fleet",
            "https://git.test/fleet.git",
            poll=timedelta(seconds=30),
            username="bot",
            token_file=here / "t",
            on_rewrite="hold",
            timeout=timedelta(seconds=5),
            webhook=WebhookSettings("gitea", Path("/etc/hook")),
        ),
        "other": RepositorySettings(
            "other", "git@git.test:team/other.git", ssh_key=here / "key", known_hosts=here / "hosts"
        ),
        "here": RepositorySettings("here", "file:///srv/here.git", allow_file=True),
    }
    assert found.runtimes["far"] == DockerSettings(
        "far",
        "tcp://10.0.0.1:2376",
        here / "ca.pem",
        here / "cert.pem",
        here / "key.pem",
        here / "r.json",
        timeout=timedelta(seconds=5),
        pull_timeout=timedelta(minutes=1),
        relist=timedelta(seconds=30),
    )
    assert found.environments["prod"] == EnvironmentSettings(
        "prod",
        "fleet",
        "far",
        "fleets/prod",
        ref="release/1.0",
        allow=Allow(
            writable_root=True,
            root_user=True,
            privileged=True,
            host_network=True,
            capabilities=("CHOWN",),
            host_ports=((80, 80), (8000, 8100)),
        ),
    )
    assert [warning.partition(":")[0] for warning in found.warnings] == ["runtime open", "http.listen"]


def test_a_file_is_read_and_relative_paths_begin_at_it(tmp_path, monkeypatch):
    (tmp_path / "rec.yaml").write_text(LEAST)
    monkeypatch.chdir(tmp_path)
    assert settings.read(Path("rec.yaml")).data == tmp_path / "data"


def test_a_file_that_cannot_be_read_says_what_to_do(tmp_path):
    with pytest.raises(Rejected, match=r"cannot be read: No such file or directory\. Give the path") as caught:
        settings.read(tmp_path / "none.yaml")
    assert caught.value.reason is Reason.SETTINGS_INVALID


def test_a_huge_file_is_refused_without_reading_it_all(tmp_path):
    with (tmp_path / "rec.yaml").open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(Rejected, match="more than the 262144 allowed"):
        settings.read(tmp_path / "rec.yaml")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("data: data", "data: $HOME/x", ['1:7: "$HOME/x" is not valid here: write the path as it is: variables, ~']),
        ("data: data", "data: ~/x", ['1:7: "~/x" is not valid here']),
        (
            "data: data",
            "dat: data",
            ['1:1: missing field "data"; add it', '1:1: unknown field "dat"; did you mean "data"?'],
        ),
        ("data: data", "data: data\njournal: 'sqlite:///:memory:'", ["2:10: "]),
        ("data: data", "data: data\nhttp: {listen: 'x:65536'}", ["2:16: the port is above 65535; choose another"]),
        (
            "data: data",
            "data: data\nhttp: {listen: ':80'}",
            ['2:16: ":80" is not valid here: write an address and a port'],
        ),
        ("data: data", "data: data\nhttp: x", ['2:7: "x" cannot stand here; write a mapping']),
        ("data: data", "data: data\nlog: {level: inf}", ['2:14: "inf" is not allowed here; did you mean "info"?']),
        ("fleet: {", "Fleet: {", ['2:16: "Fleet" is not valid here: a name', '4:35: there is no "fleet"']),
        ("repository: fleet", "repository: flet", ['4:35: there is no "flet" in repositories; did you mean "fleet"?']),
        ("runtime: local", "runtime: x", ['4:51: there is no "x" in runtimes; one of: local']),
        ("{local: {docker: {}}}", "5", ["3:11: 5 cannot stand here; write a mapping"]),
        ("{local: {docker: {}}}", "{}", ["3:11: this is empty", '4:51: there is no "local" in runtimes']),
        ("docker: {}", "docker: ~", ["3:28: no value here, but a mapping is needed"]),
        ("docker: {}", "docker: {tls: {ca: a, cert: b, key: c}}", ["3:34: tls goes with a tcp:// host only"]),
        ("docker: {}", "docker: {tls: {ca: a}}", ['3:29: missing field "cert"', '3:29: missing field "key"']),
        ("docker: {}", "docker: {host: 'http://x:1'}", ['3:35: "http://x:1" is not valid here: write unix:///path']),
        ("docker: {}", "docker: {host: 'ssh://-oProxyCommand=x'}", ["3:35: "]),
        ('.git"', '.git", sshKey: k', ["2:67: sshKey goes with an ssh URL only"]),
        ("https://git.test/", "ssh://git.test/", []),
        ('"https://git.test/fleet.git"', '"git@h:x", tokenFile: t', ["2:51: tokenFile goes with an https URL only"]),
        (
            "runtime: local",
            'runtime: local, allow: {hostPorts: ["9-8", "0", "1-65536"]}',
            ["4:78: 9-8", "4:85: 0", "4:90: 1-65536"],
        ),
        ("runtime: local", "runtime: local, allow: {capabilities: [CAP_CHOWN]}", ['4:81: "CAP_CHOWN" is not valid']),
        ("https:", "ext:", ["2:29: ext:// is not allowed; write https:// or ssh://"]),
    ],
)
def test_a_problem_is_named_with_its_place(old, new, expected):
    assert old in LEAST
    if not expected:
        assert parse(LEAST.replace(old, new))
        return
    found = problems(LEAST.replace(old, new))
    assert len(found) == len(expected), found
    for line, beginning in zip(found, expected, strict=True):
        assert line.startswith(beginning)


@pytest.mark.parametrize("text", ["", "[", "5", "- a", "repositories: 5\nruntimes: 5\nenvironments: 5", "data: [x"])
def test_what_is_no_settings_file_is_rejected(text):
    assert problems(text)


def test_all_problems_are_said_at_once():
    text = LEAST.replace("fleet: {", "fleet: {pol: 5s, ").replace("data: data", "data: 5").replace("local}", "x}")
    assert [line.partition(":")[0] for line in problems(text)] == ["1", "2", "4"]


@pytest.mark.parametrize(
    "url",
    [
        "https://git.test/fleet.git",
        "https://git.test:8443/team/fleet.git",
        "https://[::1]:8443/x",
        "ssh://git@git.test/x",
        "ssh://git.test:22/x",
        "git@git.test:team/x.git",
        "git.test:x",
    ],
)
def test_an_address_of_a_repository_is_accepted(url):
    assert url_problem(url, allow_file=False) == ""


@pytest.mark.parametrize(
    ("host", "near"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("127.x", False)]
)
def test_loopback_is_told_from_the_rest(host, near):
    assert is_loopback(host) is near


def test_the_forges_are_those_whose_webhooks_are_understood():
    webhook = load_schemas()["settings"]["$defs"]["repository"]["properties"]["webhook"]
    assert set(webhook["properties"]["forge"]["enum"]) == set(FORGES)

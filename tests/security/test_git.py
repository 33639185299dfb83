"""Threats that come in by Git: hostile addresses, servers, repositories, surroundings. A marker file is the alarm."""

from __future__ import annotations

import base64
import logging
import os
import stat
import threading
import traceback
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.git_address import parse_address, ref_problem
from reconciler.adapters.git_run import run
from reconciler.adapters.git_source import GitSource
from reconciler.adapters.git_transport import transport_environment
from reconciler.core.errors import Reason, Rejected, Retryable, Stalled
from reconciler.ports import Snapshot
from reconciler.settings import RepositorySettings
from tests.support.cluster import eventually
from tests.support.git_server import Upstream, git, http_git, ssh_git

CANARY = "tok-CANARY-8d1f/+="


def fetched(source: GitSource) -> Snapshot:
    return source.snapshot("fleet", "main", since=datetime.now(UTC))


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that only an attack creates; also in the environment, for those that expand it."""
    monkeypatch.setenv("MARKER", str(tmp_path / "marker"))
    monkeypatch.setenv("SECRET", "expanded.example.org")
    return tmp_path / "marker"


@pytest.mark.parametrize(
    "url",
    [
        "ext::sh -c touch% $MARKER",
        "ext::sh",
        "fd::17/x",
        "-u./x",
        "--upload-pack=touch $MARKER",
        "https://-oProxyCommand=touch/x",
        "ssh://-oProxyCommand=touch/x",
        "git@-oProxyCommand=touch:x",
        "-oProxyCommand=x@host:y",
        "git@host:-x",
        "ssh://host/$(touch $MARKER)",
        "ssh://host/`touch`",
        "https://$SECRET/",
        "https://${SECRET}/x",
        "https://host/$SECRET",
        "https://host/~/%SECRET%/\n--upload-pack=x",
        "https://user:password@host/x",
        "https://token@host/x",
        "ssh://git:password@host/x",
        "http://example.org/x",
        "http://127.0.0.1.example.org/x",
        "git://host/x",
        "ftp://host/x",
        "file:///etc",
        "/etc",
        "relative/path",
        "../x",
        "",
        "https://host",
        "https://host:99999999/x",
    ],
)
def test_addresses_that_are_not_allowed(url: str, marker: Path, tmp_path: Path) -> None:
    with pytest.raises(Stalled) as caught:
        GitSource({"fleet": RepositorySettings("fleet", url)}, tmp_path / "mirrors", SystemClock())
    assert caught.value.reason is Reason.SETTINGS_INVALID
    assert "expanded" not in str(caught.value)
    assert "password" not in str(caught.value).replace("without a password", "")
    assert not marker.exists()


@pytest.mark.parametrize(
    "url",
    [
        "https://host/x",
        "https://host:8443/a/b.git",
        "https://[::1]:8443/x",
        "ssh://git@host:22/~/x",
        "git@host:a/b.git",
    ],
)
def test_addresses_that_are_allowed(url: str) -> None:
    assert parse_address("fleet", url, allow_file=False, username="git").url == url


def test_git_itself_refuses_other_protocols(marker: Path, upstream: Upstream) -> None:
    """The second wall, should an address ever get past the first."""
    settings = RepositorySettings("fleet", "https://host/x")
    reach = transport_environment(settings, parse_address("fleet", settings.url, allow_file=False, username="git"))
    for url in (f"ext::sh -c touch% {marker}", f"file://{upstream.path}", str(upstream.path), "http://127.0.0.1:9/x"):
        outcome = run(("ls-remote", "--", url), reach, 10)
        assert outcome.code != 0
        assert "not allowed" in outcome.err
    assert not marker.exists()


@pytest.mark.parametrize(
    "ref", ["-u./x", "--upload-pack=touch $MARKER", "-", "main:x", "+main", "$SECRET", "a\nb", "a/../b"]
)
def test_refs_are_not_options(ref: str, source: GitSource, upstream: Upstream, marker: Path) -> None:
    upstream.commit({"a": b"1"})
    assert ref_problem(ref)
    with pytest.raises(Stalled):
        source.snapshot("fleet", ref, since=datetime.now(UTC))
    with pytest.raises(Rejected):
        source.at("fleet", ref)
    with pytest.raises(Rejected):
        fetched(source)
        source.snapshot("fleet", "main", known="--output=" + str(marker))
    assert source.fetches("fleet") == 1
    assert not marker.exists()


def test_the_surroundings_of_the_caller_do_not_leak_in(
    upstream: Upstream, tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Upstream(tmp_path / "other.git")
    other.commit({"a": b"wrong"})
    sha = upstream.commit({"a": b"right"})
    alarm = f"touch {marker}; false"
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        f'[core]\nsshCommand = "{alarm}"\n[url "file://{other.path}"]\ninsteadOf = ssh://\n'
    )
    with ssh_git(tmp_path / "ssh") as server:
        for name, value in {
            "HOME": str(home),
            "GIT_DIR": str(other.path),
            "GIT_COMMON_DIR": str(other.path),
            "GIT_OBJECT_DIRECTORY": str(other.path / "objects"),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(other.path / "objects"),
            "GIT_WORK_TREE": str(tmp_path),
            "GIT_INDEX_FILE": str(tmp_path / "index"),
            "GIT_NAMESPACE": "wrong",
            "GIT_SSH": str(marker),
            "GIT_SSH_COMMAND": alarm,
            "GIT_ASKPASS": alarm,
            "GIT_PROXY_COMMAND": alarm,
            "GIT_ALLOW_PROTOCOL": "ext",
            "GIT_CONFIG_PARAMETERS": f"'core.sshcommand'='{alarm}'",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "core.sshCommand",
            "GIT_CONFIG_VALUE_0": alarm,
            "GIT_TRACE": str(marker),
            "GIT_INTERNAL_SUPER_PREFIX": "x/",
        }.items():
            monkeypatch.setenv(name, value)
        settings = RepositorySettings(
            "fleet", server.url + str(upstream.path), ssh_key=server.key, known_hosts=server.known_hosts
        )
        source = GitSource({"fleet": settings}, tmp_path / "mirrors", SystemClock())
        snapshot = fetched(source)
        assert (snapshot.revision.sha, snapshot.tree.read("a")) == (sha, b"right")
        assert source.at("fleet", sha[:12]).revision.sha == sha
        source.close()
    assert not marker.exists()


def test_hooks_and_submodules_never_run(source: GitSource, upstream: Upstream, tmp_path: Path, marker: Path) -> None:
    upstream.commit({"x/a": b"1", ".gitmodules": b'[submodule "m"]\npath = m\nurl = ext::sh -c touch% $MARKER\n'})
    fetched(source)
    hook = tmp_path / "mirrors/fleet.git/hooks/reference-transaction"
    hook.parent.mkdir()
    hook.write_text(f"#!/bin/sh\ntouch {marker}\n")
    hook.chmod(0o755)
    upstream.commit({"x/a": b"2"})
    assert fetched(source).tree.read("x/a") == b"2"
    assert not marker.exists()


def test_a_mirror_is_for_its_owner_only(source: GitSource, upstream: Upstream, tmp_path: Path) -> None:
    upstream.commit({"a": b"1"})
    fetched(source)
    assert stat.S_IMODE((tmp_path / "mirrors").stat().st_mode) == 0o700


def test_the_token_shows_nowhere(upstream: Upstream, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not in an argument list or environment while git talks to a slow server, nor in errors, logs and files after."""
    caplog.set_level(logging.DEBUG)
    token = tmp_path / "token"
    token.write_text(CANARY + "\n")
    upstream.commit({"a": b"1"})
    with http_git(upstream.path.parent) as server:
        server.token, server.drip = CANARY, True
        url = server.url + "/fleet.git"
        settings = RepositorySettings("fleet", url, token_file=token, timeout=timedelta(seconds=600))
        source = GitSource({"fleet": settings}, tmp_path / "mirrors", SystemClock())
        with ThreadPoolExecutor(1) as thread:
            fetch = thread.submit(fetched, source)
            assert server.dripping.wait(60)
            seen = [read(place / name) for place in Path("/proc").glob("[0-9]*") for name in ("cmdline", "environ")]
            server.drip = False
            broken = fetch.exception(60)
        assert any(url.encode() in text for text in seen), "the fetch was running while we looked"
        assert not [text for text in seen if CANARY.encode() in text]
        eventually(lambda: fetched(source), during=Retryable)
        source.close()
        server.drip = True
        hasty = replace(settings, timeout=timedelta(seconds=2))
        source = GitSource({"fleet": hasty}, tmp_path / "mirrors" / "hasty", SystemClock())
        with pytest.raises(Retryable) as late:
            fetched(source)
        source.close()
    assert server.credentials, "the token was used"
    assert isinstance(broken, Retryable)
    for error in (broken, late.value):
        assert CANARY not in "".join(traceback.format_exception(error)) + repr(error)
    assert CANARY not in caplog.text
    for file in (tmp_path / "mirrors").rglob("*"):
        assert not file.is_file() or CANARY.encode() not in file.read_bytes()


def read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


def test_a_server_that_sends_the_token_back(upstream: Upstream, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(CANARY)
    with http_git(upstream.path.parent) as server:
        basic = base64.b64encode(f"git:{CANARY}".encode()).decode()
        server.token, server.complaint = CANARY, f"{CANARY} and {basic} and {quote(CANARY, safe='')} are bad\x1b[31m"
        settings = RepositorySettings("fleet", server.url + "/fleet.git", token_file=token)
        source = GitSource({"fleet": settings}, tmp_path / "mirrors", SystemClock())
        with pytest.raises(Retryable) as complained:
            fetched(source)
        server.complaint, server.status, server.body = "", 403, f"{CANARY} is bad\x1b[31m".encode()
        with pytest.raises(Retryable) as refused:
            fetched(source)
    assert refused.value.reason is Reason.REPOSITORY_UNAUTHORIZED
    assert "[redacted] and [redacted] and [redacted] are bad" in str(complained.value)
    for caught in (complained, refused):
        assert "CANARY" not in str(caught.value)
        assert str(caught.value).isprintable()


def test_a_redirect_takes_no_credential_elsewhere(upstream: Upstream, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(CANARY)
    upstream.commit({"a": b"1"})
    with http_git(upstream.path.parent) as server, http_git(upstream.path.parent) as thief:
        server.location = thief.url
        thief.token = "anything"
        for server.token in ("", CANARY):
            settings = RepositorySettings("fleet", server.url + "/fleet.git", token_file=token)
            source = GitSource({"fleet": settings}, tmp_path / "mirrors", SystemClock())
            with pytest.raises(Retryable) as caught:
                fetched(source)
            assert "redirects are not followed" in str(caught.value)
        assert server.credentials
        assert thief.paths == []


def test_credentials_are_for_their_site_only(upstream: Upstream, tmp_path: Path) -> None:
    """The helper of one site, called for another, is not asked: git itself binds it."""
    token = tmp_path / "token"
    token.write_text(CANARY)
    upstream.commit({"a": b"1"})
    with http_git(upstream.path.parent) as server, http_git(upstream.path.parent) as other:
        other.token = CANARY
        settings = RepositorySettings("fleet", server.url + "/fleet.git", token_file=token)
        reach = transport_environment(settings, parse_address("fleet", settings.url, allow_file=False, username="git"))
        outcome = run(("ls-remote", "--", other.url + "/fleet.git"), reach, 10)
        assert outcome.code != 0
        assert other.paths
        assert other.credentials == []


def test_a_token_file_that_is_not_there(upstream: Upstream, tmp_path: Path) -> None:
    with http_git(upstream.path.parent) as server:
        settings = RepositorySettings("fleet", server.url + "/fleet.git", token_file=tmp_path / "none")
        source = GitSource({"fleet": settings}, tmp_path / "mirrors", SystemClock())
        with pytest.raises(Retryable) as caught:
            fetched(source)
    assert caught.value.reason is Reason.REPOSITORY_UNAUTHORIZED
    assert "token file" in str(caught.value)


def test_a_host_key_nobody_vouched_for(upstream: Upstream, tmp_path: Path) -> None:
    upstream.commit({"a": b"1"})
    with ssh_git(tmp_path / "ssh") as server:
        for known in ("", server.known_hosts.read_text().rsplit(" ", 1)[0] + " " + "A" * 68):
            hosts = tmp_path / "hosts"
            hosts.write_text(known)
            settings = RepositorySettings(
                "fleet", server.url + str(upstream.path), ssh_key=server.key, known_hosts=hosts
            )
            source = GitSource({"fleet": settings}, tmp_path / "mirrors", SystemClock())
            with pytest.raises(Retryable) as caught:
                fetched(source)
            assert caught.value.reason is Reason.REPOSITORY_UNAUTHORIZED
            assert hosts.read_text() == known, "nothing is learned"


def test_a_server_that_never_stops_talking(tmp_path: Path) -> None:
    """Output of a command is cut, not collected."""
    talk = "core.alternateRefsCommand"
    upstream = Upstream(tmp_path / "x.git")
    git(upstream.path, "config", talk, "yes")
    before = set(threading.enumerate())
    tracemalloc.start()
    variables = {"PATH": os.environ["PATH"], "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "alias.talk"}
    outcome = run(("talk",), variables | {"GIT_CONFIG_VALUE_0": "!yes; yes >&2"}, 0.5)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert outcome.killed
    assert len(outcome.out) <= 64 * 1024
    assert peak < 2 * 1024 * 1024
    assert set(threading.enumerate()) <= before

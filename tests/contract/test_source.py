"""What every `ports.Source` promises, checked on the fake and on Git over a directory, HTTP and ssh."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.git_source import GitSource
from reconciler.adapters.git_tree import BLOB_LIMIT, DEPTH_LIMIT, ENTRIES_LIMIT
from reconciler.core.errors import Reason, Rejected, Retryable, Stalled
from reconciler.settings import RepositorySettings
from tests.support.fake_source import START, FakeRepository, FakeSource, Link, Module
from tests.support.git_server import Upstream, http_git, ssh_git

NAME = "fleet"


@dataclass
class World:
    """A source, the far repository that it follows, and a switch for trouble between the two."""

    repository: FakeRepository | Upstream
    source: FakeSource | GitSource
    trouble: Callable[[Reason | None], None]

    def fetched(self, ref: str = "main", known: str = ""):
        return self.source.snapshot(NAME, ref, since=datetime.now(UTC), known=known)


@contextlib.contextmanager
def over_file(tmp_path: Path) -> Iterator[World]:
    upstream = Upstream(tmp_path / "fleet.git")

    def trouble(reason: Reason | None) -> None:
        here, away = tmp_path / "fleet.git", tmp_path / "away.git"
        here.rename(away) if reason else away.rename(here)

    settings = RepositorySettings(NAME, str(upstream.path), allow_file=True)
    yield World(upstream, GitSource({NAME: settings}, tmp_path / "mirrors", SystemClock()), trouble)


@contextlib.contextmanager
def over_http(tmp_path: Path) -> Iterator[World]:
    upstream = Upstream(tmp_path / "served" / "fleet.git")
    (tmp_path / "token").write_text("s3cret\n")
    with http_git(tmp_path / "served") as server:

        def trouble(reason: Reason | None) -> None:
            server.token = "another" if reason is Reason.REPOSITORY_UNAUTHORIZED else "s3cret"
            server.status = 503 if reason is Reason.REPOSITORY_UNREACHABLE else 0

        trouble(None)
        settings = RepositorySettings(NAME, server.url + "/fleet.git", token_file=tmp_path / "token")
        yield World(upstream, GitSource({NAME: settings}, tmp_path / "mirrors", SystemClock()), trouble)


@contextlib.contextmanager
def over_ssh(tmp_path: Path) -> Iterator[World]:
    upstream = Upstream(tmp_path / "fleet.git")
    with ssh_git(tmp_path / "ssh") as server:
        allowed = server.authorized.read_text()

        def trouble(reason: Reason | None) -> None:
            server.authorized.write_text("" if reason is Reason.REPOSITORY_UNAUTHORIZED else allowed)
            if reason is Reason.REPOSITORY_UNREACHABLE:
                upstream.path.rename(tmp_path / "away.git")
            elif (tmp_path / "away.git").exists():
                (tmp_path / "away.git").rename(upstream.path)

        settings = RepositorySettings(
            NAME, server.url + str(upstream.path), ssh_key=server.key, known_hosts=server.known_hosts
        )
        yield World(upstream, GitSource({NAME: settings}, tmp_path / "mirrors", SystemClock()), trouble)


@contextlib.contextmanager
def faked(_: Path) -> Iterator[World]:
    source = FakeSource(SystemClock(), NAME)
    repository = source.repositories[NAME]

    def trouble(reason: Reason | None) -> None:
        repository.trouble = reason

    yield World(repository, source, trouble)


WORLDS = {"fake": faked, "file": over_file, "http": over_http, "ssh": over_ssh}


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with WORLDS[request.param](tmp_path) as made:
        yield made
        made.source.close()


@pytest.fixture(params=["fake", "file"])
def local(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """For what has nothing to do with how the repository is reached."""
    with WORLDS[request.param](tmp_path) as made:
        yield made
        made.source.close()


def test_the_head_of_a_branch(world: World) -> None:
    first = world.repository.commit({"a": b"1"}, subject="one")
    before = datetime.now(UTC)
    second = world.repository.commit({"a": b"2"}, subject="two", author="Bob <bob@example.org>")

    snapshot = world.source.snapshot(NAME, "main")

    assert snapshot.repository == NAME
    assert snapshot.revision.sha == second
    assert snapshot.revision.parents == (first,)
    assert snapshot.revision.author == snapshot.revision.committer == "Bob <bob@example.org>"
    assert snapshot.revision.subject == "two"
    assert snapshot.revision.committed_at == START + timedelta(seconds=1)
    assert before <= snapshot.fetched_at <= datetime.now(UTC)
    assert not snapshot.rewritten
    assert not snapshot.unrelated
    assert snapshot.tree.read("a") == b"2"


def test_the_trailers_of_a_commit(local: World) -> None:
    local.repository.commit({"a": b"1"}, subject="one\n\nText.\n\nReconciler-Emergency: fire\nreconciler-confirm: x\n")
    revision = local.fetched().revision
    assert revision.subject == "one"
    assert revision.trailers == {"reconciler-emergency": "fire", "reconciler-confirm": "x"}
    local.repository.commit({"a": b"2"}, subject="Reconciler-Emergency: a title is no trailer")
    assert local.fetched().revision.trailers == {}


def test_only_a_fetch_brings_what_is_new(world: World) -> None:
    old = world.repository.commit({"a": b"1"})
    assert world.source.snapshot(NAME, "main").revision.sha == old
    asked = datetime.now(UTC)
    new = world.repository.commit({"a": b"2"})
    assert world.source.snapshot(NAME, "main").revision.sha == old
    assert world.source.fetches(NAME) == 1

    seen = world.source.snapshot(NAME, "main", since=asked)
    assert seen.revision.sha == new
    assert seen.fetched_at >= asked
    assert world.source.snapshot(NAME, "main", since=asked).revision.sha == new
    assert world.source.fetches(NAME) == 2


def test_files_of_one_directory(local: World) -> None:
    local.repository.commit({"x/a": b"a", "x/y/b": b"b", "z/c": b"c", "x.d": b"d"})
    tree = local.fetched().tree
    blob = hashlib.sha1(b"blob 1\0a", usedforsecurity=False).hexdigest()
    assert list(tree.files("x")) == ["x/a", "x/y/b"]
    assert tree.files("x")["x/a"] == blob
    assert tree.files("x/") == tree.files("x")
    assert set(tree.files("")) == set(tree.files(".")) == {"x/a", "x/y/b", "z/c", "x.d"}
    for nothing in ("w", "x/a", "x/a/b", "/x", "../x", "x/../x", "x//y"):
        assert tree.files(nothing) == {}, nothing


def test_reading_a_file(local: World) -> None:
    local.repository.commit({"x/a": b"\x00\xff", "b": b""})
    tree = local.fetched().tree
    assert tree.read("x/a") == b"\x00\xff"
    assert tree.read("b") == b""
    for nothing in ("x", "x/b", "x/a/c", "/b", "./b", "../b", "x/../b", ""):
        with pytest.raises(KeyError):
            tree.read(nothing)


def test_a_tree_stays_readable_when_the_branch_has_moved_on(local: World) -> None:
    local.repository.commit({"x/a": b"1"})
    tree = local.fetched().tree
    local.repository.commit({"x/a": b"2"})
    assert local.fetched().tree.read("x/a") == b"2"
    assert tree.read("x/a") == b"1"


def test_history_that_was_rewritten(world: World) -> None:
    base = world.repository.commit({"a": b"1"})
    known = world.repository.commit({"a": b"2"})
    assert world.fetched().revision.sha == known
    world.repository.commit({"a": b"3"}, parent=base)
    head = world.repository.commit({"a": b"4"})

    snapshot = world.fetched(known=known)

    assert (snapshot.revision.sha, snapshot.rewritten, snapshot.unrelated) == (head, True, False)
    assert not world.fetched(known=base).rewritten
    assert world.source.at(NAME, known).tree.read("a") == b"2"


def test_history_that_has_nothing_in_common(local: World) -> None:
    known = local.repository.commit({"a": b"1"})
    local.fetched()
    local.repository.commit({"a": b"2"}, parent=None)
    local.repository.commit({"a": b"3"})
    snapshot = local.fetched(known=known)
    assert (snapshot.rewritten, snapshot.unrelated) == (True, True)


def test_a_known_revision_that_was_never_seen_here(local: World) -> None:
    local.repository.commit({"a": b"1"})
    snapshot = local.fetched(known="f" * 40)
    assert (snapshot.rewritten, snapshot.unrelated) == (True, False)


def test_a_deleted_branch_is_never_resolved_from_memory(world: World) -> None:
    sha = world.repository.commit({"a": b"1"})
    world.repository.commit({"a": b"1"}, branch="other")
    world.fetched()
    world.repository.delete("main")
    with pytest.raises(Stalled) as caught:
        world.fetched()
    assert caught.value.reason is Reason.BRANCH_MISSING
    with pytest.raises(Stalled):
        world.source.snapshot(NAME, "main")
    assert world.source.at(NAME, sha).tree.read("a") == b"1"

    again = world.repository.commit({"a": b"2"}, parent=sha)
    assert world.fetched(known=sha).revision.sha == again


def test_an_empty_repository(world: World) -> None:
    with pytest.raises(Stalled) as caught:
        world.fetched()
    assert caught.value.reason is Reason.REPOSITORY_EMPTY
    sha = world.repository.commit({"a": b"1"})
    assert world.fetched().revision.sha == sha


def test_a_repository_that_cannot_be_reached(world: World) -> None:
    sha = world.repository.commit({"a": b"1"})
    world.fetched()
    world.trouble(Reason.REPOSITORY_UNREACHABLE)
    with pytest.raises(Retryable) as caught:
        world.fetched()
    assert caught.value.reason is Reason.REPOSITORY_UNREACHABLE
    assert f"repository {NAME}" in str(caught.value)
    kept = world.source.snapshot(NAME, "main")
    assert (kept.revision.sha, kept.tree.read("a")) == (sha, b"1")
    world.trouble(None)
    new = world.repository.commit({"a": b"2"})
    assert world.fetched().revision.sha == new


@pytest.mark.parametrize("kind", ["fake", "http", "ssh"])
def test_a_repository_that_refuses_access(kind: str, tmp_path: Path) -> None:
    with WORLDS[kind](tmp_path) as world:
        world.repository.commit({"a": b"1"})
        world.trouble(Reason.REPOSITORY_UNAUTHORIZED)
        with pytest.raises(Retryable) as caught:
            world.fetched()
        assert caught.value.reason is Reason.REPOSITORY_UNAUTHORIZED
        world.trouble(None)
        assert world.fetched().tree.read("a") == b"1"


@pytest.mark.parametrize("bad", [Link("/etc/passwd"), Link("b"), Module()])
def test_links_and_submodules_inside_are_refused_on_every_commit(local: World, bad: Link | Module) -> None:
    local.repository.commit({"x/a": b"1", "x/b": b"2", "y/b": b"3"})
    assert local.fetched().tree.read("x/a") == b"1"
    local.repository.commit({"x/a": bad})
    tree = local.fetched().tree
    for look in (lambda: tree.files("x"), lambda: tree.files(""), lambda: tree.read("x/a")):
        with pytest.raises(Rejected) as caught:
            look()
        assert caught.value.reason is Reason.REPOSITORY_HOSTILE
    assert list(tree.files("y")) == ["y/b"], "what lies outside does not matter"
    assert tree.read("x/b") == b"2"


def test_a_directory_that_is_a_link(local: World) -> None:
    local.repository.commit({"real/a": b"1", "x/y": Link("../real")})
    tree = local.fetched().tree
    for look in (lambda: tree.files("x/y"), lambda: tree.read("x/y/a"), lambda: tree.files("x/y/z")):
        with pytest.raises(Rejected):
            look()
    assert tree.read("real/a") == b"1"


def test_caps(local: World) -> None:
    deep = "/".join("d" * DEPTH_LIMIT)
    files: dict[str, bytes] = {f"many/{number}": b"" for number in range(ENTRIES_LIMIT + 1)}
    files |= {
        "deep/" + deep: b"",
        "deeper/d/" + deep: b"",
        "big/ok": b"x" * BLOB_LIMIT,
        "big/no": b"x" * (BLOB_LIMIT + 1),
    }
    local.repository.commit(files)
    tree = local.fetched().tree
    assert list(tree.files("deep")) == ["deep/" + deep]
    assert len(tree.files("big")) == 2
    assert len(tree.read("big/ok")) == BLOB_LIMIT
    for look in (lambda: tree.files("many"), lambda: tree.files("deeper"), lambda: tree.read("big/no")):
        with pytest.raises(Rejected) as caught:
            look()
        assert caught.value.reason is Reason.REPOSITORY_HOSTILE


def test_revision_names(local: World) -> None:
    first = local.repository.commit({"a": b"1"})
    second = local.repository.commit({"a": b"2"})
    third = local.repository.commit({"a": b"3"})
    side = local.repository.commit({"a": b"4"}, branch="feature/x", parent=first)
    local.repository.tag("v1", second)
    meanings = {
        "main": third,
        "feature/x": side,
        "v1": second,
        "refs/tags/v1": second,
        "HEAD~2": first,
        "main^": second,
    }
    meanings |= {
        "HEAD": third,
        "v1~1": first,
        "feature/x^1": first,
        third: third,
        second[:10]: second,
        f"{third[:9]}~": second,
    }
    for name, sha in meanings.items():
        assert local.source.at(NAME, name).revision.sha == sha, name
    newer = local.repository.commit({"a": b"5"})
    assert local.source.at(NAME, "main").revision.sha == newer


@pytest.mark.parametrize(
    "name",
    [
        "nowhere",
        "f" * 40,
        "abcdef0",
        "HEAD~99",
        "main^2",
        "",
        "-x",
        "--all",
        "a b",
        "main:a",
        "@{-1}",
        "main..v1",
        "^main",
    ],
)
def test_revision_names_that_mean_nothing(local: World, name: str) -> None:
    local.repository.commit({"a": b"1"})
    local.fetched()
    with pytest.raises(Rejected) as caught:
        local.source.at(NAME, name)
    assert caught.value.reason is Reason.REVISION_MISSING


def test_a_tag_as_the_ref_of_an_environment(local: World) -> None:
    sha = local.repository.commit({"a": b"1"})
    local.repository.tag("v1", sha)
    assert local.fetched("refs/tags/v1").revision.sha == sha


def test_a_branch_may_become_a_folder_of_branches(local: World) -> None:
    sha = local.repository.commit({"a": b"1"}, branch="release")
    assert local.fetched("release").revision.sha == sha
    local.repository.delete("release")
    newer = local.repository.commit({"a": b"2"}, branch="release/1")
    assert local.fetched("release/1").revision.sha == newer


@pytest.mark.parametrize(
    "ref", ["-x", "--upload-pack=/bin/true", "a..b", "a b", "a:b", "+a", "a*", "", "a.lock", "/a", "a@{1}"]
)
def test_refs_that_are_none(local: World, ref: str) -> None:
    with pytest.raises(Stalled) as caught:
        local.source.snapshot(NAME, ref)
    assert caught.value.reason is Reason.SETTINGS_INVALID
    assert local.source.fetches(NAME) == 0


def test_a_repository_nobody_configured(local: World) -> None:
    with pytest.raises(Stalled) as caught:
        local.source.snapshot("other", "main")
    assert caught.value.reason is Reason.SETTINGS_INVALID

"""Repositories with hostile content: bombs, names and modes no honest tree has, commits beyond reason."""

from __future__ import annotations

import tracemalloc

import pytest

from reconciler.adapters.git_source import GitSource
from reconciler.core.errors import Reason, Rejected, Retryable
from tests.security.test_git import fetched
from tests.support.git_server import Upstream, git


def tree_of(upstream: Upstream, rows: bytes) -> str:
    return git(upstream.path, "hash-object", "-t", "tree", "-w", "--stdin", "--literally", stdin=rows)


def commit_of(upstream: Upstream, body: bytes) -> str:
    return git(upstream.path, "hash-object", "-t", "commit", "-w", "--stdin", "--literally", stdin=body)


WHO = b"Ada <ada@example.org> 1767225600 +0000"


def plain_commit(tree: str, *, who: bytes = WHO, parents: bytes = b"", message: bytes = b"m") -> bytes:
    return b"tree %s\n%sauthor %s\ncommitter %s\n\n%s" % (tree.encode(), parents, who, who, message)


def test_a_tree_of_a_thousand_million_leaves(source: GitSource, upstream: Upstream) -> None:
    blob = git(upstream.path, "hash-object", "-w", "--stdin", stdin=b"x")
    sha, mode = blob, b"100644"
    for _ in range(9):
        sha = tree_of(upstream, b"".join(b"%s %d\0%s" % (mode, n, bytes.fromhex(sha)) for n in range(10)))
        mode = b"40000"
    top = tree_of(upstream, b"100644 a\0" + bytes.fromhex(blob) + b"40000 bomb\0" + bytes.fromhex(sha))
    upstream.point("main", commit_of(upstream, plain_commit(top)))
    tree = fetched(source).tree
    tracemalloc.start()
    with pytest.raises(Rejected) as caught:
        tree.files("bomb")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert caught.value.reason is Reason.REPOSITORY_HOSTILE
    assert peak < 16 * 1024 * 1024
    assert tree.read("a") == b"x"


def test_a_blob_beyond_the_cap_is_not_read(source: GitSource, upstream: Upstream) -> None:
    size = 65 * 1024 * 1024
    upstream.commit({"x/a": bytes(size), "x/b": b"fine"})
    tree = fetched(source).tree
    tracemalloc.start()
    with pytest.raises(Rejected) as caught:
        tree.read("x/a")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert str(size) in str(caught.value)
    assert peak < 1024 * 1024
    assert tree.read("x/b") == b"fine"


def test_many_files_at_the_cap(source: GitSource, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.adapters.git_tree.CONTENT_LIMIT", 250_000)
    upstream.commit({f"x/{n}": bytes([n]) * 100_000 for n in range(3)})
    tree = fetched(source).tree
    for _ in range(3):
        assert len(tree.read("x/0") + tree.read("x/1")) == 200_000, "the same file counts once"
    with pytest.raises(Rejected):
        tree.read("x/2")


@pytest.mark.parametrize(
    "rows",
    [
        b"40000 ..\0T",
        b"100644 ../../x\0B",
        b"100644 .\0B",
        b"40000 .git\0T",
        b"100644 a\0B100644 a\0B",
        b"100664 a\0B",
        b"100644 a\nb\0B",
        b"100644 \x1b[31m\0B",
        b"100644 \xff\0B",
        b"100755 \xe2\x80\xaex\0B",
        b"100644 cut",
        b"999 a\0B",
    ],
)
def test_names_and_modes_no_tree_may_have(source: GitSource, upstream: Upstream, rows: bytes) -> None:
    blob = bytes.fromhex(git(upstream.path, "hash-object", "-w", "--stdin", stdin=b"x"))
    inner = bytes.fromhex(tree_of(upstream, b"100644 ok\0" + blob))
    bad = tree_of(upstream, rows.replace(b"\0B", b"\0" + blob).replace(b"\0T", b"\0" + inner))
    top = tree_of(upstream, b"40000 bad\0" + bytes.fromhex(bad) + b"40000 good\0" + inner)
    upstream.point("main", commit_of(upstream, plain_commit(top)))
    try:
        tree = fetched(source).tree
    except Retryable as error:  # git itself refuses to receive what it cannot parse
        assert error.reason is Reason.REPOSITORY_UNREACHABLE
        assert rows in (b"100644 cut", b"999 a\0B")
        return
    with pytest.raises(Rejected) as caught:
        tree.files("bad")
    assert caught.value.reason is Reason.REPOSITORY_HOSTILE
    assert str(caught.value).isprintable()
    assert list(tree.files("good")) == ["good/ok"]


def test_commits_that_say_strange_things(source: GitSource, upstream: Upstream) -> None:
    upstream.commit({"a": b"1"})
    tree = git(upstream.path, "rev-parse", "main^{tree}")
    who = b"\x1b[31mEve\xe2\x80\xae <eve@\xff> 99999999999999999 +9999"
    upstream.point("main", commit_of(upstream, plain_commit(tree, who=who, message=b"\x1b]0;title\x07" + b"x" * 5000)))
    revision = fetched(source).revision
    for text in (revision.author, revision.committer, revision.subject):
        assert text.isprintable()
        assert len(text) <= 310
    assert revision.committed_at.tzinfo is not None
    upstream.point("main", commit_of(upstream, b"tree %s\nauthor\n\n" % tree.encode()))
    assert fetched(source).revision.author.isprintable()


@pytest.mark.parametrize("kind", ["huge", "many parents"])
def test_commits_beyond_reason(source: GitSource, upstream: Upstream, kind: str) -> None:
    parent = upstream.commit({"a": b"1"}).encode()
    tree = git(upstream.path, "rev-parse", "main^{tree}")
    body = {
        "huge": plain_commit(tree, message=b"x" * 1_100_000),
        "many parents": plain_commit(tree, parents=b"parent %s\n" % parent * 65),
    }[kind]
    upstream.point("main", commit_of(upstream, body))
    with pytest.raises(Rejected) as caught:
        fetched(source)
    assert caught.value.reason is Reason.REPOSITORY_HOSTILE

"""A mirror on disk mends itself, stays small, and never outlives its deadline, whatever was done to it."""

from __future__ import annotations

import contextlib
import gc
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from reconciler.adapters import git_run
from reconciler.adapters.clock import SystemClock
from reconciler.adapters.git_mirror import PACKS
from reconciler.adapters.git_source import GitSource
from reconciler.core.errors import Reason, Rejected, Retryable, Stalled
from reconciler.ports import Snapshot
from reconciler.settings import RepositorySettings
from tests.support.cluster import eventually
from tests.support.git_server import Upstream, http_git


@pytest.fixture
def settings(upstream: Upstream) -> RepositorySettings:
    return RepositorySettings("fleet", str(upstream.path), allow_file=True)


@pytest.fixture
def start(settings: RepositorySettings, tmp_path: Path) -> Iterator:
    """Start a source anew on the same mirrors, as a daemon after a crash does."""
    sources: list[GitSource] = []

    def begin(other: RepositorySettings | None = None) -> GitSource:
        sources.append(GitSource({"fleet": other or settings}, tmp_path / "mirrors", SystemClock()))
        return sources[-1]

    yield begin
    for source in sources:
        source.close()


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    return tmp_path / "mirrors" / "fleet.git"


def fetched(source: GitSource, ref: str = "main") -> Snapshot:
    return source.snapshot("fleet", ref, since=datetime.now(UTC))


def children() -> set[int]:
    """What this program started and has not waited for."""
    return {int(pid) for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()}


def running(word: str) -> bool:
    """Whether any program has `word` in its arguments."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if word.encode() in file.read_bytes():
                return True
    return False


def test_a_restart_needs_no_fetch(start, upstream: Upstream) -> None:
    sha = upstream.commit({"a": b"1"})
    before = fetched(start())
    again = start()
    after = again.snapshot("fleet", "main")
    assert (after.revision.sha, after.tree.read("a"), again.fetches("fleet")) == (sha, b"1", 0)
    assert abs(after.fetched_at - before.fetched_at) < timedelta(milliseconds=1)


def test_a_burst_of_hints_from_many_threads(start, upstream: Upstream) -> None:
    sha = upstream.commit({"a": b"1"})
    source = start()
    hint = datetime.now(UTC)
    with ThreadPoolExecutor(50) as threads:
        seen = threads.map(lambda _: source.snapshot("fleet", "main", since=hint).tree.read("a"), range(1000))
        assert set(seen) == {b"1"}
    assert source.fetches("fleet") <= 2
    assert source.snapshot("fleet", "main").revision.sha == sha


def test_what_a_killed_fetch_leaves_is_cleared_away(start, upstream: Upstream, mirror: Path) -> None:
    upstream.commit({"a": b"1"})
    fetched(start())
    [ref] = mirror.glob("refs/reconciler/*/heads%2Fmain")
    left = [ref.with_name(ref.name + ".lock"), mirror / "HEAD.lock", mirror / "packed-refs.lock"]
    left += [mirror / "objects/pack" / name for name in ("tmp_pack_x", "pack-1.keep", ".tmp-1-pack-2.pack")]
    for file in left:
        file.touch()
    sha = upstream.commit({"a": b"2"})
    assert fetched(start()).revision.sha == sha
    assert not [file for file in left if file.exists()]


def cut_packs(mirror: Path) -> None:
    for pack in mirror.glob("objects/pack/*.pack"):
        pack.chmod(0o644)
        pack.write_bytes(pack.read_bytes()[:40])


def lose_packs(mirror: Path) -> None:
    for pack in mirror.glob("objects/pack/*"):
        pack.unlink()


def flip_bytes(mirror: Path) -> None:
    for pack in mirror.glob("objects/pack/*.pack"):
        pack.chmod(0o644)
        data = bytearray(pack.read_bytes())
        for place in range(20, len(data) - 20):
            data[place] ^= 0x55
        pack.write_bytes(data)


def empty_refs(mirror: Path) -> None:
    for ref in mirror.glob("refs/reconciler/*/*"):
        ref.write_bytes(b"")


def lose_config(mirror: Path) -> None:
    (mirror / "HEAD").unlink()
    (mirror / "config").write_text("[core\n")


@pytest.mark.parametrize("harm", [cut_packs, lose_packs, flip_bytes, empty_refs, lose_config])
@pytest.mark.parametrize("moved", [True, False], ids=["new commit", "same commit"])
def test_a_damaged_mirror_is_cloned_anew(start, upstream: Upstream, mirror: Path, harm, moved: bool) -> None:
    sha = upstream.commit({"a": b"1"})
    fetched(start())
    harm(mirror)
    if moved:
        sha = upstream.commit({"a": b"2"})
    source = start()
    for _ in range(2):
        try:
            snapshot = fetched(source)
            content = snapshot.tree.read("a")
        except Retryable:
            continue
        assert (snapshot.revision.sha, content) == (sha, b"2" if moved else b"1")
        break
    else:
        pytest.fail("two cycles did not mend it")
    assert sorted(path.name for path in mirror.parent.iterdir()) == ["fleet.git", "fleet.lock"]


def test_a_damaged_mirror_is_kept_until_there_is_a_better_one(start, upstream: Upstream, mirror: Path) -> None:
    upstream.commit({"a": b"1", "b": bytes(5000)})
    old = fetched(start()).revision.sha
    new = upstream.commit({"c": b"1"})
    source = start()
    fetched(source)
    newest = max(mirror.glob("objects/pack/*.pack"), key=lambda file: file.stat().st_mtime_ns)
    newest.chmod(0o644)
    newest.write_bytes(b"")
    away = upstream.path.rename(upstream.path.with_name("away.git"))
    again = start()
    for _ in range(2):
        with pytest.raises(Retryable):
            fetched(again).tree.read("c")
    assert again.at("fleet", old).tree.read("a") == b"1"
    away.rename(upstream.path)
    assert fetched(again).revision.sha == new


def test_another_address_is_another_place(
    start, upstream: Upstream, settings: RepositorySettings, tmp_path: Path
) -> None:
    upstream.commit({"a": b"1"})
    fetched(start())
    other = Upstream(tmp_path / "other.git")
    with pytest.raises(Stalled) as caught:
        start(replace(settings, url=str(other.path))).snapshot("fleet", "main")
    assert caught.value.reason is Reason.REPOSITORY_EMPTY


def test_a_mirror_does_not_grow_by_a_pack_for_each_commit(start, upstream: Upstream, mirror: Path) -> None:
    source = start()
    base = upstream.commit({"a": b"0"})
    fetched(source)
    lost = upstream.commit({"a": b"lost"})
    fetched(source)
    shas = [base, lost, upstream.commit({"a": b"again"}, parent=base)]
    for number in range(PACKS + 8):
        shas.append(upstream.commit({"a": b"%d" % number}))
        fetched(source)
    assert len(list(mirror.glob("objects/pack/*.pack"))) <= PACKS
    assert [source.at("fleet", sha).revision.sha for sha in shas] == shas
    assert source.at("fleet", lost).tree.read("a") == b"lost"


def test_polls_leave_no_descriptor_and_no_child(start, upstream: Upstream) -> None:
    upstream.commit({"a": b"1"})
    source = start()
    fetched(source).tree.files("")
    source.close()
    gc.collect()  # what tests before this one left to it would be closed in between
    before, others = len(list(Path("/proc/self/fd").iterdir())), children()
    for number in range(20):
        upstream.commit({"a": b"%d" % number})
        assert fetched(source).tree.read("a") == b"%d" % number
        assert len(children() - others) <= 2
    fetched(source)
    assert children() == others
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_a_server_that_drips_is_cut_off_with_all_that_was_started(upstream: Upstream, tmp_path: Path) -> None:
    with http_git(upstream.path.parent) as server:
        server.drip = True
        slow = RepositorySettings("fleet", server.url + "/fleet.git", timeout=timedelta(seconds=5))
        source = GitSource({"fleet": slow}, tmp_path / "mirrors", SystemClock())
        with pytest.raises(Retryable) as caught:
            fetched(source)
        assert caught.value.reason is Reason.REPOSITORY_UNREACHABLE
        assert "within 5 s" in str(caught.value)
        assert server.dripping.wait(60), "the server may be slower than git, which did not wait"
        deadline = time.monotonic() + 60
        while running(server.url):  # killed, but the kernel may take a moment
            assert time.monotonic() < deadline
        server.drip = False
        sha = upstream.commit({"a": b"1"})
        assert eventually(lambda: fetched(source), during=Retryable).revision.sha == sha


def test_a_second_writer_waits_for_the_first(start, upstream: Upstream, settings: RepositorySettings) -> None:
    """Two programs on one data directory: a plan beside a daemon."""
    upstream.commit({"a": b"1"})
    sources = [start() for _ in range(4)]
    gate = threading.Barrier(4)

    def look(source: GitSource) -> str:
        gate.wait(60)
        return fetched(source).revision.sha

    with ThreadPoolExecutor(4) as threads:
        assert len(set(threads.map(look, sources))) == 1


def test_a_repository_larger_than_a_mirror_may_be(start, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream.commit({"a": random.Random(1).randbytes(400_000)})
    monkeypatch.setattr(git_run, "FILE_LIMIT", 100_000)
    with pytest.raises(Rejected) as caught:
        fetched(start())
    assert caught.value.reason is Reason.REPOSITORY_HOSTILE

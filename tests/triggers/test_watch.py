"""File events: real Git moves refs, editors replace files; reading tells nothing."""

import os
import queue
import subprocess
from dataclasses import replace

import pytest

from reconciler.adapters.clock import SystemClock
from reconciler.settings import EnvironmentSettings, RepositorySettings, Settings
from reconciler.triggers import watch as watching
from reconciler.triggers.watch import Watch, git_directory, remote_file_system


def git(*words, cwd):
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(cwd),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@x.test",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@x.test",
    }
    subprocess.run(["git", *words], cwd=cwd, env=env, check=True, capture_output=True)


@pytest.fixture
def work(tmp_path):
    (tmp_path / "work").mkdir()
    git("init", "-q", "-b", "main", cwd=tmp_path / "work")
    git("commit", "-q", "--allow-empty", "-m", "one", cwd=tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture
def bare(tmp_path, work):
    git("clone", "-q", "--bare", str(work), str(tmp_path / "bare.git"), cwd=tmp_path)
    return tmp_path / "bare.git"


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "conf").mkdir()
    file = tmp_path / "conf" / "settings.yaml"
    file.write_text("name: one\n")
    return Settings(file=file, data=tmp_path, journal="", repositories={}, environments={}, runtimes={})


def follow(settings, path):
    return replace(
        settings,
        repositories={"fleet": RepositorySettings("fleet", f"file://{path}", allow_file=True)},
        environments={
            name: EnvironmentSettings(name, "fleet", "local", "environments") for name in ("production", "staging")
        },
    )


class Seen:
    def __init__(self):
        self.hints = queue.Queue()
        self.reloads = queue.Queue()
        self.watch = Watch(SystemClock(), self._hint, lambda: self.reloads.put("reload"))

    def _hint(self, environment, cause):
        self.hints.put((environment, cause))

    def until(self, part):
        """All hints up to the first whose detail has `part`."""
        found = []
        while not found or part not in found[-1][1].detail:
            found.append(self.hints.get(timeout=60))
        return found


@pytest.fixture
def seen():
    it = Seen()
    yield it
    it.watch.stop()


def test_a_commit_in_a_worktree_is_a_hint_for_each_environment(seen, settings, work):
    seen.watch.start(follow(settings, work))
    git("commit", "-q", "--allow-empty", "-m", "two", cwd=work)
    found = seen.until("refs/heads/main")
    found.append(seen.hints.get(timeout=60))
    assert {name for name, _ in found} == {"production", "staging"}
    assert all(cause.kind == "file" and cause.git for _, cause in found)


def test_a_push_to_a_bare_repository_is_a_hint(seen, settings, work, bare):
    seen.watch.start(follow(settings, bare))
    git("commit", "-q", "--allow-empty", "-m", "two", cwd=work)
    git("push", "-q", str(bare), "main", cwd=work)
    assert seen.until("refs/heads/main")


def test_a_new_branch_in_new_folders_is_a_hint(seen, settings, work, bare):
    seen.watch.start(follow(settings, bare))
    git("push", "-q", str(bare), "main:refs/heads/team/one/feature", cwd=work)
    assert seen.until("team/one/feature")


def test_packing_refs_is_a_hint(seen, settings, work):
    seen.watch.start(follow(settings, work))
    git("pack-refs", "--all", cwd=work)
    assert seen.until("packed-refs")


def test_reading_a_repository_is_no_hint(seen, settings, work, bare, tmp_path):
    """Our own fetch reads it: a hint for that would make the daemon chase its own tail."""
    seen.watch.start(follow(settings, bare))
    git("clone", "-q", "--bare", f"file://{bare}", str(tmp_path / "copy.git"), cwd=tmp_path)
    git("push", "-q", str(bare), "main:refs/heads/last", cwd=work)
    assert {cause.detail for _, cause in seen.until("last")} == {"fleet refs/heads/last"}


def test_objects_locks_and_the_index_are_no_hints(seen, settings, work):
    seen.watch.start(follow(settings, work))
    (work / "file").write_text("x")
    git("add", "file", cwd=work)
    git("branch", "last", cwd=work)
    assert {cause.detail for _, cause in seen.until("last")} == {"fleet refs/heads/last"}


def _replaced(file):
    new = file.with_suffix(".new")
    new.write_text("name: two\n")
    new.replace(file)


def _written(file):
    file.write_text("name: two\n")


@pytest.mark.parametrize("change", [_replaced, _written])
def test_a_changed_settings_file_asks_for_a_reload(seen, settings, change):
    seen.watch.start(settings)
    change(settings.file)
    assert seen.reloads.get(timeout=60) == "reload"


def test_a_swapped_configmap_asks_for_a_reload(seen, settings):
    """Kubernetes mounts `settings.yaml -> ..data/settings.yaml` and swaps the link `..data`."""
    folder = settings.file.parent
    for name in ("v1", "v2"):
        (folder / name).mkdir()
        (folder / name / "settings.yaml").write_text(name)
    (folder / "..data").symlink_to("v1")
    settings.file.unlink()
    settings.file.symlink_to("..data/settings.yaml")
    seen.watch.start(settings)
    (folder / "..tmp").symlink_to("v2")
    (folder / "..tmp").replace(folder / "..data")
    assert seen.reloads.get(timeout=60) == "reload"


def test_other_files_beside_the_settings_do_not(seen, settings):
    seen.watch.start(settings)
    for number in range(20):
        (settings.file.parent / f"other{number}").write_text("x")
    _replaced(settings.file)
    seen.reloads.get(timeout=60)
    # One rename is one or two events; twenty other files would be more.
    assert seen.reloads.qsize() <= 2


def test_where_the_kernel_reports_nothing_it_looks_instead(seen, settings, work, monkeypatch):
    monkeypatch.setattr(watching, "POLL_SECONDS", 0.1)
    seen.watch.start(follow(settings, work), remote=lambda path: True)
    git("commit", "-q", "--allow-empty", "-m", "two", cwd=work)
    assert seen.until("refs/heads/main")


def test_without_inotify_watches_left_it_looks_instead(seen, settings, work, monkeypatch):
    class Exhausted(watching.Observer):
        def start(self):
            raise OSError(28, "inotify watch limit reached")

    monkeypatch.setattr(watching, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(watching, "Observer", Exhausted)
    seen.watch.start(follow(settings, work))
    git("commit", "-q", "--allow-empty", "-m", "two", cwd=work)
    assert seen.until("refs/heads/main")


def test_a_missing_repository_does_not_stop_the_rest(seen, settings, tmp_path):
    seen.watch.start(follow(settings, tmp_path / "nowhere"))
    _replaced(settings.file)
    assert seen.reloads.get(timeout=60) == "reload"


def test_new_settings_are_followed(seen, settings, work):
    seen.watch.start(settings)
    seen.watch.apply(follow(settings, work))
    git("commit", "-q", "--allow-empty", "-m", "two", cwd=work)
    assert seen.until("refs/heads/main")


def test_where_refs_live(tmp_path, work, bare):
    git("worktree", "add", "-q", "-b", "side", str(tmp_path / "side"), cwd=work)
    assert git_directory(f"file://{work}") == work / ".git"
    assert git_directory(f"file://{bare}") == bare
    assert git_directory(f"file://{tmp_path}/side").resolve() == (work / ".git").resolve()
    assert git_directory("https://git.test/x") is None


def test_network_file_systems_are_known(tmp_path):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "21 1 0:1 / / rw - ext4 /dev/vda rw\n"
        "22 1 0:2 / /srv/git\\040data rw - nfs4 server:/x rw\n"
        "23 1 0:3 / /srv rw shared:1 - xfs /dev/vdb rw\n"
    )
    assert remote_file_system(tmp_path.__class__("/srv/git data/fleet.git"), str(mounts))
    assert not remote_file_system(tmp_path.__class__("/srv/git"), str(mounts))
    assert not remote_file_system(tmp_path.__class__("/home"), str(mounts))
    assert not remote_file_system(tmp_path, str(tmp_path / "missing"))

"""What is promised of any program that renders: tried with scripts in the place of helm, many of them misbehaving."""

from __future__ import annotations

import os
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest

from reconciler.adapters import rendering as subject
from reconciler.adapters.rendering import ProgramRenderer
from reconciler.core.bundle_rendering import Rendering, Tool
from reconciler.core.bundle_sources import MAX_BYTES
from reconciler.core.errors import Reason, Rejected, Retryable, Stalled
from tests.support.fake_runtime import HandClock

CLOCK = HandClock()

ONE = Rendering(
    Tool.HELM, (("chart/Chart.yaml", b"a"), ("values/0.yaml", b"b: 1")), "chart", "r", "n", ("values/0.yaml",)
)


def scripted(directory: Path, script: str, *, timeout: float = 30, clock: HandClock = CLOCK) -> ProgramRenderer:
    (directory / "bin").mkdir(exist_ok=True)
    program = directory / "bin" / "helm"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return ProgramRenderer(clock, directory / "room", search=str(directory / "bin"), timeout=timeout)


def test_a_program_gets_its_files_and_an_environment_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "canary")
    renderer = scripted(tmp_path, "set; echo $*; /bin/ls -lR; /bin/cat values/0.yaml; ls || echo nothing is found")
    text = renderer.render(ONE).decode()
    assert "canary" not in text
    assert "template r ./chart --namespace n --include-crds --skip-tests --skip-schema-validation --values" in text
    assert "-rw-------" in text
    assert "b: 1" in text
    assert "nothing is found" in text
    for name in ("HOME", "PATH", "HELM_PLUGINS", "KUBECONFIG", "TMPDIR"):
        assert f"{name}='{tmp_path}/room/rendering-" in text
    assert "HTTPS_PROXY='http://127.0.0.1:9'" in text
    assert list((tmp_path / "room").iterdir()) == []


def test_the_same_is_rendered_once_and_another_program_makes_it_anew(tmp_path: Path) -> None:
    count = f"/bin/echo x >> {tmp_path}/count; echo a: 1"
    renderer = scripted(tmp_path, count)
    assert [renderer.render(ONE) for _ in range(3)] == [b"a: 1\n"] * 3
    assert (tmp_path / "count").read_text() == "x\n" * 2  # each chart is rendered twice, to see that it stays the same
    scripted(tmp_path, f"{count} # newer")
    renderer.render(ONE)
    assert (tmp_path / "count").read_text() == "x\n" * 4


def test_a_refusal_is_remembered_as_well(tmp_path: Path) -> None:
    renderer = scripted(
        tmp_path, f"/bin/echo x >> {tmp_path}/count; echo 'Error: no such value in '$PWD/chart >&2; exit 1"
    )
    for _ in range(2):
        with pytest.raises(Rejected, match=r"^helm cannot render this: no such value in chart$"):
            renderer.render(ONE)
    assert (tmp_path / "count").read_text() == "x\n"


def test_what_is_kept_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "KEPT_BYTES", 8)
    renderer = scripted(tmp_path, f"/bin/echo x >> {tmp_path}/count; /bin/cat values/0.yaml")
    others = [Rendering(Tool.HELM, (("values/0.yaml", str(number).encode() * 4),), "c") for number in range(3)]
    for other in (*others, others[2], others[0]):
        renderer.render(other)
    assert (tmp_path / "count").read_text() == "x\n" * 8


def test_a_program_that_does_not_end_is_ended_with_all_it_started(tmp_path: Path) -> None:
    clock = HandClock()
    renderer = scripted(
        tmp_path,
        f"/bin/sleep 1000 & echo $! > {tmp_path}/child; /bin/echo x >> {tmp_path}/count; wait",
        timeout=3,
        clock=clock,
    )
    for _ in range(2):
        with pytest.raises(Retryable, match="took longer than 3 s and was ended"):
            renderer.render(ONE)
    assert (tmp_path / "count").read_text() == "x\n"
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 60
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _runs(child)
    clock.advance(timedelta(seconds=subject.PAUSE + 1))
    with pytest.raises(Retryable):
        renderer.render(ONE)
    assert (tmp_path / "count").read_text() == "x\n" * 2


def _runs(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("script", "error", "said"),
    [
        (
            "while :; do echo 0123456789012345678901234567890123456789; done",
            Rejected,
            f"more than {MAX_BYTES} bytes for this",
        ),
        ("kill -9 $$", Retryable, "was ended by signal 9"),
        ("exit 3", Rejected, "helm cannot render this$"),
        ("while :; do echo 0123456789012345678901234567890123456789 >&2; done", Rejected, "more than"),
    ],
)
def test_what_a_program_does_is_bounded(tmp_path: Path, script: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said) as caught:
        scripted(tmp_path, script, timeout=120).render(ONE)
    assert len(str(caught.value)) < 800


def test_a_program_may_come_later(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    renderer = ProgramRenderer(CLOCK, tmp_path / "room", search=str(tmp_path / "bin"))
    with pytest.raises(Stalled, match="the program helm was not found") as caught:
        renderer.render(ONE)
    assert caught.value.reason is Reason.SETTINGS_INVALID
    with pytest.raises(Stalled, match="the program kustomize or kubectl was not found"):
        renderer.render(Rendering(Tool.KUSTOMIZE, (), "x"))
    scripted(tmp_path, "echo a: 1")
    assert renderer.render(ONE) == b"a: 1\n"
    (tmp_path / "bin" / "helm").write_bytes(b"\x7fELF nothing")
    with pytest.raises(Stalled, match="cannot be run"):
        renderer.render(ONE)


def test_kubectl_stands_in_for_kustomize(tmp_path: Path) -> None:
    renderer = scripted(tmp_path, "echo $*")
    (tmp_path / "bin" / "helm").rename(tmp_path / "bin" / "kubectl")
    found = renderer.render(Rendering(Tool.KUSTOMIZE, (), "apps/shop"))
    assert found == b"kustomize ./apps/shop --load-restrictor LoadRestrictionsRootOnly\n"


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", "a//b", "", "a/./b", "a\0b"])
def test_files_stay_in_their_directory(tmp_path: Path, path: str) -> None:
    with pytest.raises(Rejected, match="is no path of a file"):
        scripted(tmp_path, "echo").render(Rendering(Tool.HELM, ((path, b""),), "c"))
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("paths", [("a", "a/b"), ("a/b", "a"), ("a", "a")])
def test_a_path_is_a_file_or_a_directory(tmp_path: Path, paths: tuple[str, str]) -> None:
    with pytest.raises(Rejected, match="is both a file and a directory"):
        scripted(tmp_path, "echo").render(Rendering(Tool.HELM, tuple((path, b"") for path in paths), "c"))


def test_without_room_it_is_tried_again(tmp_path: Path) -> None:
    long = Rendering(Tool.HELM, (("x" * 300, b""),), "c")
    with pytest.raises(Retryable, match="the files for helm cannot be written: File name too long"):
        scripted(tmp_path, "echo").render(long)


def test_what_a_killed_program_left_is_swept(tmp_path: Path) -> None:
    renderer = scripted(tmp_path, "echo a: 1")
    old, young = tmp_path / "room" / "rendering-old", tmp_path / "room" / "rendering-young"
    for place in (old, young):
        (place / "files").mkdir(parents=True)
    os.utime(old, (1, 1))
    renderer.render(ONE)
    assert list((tmp_path / "room").iterdir()) == [young]


def test_several_at_once_render_the_same_once(tmp_path: Path) -> None:
    renderer = scripted(tmp_path, f"/bin/echo x >> {tmp_path}/count; /bin/sleep 0.2; echo a: 1")
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(renderer.render(ONE))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [b"a: 1\n"] * 4
    assert (tmp_path / "count").read_text() == "x\n" * 2

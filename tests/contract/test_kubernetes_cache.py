"""What the cache of a namespace keeps of an object, and what it does with news that are older than what it knows."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.adapters.kubernetes_cache import Cache, small
from reconciler.core import kubernetes_slim


def test_what_the_controller_notes_makes_nobody_look_at_the_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    about = {"name": "web", "uid": "u", "resourceVersion": "1", "generation": 1, "annotations": {"team": "blue"}}
    before = small({"kind": "Deployment", "metadata": about, "spec": {}, "status": {}})
    monkeypatch.setattr(kubernetes_slim, "changes", lambda *given: pytest.fail("looked at again"))
    revised = {**about, "annotations": {"team": "blue", "deployment.kubernetes.io/revision": "2"}}
    found = small({"kind": "Deployment", "metadata": revised, "spec": {}, "status": {"replicas": 1}}, before)
    assert (found["metadata"]["annotations"], found["status"]) == (revised["annotations"], {"replicas": 1})
    monkeypatch.undo()
    other = {**revised, "annotations": {"team": "green"}}
    monkeypatch.setattr(kubernetes_slim, "changes", lambda *given: ["looked at again"])
    found = small({"kind": "Deployment", "metadata": other, "spec": {}, "status": {}}, before)
    assert "looked at again" in found["differences"]


def seen(name: str, version: int, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": str(version)}, **more}


def test_a_list_that_is_older_than_an_own_write_does_not_undo_it() -> None:
    cache = Cache(["Deployment"])
    cache.filled("Deployment", [seen("changed", 1), seen("gone", 2), seen("old", 3)], "3")
    cache.saw("Deployment", "MODIFIED", seen("changed", 11, by="us"))
    cache.saw("Deployment", "MODIFIED", seen("made", 12))
    cache.removed("Deployment", "gone", "uid-gone")
    assert cache.filled("Deployment", [seen("changed", 9), seen("gone", 2)], "10")
    found = cache.snapshot()["Deployment"]
    assert {name: one["metadata"]["resourceVersion"] for name, one in found.items()} == {"changed": "11", "made": "12"}

"""`validate` on plain manifests: places, what the operator has to allow, what cannot be looked at here, and remarks."""

from __future__ import annotations

import json

import pytest

from tests.cli.installation import Installation, call

MANIFESTS = "apiVersion: reconciler.dev/v1\nkind: Manifests\nmetadata: {name: shop}\nspec: {path: apps/shop}\n"
CONFIG = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"
POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: web:1}]}\n"
HERE = ("--kubernetes", "staging")


@pytest.fixture
def shop(installation: Installation) -> Installation:
    installation.write("shop.yaml", MANIFESTS)
    (installation.fleet / "apps" / "shop").mkdir(parents=True)
    return installation


def put(shop: Installation, name: str, text: str) -> None:
    (shop.fleet / "apps" / "shop" / name).write_text(text)


@pytest.mark.parametrize(
    ("files", "options", "code", "said"),
    [
        ({"a.yaml": CONFIG}, HERE, 0, ""),
        ({"a.yaml": CONFIG}, (), 1, "shop.yaml:2:7: manifests go to a Kubernetes cluster"),
        ({"a.yaml": f"{CONFIG}---\na: ["}, HERE, 1, "apps/shop/a.yaml:6:1: this is not YAML"),
        ({"a.yaml": CONFIG.replace("a}", "a, namespace: b}")}, HERE, 0, "(note: the operator has to allow this)"),
        ({"a.yaml": POD}, HERE, 0, "1 image is not pinned by digest (web:1)"),
        ({}, HERE, 1, "there is no file apps/shop in this revision"),
        ({"kustomization.yaml": "resources: [a.yaml]"}, HERE, 1, "is neither a file of this directory nor a kust"),
        ({"kustomization.yaml": "resources: [a.yaml]", "a.yaml": CONFIG}, HERE, 0, "(note: not checked here)"),
    ],
)
def test_the_whole_and_the_file_by_itself_say_the_same(
    shop: Installation,
    monkeypatch: pytest.MonkeyPatch,
    files: dict[str, str],
    options: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    for name, text in files.items():
        put(shop, name, text)
    for path in (shop.fleet, shop.fleet / "environments" / "staging" / "shop.yaml"):
        result = call("validate", *options, path)
        assert (result.exit_code, said in result.stderr) == (code, True), result.output


def test_a_link_is_refused(shop: Installation) -> None:
    put(shop, "a.yaml", CONFIG)
    (shop.fleet / "apps" / "shop" / "link.yaml").symlink_to("/etc/passwd")
    result = call("validate", *HERE, shop.fleet)
    assert result.exit_code == 1
    assert "shop.yaml:4:14: apps/shop/link.yaml: is a symbolic link" in result.stderr
    (shop.fleet / "apps").rename(shop.fleet / "real")
    (shop.fleet / "apps").symlink_to("real")
    result = call("validate", *HERE, shop.fleet)
    assert "shop.yaml:4:14: apps: is a symbolic link" in result.stderr


def test_programs_see_it_all(shop: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    put(shop, "kustomization.yaml", "namePrefix: x-")
    result = call("validate", "--json", *HERE, shop.fleet)
    found = json.loads(result.stdout)
    assert (found["valid"], found["errors"], found["permissions"], found["remarks"]) == (True, [], [], [])
    assert [(each["file"], each["reason"]) for each in found["unchecked"]] == [
        ("environments/staging/shop.yaml", "SettingsInvalid")
    ]
    (shop.fleet / "apps" / "shop" / "kustomization.yaml").unlink()
    put(shop, "a.yaml", POD)
    found = json.loads(call("validate", "--json", *HERE, shop.fleet).stdout)
    assert [set(each) for each in found["remarks"]] == [{"file", "line", "column", "message"}]
    assert found["unchecked"] == []

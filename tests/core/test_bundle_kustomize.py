"""Kustomizations: what a renderer gets, and that nothing in them can name what is not of the same revision."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core import bundle_kustomize
from reconciler.core.errors import Reason, Rejected
from tests.support.bundles import CLUSTER, Bundles, config

OWN = "apps/shop/kustomization.yaml"
FILES = {"apps/shop/a.yaml": config("a")}


def shop(kustomization: str, **more: str) -> Bundles:
    found = Bundles({**FILES, OWN: kustomization, **more})
    found.rendered = config("rendered").encode()
    return found


def test_all_that_it_builds_on_comes_along_and_nothing_else():
    files = {
        "apps/base/kustomization.yml": "resources: [a.yaml, ./sub/]",
        "apps/base/a.yaml": config("a"),
        "apps/base/sub/Kustomization": "components: [../../part]",
        "apps/base/sub/x.txt": "text",
        "apps/base/other/kustomization.yaml": "resources: ['https://example.org/x']",
        "apps/part/kustomization.yaml": "kind: Component\nbuildMetadata: []\n",
        "apps/else/a.yaml": "no",
    }
    found = shop("resources:\n- a.yaml\n- ../base\nbases:\nnamePrefix: x-\n", **files)
    found.bundle()
    (rendering,) = found.renderings
    assert [path for path, _ in rendering.files] == [
        "apps/base/a.yaml",
        "apps/base/kustomization.yml",
        "apps/base/sub/Kustomization",
        "apps/base/sub/x.txt",
        "apps/part/kustomization.yaml",
        "apps/shop/a.yaml",
        "apps/shop/kustomization.yaml",
    ]
    written = dict(rendering.files)
    assert json.loads(written[OWN]) == {"resources": ["./a.yaml", "../base"], "bases": [], "namePrefix": "x-"}
    assert json.loads(written["apps/base/kustomization.yml"]) == {"resources": ["./a.yaml", "./sub"]}
    assert json.loads(written["apps/base/sub/Kustomization"]) == {"components": ["../../part"]}


@pytest.mark.parametrize(
    "reference",
    [
        "https://example.org/a.yaml",
        "github.com/example/repo//deploy?ref=v1",
        "git@github.com:example/repo",
        "git::https://example.org/x",
        "file:///etc",
        "/etc/passwd",
        "../../../etc",
        "../..",
        "..",
        ".",
        "''",
        "missing.yaml",
        "../base",
        "../base/a.yaml",
    ],
)
@pytest.mark.parametrize("field", ["resources", "bases", "components"])
def test_what_is_not_of_this_revision_is_refused(field, reference):
    found = shop(f"{field}:\n- {reference}\n", **{"apps/base.yaml": "", "environments/x": ""})
    if reference == ".":
        # its own directory is one, and the program says that it goes round in a circle
        assert found.bundle()
        return
    said = found.said()
    assert said[0].startswith(f"{OWN}:2:3: ")
    assert said[0].endswith(
        "is neither a file of this directory nor a kustomization in this revision; what lies elsewhere is not fetched: "
        "copy it into the repository"
    )
    assert found.renderings == []


def test_a_directory_called_like_an_address_is_given_as_a_path():
    found = shop("resources: [github.com/example/repo]", **{"apps/shop/github.com/example/repo/kustomization.yaml": ""})
    assert found.said() == [
        "apps/shop/github.com/example/repo/kustomization.yaml:1:1: a kustomization is one document, a mapping of fields"
    ]
    found.files["apps/shop/github.com/example/repo/kustomization.yaml"] = b"namePrefix: x"
    found.bundle()
    assert json.loads(dict(found.renderings[0].files)[OWN]) == {"resources": ["./github.com/example/repo"]}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("patches: [{path: 'https://x/y'}]", '1:1: "https://x/y" is an address, and nothing is fetched'),
        ("patches:\n- path: HTTPS://x", '1:1: "HTTPS://x" is an address'),
        ("configMapGenerator: [{files: ['a=https://x']}]", '1:1: "a=https://x" is an address'),
        ("configMapGenerator: [{Literals: ['http:x']}]", '1:1: "http:x" is an address'),
        ("configMapGenerator: [{'http:x': 1}]", '1:1: "http:x" is an address'),
        ("openapi: {path: 'http://x'}", '1:1: "http://x" is an address'),
        ("patchesStrategicMerge: ['http://x']", '1:1: "http://x" is an address'),
        ('patchesStrategicMerge: ["http://x\\n"]', '1:1: "http://x\\n" is an address'),
        ("helmCharts: []", "1:1: helmCharts is not rendered: declare the chart by itself, with helm"),
        ("Resources: ['https://x']", '1:1: unknown field "Resources"; did you mean "resources"?'),
        ("resources: [{a: b}]", "1:13: this is a list of paths; write text"),
        ("resources: [a.yaml]\nresources: []", '2:1: duplicate key "resources"'),
        ("resources: &x []", "1:12: anchor &x is not allowed"),
        ("a: [", "2:1: this is not YAML"),
        ("[]", "1:1: a kustomization is one document, a mapping of fields"),
        ("a: 1\n---\nb: 1", "1:1: a kustomization is one document, a mapping of fields"),
        ("transformers: [../base]", '1:16: "../base" is not a file of this directory in this revision'),
        ("generators: ['https://x']", '1:14: "https://x" is not a file of this directory in this revision'),
        ("transformers: [t.yaml]", '1:16: "https://x" could be fetched from here; generators and transformers name no'),
        ("transformers: [hidden.yaml]", '1:16: "https:/" could be fetched from here'),
        ("transformers: [odd.yaml]", '1:16: "https:" could be fetched from here'),
        ("transformers: [bad.yaml]", "1:16: in its line 2: this is not YAML"),
        ('validators: ["path: http://x\\n"]', '1:14: "http://x" could be fetched from here'),
    ],
)
def test_no_field_that_could_name_an_address_holds_one(text, problem):
    found = shop(
        text,
        **{
            "apps/shop/t.yaml": "path: https://x",
            "apps/shop/hidden.yaml": 'path: "htt\\x70s:/"',
            "apps/shop/odd.yaml": "# https://x",
            "apps/shop/bad.yaml": "a: [",
            "apps/base/kustomization.yaml": "{}",
        },
    )
    assert found.said()[0].startswith(f"{OWN}:{problem}")
    assert found.renderings == []


@pytest.mark.parametrize(
    "text",
    [
        "commonAnnotations: {home: 'https://x'}",
        "configMapGenerator: [{name: a, literals: ['URL=https://x']}]",
        'patches: [{patch: "- op: add\\n  value: https://x\\n", target: {kind: Pod}}]',
        'patchesStrategicMerge: ["a: https://x\\nb: c\\n"]',
        "images: [{name: a, newName: ghcr.io/x/a}]",
        'transformers: [t.yaml, "a: 1\\n"]',
        "resources:",
        "resources: a.yaml",
    ],
)
def test_what_holds_text_may_hold_an_address(text):
    found = shop(text, **{"apps/shop/t.yaml": "prefix: x"})
    assert found.bundle()
    assert len(found.renderings) == 1


def test_a_directory_that_may_not_be_read_is_said_where_it_is_named():
    found = shop("resources: [../base]")
    found.hostile["apps/base"] = Rejected(Reason.REPOSITORY_HOSTILE, "apps/base/x is a symbolic link")
    assert found.said() == [f"{OWN}:1:13: apps/base/x is a symbolic link"]


def test_two_kustomizations_in_one_directory_are_refused():
    found = shop("resources: []", **{"apps/shop/Kustomization": ""})
    assert found.said()[0].startswith(
        "shop.yaml:4:14: there is more than one kustomization in apps/shop; one file there"
    )


def test_how_much_it_builds_on_is_bounded(monkeypatch):
    monkeypatch.setattr(bundle_kustomize, "MAX_ROOTS", 1)
    found = shop("resources: [../base]", **{"apps/base/kustomization.yaml": "namePrefix: x"})
    assert "more than 1 directories" in found.said()[0]


def test_a_circle_ends():
    found = shop("resources: [../base]", **{"apps/base/kustomization.yaml": "resources: [../shop]"})
    found.bundle()
    assert len(found.renderings) == 1


@given(st.text(min_size=1, max_size=40))
def test_no_reference_leaves_the_files_that_were_checked(reference):
    found = shop(json.dumps({"resources": [reference]}), **{"apps/base/kustomization.yaml": "{}"})
    state = found.state(CLUSTER)
    for rendering in found.renderings:
        for entry in json.loads(dict(rendering.files)[OWN])["resources"]:
            assert entry.startswith(("./", "../"))
    assert bool(found.renderings) != bool(state.problems)
